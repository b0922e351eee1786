"""What every source answers with, and the reading of one image file that most of them share."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from rsvl_data.caption_text import BadCaption, clean_caption
from rsvl_data.captions import label_captions
from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.images import UnreadableImage, to_stored
from rsvl_data.sample import Caption, Geo, Provenance, Region, Sample, content_key
from rsvl_data.stage import Dropped, Outcome


@dataclass(frozen=True)
class Entry:
    """One sample before anything of it is read: enough to plan shards and splits with. `facts` must be JSON."""

    id: str
    split: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    group: str | None = None  # what a split must not tear apart, such as the scene of a tile; None: the entry is on its own


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
    """What a recipe builds from.

    note   a sentence that must stand beside every number measured on these data, or None
    mask   what the numbers in KEY.mask.png mean: {"classes": [name], "palette": [[r, g, b]], "ignore_index": int}; None without masks
    """

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str | None: ...

    @property
    def mask(self) -> dict[str, Any] | None: ...

    def entries(self) -> Iterator[Entry]:
        """In a stable order. No image is opened."""

    def read(self, entry: Entry) -> Outcome:
        """The sample, or why there is none. Bad input is an answer here, never an exception."""


@dataclass(frozen=True)
class ImageFiles:
    """Images that lie as files under `root`, with words that came from elsewhere.

    The facts of an entry: `path` relative to root; `captions`, a list of texts or of caption records; `label`; `regions` and `geo` as
    in the record; `provenance`.
    """

    name: str
    root: Path
    list_entries: Callable[[], Iterator[Entry]]
    image_form: ImageForm = DEFAULT_FORM
    note: str | None = None
    mask: dict[str, Any] | None = None

    def entries(self) -> Iterator[Entry]:
        return self.list_entries()

    def read(self, entry: Entry) -> Outcome:
        path = self.root / entry.facts["path"]
        if not path.resolve().is_relative_to(self.root.resolve()):
            return Dropped(entry.id, "path_outside", f"{entry.facts['path']} leads out of {self.root}")
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return Dropped(entry.id, "missing_file", f"{path} does not exist")
        return make_sample(
            content,
            entry.id,
            dataset=self.name,
            captions=entry.facts.get("captions", []),
            label=entry.facts.get("label"),
            regions=entry.facts.get("regions", []),
            geo=entry.facts.get("geo"),
            provenance=entry.facts.get("provenance", {}),
            image_form=self.image_form,
        )


def make_sample(
    content: bytes,
    source_id: str,
    *,
    dataset: str,
    captions: Sequence[str | dict[str, Any]],
    label: str | None,
    image_form: ImageForm,
    regions: Sequence[dict[str, Any]] = (),
    geo: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    mask: bytes | None = None,
) -> Outcome:
    """The record of one encoded image and what its source says of it, or why there is none. `mask` is an encoded index PNG."""
    try:
        stored = to_stored(content, image_form)
    except UnreadableImage as error:
        return Dropped(source_id, error.reason, f"{source_id}: {error}")
    sha256 = hashlib.sha256(stored.content).hexdigest()
    try:
        sentences, refused = captions_of(captions, label)
        if not sentences:
            reason = refused[0] if refused else "no_caption"
            return Dropped(source_id, reason, f"{source_id} has neither a caption that can be used nor a label")
        return Sample(
            key=content_key(sha256, source_id),
            width=stored.width,
            height=stored.height,
            sha256=sha256,
            captions=sentences,
            label=label,
            regions=[Region(**region) for region in regions],
            geo=Geo(**geo) if geo else None,
            provenance=Provenance(dataset=dataset, original_id=source_id, **(provenance or {})),
            scores=_repairs(stored.orientation, len(refused)),
            image=stored.content,
            mask=mask,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return Dropped(source_id, "bad_record", f"{source_id}: {'.'.join(map(str, first['loc']))}: {first['msg']}")


def _repairs(orientation: int, num_captions_dropped: int) -> dict[str, float]:
    """What was changed on the way in, only where something was: the EXIF orientation that was applied, and captions left out."""
    counts = {"exif_orientation": orientation if orientation > 1 else 0, "captions_dropped": num_captions_dropped}
    return {name: float(count) for name, count in counts.items() if count}


def captions_of(given: Sequence[str | dict[str, Any]], label: str | None) -> tuple[list[Caption], list[str]]:
    """What the source says, each text cleaned, and why captions were left out; sentences by rule when it says nothing but a label.

    Blank texts are left out without a reason: the source says nothing there.
    """
    captions: list[Caption] = []
    refused: list[str] = []
    places: dict[int, int] = {}  # of a given caption -> of the kept one
    for index, caption in enumerate(given):
        fields = {"text": caption} if isinstance(caption, str) else caption
        if not fields["text"].strip():
            continue
        answer = _caption(fields, places)
        if isinstance(answer, BadCaption):
            refused.append(answer.reason)
        else:
            places[index] = len(captions)
            captions.append(answer)
    if not captions and label and any(character.isalnum() for character in label):
        captions = label_captions(label)
    return captions, refused


def _caption(fields: dict[str, Any], places: dict[int, int]) -> Caption | BadCaption:
    """`parent` follows the caption it means; it is left out with a parent that was, or one that comes later."""
    text = clean_caption(fields["text"])
    if isinstance(text, BadCaption):
        return text
    return Caption(**{**fields, "text": text, "parent": places.get(fields.get("parent", -1))})
