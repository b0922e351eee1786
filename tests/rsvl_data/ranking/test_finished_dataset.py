import pytest
from colour_source import ColourSource, build_colours

from rsvl_data.errors import DataError
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.ranking.finished_dataset import FinishedDataset
from rsvl_data.sample import Sample
from rsvl_data.shards import Dataset
from rsvl_data.stage import map_to


def again(source: Dataset, out, *stages, **options) -> Dataset:
    dataset = build(FinishedDataset(source), list(stages), BuildOptions(out=out, workers=1, **options), recipe="test")
    assert dataset is not None
    return dataset


def records(dataset: Dataset) -> dict[tuple[str, str], str]:
    return {(split, s.key): s.to_json() for split in dataset.splits for s in dataset.samples(split)}


def test_records_images_and_splits_stay(tmp_path):
    extra = lambda number: {"future": {"a": [1]}, "scores": {"clip": 0.25}, "mask": b"bytes"}  # noqa: E731
    options = BuildOptions(out=tmp_path / "source", samples_per_shard=10, workers=1)
    mask = {"classes": ["a"], "palette": [[0, 0, 0]], "ignore_index": 255}
    source = build(ColourSource(24, note="flat", mask=mask, extra=extra), [], options, recipe="test")
    copy = again(source, tmp_path / "copy", samples_per_shard=7)
    assert records(copy) == records(source) and copy.splits == source.splits
    assert (copy.name, copy.note, copy.manifest["mask"]) == ("colours", "flat", mask)
    first = next(copy.samples("train"))
    twin = next(s for s in source.samples("train") if s.key == first.key)
    assert (first.image, first.mask) == (twin.image, twin.mask) == (twin.image, b"bytes")


def test_a_record_that_is_not_sound_is_dropped_and_counted(tmp_path):
    source = build_colours(tmp_path / "source")
    shard = source.shards("train")[0]
    member = next(member for member in shard.members[3] if member.suffix == "json")
    content = bytearray(shard.tar.read_bytes())
    content[member.offset : member.offset + 4] = b"????"
    shard.tar.write_bytes(content)
    copy = again(source, tmp_path / "copy")
    assert copy.manifest["stages"][0]["dropped"] == {"corrupt_record": 1}
    assert sum(copy.splits.values()) == sum(source.splits.values()) - 1


def test_a_build_does_not_go_on_with_another_source(tmp_path):
    source = build_colours(tmp_path / "source")
    again(source, tmp_path / "copy")

    def relabel(sample: Sample) -> Sample:
        return sample.model_copy(update={"label": "sea"})

    other = again(source, tmp_path / "other", map_to("relabel", relabel))
    with pytest.raises(DataError, match="its source has changed"):
        again(other, tmp_path / "copy")
