"""CLIP_benchmark's webdatasets (`wds:PATH`)."""

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_trees import grow

from evaluation.datasets import open_dataset
from rsvl_data.errors import DataError


def tar(*members: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def classification(tmp_path: Path, **changed: object) -> Path:
    files = {
        "w/classnames.txt": "beach\nriver bank\n",
        "w/zeroshot_classification_templates.txt": "a photo of {c}.\n{c} from above\n",
        "w/test/nshards.txt": "2",
        "w/test/0.tar": tar(("s0.jpg", b"one"), ("s0.cls", b"1")),
        "w/test/1.tar": tar(("s1.png", b"two"), ("s1.cls", b"0\n")),
        "w/train/nshards.txt": "1\n",
        "w/train/0.tar": tar(("s2.jpg", b"three"), ("s2.cls", b"0")),
    }
    return grow(tmp_path, {name: content for name, content in {**files, **changed}.items() if content is not None})


def test_classification(tmp_path):
    data = open_dataset("wds:w", classification(tmp_path))
    assert (data.name, data.split, data.classes) == ("w", "test", ("beach", "river bank"))
    assert data.templates == ("a photo of {c}.", "{c} from above")
    assert [(item.key, item.label) for item in data.items] == [("test/0/s0", "river bank"), ("test/1/s1", "beach")]
    assert [data.image(i) for i in (0, 1)] == [b"one", b"two"]
    train = open_dataset(f"wds:{tmp_path / 'w'}", Path("elsewhere"), "train")
    assert [item.key for item in train.items] == ["train/0/s2"]


def test_retrieval(tmp_path):
    shard = tar(("a.jpg", b"one"), ("a.txt", "ein Weg\n\nein Fluß\n".encode()))
    data = open_dataset("wds:w", grow(tmp_path, {"w/test/nshards.txt": "1", "w/test/0.tar": shard}))
    assert data.items[0].captions == (("ein Weg", "en"), ("ein Fluß", "en"))
    assert (data.classes, data.items[0].label) == ((), None)


def test_the_identity_covers_labels_captions_and_images(tmp_path):
    first = open_dataset("wds:w", classification(tmp_path)).sha256()
    assert open_dataset("wds:w", classification(tmp_path)).sha256() == first
    changes = {
        "label": {"w/test/1.tar": tar(("s1.png", b"two"), ("s1.cls", b"1"))},
        "image": {"w/test/1.tar": tar(("s1.png", b"owt"), ("s1.cls", b"0"))},
        "classes": {"w/classnames.txt": "beach\nriver\n"},
    }
    for change in changes.values():
        assert open_dataset("wds:w", classification(tmp_path, **change)).sha256() != first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"w/test/1.tar": tar(("s1.png", b"two"), ("s1.cls", b"2"))}, "test/1/s1 has cls '2'; classnames.txt names 2 classes"),
        ({"w/test/1.tar": tar(("s1.png", b"two"), ("s1.cls", b"x"))}, "has cls 'x'"),
        ({"w/test/1.tar": tar(("s1.cls", b"0"))}, "test/1/s1 holds cls; expected one image"),
        ({"w/test/1.tar": tar(("s1.png", b"a"), ("s1.jpg", b"b"))}, "expected one image"),
        ({"w/test/1.tar": b"not a tar" * 100}, "1 parts of split 'test' cannot be read"),
        ({"w/test/1.tar": None}, "1 parts of split 'test' cannot be read"),
        ({"w/test/nshards.txt": "two"}, "holds 'two'; expected the number of shards"),
        ({"w/classnames.txt": b"\xff\xfe\xff"}, "is not UTF-8"),
        ({"w/test/1.tar": tar(("s1.png", b"two"), ("s1.txt", b"\xff"))}, "txt of sample test/1/s1 is not UTF-8"),
    ],
)
def test_webdatasets_that_are_not_whole(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        open_dataset("wds:w", classification(tmp_path, **changed))


def test_a_missing_split_and_a_folder_of_something_else(tmp_path):
    with pytest.raises(DataError, match="has no split 'val'; it has test, train"):
        open_dataset("wds:w", classification(tmp_path), "val")
    with pytest.raises(DataError, match="is not a webdataset of CLIP_benchmark"):
        open_dataset("wds:w/test/0.tar", tmp_path)


def test_a_tar_that_changed_since_it_was_opened(tmp_path):
    data = open_dataset("wds:w", classification(tmp_path))
    (tmp_path / "w/test/1.tar").write_bytes(b"")
    with pytest.raises(DataError, match="ends inside png of test/1/s1"):
        data.image(1)


def test_images_are_read_from_several_threads(shared):
    data = open_dataset(f"wds:{shared / 'fixtures/formats/11_clip_benchmark/wds_fixture_eurosat'}", shared)
    alone = [data.image(index) for index in range(len(data.items))]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(data.image, range(len(data.items)))) == alone


def test_what_clip_benchmark_itself_reads(shared):
    """Written by its rules and loaded with it: `expected.json`."""
    folder = shared / "fixtures/formats/11_clip_benchmark"
    expected = json.loads((folder / "expected.json").read_text())
    said = expected["classification"]
    data = open_dataset(f"wds:{said['folder']}", folder)
    assert (list(data.classes), list(data.templates)) == (said["classes"], said["templates"])
    assert [data.classes.index(item.label) for item in data.items] == said["labels"]
    assert data.image_sha256(0) == said["first"]["sha256"]
    said = expected["retrieval"]
    data = open_dataset(f"wds:{said['folder']}", folder)
    assert sum(len(item.captions) for item in data.items) == said["captions"]
    assert list(data.items[0].captions) == [(text, "en") for text in said["first"]["captions"]]
    assert data.image_sha256(0) == said["first"]["sha256"]
