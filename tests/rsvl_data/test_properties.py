"""Laws that hold for whatever hypothesis thinks of."""

import itertools
import json
import random
import tarfile
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from rsvl_data.boxes import (
    BadGeometry,
    box_area,
    box_in_image,
    box_of_mask,
    box_of_points,
    clip_polygon,
    corners,
    finite_numbers,
    polygon_area,
    segmentation_mask,
)
from rsvl_data.caption_text import MAX_CHARS, BadCaption, _is_plain, _repaired, clean_caption, detect_encoding
from rsvl_data.json_records import list_spans, parse, read_span
from rsvl_data.sample import Sample, content_key
from rsvl_data.shards import PARQUET_SCHEMA, Shard, parquet_row, write_shard
from rsvl_data.transforms import Augment

# --- records

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
PLAIN = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | FLOATS | WORDS
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6)
EXTRA = st.dictionaries(WORDS.map(lambda word: "x_" + word), JSON.filter(lambda value: value is not None), max_size=2)
KEYS = st.text("abcXYZ019_-", min_size=1, max_size=30)
CAPTIONS = st.builds(lambda text, score, extra: {"text": text, "score": score, **extra}, WORDS, FLOATS, EXTRA)
GEO = st.builds(lambda lon, lat, extra: {"lon": lon, "lat": lat, **extra}, st.floats(-180, 180), st.floats(-90, 90), EXTRA)

NO_MASK = st.none()


@st.composite
def samples(draw, masks=NO_MASK):
    fields = {"captions": draw(st.lists(CAPTIONS, max_size=3)), "geo": draw(st.none() | GEO), "provenance": draw(EXTRA)}
    scores = draw(st.dictionaries(WORDS, FLOATS, max_size=3))
    return Sample(
        **{**draw(EXTRA), **fields, "scores": scores, "label": draw(st.none() | WORDS)},
        key=draw(KEYS),
        width=draw(st.integers(1, 2**31 - 1)),
        height=draw(st.integers(1, 2**31 - 1)),
        sha256="0" * 64,
        image=draw(st.binary(max_size=1100)),
        mask=draw(masks),
    )


@given(samples())
def test_a_record_survives_a_round_trip(sample):
    text = sample.to_json()
    again = Sample.from_json(text.encode(), image=sample.image)
    assert again.to_json() == text and again.image == sample.image
    assert json.loads(text)["scores"] == sample.scores and [c.text for c in again.captions] == [c.text for c in sample.captions]


@given(samples())
def test_a_parquet_row_says_what_the_record_says(sample):
    [row] = pa.Table.from_pylist([parquet_row(sample, {"jpg": sample.image})], schema=PARQUET_SCHEMA).to_pylist()
    assert row["captions"] == [caption.text for caption in sample.captions] and dict(row["scores"]) == sample.scores
    assert (row["key"], row["label"], row["width"]) == (sample.key, sample.label, sample.width)
    assert (row["lon"], row["lat"]) == ((sample.geo.lon, sample.geo.lat) if sample.geo else (None, None))


@given(st.text(), st.text())
def test_keys_are_file_name_stems(sha256, source_id):
    try:
        key = content_key(sha256, source_id)
    except UnicodeEncodeError:
        assert any("\ud800" <= letter <= "\udfff" for letter in sha256 + source_id)
        return
    assert len(key) == 16 and set(key) <= set("0123456789abcdef")


@given(st.booleans(), st.data())
@settings(max_examples=10)  # each reaches the disk
def test_shards_give_back_what_was_written(has_mask, data):
    any_sample = samples(st.binary(max_size=600) if has_mask else NO_MASK)
    written = data.draw(st.lists(any_sample, min_size=1, max_size=4, unique_by=lambda sample: sample.key))
    with tempfile.TemporaryDirectory() as folder:
        line = write_shard(Path(folder), "train-00000", iter(written))
        shard = Shard(Path(folder) / "train-00000.tar")
        read = [shard.sample(index) for index in range(len(shard))]
        with tarfile.open(shard.tar) as tar:
            walked = [(info.name, info.offset_data, info.size) for info in tar]
        assert [(m.name, m.offset, m.size) for members in shard.members for m in members] == walked
    assert line["samples"] == len(written)
    assert [(s.to_json(), s.image, s.mask) for s in read] == [(s.to_json(), s.image, s.mask) for s in written]


# --- lists of records in JSON

ODD_JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=20
)


@given(st.lists(ODD_JSON, max_size=6), st.sampled_from([None, 1, "\t"]), st.booleans(), st.booleans())
def test_spans_find_what_the_parser_finds(values, indent, is_ascii, has_mark):
    text = json.dumps(values, indent=indent, ensure_ascii=is_ascii).encode()
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(b"\xef\xbb\xbf" * has_mark + text)
        assert [read_span(path, span) for span in list_spans(path)] == json.loads(text)


@given(st.binary(max_size=40) | st.text('[]{},":\\ 1a').map(str.encode))
def test_spans_of_any_bytes_lie_in_the_file_one_after_the_other(content):
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(b"[" + content)
        place, whole = 0, True
        try:
            for offset, size, _ in list_spans(path):
                assert place < offset and size > 0 and offset + size <= len(content) + 1
                place = offset + size
        except ValueError:
            whole = False
    try:
        parse(b"[" + content)
    except ValueError:
        return
    assert whole, "a list that is JSON was refused"


# --- captions

ODD_LETTERS = st.sampled_from(
    "\0\x1b[\x9b\u200b\u200c\u200d\u202e\u2066\ufe0f\ufeff\U000e0041\ud800\ud83d\ude00<b>&amp;lt;\r\n\té\u0301"
)
TEXTS = st.text(st.characters(exclude_categories=[]) | ODD_LETTERS, max_size=200)


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_a_plain_caption_needs_no_repair(text):
    assert not _is_plain(text) or _repaired(text) == text


@given(TEXTS)
def test_a_clean_caption_is_clean(text):
    cleaned = clean_caption(text)
    if isinstance(cleaned, BadCaption):
        return
    assert 0 < len(cleaned) <= MAX_CHARS and cleaned == unicodedata.normalize("NFC", cleaned) and cleaned.encode()
    assert cleaned == " ".join(cleaned.split())
    assert not any(
        unicodedata.category(c) in ("Cc", "Cs") or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" for c in cleaned
    )


@given(TEXTS.filter(lambda text: "&" not in text and text.isprintable()))
def test_cleaning_twice_is_cleaning_once(text):
    """But for entities, of which each cleaning decodes one level, on purpose."""
    cleaned = clean_caption(text)
    assert isinstance(cleaned, BadCaption) or clean_caption(cleaned) == cleaned


@given(st.binary(max_size=60))
def test_a_detected_encoding_decodes(content):
    try:
        encoding = detect_encoding(content)
    except UnicodeDecodeError:
        return
    content.decode(encoding)


# --- boxes, polygons, masks

COORDINATE = st.floats(-50, 100)
SIDE = st.integers(1, 40)
POLYGONS = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=8)


@given(st.tuples(*[COORDINATE] * 4), SIDE, SIDE)
def test_a_box_that_is_taken_lies_in_the_image_and_stays(box, width, height):
    try:
        clipped, changed = box_in_image(box, width, height)
    except BadGeometry:
        left, right = max(box[0], 0), min(box[2], width)
        assert right - left < 1 or min(box[3], height) - max(box[1], 0) < 1
        return
    assert clipped[0] >= 0 and clipped[1] >= 0 and clipped[2] <= width and clipped[3] <= height and box_area(clipped) >= 1
    assert box_in_image(clipped, width, height) == (clipped, False) and changed == (clipped != box)


@given(st.lists(FLOATS, min_size=1, max_size=8), st.randoms())
def test_numbers_as_text_are_the_same_numbers(values, chance):
    as_text = [repr(value) if chance.random() < 0.5 else value for value in values]
    assert finite_numbers(as_text, len(values)) == (values, any(isinstance(value, str) for value in as_text))


@given(POLYGONS)
def test_corners_and_their_box(points):
    flat = list(itertools.chain.from_iterable(points))
    assert corners(flat) == points
    x0, y0, x1, y1 = box_of_points(points)
    assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in points)
    assert box_of_points(points[::-1]) == (x0, y0, x1, y1)


@given(POLYGONS, st.integers(0, 7), st.booleans(), st.floats(0.25, 4))
def test_the_area_of_a_polygon(points, turn, mirrored, scale):
    """It does not care where the list begins, or in which direction it goes; it grows with the square of the scale."""
    area = polygon_area(points)
    turned = [*points[turn % len(points) :], *points[: turn % len(points)]]
    moved = [(scale * (-x if mirrored else x), scale * y) for x, y in turned[::-1]]
    assert polygon_area(moved) == pytest.approx(scale**2 * area, rel=1e-6, abs=1e-6)


@given(POLYGONS, SIDE, SIDE)
def test_a_clipped_polygon_lies_in_the_image_and_stays(points, width, height):
    clipped = clip_polygon(points, width, height)
    assert all(-1e-9 <= x <= width + 1e-9 and -1e-9 <= y <= height + 1e-9 for x, y in clipped)
    assert polygon_area(clipped) <= width * height + 1e-6
    inside = [(min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))) for x, y in points]
    assert clip_polygon(inside, width, height) == inside


@given(POLYGONS, SIDE, SIDE)
def test_clipping_the_mirror_image_gives_the_mirror_image(points, width, height):
    mirrored = clip_polygon([(width - x, y) for x, y in points], width, height)
    assert polygon_area(mirrored) == pytest.approx(polygon_area(clip_polygon(points, width, height)), rel=1e-6, abs=1e-6)


@given(st.integers(0, 2**32 - 1), SIDE, SIDE)
def test_run_lengths_in_either_spelling_are_the_mask(seed, width, height):
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": [height, width], "counts": runs["counts"].decode()}
    column_by_column = [bool(value) for value in mask.ravel(order="F")]
    lengths = [len(list(run)) for _, run in itertools.groupby(column_by_column)]
    listed = {"size": [height, width], "counts": [0] * column_by_column[0] + lengths}
    for segmentation in (text, listed, [listed, text]):
        assert np.array_equal(segmentation_mask(segmentation, width, height), mask)
    box = box_of_mask(mask)
    if box is None:
        assert not mask.any()
    else:
        x0, y0, x1, y1 = map(int, box)
        assert mask[y0:y1, x0:x1].sum() == mask.sum() and mask[y0].any() and mask[:, x1 - 1].any()


# --- views and images


@given(st.sampled_from(["none", "open_clip", "rs"]), st.booleans(), st.integers(1, 5000), st.integers(1, 5000), st.integers())
def test_a_view_lies_in_the_image(kind, flips, width, height, seed):
    view = Augment(kind, flips).view(width, height, random.Random(seed))
    assert view.left >= 0 and view.top >= 0 and view.width > 0 and view.height > 0
    assert view.left + view.width <= width and view.top + view.height <= height
    assert Augment(kind, flips).view(width, height, random.Random(seed)) == view
