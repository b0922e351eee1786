import json

import pytest
from small_pictures import picture, read_all

from rsvl_data.errors import DataError
from rsvl_data.sources import open_source


def test_karpathy_with_official_fixture(shared):
    root = shared / "fixtures" / "formats" / "06_rsicd_karpathy"
    expected = json.loads((root / "expected.json").read_text())
    read = read_all(open_source(root))
    assert len(read) == expected["samples"]
    assert sum(len(sample.captions) for _, sample in read) == expected["sentences"]
    splits = [entry.split for entry, _ in read]
    assert {split: splits.count(split) for split in set(splits)} == expected["by_split"]
    first = read[0][1]
    assert [c.text for c in first.captions] == expected["first"]["captions"] and first.sha256 == expected["first"]["sha256"]


def karpathy(tmp_path, *images):
    (tmp_path / "dataset_x.json").write_text(json.dumps({"images": list(images)}))
    return open_source(tmp_path)


def test_karpathy_missing_file_and_no_sentence(tmp_path):
    picture(tmp_path / "images" / "here.png")
    source = karpathy(
        tmp_path,
        {"filename": "gone.png", "split": "train", "sentences": [{"raw": "x"}]},
        {"filename": "here.png", "split": "test", "sentences": []},
        {"filename": "../../etc/passwd", "split": "test", "sentences": [{"raw": "x"}]},
        {"filename": "/etc/passwd", "split": "test", "sentences": [{"raw": "x"}]},
        {"filename": "y" * 400, "split": "test", "sentences": [{"raw": "x"}]},
    )
    reasons = ["missing_file", "no_caption", "path_outside", "path_outside", "bad_path"]
    assert [outcome.reason for _, outcome in read_all(source)] == reasons


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "Karpathy"), ('{"pictures": []}', "Karpathy"), ('{"images": [{"split": "train"}]}', "image 0 lacks 'filename'")],
)
def test_karpathy_of_another_form(tmp_path, content, message):
    (tmp_path / "dataset_x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        list(open_source(tmp_path).entries())


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "x",
        {"filename": "a.png"},
        {"filename": 5, "sentences": []},
        {"filename": "a\0.png", "sentences": []},
        {"filename": "a.png", "sentences": "a road"},
        {"filename": "a.png", "sentences": [{"raw": None}]},
        {"filename": "a.png", "sentences": [{"raw": "\ud83d"}]},
        {"filename": "a.png", "sentences": [], "class": 7},
        {"filename": "a.png", "sentences": [], "split": 7},
    ],
)
def test_karpathy_one_bad_record(tmp_path, bad):
    picture(tmp_path / "images" / "here.png")
    source = karpathy(tmp_path, bad, {"filename": "here.png", "sentences": [{"raw": " a  road "}]})
    (_, dropped), (_, sample) = read_all(source)
    assert dropped.reason == "bad_record" and "image 0" in dropped.detail and sample.captions[0].text == "a road"


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"images": {"a": 1}}', '{"images": ["Größe é'.encode("latin-1"), b"\xff\xfea"]
)
def test_karpathy_hostile_files(tmp_path, content):
    (tmp_path / "dataset_x.json").write_bytes(content)
    with pytest.raises(DataError, match="not in Karpathy's form"):
        list(open_source(tmp_path).entries())


def test_karpathy_unknown_split(tmp_path):
    source = karpathy(tmp_path, {"filename": "a.png", "split": "dev", "sentences": [{"raw": "x"}]})
    with pytest.raises(DataError, match="a.png has split 'dev'; allowed are train"):
        list(source.entries())
