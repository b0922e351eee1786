import pytest
from pydantic import ValidationError

from rsvl_data.sample import Caption, Geo, Provenance, Region, Sample, content_key

RECORD = {"key": "a1", "width": 4, "height": 3, "sha256": "0" * 64}


def test_round_trip_keeps_unknown_fields_at_every_level():
    text = (
        '{"key":"a1","width":4,"height":3,"sha256":"'
        + "0" * 64
        + '","captions":[{"text":"x","lang":"en","kind":"human","mood":"calm"}],'
        '"regions":[],"geo":{"lon":1.5,"cloud":0.1},"provenance":{"shelf":7},"scores":{"clip":0.25},"future":{"a":[1,null]}}'
    )
    assert Sample.from_json(text).to_json() == text


def test_absent_facts_are_left_out():
    assert Sample(**RECORD).to_json() == (
        '{"key":"a1","width":4,"height":3,"sha256":"' + "0" * 64 + '","captions":[],"regions":[],"provenance":{},"scores":{}}'
    )


def test_image_and_mask_are_no_part_of_the_record():
    assert "image" not in Sample(**RECORD, image=b"x", mask=b"y").to_json()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sample(**{**RECORD, "key": "a.b"}), "key"),
        (lambda: Sample(**{**RECORD, "key": "../a"}), "key"),
        (lambda: Sample(**{**RECORD, "width": 0}), "width"),
        (lambda: Caption(text=""), "text"),
        (lambda: Region(bbox=(3, 0, 3, 5), category="ship"), "has no area"),
        (lambda: Geo(lat=91), "lat"),
        (lambda: Geo(gsd_m=float("nan")), "gsd_m"),
        (lambda: Sample.from_json("{"), "JSON"),
        (lambda: Sample(**{**RECORD, "width": True}), "true is not a number of pixels"),
        (lambda: Sample(**{**RECORD, "height": 2**64}), "height"),
        (lambda: Caption(text="a\0b"), "NUL"),
        (lambda: Geo(acquired="2020-13-01"), "not a date by ISO 8601"),
        (lambda: Geo(acquired="yesterday"), "not a date by ISO 8601"),
        (lambda: Provenance(retrieved="2020-02-30"), "not a date by ISO 8601"),
    ],
)
def test_what_a_record_must_not_hold(make, message):
    with pytest.raises(ValidationError, match=message):
        make()


def test_key_depends_on_content_and_source():
    assert content_key("aa", "1") == content_key("aa", "1")
    assert len({content_key("aa", "1"), content_key("aa", "2"), content_key("ab", "1")}) == 3


@pytest.mark.parametrize(
    "date",
    ["2020", "2020-05", "2020-05-01", "20200501", "2020-05-01T10:30:00Z", "2020-05-01T10:30:00.5+02:00", "2020-05-01/2020-06"],
)
def test_dates_are_kept_as_written(date):
    assert Geo(acquired=date).acquired == date


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_part_of_the_record(mark):
    text = mark + Sample(**RECORD).to_json().encode()
    assert Sample.from_json(text) == Sample.from_json(text.decode()) == Sample(**RECORD)


def test_bytes_that_are_no_utf_8():
    with pytest.raises(UnicodeDecodeError):
        Sample.from_json('{"key": "é"}'.encode("latin-1"))
