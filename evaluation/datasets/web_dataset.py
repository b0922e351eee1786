"""The webdataset layout of CLIP_benchmark (`wds:PATH`): PATH/SPLIT/{0..n-1}.tar and nshards.txt, classnames.txt, templates.

https://github.com/LAION-AI/CLIP_benchmark. Classification has KEY.cls, the number of a line of classnames.txt; retrieval KEY.txt with a
caption a line. `templates` are the lines of zeroshot_classification_templates.txt, with {c} for the class, as the files come.
Nothing is extracted: labels and captions are read when the set is opened, images from their place in the tar when asked for.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

from evaluation.data import EvalItem, check_items, split_sha256
from rsvl_data.errors import DataError
from rsvl_data.images import READABLE_SUFFIXES
from rsvl_data.sources import clip_benchmark
from rsvl_data.sources.base import Entry
from rsvl_data.sources.tar_files import BadArchive, tar_bytes

_TEMPLATES = "zeroshot_classification_templates.txt"


class WebDatasetSet:
    """Raises DataError for a split that is absent, shards that are missing or damaged, a label that is no class."""

    def __init__(self, path: Path, split: str):
        self.root, self.split, self.name = path, split, path.resolve().name
        self.note: str | None = None
        self._lock = Lock()  # archives that had to be expanded share one file
        self._entries = _entries(path, split)
        self.classes: tuple[str, ...] = _lines(path / "classnames.txt")
        self.templates: tuple[str, ...] = _lines(path / _TEMPLATES)
        self._images = [_image_suffix(entry) for entry in self._entries]
        self.items: Sequence[EvalItem] = [self._item(entry) for entry in self._entries]
        check_items(self, str(path))

    def image(self, index: int) -> bytes:
        return self._member(self._entries[index], self._images[index])

    @cached_property
    def _sha256s(self) -> dict[int, str]:
        return {}

    def image_sha256(self, index: int) -> str:
        """Reads the image the first time."""
        if index not in self._sha256s:
            self._sha256s[index] = hashlib.sha256(self.image(index)).hexdigest()
        return self._sha256s[index]

    def sha256(self) -> str:
        """Of names, labels, captions and images."""
        return split_sha256(self, map(self.image_sha256, range(len(self.items))))

    def _item(self, entry: Entry) -> EvalItem:
        members = entry.facts["members"]
        captions: list[str] = []
        if "txt" in members:
            captions = [line for line in self._text(entry, "txt").splitlines() if line.strip()]
        return EvalItem(entry.id, self._label(entry) if "cls" in members else None, tuple((text, "en") for text in captions))

    def _label(self, entry: Entry) -> str:
        text = self._text(entry, "cls").strip()
        if not (text.isdecimal() and int(text) < len(self.classes)):
            raise DataError(
                f"{self.root}: sample {entry.id} has cls {text[:40]!r}; classnames.txt names {len(self.classes)} classes, counted from 0"
            )
        return self.classes[int(text)]

    def _text(self, entry: Entry, suffix: str) -> str:
        try:
            return self._member(entry, suffix).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.root}: {suffix} of sample {entry.id} is not UTF-8: {error}") from error

    def _member(self, entry: Entry, suffix: str) -> bytes:
        offset, size = entry.facts["members"][suffix]
        tar = self.root / entry.facts["tar"]
        try:
            with self._lock, tar_bytes(tar, keep=True) as archive:
                content = archive.read(offset, size)
        except (BadArchive, OSError) as error:
            raise DataError(f"{tar} cannot be read: {error}") from error
        if len(content) != size:
            raise DataError(f"{tar} ends inside {suffix} of {entry.id}: it has changed since it was opened")
        return content


def _entries(path: Path, split: str) -> list[Entry]:
    if clip_benchmark.find(path) is None:
        raise DataError(f"{path} is not a webdataset of CLIP_benchmark. Expected {clip_benchmark.EXPECTS}")
    found = [entry for entry in clip_benchmark.list_entries(path) if entry.facts.get("tar", entry.id).startswith(f"{split}/")]
    if not found:
        there = ", ".join(sorted(marker.parent.name for marker in path.glob("*/nshards.txt"))) or path.name
        raise DataError(f"{path} has no split {split!r}; it has {there}")
    problems = [entry for entry in found if "problem" in entry.facts]
    if problems:
        raise DataError(
            f"{path}: {len(problems)} parts of split {split!r} cannot be read, such as {problems[0].id}: "
            f"{': '.join(problems[0].facts['problem'])}. Copy the shards again."
        )
    return found


def _image_suffix(entry: Entry) -> str:
    found = [suffix for suffix in entry.facts["members"] if f".{suffix}" in READABLE_SUFFIXES]
    if len(found) != 1:
        raise DataError(f"sample {entry.id} holds {', '.join(entry.facts['members'])}; expected one image")
    return found[0]


def _lines(path: Path) -> tuple[str, ...]:
    """() for a file that is not there: retrieval sets have none."""
    if not path.is_file():
        return ()
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}") from error
