import json
import multiprocessing
import time
from pathlib import Path

import psutil
import pytest
import torch
from test_loader import assert_same, batches
from tiny_dataset import CAPTIONS, PREPROCESS, make_sample, tokenize, write_dataset

from rsvl_data.errors import DataError
from rsvl_data.loader import LoaderConfig, train_batches
from rsvl_data.quarantine import BadSample, Quarantine, most_bad_samples

REPLACE = {"workers": 0, "bad_samples": "replace"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """24 samples in shards of 8: one is no image, one has no caption, one lies behind the end of its cut tar."""
    root = tmp_path_factory.mktemp("bad")
    samples = [make_sample(number) for number in range(24)]
    samples[2] = make_sample(2, image=b"\xff\xd8 this is no JPEG")
    samples[10] = make_sample(10, captions=[])
    dataset = write_dataset(root, [samples[:8], samples[8:16], samples[16:]])
    tar = root / "data" / "train-00002.tar"
    last = dataset.shards("train")[2].members[7][0]
    tar.write_bytes(tar.read_bytes()[: last.offset + 5])
    return dataset


def bad_places(found) -> set[tuple[str, int, str]]:
    return {(bad.shard, bad.row, bad.reason) for batch in found for bad in batch.bad}


BAD = {
    ("train-00000", 2, "unreadable_image"),
    ("train-00001", 2, "no_usable_caption"),
    ("train-00002", 7, "corrupt_shard"),
}


def test_every_sound_sample_of_an_epoch_stays_and_the_bad_ones_are_told(dataset):
    found = batches(dataset, LoaderConfig(4, **REPLACE), num_steps=6)
    assert bad_places(found) == BAD
    keys = [key for batch in found for key in batch.keys]
    bad_keys = {bad.key for batch in found for bad in batch.bad}
    sound = {members[0].name.split(".")[0] for shard in dataset.shards("train") for members in shard.members} - bad_keys
    assert set(keys) == sound and len(keys) == 24 and len(sound) == 21
    assert all(bad.step == batch.step for batch in found for bad in batch.bad)


def test_where_nothing_is_bad_replacing_changes_nothing(tmp_path):
    dataset = write_dataset(tmp_path, [[make_sample(number) for number in range(9)]])
    assert_same(batches(dataset, LoaderConfig(4, **REPLACE)), batches(dataset))


@pytest.mark.parametrize("shuffle_shards", [1, 64])
def test_what_stands_in_does_not_depend_on_workers_ranks_or_resume(dataset, shuffle_shards):
    config = {**REPLACE, "shuffle_shards": shuffle_shards}
    whole = batches(dataset, LoaderConfig(4, **config), num_steps=12)
    assert_same(batches(dataset, LoaderConfig(4, **{**config, "workers": 2}), num_steps=12), whole)
    assert_same(batches(dataset, LoaderConfig(4, **config), start_step=5, num_steps=7), whole[5:])
    ranks = [batches(dataset, LoaderConfig(4, **config), num_steps=12, rank=rank, world_size=4) for rank in range(4)]
    for parts, batch in zip(zip(*ranks), whole):
        assert [key for part in parts for key in part.keys] == batch.keys
        assert [bad for part in parts for bad in part.bad] == batch.bad


@pytest.mark.parametrize("missing", [".tar", ".idx"])
def test_a_missing_shard_is_replaced_from_the_others(tmp_path, missing):
    """The window of one shard is all bad: what stands in comes from the whole split."""
    dataset = write_dataset(tmp_path, [[make_sample(8 * shard + row) for row in range(8)] for shard in range(3)])
    (tmp_path / "data" / f"train-00001{missing}").unlink()
    found = batches(dataset, LoaderConfig(4, shuffle_shards=1, **REPLACE), num_steps=6)
    assert bad_places(found) == {("train-00001", row, "corrupt_shard") for row in range(8)}
    with pytest.raises(DataError, match=r"train-00001\.(tar|idx) is missing"):
        batches(dataset, LoaderConfig(4, workers=0), num_steps=6)


def test_data_without_any_sound_sample_end(tmp_path):
    dataset = write_dataset(tmp_path, [[make_sample(number, captions=CAPTIONS[:1]) for number in range(4)]])
    with pytest.raises(DataError, match=r"no caption of any kind in de; .* None of 64 others drawn in its place can be used"):
        batches(dataset, LoaderConfig(4, lang="de", **REPLACE), num_steps=1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("sizes", "world_size", "workers"), [((3, 0, 1, 20), 8, 0), ((24,), 4, 3), ((1,) * 24, 2, 4)])
def test_every_sample_comes_once_an_epoch_whatever_the_shards(tmp_path, sizes, world_size, workers):
    """More ranks and workers than shards, uneven shards: each rank has as many batches as the others."""
    numbers = iter(range(24))
    shards = [[make_sample(next(numbers)) for _ in range(size)] for size in sizes if size]
    dataset = write_dataset(tmp_path, shards)
    parts = [
        batches(dataset, LoaderConfig(8, workers), num_steps=6, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert {len(part) for part in parts} == {6}
    for epoch in range(2):
        keys = [key for part in parts for batch in part if batch.epoch == epoch for key in batch.keys]
        assert len(keys) == len(set(keys)) == 24


def bad(row: int, step: int = 0) -> BadSample:
    return BadSample(step, f"k{row}", "train-00000", row, "unreadable_image", f"no. {row} is broken")


@pytest.mark.parametrize(("allowed", "count"), [(0, 0), (0.001, 1), (0.01, 5), (1, 1), (7, 7)])
def test_allowed_is_a_fraction_or_a_count(allowed, count):
    assert most_bad_samples(allowed, 500) == count


def test_a_sample_counts_once_and_one_too_many_stops(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine([], path, limit=4)
    for step in range(3):
        quarantine.add([bad(row, step) for row in range(4)])
    assert len(quarantine) == 4
    with pytest.raises(
        DataError, match=r"5 samples cannot be used, .* allows 4: no. 0 .*; no. 1 .*; no. 2 is broken; and 2 more\."
    ):
        quarantine.add([bad(9, 3)])
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == [0, 1, 2, 3, 9]


def test_a_continued_file_drops_what_lies_behind_the_checkpoint(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    Quarantine([], path, 9).add([bad(row, step=row) for row in range(5)])
    whole = path.read_text()
    path.write_text(whole[:-10])  # a kill
    continued = Quarantine(Quarantine.read(path, done=3), path, 9)
    assert len(continued) == 3
    continued.add([bad(3, 3)])
    continued.add([bad(1, 4), bad(4, 4)])
    assert path.read_text() == whole
    assert Quarantine.read(path, done=0) == []


def test_prefetch_is_how_far_workers_run_ahead(tmp_path):
    dataset = write_dataset(tmp_path, [[make_sample(number) for number in range(8)]])

    def ahead(prefetch: int) -> int:
        made = multiprocessing.Value("i", 0)

        def count(texts):
            made.value += 1
            return tokenize(texts)

        config = LoaderConfig(4, workers=1, prefetch=prefetch)
        running = train_batches(dataset, "train", PREPROCESS, count, config, num_steps=1000)
        next(running)
        time.sleep(0.5)
        return made.value

    assert ahead(1) < ahead(6)


def _memory_mib() -> float:
    """Of this process and its workers, without what they share."""
    process = psutil.Process()
    return sum(each.memory_full_info().uss for each in [process, *process.children()]) / 2**20


@pytest.mark.parametrize("num_steps", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_stays_flat(tmp_path: Path, num_steps: int):
    dataset = write_dataset(tmp_path, [[make_sample(4 * shard + row) for row in range(4)] for shard in range(3)])
    running = train_batches(
        dataset, "train", PREPROCESS, tokenize, LoaderConfig(1, workers=1, shuffle_shards=2), num_steps=num_steps
    )
    before = 0.0
    for batch in running:
        if batch.step == num_steps // 4:
            before = _memory_mib()
        if batch.step == num_steps - 10:
            assert _memory_mib() - before < 8
    assert torch.is_tensor(batch.images) and batch.step == num_steps - 1
