"""Datasets of the Hub (`hub:org/name`), proven on folders that `datasets.load_dataset` understands: no network."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image
from small_trees import grow

from evaluation.datasets import open_dataset
from rsvl_data.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """What `datasets` keeps of a folder goes with the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def picture(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path)


def test_class_folders_as_an_image_folder(tmp_path):
    """The class names of its ClassLabel in their order; images as they were stored."""
    for number, name in enumerate(("train/river/a.png", "test/beach/b.png", "test/river/c.png", "validation/beach/d.png")):
        picture(tmp_path / "set" / name, number)
    data = open_dataset(f"hub:{tmp_path / 'set'}", tmp_path)
    assert (data.split, data.classes, data.note) == ("test", ("beach", "river"), None)
    assert [(item.key, item.label) for item in data.items] == [("test/0", "beach"), ("test/1", "river")]
    stored = (tmp_path / "set/test/beach/b.png").read_bytes()
    assert (data.image(0), data.image_sha256(0)) == (stored, hashlib.sha256(stored).hexdigest())
    assert len(open_dataset(f"hub:{tmp_path / 'set'}", tmp_path, "val").items) == 1
    with pytest.raises(DataError, match="has no split 'exam'; it has "):
        open_dataset(f"hub:{tmp_path / 'set'}", tmp_path, "exam")


def test_captions_of_a_metadata_file(tmp_path):
    picture(tmp_path / "set/test/a.png", 0)
    line = {"file_name": "a.png", "captions": ["a river", "ein Fluss"], "label": "river"}
    grow(tmp_path, {"set/test/metadata.jsonl": json.dumps(line) + "\n"})
    data = open_dataset(f"hub:{tmp_path / 'set'}", tmp_path)
    assert data.items[0].captions == (("a river", "en"), ("ein Fluss", "en"))
    assert (data.items[0].label, data.classes) == ("river", ("river",))


def test_the_identity_follows_images_that_nothing_is_said_of(tmp_path):
    for name in ("one", "two"):
        picture(tmp_path / name / "test/river/a.png", 0)
    Image.new("L", (90, 70), 3).save(tmp_path / "two/test/river/a.png")
    one, again, two = (open_dataset(f"hub:{tmp_path / name}", tmp_path).sha256() for name in ("one", "one", "two"))
    assert one == again != two


def test_a_table_without_images_and_what_cannot_be_loaded(tmp_path):
    grow(tmp_path, {"set/test.csv": "text,label\nx,y\n"})
    with pytest.raises(DataError, match="has the columns text, label; none of them holds images"):
        open_dataset(f"hub:{tmp_path / 'set'}", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"datasets\.load_dataset\(.*\) failed"):
        open_dataset(f"hub:{tmp_path / 'empty'}", tmp_path)
