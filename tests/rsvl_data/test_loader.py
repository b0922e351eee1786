from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny_dataset import CAPTIONS, PREPROCESS, make_sample, tokenize, write_dataset

from rsvl_data import order as order_module
from rsvl_data.caption_draw import LanguageDraw
from rsvl_data.errors import CorruptShard, DataError
from rsvl_data.loader import Batch, LoaderConfig, steps_per_epoch, train_batches
from rsvl_data.order import SampleOrder
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Augment, Preprocess


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Three shards of 7, 4 and 8 samples: 19, so batches of 4 leave 3 out."""
    numbers = iter(range(19))
    shards = [[make_sample(next(numbers)) for _ in range(size)] for size in (7, 4, 8)]
    return write_dataset(tmp_path_factory.mktemp("tiny"), shards)


def batches(dataset: Dataset, config: LoaderConfig | None = None, **options) -> list[Batch]:
    options = {"num_steps": 10, **options}
    return list(train_batches(dataset, "train", PREPROCESS, tokenize, config or LoaderConfig(4, workers=0), **options))


def assert_same(found: Sequence[Batch], expected: Sequence[Batch]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert (a.step, a.epoch, a.keys, a.texts, a.labels) == (b.step, b.epoch, b.keys, b.texts, b.labels)
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.tokens, b.tokens)


def all_samples(order: SampleOrder, epoch: int) -> list[tuple[int, int]]:
    return order.samples(epoch, 0, len(order))


class TestOrder:
    sizes = (5, 3, 9, 1, 6, 4, 0, 7)

    def order(self, seed: int = 3, shuffle_shards: int = 3) -> SampleOrder:
        return SampleOrder(self.sizes, seed, shuffle_shards)

    def test_each_epoch_is_a_permutation_and_they_differ(self):
        everything = {(shard, row) for shard, size in enumerate(self.sizes) for row in range(size)}
        epochs = [all_samples(self.order(), epoch) for epoch in range(4)]
        for epoch in epochs:
            assert len(epoch) == len(everything) == 35
            assert set(epoch) == everything
        assert all(a != b for a, b in pairwise(epochs))

    def test_shards_and_samples_are_both_shuffled_anew(self):
        epochs = [all_samples(SampleOrder([20] * 6, 0, shuffle_shards=1), epoch) for epoch in range(3)]
        assert len({tuple(shard for shard, _ in epoch) for epoch in epochs}) == 3
        rows = {tuple(row for _, row in epoch[start : start + 20]) for epoch in epochs for start in range(0, 120, 20)}
        assert len(rows) == 18  # no two shards in the same order, in no two epochs

    def test_shards_are_read_in_windows(self):
        """Of any window only `shuffle_shards` shards are open, and it mixes their samples."""
        found = all_samples(self.order(), 0)
        shards_by_entry = list(dict.fromkeys(shard for shard, _ in found))
        first_window = [shard for shard, _ in found[: sum(self.sizes[shard] for shard in shards_by_entry[:3])]]
        assert len(set(first_window)) == 3
        assert set(first_window).isdisjoint(shard for shard, _ in found[len(first_window) :])
        runs = 1 + sum(a != b for a, b in pairwise(first_window))
        assert runs > 3

    def test_a_window_of_one_keeps_shards_whole(self):
        shards = [shard for shard, _ in all_samples(self.order(shuffle_shards=1), 0)]
        assert 1 + sum(a != b for a, b in pairwise(shards)) == 7  # one of the eight is empty

    @pytest.mark.parametrize(("option", "value"), [("seed", 4), ("shuffle_shards", 8)])
    def test_options_change_the_order(self, option, value):
        assert all_samples(self.order(**{option: value}), 0) != all_samples(self.order(), 0)

    @pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (4, 13), (12, 35), (34, 35), (35, 40)])
    def test_any_part_is_found_without_the_parts_before(self, start, stop):
        assert self.order().samples(2, start, stop) == all_samples(self.order(), 2)[start:stop]

    def test_epochs_may_be_asked_for_in_any_sequence(self):
        order = self.order()
        assert [all_samples(order, epoch) for epoch in (0, 5, 0)] == [all_samples(self.order(), epoch) for epoch in (0, 5, 0)]

    def test_finding_a_position_costs_one_window_wherever_it_lies(self, monkeypatch):
        drawn = []
        permutation = order_module._permutation
        monkeypatch.setattr(order_module, "_permutation", lambda count, *seed: drawn.append(count) or permutation(count, *seed))
        costs = []
        for epoch, position in [(0, 0), (0, 1500), (7, 2990), (1_000_000, 1234)]:
            drawn.clear()
            SampleOrder([10] * 300, 0, 5).samples(epoch, position, position + 1)
            costs.append(list(drawn))
        assert costs == [[300, 50]] * 4  # the shards, and the samples of one window

    def test_the_order_of_a_seed_is_this(self):
        """A change here makes every run resumed after an update see other samples than it would have."""
        assert self.order().samples(0, 0, 6) == [(2, 5), (1, 1), (1, 2), (0, 4), (0, 3), (2, 7)]


class TestTraining:
    @pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # on a smaller machine
    @pytest.mark.parametrize("workers", [1, 2, 4])
    def test_content_does_not_depend_on_workers(self, dataset, workers):
        torch.rand(400, 400) @ torch.rand(400, 400)  # a thread pool in the parent: workers must not wait for it
        large = Preprocess(size=200)  # large enough for torch to want several threads
        config = {"augment": Augment("rs", flips=True), "engine": "fast"}
        expected = train_batches(dataset, "train", large, tokenize, LoaderConfig(4, 0, **config), num_steps=6)
        found = train_batches(dataset, "train", large, tokenize, LoaderConfig(4, workers, **config), num_steps=6)
        assert_same(list(found), list(expected))

    @pytest.mark.parametrize("start_step", [1, 3, 4, 6, 9, 10])
    def test_starting_at_a_step_equals_dropping_those_before(self, dataset, start_step):
        assert_same(batches(dataset, start_step=start_step, num_steps=10 - start_step), batches(dataset)[start_step:])

    def test_resuming_with_other_workers_continues_the_run(self, dataset):
        resumed = batches(dataset, LoaderConfig(4, workers=2), start_step=3, num_steps=4)
        assert_same(resumed, batches(dataset)[3:7])

    @pytest.mark.parametrize("world_size", [2, 4])
    def test_ranks_share_the_global_batch(self, dataset, world_size):
        ranks = [batches(dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
        for parts, whole in zip(zip(*ranks), batches(dataset)):
            assert [key for part in parts for key in part.keys] == whole.keys
            assert [text for part in parts for text in part.texts] == whole.texts
            assert torch.equal(torch.cat([part.images for part in parts]), whole.images)

    def test_an_epoch_has_no_sample_twice_and_leaves_others_out_each_time(self, dataset):
        assert steps_per_epoch(dataset, "train", 4) == 4
        everything = {sample.key for sample in dataset.samples("train")}
        found = batches(dataset, num_steps=12)
        assert [batch.step for batch in found] == list(range(12))
        assert [batch.epoch for batch in found] == [0] * 4 + [1] * 4 + [2] * 4
        left_out = []
        for epoch in range(3):
            keys = [key for batch in found if batch.epoch == epoch for key in batch.keys]
            assert len(set(keys)) == len(keys) == 16
            left_out.append(everything - set(keys))
        assert len({frozenset(keys) for keys in left_out}) > 1

    def test_a_batch_holds_what_the_shards_hold(self, dataset):
        samples = {sample.key: sample for sample in dataset.samples("train")}
        config = LoaderConfig(4, workers=0, augment=Augment("none"), engine="exact")
        for batch in batches(dataset, config, num_steps=4):
            for row, key in enumerate(batch.keys):
                assert torch.equal(batch.images[row], PREPROCESS.decode(samples[key].image))
                assert batch.texts[row] in [caption.text for caption in samples[key].captions]
                assert batch.labels[row] == samples[key].label
            assert torch.equal(batch.tokens, tokenize(batch.texts))

    @pytest.mark.parametrize(
        "changed",
        [{"seed": 1}, {"augment": Augment("rs")}, {"augment": Augment("none")}, {"engine": "exact"}, {"shuffle_shards": 1}],
        ids=str,
    )
    def test_options_change_the_batches(self, dataset, changed):
        config = {"batch_size": 4, "workers": 0}
        before, after = (
            torch.cat([batch.images for batch in batches(dataset, LoaderConfig(**c))]) for c in (config, config | changed)
        )
        assert not torch.equal(before, after)

    def test_captions_and_views_vary_between_epochs(self, dataset):
        seen: dict[str, list[tuple[str, bytes]]] = {}
        for batch in batches(dataset, num_steps=40):
            for key, text, image in zip(batch.keys, batch.texts, batch.images):
                seen.setdefault(key, []).append((text, image.numpy().tobytes()))
        assert {text for draws in seen.values() for text, _ in draws} == {caption.text for caption in CAPTIONS}
        assert all(len({text for text, _ in draws}) > 1 for draws in seen.values())
        assert all(len({image for _, image in draws}) > len(draws) / 2 for draws in seen.values())

    @pytest.mark.parametrize(
        ("options", "allowed"),
        [
            ({"lang": "de"}, {"ein Fluss"}),
            ({"caption_kinds": ("human", "vlm")}, {"a river", "a river with a bridge"}),
            ({"caption_kinds": ("boxes", "translation"), "lang": "en"}, {"water left of houses"}),
            ({"languages": LanguageDraw(("de", "es"))}, {"ein Fluss"}),
        ],
    )
    def test_captions_are_drawn_from_the_asked_kinds_and_language(self, dataset, options, allowed):
        texts = {text for batch in batches(dataset, LoaderConfig(4, workers=0, **options)) for text in batch.texts}
        assert texts == allowed

    def test_batches_say_the_language_of_each_caption(self, dataset):
        of_text = {caption.text: caption.lang for caption in CAPTIONS}
        whole = batches(dataset, LoaderConfig(4, workers=0, languages=LanguageDraw(("en", "de"))))
        assert {lang for batch in whole for lang in batch.langs} == {"en", "de"}
        for batch in whole:
            assert batch.langs == [of_text[text] for text in batch.texts]
            assert batch.part(1, 3).langs == batch.langs[1:3]

    def test_the_random_state_of_the_run_is_left_alone(self, dataset):
        before = torch.random.get_rng_state()
        batches(dataset, LoaderConfig(4, workers=1), num_steps=2)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_no_more_shards_are_open_than_two_windows(self, tmp_path):
        dataset = write_dataset(tmp_path, [[make_sample(2 * shard), make_sample(2 * shard + 1)] for shard in range(8)])
        most = 0
        for _ in train_batches(dataset, "train", PREPROCESS, tokenize, LoaderConfig(2, 0, shuffle_shards=1), num_steps=20):
            files = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
            most = max(most, sum(file.suffix == ".tar" and tmp_path in file.parents for file in files))
        assert 1 <= most <= 2

    def test_no_steps_are_no_batches(self, dataset):
        assert batches(dataset, LoaderConfig(4, workers=2), num_steps=0) == []

    def test_a_run_may_be_left_early(self, dataset):
        running = train_batches(dataset, "train", PREPROCESS, tokenize, LoaderConfig(4, workers=2), num_steps=1000)
        assert next(iter(running)).step == 0
        del running


class TestErrors:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_corrupt_image_is_named(self, tmp_path, workers):
        bad = make_sample(5, image=b"\xff\xd8 this is no JPEG")
        dataset = write_dataset(tmp_path, [[make_sample(0), make_sample(1)], [bad, make_sample(2)]])
        with pytest.raises(DataError) as raised:
            batches(dataset, LoaderConfig(2, workers))
        assert str(raised.value).startswith(
            f"{tmp_path}/data/train-00001.tar: sample {bad.key}: the image (18 bytes) is not readable"
        )
        assert "Traceback" not in str(raised.value)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize(
        ("captions", "options", "message"),
        [
            ([], {}, "no caption of any kind in any language; it has none at all. Set caption_kinds and lang to what"),
            (CAPTIONS[:2], {"lang": "de"}, "no caption of any kind in de; it has human (en), vlm (en). Set"),
            (
                CAPTIONS[2:],
                {"caption_kinds": ("vlm", "long")},
                "no caption of vlm or long in any language; it has boxes (en), translation (de).",
            ),
        ],
        ids=["none", "language", "kind"],
    )
    def test_a_sample_without_a_usable_caption_is_named(self, tmp_path, captions, options, message, workers):
        poor = make_sample(5, captions=captions)
        dataset = write_dataset(tmp_path, [[make_sample(0), poor]])
        with pytest.raises(DataError) as raised:
            batches(dataset, LoaderConfig(2, workers, **options), num_steps=1)
        assert message in str(raised.value)
        if not options:
            assert str(raised.value).startswith(f"{tmp_path}/data/train-00000.tar: sample {poor.key}: ")

    def test_too_few_samples_for_a_batch(self, dataset):
        with pytest.raises(
            DataError, match=r"split 'train' of .* has 19 samples, fewer than one batch of 20\. Set batch_size to 19"
        ):
            train_batches(dataset, "train", PREPROCESS, tokenize, LoaderConfig(20), num_steps=1)

    def test_unknown_split(self, dataset):
        with pytest.raises(DataError, match="has no split 'val'; it has train"):
            train_batches(dataset, "val", PREPROCESS, tokenize, LoaderConfig(4), num_steps=1)

    @pytest.mark.parametrize(("rank", "world_size"), [(0, 3), (2, 2), (-1, 2)])
    def test_ranks_that_do_not_fit(self, dataset, rank, world_size):
        with pytest.raises(ValueError, match=f"batch_size 4 on rank {rank} of {world_size}: batch_size must divide"):
            train_batches(dataset, "train", PREPROCESS, tokenize, LoaderConfig(4), num_steps=1, rank=rank, world_size=world_size)

    @pytest.mark.parametrize("steps", [{"start_step": -1, "num_steps": 1}, {"start_step": 0, "num_steps": -1}])
    def test_impossible_steps(self, dataset, steps):
        with pytest.raises(ValueError, match="start_step is .* and num_steps is .*; both must be at least 0"):
            train_batches(dataset, "train", PREPROCESS, tokenize, LoaderConfig(4), **steps)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_shard_that_is_not_what_the_manifest_says(self, tmp_path, workers):
        dataset = write_dataset(tmp_path, [[make_sample(0), make_sample(1)]])
        dataset.manifest["shards"][0]["samples"] = 3
        with pytest.raises(CorruptShard, match=r"train-00000\.tar has 2 samples, but manifest\.json says 3"):
            batches(dataset, LoaderConfig(3, workers), num_steps=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
            ({"workers": -1}, "workers is -1; it must be at least 0"),
            ({"seed": -1}, "seed is -1; it must be at least 0"),
            ({"shuffle_shards": 0}, "shuffle_shards is 0; it must be at least 1"),
            ({"caption_kinds": ("poem",)}, r"caption_kinds is \('poem',\); allowed: None for all, or some of human, alt"),
            ({"caption_kinds": ()}, r"caption_kinds is \(\); allowed"),
            ({"lang": "en", "languages": LanguageDraw(("en", "de"))}, "lang en and languages en, de: give one of them"),
        ],
    )
    def test_impossible_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            LoaderConfig(**{"batch_size": 4, **options})
