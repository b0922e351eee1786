import errno
import io
import json
import os

import pytest
from PIL import Image
from small_pictures import picture, read_all

from rsvl_data.image_form import ImageForm
from rsvl_data.sources import open_source
from rsvl_data.sources.base import captions_of, make_sample, read_inside


def test_captions_are_cleaned_and_what_is_dropped_is_counted(tmp_path):
    picture(tmp_path / "a.png")
    captions = ["<p>a road", "null", "", "https://x.org", "a b\u202eridge"]
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.png", "captions": captions}))
    [(_, sample)] = read_all(open_source(tmp_path))
    assert [c.text for c in sample.captions] == ["a road", "a bridge"] and sample.scores == {"captions_dropped": 2.0}


@pytest.mark.parametrize(
    ("caption", "label", "reason"),
    [("null", None, "caption_placeholder"), ("", None, "no_caption"), ("null", "__", "caption_placeholder")],
)
def test_no_caption_left(tmp_path, caption, label, reason):
    picture(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.png", "caption": caption, "label": label}))
    [(_, dropped)] = read_all(open_source(tmp_path))
    assert dropped.reason == reason


def test_a_label_speaks_where_the_captions_were_dropped(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.png", "caption": "nan", "label": "golf_course"}))
    [(_, sample)] = read_all(open_source(tmp_path))
    assert len(sample.captions) == 5 and sample.scores == {"captions_dropped": 1.0}


def test_a_parent_follows_its_caption():
    given = ["null", "a road", {"text": "eine Straße", "lang": "de", "parent": 1}, {"text": "x road", "parent": 0}]
    captions, refused = captions_of(given, None)
    assert [c.parent for c in captions] == [None, 0, None] and refused == ["caption_placeholder"]


def test_what_a_record_cannot_hold_is_a_counted_drop(tmp_path):
    picture(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for more in ({"geo": {"acquired": "yesterday"}}, {"captions": [{"text": "x", "lang": "e"}]}, {"geo": {"lat": 95}}):
        words = {"captions": ["x"], **more}
        dropped = make_sample(content, "a", dataset="t", label=None, image_form=ImageForm("png"), **words)
        assert dropped.reason == "bad_record" and ("acquired" in dropped.detail or "l" in dropped.detail)


def test_an_applied_orientation_is_recorded():
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("RGB", (8, 6)).save(out, "PNG", exif=exif)
    sample = make_sample(out.getvalue(), "a", dataset="t", captions=["x"], label=None, image_form=ImageForm("png"))
    assert (sample.width, sample.height) == (6, 8) and sample.scores == {"exif_orientation": 6.0}


# --- files under a root


def test_read_inside_answers_whatever_lies_there(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "b")
    (root / "good_link").symlink_to(root / "a")
    (root / "linked_folder").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    assert read_inside(root, "a", "id") == read_inside(root, "folder/../good_link", "id") == b"12345"
    expected = {
        "../b": "path_outside",
        str(tmp_path / "b"): "path_outside",
        "link": "path_outside",
        "linked_folder/b": "path_outside",
        "linked_folder/gone": "path_outside",
        "folder/../..": "path_outside",
        "gone": "missing_file",
        "a/b": "missing_file",
        "folder": "unreadable_file",
        "pipe": "unreadable_file",
        "loop": "unreadable_file",
        "a\0": "bad_path",
        "n" * 300: "bad_path",
        "n/" * 3000: "bad_path",
        "\ud83d": "bad_path",
    }
    found = {name: read_inside(root, name, "id") for name in expected}
    assert {name: dropped.reason for name, dropped in found.items()} == expected
    assert all(dropped.key == "id" and len(dropped.detail) < 1000 for dropped in found.values())
    monkeypatch.setattr("rsvl_data.sources.base.MAX_FILE_BYTES", 4)
    assert read_inside(root, "a", "id").reason == "too_large"


def test_a_file_that_is_closed_to_us(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "closed")

    (tmp_path / "a").write_bytes(b"1")
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert read_inside(tmp_path, "a", "id").reason == "unreadable_file"
