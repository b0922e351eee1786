import json

import pytest
from small_pictures import picture, read_all

from rsvl_data.errors import DataError
from rsvl_data.sources import open_source


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_that_datasets_loads(tmp_path, monkeypatch):
    """`hub:org/name` takes the same way: datasets.load_dataset, then rows."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for split, label, number in [("train", "forest", 0), ("train", "river", 1), ("test", "forest", 2)]:
        picture(tmp_path / "set" / split / label / f"{number}.png", (number, 0, 0))
    read = read_all(open_source(tmp_path / "set", "hugging-face"))
    assert [(entry.split, sample.label) for entry, sample in read] == [
        ("train", "forest"),
        ("train", "river"),
        ("test", "forest"),
    ]
    assert all(sample.captions[0].kind == "label" for _, sample in read)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_captions_of_a_datasets_table(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    picture(folder / "a.png")
    (folder / "metadata.jsonl").write_text(
        json.dumps({"file_name": "a.png", "captions": ["one", " two  words "], "text": "three"}) + "\n"
    )
    [(_, sample)] = read_all(open_source(folder, "hugging-face"))
    assert [c.text for c in sample.captions] == ["one", "two words", "three"]


def test_a_hub_name_that_cannot_be_loaded(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="load_dataset\\('nobody/nothing'\\) failed"):
        list(open_source("hub:nobody/nothing").entries())
