"""Every image, caption, record and table of the corpus of bad inputs: taken, repaired or refused as its `expected.json` says."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from rsvl_data.caption_text import BadCaption, clean_caption, decode_text
from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.images import UnreadableImage, to_stored
from rsvl_data.sample import Sample
from rsvl_data.sources import open_source, table
from rsvl_data.validate import _sample_problems

BAD = Path(os.environ.get("RSVL_SHARED", Path(__file__).parents[3] / "shared")) / "fixtures" / "bad"

# Our words where they differ from the corpus'.
CORPUS_WORD = {"empty": "empty_file", "too_many_pixels": "too_large", "caption_encoding": "encoding"}


def cases(folder):
    listed = json.loads((BAD / "expected.json").read_text())["files"] if BAD.is_dir() else []
    return [pytest.param(case, id=case["file"]) for case in listed if case["file"].startswith(f"{folder}/")]


def judge(case, outcome, reason=None):
    assert outcome in {case["outcome"], *case.get("also_ok", [])}, f"{outcome} ({reason}), but {case['why']}"
    if outcome == "reject":
        words = {case.get("reason", reason), *case.get("also_ok_reasons", [])}
        assert CORPUS_WORD.get(reason, reason) in words


# --- images


def mean(picture):
    return picture.reshape(-1, 3).mean(0)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("case", cases("images"))
def test_images(case, suffix):
    content = (BAD / case["file"]).read_bytes()
    try:
        stored = to_stored(content, ImageForm(suffix))
    except UnreadableImage as error:
        assert error.reason in UnreadableImage.__doc__ and str(error)
        judge(case, "reject", error.reason)
        return
    judge(case, "repair" if stored.orientation > 1 else "accept")
    assert (stored.content == content) is not stored.reencoded
    with Image.open(io.BytesIO(stored.content)) as image:
        assert image.mode == "RGB" and image.size == (stored.width, stored.height) == (case["width"], case["height"])
        assert 0x8825 not in image.getexif() and image.getexif().get(0x0112, 1) not in range(2, 9)
        picture = np.asarray(image, np.float64)
    if "rgb_mean" in case:
        assert np.abs(mean(picture) - case["rgb_mean"]).max() <= case["rgb_mean_tolerance"]
    if "mean below 3" in case.get("must_not", "") or "float" in case["file"]:
        assert 20 < picture.mean() < 230
    if "quadrant_means" in case:
        rows, columns = stored.height // 2, stored.width // 2
        quarters = {"top_left": picture[:rows, :columns], "top_right": picture[:rows, columns:]}
        quarters |= {"bottom_left": picture[rows:, :columns], "bottom_right": picture[rows:, columns:]}
        for name, colour in case["quadrant_means"].items():
            assert np.abs(mean(quarters[name]) - colour).max() <= case["tolerance"]


# --- captions


@pytest.mark.parametrize("case", cases("captions"))
def test_captions(case):
    content = (BAD / case["file"]).read_bytes()
    started = time.process_time()
    try:
        text = clean_caption(decode_text(content))
    except UnicodeDecodeError:
        text = BadCaption("caption_encoding")
    assert time.process_time() - started < 1
    if isinstance(text, BadCaption):
        judge(case, "reject", text.reason)
        return
    judge(case, "accept" if text.encode() == content else "repair")
    assert text == case.get("text", text) and "\ufffd" not in text
    assert not any(piece in text for piece in case.get("must_not_contain", []))


# --- records

# What the parser says -> the corpus' word; the first that matches.
RECORD_REASON = (
    ("codec can't decode|hex escape", "encoding"),
    ("recursion limit", "too_deep"),
    ("number out of range", "bad_number"),
    ("json_invalid", "not_json"),
    ("ISO 8601", "bad_date"),
    ("(lat|lon)\n.*(less|greater) than or equal", "bad_coordinate"),
    ("finite number|(less|greater) than", "bad_number"),
    ("_type|int_from_float|not a number of pixels", "wrong_type"),
    ("NUL", "escaped_nul"),
)


@pytest.mark.parametrize("case", cases("json"))
def test_records(case):
    content = (BAD / case["file"]).read_bytes()
    if b'"sha256"' not in content:  # the corpus leaves it out; our records must have it
        content = content.replace(b'{"key": "k1"', b'{"sha256": "%s", "key": "k1"' % (b"0" * 64))
    try:
        sample = Sample.from_json(content, image=(BAD / "images" / "flat_colour.jpg").read_bytes())
    except (ValidationError, UnicodeDecodeError) as error:
        judge(case, "reject", next(word for pattern, word in RECORD_REASON if re.search(pattern, str(error))))
        return
    written = json.loads(sample.to_json())
    if case["file"] == "json/size_lie.json":
        judge(case, "reject", "size_mismatch" if "its record says 65 x 64" in next(_sample_problems(sample, "k1")) else None)
        return
    given = json.loads(content.decode("utf-8-sig"))
    judge(case, "accept" if all(written[name] == value for name, value in given.items()) else "repair")
    assert Sample.from_json(sample.to_json()).to_json() == sample.to_json()


# --- tables

TABLE_REASON = (
    ("is empty", "empty_file"),
    ("more than one column", "duplicate_column"),
    ("none is", "missing_column"),
    ("in no encoding", "encoding"),
    ("read as csv", "not_csv"),
    ("read as parquet", "not_parquet"),
    ("not a JSON object", "not_json"),
    ("is expected", "wrong_type"),
)


@pytest.fixture
def pictures(tmp_path):
    """The corpus names images by address; here they lie in folders of that name."""
    names = [f"https:/images.example.org/{number}.jpg" for number in range(1, 41)] + ["airport_0.jpg", "airport_1.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (10, 20, 30)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("case", cases("tables"))
def test_tables(case, pictures, monkeypatch):
    monkeypatch.setattr(table, "IMAGE_COLUMNS", ("url", "filename"))
    content, name = (BAD / case["file"]).read_bytes(), Path(case["file"]).name
    if name.endswith(".gz"):
        content, name = gzip.decompress(content), name.removesuffix(".gz")
    (pictures / name).write_bytes(content)
    try:
        source = open_source(pictures / name)
        read = [(entry, source.read(entry)) for entry in source.entries()]
    except DataError as error:
        judge(case, "reject", next(word for pattern, word in TABLE_REASON if re.search(pattern, str(error))))
        return
    was_utf8 = name.endswith(".parquet") or (decode_text(content).encode() in content and b"\0" not in content)
    judge(case, "accept" if was_utf8 else "repair")
    samples = [outcome for _, outcome in read if isinstance(outcome, Sample)]
    dropped = [outcome for _, outcome in read if not isinstance(outcome, Sample)]
    assert len(samples) == case.get("rows", 1)
    assert all(outcome.reason and outcome.detail for outcome in dropped)
    if "first_caption" in case:
        assert samples[0].captions[0].text == " ".join(case["first_caption"].split())
    if "with_position" in case:
        assert sum(sample.geo is not None for sample in samples) == case["with_position"]
    if "dropped" in case:
        reasons = [outcome.reason for outcome in dropped]
        assert {reason: reasons.count(reason) for reason in reasons} == case["dropped"]
    if "bad_lines" in case:
        assert [int(outcome.key.rpartition(":")[2]) for outcome in dropped] == case["bad_lines"]
    assert all("\0" not in caption.text and "\ufffd" not in caption.text for sample in samples for caption in sample.captions)


# --- bombs

WITHIN_LIMITS = """
import resource, sys, time
from pathlib import Path
from rsvl_data.image_form import ImageForm
from rsvl_data.images import UnreadableImage, to_stored
from rsvl_data.sample import Sample
from rsvl_data.sources import table
from rsvl_data.errors import DataError
from rsvl_data.stage import Dropped

table.IMAGE_COLUMNS = ("url",)
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 400_000_000,) * 2)

def read(path):
    if path.suffix == ".json":
        return Sample.from_json(path.read_bytes())
    if path.suffix != ".csv":
        return to_stored(path.read_bytes())
    source = table.open(path, "t", ImageForm())
    reasons = [source.read(entry).reason for entry in source.entries()]
    raise ValueError(reasons)

for name in sys.argv[1:]:
    started = time.process_time()
    try:
        read(Path(name))
        outcome = "taken"
    except (UnreadableImage, DataError, ValueError) as error:
        outcome = type(error).__name__
    print(Path(name).name, outcome, time.process_time() - started)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is set with Linux' own means")
def test_bombs_stay_within_400_MB_and_a_second(tmp_path):
    if not BAD.is_dir():
        pytest.skip(f"no corpus at {BAD}")
    (tmp_path / "huge_field.csv").write_bytes(gzip.decompress((BAD / "tables" / "huge_field.csv.gz").read_bytes()))
    names = [
        f"images/{n}" for n in ("bomb.png", "bomb_text_chunk.png", "claims_huge.gif", "claims_huge.jpg", "tiff_ifd_loop.tif")
    ]
    names += ["json/deep.json", "json/deep_list.json", "json/huge_int.json"]
    files = [*(str(BAD / name) for name in names), str(tmp_path / "huge_field.csv")]
    run = subprocess.run([sys.executable, "-c", WITHIN_LIMITS, *files], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert {name: outcome for name, outcome, _ in lines} == {
        "bomb.png": "UnreadableImage",
        "bomb_text_chunk.png": "UnreadableImage",
        "claims_huge.gif": "UnreadableImage",
        "claims_huge.jpg": "UnreadableImage",
        "tiff_ifd_loop.tif": "taken",
        "deep.json": "ValidationError",
        "deep_list.json": "ValidationError",
        "huge_int.json": "ValidationError",
        "huge_field.csv": "ValueError",
    }
    assert all(float(seconds) < 1 for *_, seconds in lines)
