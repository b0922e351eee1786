import csv
import hashlib
import json

import pytest
from small_pictures import picture, read_all

from rsvl_data.sources import open_source


def test_class_folders_with_official_fixture(shared):
    root = shared / "fixtures" / "formats" / "08_class_folders"
    expected = json.loads((root / "expected.json").read_text())["sets"]
    for name in ("camel", "underscore"):
        samples = [sample for _, sample in read_all(open_source(root / name))]
        counts: dict[str, int] = {}
        for sample in samples:
            counts[sample.label] = counts.get(sample.label, 0) + 1
        assert len(samples) == expected[name]["samples"] and counts == expected[name]["per_class"]
        assert sorted(counts) == expected[name]["classes_raw"]
        first = expected[name]["first"]
        assert first["sha256"] in {hashlib.sha256(s.image).hexdigest() for s in samples if s.label == first["label_raw"]}
    splits: dict[str, int] = {}
    for entry in open_source(root / "split_mixed").entries():
        splits[entry.split] = splits.get(entry.split, 0) + 1
    assert splits == expected["split_mixed"]["samples"]


def test_splits_csv_and_stray_files(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.PNG"):
        picture(tmp_path / "images" / name)
    (tmp_path / "images" / "a" / "Thumbs.db").write_text("x")
    (tmp_path / "images" / ".DS_Store").write_text("x")
    with (tmp_path / "splits.csv").open("w") as file:
        csv.writer(file).writerows([["filename", "split"], ["1.png", "train"], ["b/3.PNG", "valid"]])
    entries = {entry.id: entry.split for entry in open_source(tmp_path, "class-folders").entries()}
    assert entries == {"a/1.png": "train", "a/2.png": None, "b/3.PNG": "val"}


@pytest.mark.parametrize(
    ("name", "words", "field"),
    [
        ("camel", "split", "classes_words"),
        ("camel", "folder", "classes_georsclip_compat"),
        ("underscore", "split", "classes_words"),
        ("underscore", "folder", "classes_words"),
    ],
)
def test_words_of_the_folders(shared, name, words, field):
    root = shared / "fixtures" / "formats" / "08_class_folders"
    expected = json.loads((root / "expected.json").read_text())["sets"][name]
    source = open_source(root / name, options={"class-folders": {"words": words}})
    said = {sample.label: sample.captions[0].text for _, sample in read_all(source)}
    assert set(said) == set(expected["classes_raw"])
    for raw, text in zip(expected["classes_raw"], expected[field]):
        if words == "split":  # in English, with articles and plurals: "a field of annual crops"
            assert all(word in said[raw] for word in text.split()), said[raw]
        else:
            assert said[raw] == f"a satellite image of {text}."


def test_label_becomes_five_captions(tmp_path):
    picture(tmp_path / "golf_course" / "1.png")
    [(_, sample)] = read_all(open_source(tmp_path))
    assert sample.label == "golf_course" and len({c.text for c in sample.captions}) == 5
    assert all("golf course" in c.text and c.kind == "label" for c in sample.captions)
