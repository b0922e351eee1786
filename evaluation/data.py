"""What is measured on: one split of one dataset, whatever its files look like.

`ShardSet` is a split of our shards, `FileSet` images that lie as files (for the readers of official layouts), `MemorySet` images in memory.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np

from rsvl_data.errors import CorruptShard, DataError
from rsvl_data.shards import Dataset

T = TypeVar("T")


@dataclass(frozen=True)
class EvalItem:
    """`key` is unique in the split and stable; `label` is the raw name of a class; a caption is (text, ISO 639-1 language)."""

    key: str
    label: str | None = None
    captions: tuple[tuple[str, str], ...] = ()


class EvalSet(Protocol):
    """One split of one dataset, ready to be measured.

    note      a sentence that must stand beside every number, or None
    classes   all classes of the dataset, with images in this split or not: in the official order where there is one, else sorted
    """

    @property
    def name(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def note(self) -> str | None: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def items(self) -> Sequence[EvalItem]: ...

    def image(self, index: int) -> bytes:
        """The encoded image file. Called from several threads at once."""

    def image_sha256(self, index: int) -> str:
        """Of the bytes of `image`: what the embedding cache is keyed by."""

    def sha256(self) -> str:
        """The identity of the split: `split_sha256`."""


def split_sha256(data: EvalSet, image_marks: Iterable[str]) -> str:
    """Of the classes, and of the key, label, captions and image mark of every item, in order. A mark is a checksum of the image, and of its
    mask where it has one."""
    digest = hashlib.sha256(json.dumps(data.classes).encode())
    for item, mark in zip(data.items, image_marks, strict=True):
        digest.update(json.dumps([item.key, item.label, item.captions, mark]).encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Of its bytes, which are read again when size or time of change are others. Raises OSError."""
    found = path.stat()
    return _sha256_as_of(path, found.st_size, found.st_mtime_ns)


@cache
def _sha256_as_of(path: Path, num_bytes: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_items(data: EvalSet, where: str) -> None:
    """Raises DataError for a split without items, keys that repeat, or labels that are not among the classes. `where` begins the
    message."""
    if not data.items:
        raise DataError(f"{where}: split {data.split!r} has no sample to evaluate")
    repeated = [key for key, count in Counter(item.key for item in data.items).items() if count > 1]
    if repeated:
        raise DataError(
            f"{where}: {len(repeated)} image ids of split {data.split!r} occur more than once, such as {', '.join(repeated[:3])}. "
            "Each image needs an id of its own."
        )
    unknown = sorted({item.label for item in data.items if item.label is not None} - set(data.classes))
    if unknown:
        raise DataError(
            f"{where}: {len(unknown)} labels of split {data.split!r} are no class of the dataset: {', '.join(unknown[:5])}. "
            f"Its classes: {', '.join(data.classes[:60])}."
        )


class ShardSet:
    """A split of our shards. Nothing but the parquet rows is read before an image is asked for.

    Raises DataError for a split that is absent or empty, or whose keys repeat.
    """

    def __init__(self, dataset: Dataset, split: str):
        self.dataset, self.split = dataset, split
        self.name, self.note = dataset.name, dataset.note
        self._shards = dataset.shards(split)
        columns = ["key", "label", "captions", "caption_langs", "sha256"]
        rows = dataset.table(split, columns).to_pylist() if self._shards else []
        if not rows:
            raise DataError(f"{dataset.root}: split {split!r} has no sample to evaluate; samples by split: {dataset.splits}")
        self.items: Sequence[EvalItem] = [
            EvalItem(row["key"], row["label"], tuple(zip(row["captions"] or (), row["caption_langs"] or ()))) for row in rows
        ]
        self._sha256s: list[str] = [row["sha256"] for row in rows]
        self._lock = Lock()  # a shard opens its file on first use
        check_items(self, str(dataset.root))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        columns = [self.dataset.table(split, ["label"])["label"] for split in self.dataset.splits if self.dataset.shards(split)]
        return tuple(sorted({label for column in columns for label in column.to_pylist()} - {None}))

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """Shard and place in it of every sample of the tars."""
        return [(number, index) for number, shard in enumerate(self._shards) for index in range(len(shard))]

    def image(self, index: int) -> bytes:
        """Raises CorruptShard when the tars do not hold the samples of the parquet rows, on which labels and captions depend."""
        with self._lock:
            number, place = self._places[index]
            shard, key = self._shards[number], self.items[index].key
            members = shard.members[place]
            if not all(member.name.startswith(f"{key}.") for member in members):
                raise CorruptShard(
                    f"{shard.tar}: sample {place} is {members[0].name}, its parquet row says {key}. Build the dataset again."
                )
            return shard.image(place)

    def image_sha256(self, index: int) -> str:
        return self._sha256s[index]

    def sha256(self) -> str:
        return split_sha256(self, self._sha256s)


@dataclass(frozen=True)
class FileSet:
    """Images that lie as files: `paths[i]`, relative to `root`, is the image of `items[i]`.

    Readers of official layouts fill it in, or derive from it. Nothing is read before an image or a checksum is asked for.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    items: Sequence[EvalItem]
    root: Path
    paths: Sequence[Path]
    note: str | None = None

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.items):
            raise ValueError(f"each item needs a path; got {len(self.items)} items and {len(self.paths)} paths")
        check_items(self, str(self.root))

    def image(self, index: int) -> bytes:
        return self._of_file(index, Path.read_bytes)

    def image_sha256(self, index: int) -> str:
        return self._of_file(index, file_sha256)

    def sha256(self) -> str:
        """Raises DataError naming an image that is not there."""
        return split_sha256(self, map(self.image_sha256, range(len(self.items))))

    def _of_file(self, index: int, read: Callable[[Path], T]) -> T:
        try:
            return read(self.root / self.paths[index])
        except OSError as error:
            raise DataError(f"{self.name}: the image of {self.items[index].key} cannot be read: {error}") from error


@dataclass(frozen=True)
class MemorySet:
    """Images in memory: `images[i]` is the encoded image of `items[i]`."""

    name: str
    split: str
    classes: tuple[str, ...]
    items: Sequence[EvalItem]
    images: Sequence[bytes]
    note: str | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.items):
            raise ValueError(f"each item needs an image; got {len(self.items)} items and {len(self.images)} images")
        check_items(self, self.name)

    def image(self, index: int) -> bytes:
        return self.images[index]

    def image_sha256(self, index: int) -> str:
        return hashlib.sha256(self.images[index]).hexdigest()

    def sha256(self) -> str:
        return split_sha256(self, map(self.image_sha256, range(len(self.items))))


@dataclass(frozen=True)
class Thinned:
    """At most `limit` items of a split, spread over it, for a quick look. Its classes stay those of the dataset; the note says that it is
    a part."""

    whole: EvalSet
    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise DataError(
                f"split {self.split!r} of {self.name} has no sample to evaluate (limit {self.limit}); it must be at least 1"
            )

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def split(self) -> str:
        return self.whole.split

    @property
    def note(self) -> str | None:
        return part_note(self.whole.note, len(self.items), len(self.whole.items), "images")

    @property
    def classes(self) -> tuple[str, ...]:
        return self.whole.classes

    @cached_property
    def places(self) -> list[int]:
        """Of the items, in the whole split."""
        return spread(len(self.whole.items), self.limit)

    @cached_property
    def items(self) -> Sequence[EvalItem]:
        return [self.whole.items[place] for place in self.places]

    def image(self, index: int) -> bytes:
        return self.whole.image(self.places[index])

    def image_sha256(self, index: int) -> str:
        return self.whole.image_sha256(self.places[index])

    def sha256(self) -> str:
        """That of the whole split when nothing is left out."""
        whole = self.whole.sha256()
        return whole if self.limit >= len(self.whole.items) else hashlib.sha256(f"{whole} {self.places}".encode()).hexdigest()


def spread(num: int, limit: int) -> list[int]:
    """At most `limit` of the places 0 to num - 1, rising: one of each of `limit` equal stretches, drawn with a fixed seed.

    Splits are often sorted by class, so the first ones would be of one class; where classes take turns, every tenth would be.
    """
    limit = min(limit, num)
    ends = np.arange(limit + 1) * num // limit if limit else np.zeros(1, np.int64)
    return np.random.default_rng(0).integers(ends[:-1], ends[1:]).tolist()


def part_note(note: str | None, count: int, total: int, what: str) -> str | None:
    """A note that says, too, how much of a split is measured."""
    if count == total:
        return note
    part = f"Measured on {count:,} of these {total:,} {what} only (--limit)."
    return f"{note.rstrip('. ')}. {part}" if note else part
