"""What every source answers with, and the reading of one image file that most of them share."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rsvl_data.captions import label_captions
from rsvl_data.errors import DataError
from rsvl_data.images import ImageSuffix, UnreadableImage, to_stored
from rsvl_data.sample import Caption, Geo, Provenance, Sample, content_key
from rsvl_data.stage import Dropped, Outcome


@dataclass(frozen=True)
class Entry:
    """One sample before anything of it is read: enough to plan shards and splits with. `facts` must be JSON."""

    id: str
    split: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


_SPLIT_NAMES = {"train": "train", "restval": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_of_name(name: str) -> str | None:
    """Our name of a split for the names in use (train, restval, val, valid, validation, test), None for any other word."""
    return _SPLIT_NAMES.get(name.strip().lower())


def given_split(name: str | None, where: str) -> str | None:
    """The same for a field that must hold a split or nothing. Raises DataError that says `where`."""
    if not name:
        return None
    split = split_of_name(name)
    if split is None:
        raise DataError(f"{where} has split {name!r}; allowed are {', '.join(_SPLIT_NAMES)}")
    return split


class Source(Protocol):
    """`note` is a sentence that must stand beside every number measured on these data, or None."""

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str | None: ...

    def entries(self) -> Iterator[Entry]:
        """In a stable order. No image is opened."""

    def read(self, entry: Entry) -> Outcome:
        """The sample, or why there is none. Bad input is an answer here, never an exception."""


@dataclass(frozen=True)
class ImageFiles:
    """Images that lie as files under `root`, with words that came from elsewhere.

    The facts of an entry: `path` relative to root; `captions`, a list of texts or of caption records; `label`; `geo`; `provenance`.
    """

    name: str
    root: Path
    list_entries: Callable[[], Iterator[Entry]]
    image_suffix: ImageSuffix = "jpg"
    note: str | None = None

    def entries(self) -> Iterator[Entry]:
        return self.list_entries()

    def read(self, entry: Entry) -> Outcome:
        path = self.root / entry.facts["path"]
        if not path.resolve().is_relative_to(self.root.resolve()):
            return Dropped(entry.id, "path_outside", f"{entry.facts['path']} leads out of {self.root}")
        try:
            stored = to_stored(path.read_bytes(), self.image_suffix)
        except FileNotFoundError:
            return Dropped(entry.id, "missing_file", f"{path} does not exist")
        except UnreadableImage as error:
            return Dropped(entry.id, error.reason, f"{path}: {error}")
        label = entry.facts.get("label")
        captions = captions_of(entry.facts.get("captions", []), label)
        if not captions:
            return Dropped(entry.id, "no_caption", f"{path} has neither a caption nor a label")
        sha256 = hashlib.sha256(stored.content).hexdigest()
        return Sample(
            key=content_key(sha256, entry.id),
            width=stored.width,
            height=stored.height,
            sha256=sha256,
            captions=captions,
            label=label,
            geo=Geo(**entry.facts["geo"]) if entry.facts.get("geo") else None,
            provenance=Provenance(dataset=self.name, original_id=entry.id, **entry.facts.get("provenance", {})),
            image=stored.content,
        )


def captions_of(given: Sequence[str | dict[str, Any]], label: str | None) -> list[Caption]:
    """What the source says, blank texts left out and white space tidied; sentences by rule when it says nothing but a label."""
    captions = [_caption(caption) for caption in given if (caption if isinstance(caption, str) else caption["text"]).strip()]
    return captions or (label_captions(label) if label else [])


def _caption(caption: str | dict[str, Any]) -> Caption:
    fields = {"text": caption} if isinstance(caption, str) else dict(caption)
    return Caption(**{**fields, "text": " ".join(fields["text"].split())})
