import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.data import EvalItem, FileSet, MemorySet, ShardSet, Thinned, spread
from rsvl_data.errors import DataError
from rsvl_data.shards import Dataset, write_shard

ITEMS = (EvalItem("a", "lake", (("a lake", "en"), ("um lago", "pt"))), EvalItem("b"))


@pytest.fixture
def files(tmp_path: Path) -> FileSet:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(f"image {name}".encode())
    return FileSet("set", "test", ("forest", "lake"), ITEMS, tmp_path, [Path("a.png"), Path("b.png")])


def test_a_split_of_shards(colours):
    data = ShardSet(colours, "test")
    assert (data.name, data.split, data.note) == ("tiny", "test", "painted by a test")
    assert data.classes == ("GreenField", "blue", "red_field", "yellow")
    assert [item.key for item in data.items] == ["r0", "r1", "g0", "g1", "b0"]
    assert data.items[4] == EvalItem("b0", "blue", (("campo azul (blue)", "pt"),))
    for index in range(5):  # over the border between two shards
        assert hashlib.sha256(data.image(index)).hexdigest() == data.image_sha256(index)


def test_the_checksum_of_shards_is_of_what_is_measured(colours, tmp_path):
    data = ShardSet(colours, "test")
    together = [sample for shard in colours.shards("test") for sample in map(shard.sample, range(len(shard)))]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")

    def rebuilt(**changes) -> ShardSet:
        samples = [together[0].model_copy(update=changes), *together[1:]]
        write_shard(tmp_path / "other" / "data", "test-00000", iter(samples), image_suffix="png")
        shards = [{"name": "test-00000", "split": "test"}]
        return ShardSet(Dataset(tmp_path / "other", {"name": "tiny", "splits": {"test": 5}, "shards": shards}), "test")

    classes = [s for s in colours.manifest["shards"] if s["split"] == "test"]
    same = ShardSet(Dataset(colours.root, {**colours.manifest, "splits": {"test": 5}, "shards": classes}), "test")
    assert rebuilt().sha256() == same.sha256() != data.sha256()  # cut otherwise: the same; another class: not
    for change in ({"key": "r9"}, {"label": "blue"}, {"captions": []}, {"sha256": "0" * 64}):
        assert rebuilt(**change).sha256() != same.sha256()


def test_files(files):
    assert files.image(1) == b"image b" and files.image_sha256(1) == hashlib.sha256(b"image b").hexdigest()
    before, image = files.sha256(), files.root / "b.png"
    image.write_bytes(b"image c")  # as many bytes
    os.utime(image, ns=(0, 0))  # clocks of file systems may be coarse
    changed = files.sha256()
    assert changed != before and files.image_sha256(1) == hashlib.sha256(b"image c").hexdigest()
    os.utime(image, ns=(1, 1))  # touched and unchanged
    assert files.sha256() == changed
    assert replace(files, items=(ITEMS[0], EvalItem("b", "lake"))).sha256() != files.sha256()
    assert replace(files, classes=("lake", "forest")).sha256() != files.sha256()
    (files.root / "b.png").unlink()
    for broken in (files.sha256, lambda: files.image(1)):
        with pytest.raises(DataError, match="set: the image of b cannot be read"):
            broken()


def test_memory_and_a_part_of_it():
    data = MemorySet("set", "test", ("lake",), ITEMS, [b"a", b"b"])
    part = Thinned(data, 1)
    assert len(part.items) == 1 and part.classes == ("lake",) and part.image(0) == part.items[0].key.encode()
    assert part.image_sha256(0) == hashlib.sha256(part.image(0)).hexdigest()
    assert part.note == "Measured on 1 of these 2 images only (--limit)."
    assert len({data.sha256(), part.sha256(), replace(data, images=[b"a", b"c"]).sha256()}) == 3
    whole = Thinned(data, 5)
    assert (tuple(whole.items), whole.note, whole.sha256()) == (ITEMS, None, data.sha256())
    with pytest.raises(DataError, match="no sample to evaluate .limit 0.; it must be at least 1"):
        Thinned(data, 0)


@pytest.mark.parametrize("label_of", [lambda place: place // 60, lambda place: place % 10], ids=["sorted", "in turns"])
def test_a_part_is_spread_over_the_classes(label_of):
    """600 images of ten classes: a fifth of them holds about a fifth of each class."""
    labels = [f"class {label_of(place)}" for place in range(600)]
    items = [EvalItem(str(place), label) for place, label in enumerate(labels)]
    data = MemorySet("set", "test", tuple(sorted(set(labels))), items, [b""] * 600, note="drawn")
    part = Thinned(data, 120)
    counts = Counter(item.label for item in part.items)
    assert len(counts) == 10 and min(counts.values()) >= 5
    assert part.note == "drawn. Measured on 120 of these 600 images only (--limit)."


@pytest.mark.parametrize(("num", "limit"), [(0, 3), (1, 1), (7, 3), (7, 7), (7, 9), (1000, 1), (999_983, 120)])
def test_places_are_one_of_each_stretch(num, limit):
    places = spread(num, limit)
    count = min(num, limit)
    assert len(places) == count
    assert all(number * num // count <= place < (number + 1) * num // count for number, place in enumerate(places))


def test_splits_that_cannot_be_measured(colours):
    with pytest.raises(DataError, match="has no split 'val'; it has train, test, plain"):
        ShardSet(colours, "val")
    with pytest.raises(DataError, match="split 'test' has no sample to evaluate"):
        ShardSet(Dataset(colours.root, {**colours.manifest, "splits": {"test": 0}, "shards": []}), "test")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((), "empty: split 'test' has no sample to evaluate"),
        ((EvalItem("a"), EvalItem("b"), EvalItem("a")), "1 image ids of split 'test' occur more than once, such as a"),
        (
            (EvalItem("a", "sea"), EvalItem("b", "lake")),
            "1 labels of split 'test' are no class of the dataset: sea. Its classes: lake",
        ),
    ],
)
def test_items_that_cannot_be_measured(items, message):
    with pytest.raises(DataError, match=message):
        MemorySet("empty", "test", ("lake",), items, [b""] * len(items))


def test_items_and_images_belong_together(files):
    with pytest.raises(ValueError, match="got 2 items and 1 images"):
        MemorySet("set", "test", ("lake",), ITEMS, [b"a"])
    with pytest.raises(ValueError, match="got 2 items and 1 paths"):
        replace(files, paths=[Path("a.png")])
