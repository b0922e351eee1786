"""Shards to batches, in an order that depends on the seed alone: not on the number of workers or ranks, nor on where a run began.

Step s of a run is known from (seed, s). An epoch has N // batch_size steps, ordered by `SampleOrder`; the N % batch_size samples
at its end are left out, and since each epoch is shuffled anew, they are others every time. Rank r of w takes the r-th of w equal
parts of the global batch. Captions and views are drawn from (seed, epoch, key): a sample looks the same whoever decodes it.

A sample that cannot be used is an error, or is replaced by another that is drawn from the seed and its position in the epoch, first
among the samples it is shuffled with, then from the whole split: what stands in for it is known from the seed and the data, too.
"""

import random
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils import data as torch_data
from torch.utils.data import DataLoader

from rsvl_data.caption_draw import LanguageDraw, draw_caption
from rsvl_data.crops import CropConfig, Crops, DecodedCrop, collate_crops, decode_with_crops
from rsvl_data.errors import CorruptShard, DataError, OptionError, RsvlError
from rsvl_data.loader_processes import DeathWatch, obey_parent_alone, worker_deaths_named, worker_gone
from rsvl_data.order import SampleOrder
from rsvl_data.quarantine import BadReason, BadSample
from rsvl_data.sample import Caption, CaptionKind, Sample
from rsvl_data.shards import Dataset, Shard
from rsvl_data.transforms import Augment, Engine, Preprocess

Loaded = TypeVar("Loaded")
Place = tuple[int, int]  # shard and row
# As many draws as no data within a sane bound on bad samples need.
_NEAR_DRAWS, _FAR_DRAWS = 16, 48


@dataclass(frozen=True)
class LoaderConfig:
    """What decides the content of the batches, and how they are made.

    batch_size      samples of one step over all ranks together
    workers         processes that decode, a rank; 0 decodes in the training process
    seed            of order, captions and views
    augment         the random view of each image
    crops           further views of each image, by name
    caption_kinds   kinds of caption to draw from (human, vlm, boxes, ...); None: all
    lang            language of the captions, ISO 639-1; None: all
    languages       in place of `lang`: languages to draw from, and how often English
    engine          fast, or exact to the bit as open_clip decodes
    shuffle_shards  shards that are shuffled together, and open at a time
    prefetch        batches that each worker has ready
    bad_samples     what cannot be read, decoded or captioned: raise an error, or replace it and say so in `Batch.bad`
    """

    batch_size: int
    workers: int = 2
    seed: int = 0
    augment: Augment = field(default_factory=lambda: Augment("open_clip"))
    crops: Mapping[str, CropConfig] = field(default_factory=dict)
    caption_kinds: tuple[CaptionKind, ...] | None = None
    lang: str | None = None
    languages: LanguageDraw | None = None
    engine: Engine = "fast"
    shuffle_shards: int = 64
    prefetch: int = 2
    bad_samples: Literal["raise", "replace"] = "raise"

    def __post_init__(self) -> None:
        for name, smallest in {"batch_size": 1, "workers": 0, "seed": 0, "shuffle_shards": 1, "prefetch": 1}.items():
            if getattr(self, name) < smallest:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least {smallest}")
        if self.lang is not None and self.languages is not None:
            raise OptionError(f"lang {self.lang} and languages {', '.join(self.languages.names)}: give one of them")
        unknown = sorted(set(self.caption_kinds or ()) - set(get_args(CaptionKind)))
        if unknown or self.caption_kinds == ():
            raise OptionError(
                f"caption_kinds is {self.caption_kinds}; allowed: None for all, or some of {', '.join(get_args(CaptionKind))}"
            )


@dataclass
class Batch:
    """One rank's part of a step: grey levels 0-255, not normalised, and the captions drawn with their tokens; crops by name."""

    step: int
    epoch: int
    keys: list[str]
    images: UInt8[Tensor, "b 3 s s"]
    texts: list[str]
    tokens: Int[Tensor, "b l"]
    labels: list[str | None]
    bad: list[BadSample] = field(default_factory=list)  # in whose place others stand here
    crops: dict[str, Crops] = field(default_factory=dict)
    langs: list[str] = field(default_factory=list)  # of the texts, ISO 639-1

    def pin_memory(self) -> "Batch":
        """DataLoader calls this where there is a GPU, so that copying to it can overlap with computing."""
        crops = {name: each.pin_memory() for name, each in self.crops.items()}
        return replace(self, images=self.images.pin_memory(), tokens=self.tokens.pin_memory(), crops=crops)

    def part(self, start: int, stop: int) -> "Batch":
        """Rows [start, stop) with their crops."""
        return replace(
            self,
            keys=self.keys[start:stop],
            images=self.images[start:stop],
            texts=self.texts[start:stop],
            tokens=self.tokens[start:stop],
            labels=self.labels[start:stop],
            langs=self.langs[start:stop],
            crops={name: crops.of_rows(start, stop) for name, crops in self.crops.items()},
        )


def steps_per_epoch(dataset: Dataset, split: str, batch_size: int) -> int:
    """Raises DataError for a split that is unknown or smaller than one global batch."""
    dataset.shards(split)  # an unknown split is named here
    count = sum(_shard_sizes(dataset, split))
    if count < batch_size:
        raise DataError(
            f"split {split!r} of {dataset.root} has {count} samples, fewer than one batch of {batch_size}. "
            f"Set batch_size to {count} or less, or use more data."
        )
    return count // batch_size


def train_batches(
    dataset: Dataset,
    split: str,
    preprocess: Preprocess,
    tokenize: Callable[[list[str]], Tensor],
    config: LoaderConfig,
    *,
    start_step: int = 0,
    num_steps: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """The batches of the steps [start_step, start_step + num_steps), across epochs. Starting late costs nothing more.

    `batch_size` must divide by `world_size`. Where bad samples are not replaced, an image that cannot be decoded and a sample without
    a usable caption raise DataError when their turn comes; the message names shard and key.
    Raises LoaderError when a worker is gone; a loop that computes between batches stands in `worker_deaths_named`, too.
    """
    if config.batch_size % world_size or not 0 <= rank < world_size:
        raise OptionError(
            f"batch_size {config.batch_size} on rank {rank} of {world_size}: "
            "batch_size must divide by the number of ranks, and ranks count from 0"
        )
    if start_step < 0 or num_steps < 0:
        raise OptionError(f"start_step is {start_step} and num_steps is {num_steps}; both must be at least 0")
    reader = _TrainReader(dataset, split, preprocess, tokenize, config, rank, world_size)
    return _load(reader, range(start_step, start_step + num_steps), config.workers, config.prefetch)


def _load(reader: Callable[[int], Loaded], steps: range, workers: int, prefetch: int) -> Iterator[Loaded]:
    """`reader(step)` for each step, in order, by `workers` processes. Errors of ours are raised here, with their own message."""
    workers = min(workers, len(steps))
    loader: DataLoader[Loaded | RsvlError | OSError] = DataLoader(
        _Guarded(reader),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        collate_fn=_unchanged,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=obey_parent_alone,
        generator=torch.Generator(),  # else a number is drawn from the training run's own
        # Forked workers start at once and take any tokenizer. DataLoader has them run torch in one thread, so none waits for a
        # thread pool that was not forked.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    with warnings.catch_warnings():  # Python >= 3.12 warns of any fork beside threads
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        batches = iter(loader)
    watch = DeathWatch(getattr(batches, "_workers", ()))
    try:
        while True:
            try:
                with watch.waiting(), worker_deaths_named():
                    batch = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError, FileNotFoundError) as error:  # it died while it handed a batch over
                raise worker_gone(error) from error
            if isinstance(batch, RsvlError | OSError):
                raise batch
            yield batch
    finally:
        # Stops the workers. Left in the traceback of an error, they would go with the garbage collection, which closes their queues
        # first and then waits 5 s for each worker to read that it should stop.
        with watch.waiting():
            del batches
        watch.end()


class _Guarded(torch_data.Dataset[Loaded | RsvlError | OSError]):
    """Hands an error that the user can mend on as a value: DataLoader would bury its message under a worker's traceback."""

    def __init__(self, reader: Callable[[int], Loaded]):
        self.reader = reader

    def __getitem__(self, step: int) -> Loaded | RsvlError | OSError:
        try:
            return self.reader(step)
        except (RsvlError, OSError) as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch


class _SplitReader:
    """Samples of a split by shard and row; the `capacity` shards used last stay open."""

    def __init__(self, dataset: Dataset, split: str, capacity: int):
        self.shards, self.sizes, self.capacity = dataset.shards(split), _shard_sizes(dataset, split), capacity
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._corrupt: dict[int, str] = {}  # not fetched again for each of its samples

    def shard(self, index: int) -> Shard:
        """Raises CorruptShard."""
        if index in self._corrupt:
            raise CorruptShard(self._corrupt[index])
        if index not in self._open:
            try:
                self._open[index] = self._opened(index)
            except CorruptShard as error:
                self._corrupt[index] = str(error)
                raise
            if len(self._open) > self.capacity:
                self._open.popitem(last=False)
        self._open.move_to_end(index)
        return self._open[index]

    def _opened(self, index: int) -> Shard:
        shard = Shard(self.shards[index].tar, self.shards[index].remote)
        if len(shard) != self.sizes[index]:
            raise CorruptShard(
                f"{shard} has {len(shard)} samples, but manifest.json says {self.sizes[index]}. Build the dataset again."
            )
        _ = shard.file
        return shard


def _shard_sizes(dataset: Dataset, split: str) -> list[int]:
    return [shard["samples"] for shard in dataset.manifest["shards"] if shard["split"] == split]


class _Used(NamedTuple):
    """What a sample gives to the batch."""

    sample: Sample
    caption: Caption
    image: UInt8[Tensor, "3 s s"]
    crops: dict[str, list[DecodedCrop]]


class _TrainReader:
    """Step to batch. Each worker has its own copy; what it keeps from step to step is the open shards and the order of two windows."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        preprocess: Preprocess,
        tokenize: Callable[[list[str]], Tensor],
        config: LoaderConfig,
        rank: int,
        world_size: int,
    ):
        # A batch may straddle two windows.
        self.split = _SplitReader(dataset, split, capacity=2 * config.shuffle_shards)
        self.order = SampleOrder(self.split.sizes, config.seed, config.shuffle_shards)
        self.steps_per_epoch = steps_per_epoch(dataset, split, config.batch_size)
        self.preprocess, self.tokenize, self.config = preprocess, tokenize, config
        self.rank, self.rank_batch_size = rank, config.batch_size // world_size

    def __call__(self, step: int) -> Batch:
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        start = step_of_epoch * self.config.batch_size + self.rank * self.rank_batch_size
        size = self.preprocess.size
        images = torch.empty((self.rank_batch_size, 3, size, size), dtype=torch.uint8)
        used: list[_Used] = []
        bad: list[BadSample] = []
        for row_of_batch, place in enumerate(self.order.samples(epoch, start, start + self.rank_batch_size)):
            try:
                of_sample = self._use(epoch, place)
            except _UnusableError as error:
                if self.config.bad_samples == "raise":
                    raise error.cause from None
                of_sample = self._replacement(epoch, step, start + row_of_batch, error, bad)
            images[row_of_batch] = of_sample.image
            used.append(of_sample)
        keys, labels, texts = [u.sample.key for u in used], [u.sample.label for u in used], [u.caption.text for u in used]
        tokens = self.tokenize(texts)
        crops = {
            name: collate_crops(config, [u.crops[name] for u in used], size, self.tokenize, tokens.shape[1])
            for name, config in self.config.crops.items()
        }
        return Batch(step, epoch, keys, images, texts, tokens, labels, bad, crops, [u.caption.lang for u in used])

    def _use(self, epoch: int, place: Place) -> _Used:
        shard_index, row = place
        key: str | None = None
        reason: BadReason = "corrupt_shard"
        try:
            shard = self.split.shard(shard_index)
            key = shard.members[row][0].name.partition(".")[0]
            sample = shard.sample(row)
            reason = "no_usable_caption"
            config = self.config
            rng = self._rng(epoch, sample.key, "caption")
            caption = draw_caption(sample.captions, config.caption_kinds, config.lang, config.languages, rng)
            reason = "unreadable_image"
            rng_of = partial(self._rng, epoch, sample.key)
            image, crops = decode_with_crops(self.preprocess, sample, config.crops, config.engine, config.augment, rng_of)
            return _Used(sample, caption, image, crops)
        except CorruptShard as error:
            raise _UnusableError(place, key, reason, error) from error
        except DataError as error:
            located = DataError(f"{shard}: sample {sample.key}: {error}")
            raise _UnusableError(place, key, reason, located) from error

    def _replacement(self, epoch: int, step: int, position: int, first: "_UnusableError", bad: list[BadSample]) -> _Used:
        """The first sound one among those drawn for this position; whatever is not is added to `bad`."""
        bad.append(self._described(first, step))
        for place in self._draws(epoch, position):
            try:
                return self._use(epoch, place)
            except _UnusableError as error:
                bad.append(self._described(error, step))
        raise DataError(f"{first.cause} None of {_NEAR_DRAWS + _FAR_DRAWS} others drawn in its place can be used either.")

    def _draws(self, epoch: int, position: int) -> Iterator[Place]:
        rng = self._rng(epoch, str(position), "replacement")
        window = self.order.window(epoch, position)
        for _ in range(_NEAR_DRAWS):  # their shards are open
            shard, row = window[int(len(window) * rng.random())]
            yield int(shard), int(row)
        for _ in range(_FAR_DRAWS):
            yield self.order.place(int(len(self.order) * rng.random()))

    def _described(self, error: "_UnusableError", step: int) -> BadSample:
        shard, row = error.place
        return BadSample(step, error.key, self.split.shards[shard].tar.stem, row, error.reason, str(error.cause))

    def _rng(self, epoch: int, key: str, purpose: str) -> random.Random:
        return random.Random(f"{self.config.seed} {epoch} {key} {purpose}")


class _UnusableError(Exception):
    """`cause` says it to the user; the rest is for the books."""

    def __init__(self, place: Place, key: str | None, reason: BadReason, cause: DataError):
        super().__init__(str(cause))
        self.place, self.key, self.reason, self.cause = place, key, reason, cause
