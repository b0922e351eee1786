"""What every source answers with, and the reading of one image file that most of them share."""

import errno
import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from pydantic import ValidationError

from rsvl_data.caption_text import BadCaption, clean_caption
from rsvl_data.captions.labels import label_captions
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.images import StoredImage, UnreadableImage, pixels_to_stored, to_stored
from rsvl_data.mask_files import encode_mask
from rsvl_data.placed_annotations import place_geo, place_regions
from rsvl_data.resize import place_mask
from rsvl_data.sample import Caption, Geo, Provenance, Region, Sample, content_key
from rsvl_data.splits import given_split as given_split
from rsvl_data.splits import split_of_name as split_of_name
from rsvl_data.stage import Dropped, Outcome

MAX_FILE_BYTES = 1 << 29


@dataclass(frozen=True)
class Entry:
    """One sample before anything of it is read: enough to plan shards and splits with. `facts` must be JSON."""

    id: str
    split: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    group: str | None = None  # what a split must not tear apart, such as the scene of a tile; None: the entry is on its own


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
    label_words: Callable[[str], str] | None = None

    def entries(self) -> Iterator[Entry]:
        return self.list_entries()

    def read(self, entry: Entry) -> Outcome:
        content = read_inside(self.root, entry.facts["path"], entry.id)
        if isinstance(content, Dropped):
            return content
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
            label_words=self.label_words,
        )


def locate_inside(root: Path, relative: str, entry_id: str) -> Path | Dropped:
    """The path of something that must lie under `root`, links followed. Dropped as path_outside, or as bad_path where no file can have
    the name."""
    try:
        path = root / relative
        folder = path if path == root or path.name == ".." else path.parent
        if not _is_inside(folder, root) or (
            stat.S_ISLNK(path.lstat().st_mode) and not path.resolve().is_relative_to(root.resolve())
        ):
            return Dropped(entry_id, "path_outside", f"{relative[:200]!r} leads out of {root}")
    except (OSError, ValueError, RuntimeError) as error:
        return _no_file(error, relative, entry_id)
    return path


@lru_cache(maxsize=4096)  # few folders hold all images of a source; every part of a path is a question to the system
def _is_inside(folder: Path, root: Path) -> bool:
    return folder.resolve().is_relative_to(root.resolve())


def read_inside(root: Path, relative: str, entry_id: str) -> bytes | Dropped:
    """The bytes of a file that must lie under `root`. Dropped as path_outside, bad_path, missing_file, too_large, or unreadable_file for
    a folder, a pipe, a file closed to us."""
    path = locate_inside(root, relative, entry_id)
    if isinstance(path, Dropped):
        return path
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            return Dropped(entry_id, "unreadable_file", f"{relative!r} under {root} is not a file")
        if (size := status.st_size) > MAX_FILE_BYTES:
            return Dropped(entry_id, "too_large", f"{relative!r} under {root} has {size} bytes; the limit is {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        return _no_file(error, relative, entry_id)


def _no_file(error: Exception, relative: str, entry_id: str) -> Dropped:
    """A name too long for the file system, or with a null byte (ValueError), is a bad path."""
    if isinstance(error, ValueError) or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        reason = "bad_path"
    else:
        reason = "missing_file" if isinstance(error, FileNotFoundError | NotADirectoryError) else "unreadable_file"
    return Dropped(entry_id, reason, f"{relative[:200]!r} cannot be read: {error}"[:500])


class Shown(NamedTuple):
    """What is to be seen in the stored image, for words that follow from it."""

    regions: list[Region]
    mask: np.ndarray | None  # ids [H, W]
    geo: Geo | None


Words = Sequence[str | dict[str, Any]]


def make_sample(
    content: bytes | np.ndarray,
    source_id: str,
    *,
    dataset: str,
    captions: Words | Callable[[Shown], Words],
    label: str | None,
    image_form: ImageForm,
    regions: Sequence[dict[str, Any]] = (),
    geo: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    mask: np.ndarray | None = None,
    ignore_index: int = 255,
    label_words: Callable[[str], str] | None = None,
) -> Outcome:
    """The record of one image and what its source says of it, or why there is none.

    `content` is an encoded image, or RGB pixels [H, W, 3]. `regions`, `mask` (ids [H, W]) and `geo` are in pixels of that image, and are
    moved with it; `ignore_index` is the id of pixels that are padded. Captions that say what is in the image are a function of what is
    left in it. Regions or a mask with an image that EXIF turns are refused: tools differ on which side up it was annotated.
    """
    try:
        stored = pixels_to_stored(content, image_form) if isinstance(content, np.ndarray) else to_stored(content, image_form)
    except UnreadableImage as error:
        return Dropped(source_id, error.reason, f"{source_id}: {error}")
    if stored.orientation > 1 and (regions or mask is not None):
        return Dropped(source_id, "turned_by_exif", f"{source_id}: EXIF turns the image; its annotation may mean either side up")
    placement = stored.placement
    sha256 = hashlib.sha256(stored.content).hexdigest()
    try:
        placed, num_outside = place_regions([Region(**region) for region in regions], placement)
        ids = None if mask is None else place_mask(mask.astype(np.uint8), placement, ignore_index)
        facts = place_geo(Geo(**geo), placement) if geo else None
        said = captions(Shown(placed, ids, facts)) if callable(captions) else captions
        sentences, refused = captions_of(said, label, label_words)
        if not sentences:
            reason = refused[0] if refused else "no_caption"
            return Dropped(source_id, reason, f"{source_id} has neither a caption that can be used nor a label")
        return Sample(
            key=content_key(sha256, source_id),
            width=stored.width,
            height=stored.height,
            original_width=None if placement.changes_nothing else placement.source_width,
            original_height=None if placement.changes_nothing else placement.source_height,
            sha256=sha256,
            captions=sentences,
            label=label,
            regions=placed,
            geo=facts,
            provenance=Provenance(dataset=dataset, original_id=source_id, **(provenance or {})),
            scores=_repairs(stored, len(refused), num_outside),
            image=stored.content,
            mask=None if ids is None else encode_mask(ids),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return Dropped(source_id, "bad_record", f"{source_id}: {'.'.join(map(str, first['loc']))}: {first['msg']}")


def _repairs(stored: StoredImage, num_captions_dropped: int, num_regions_outside: int) -> dict[str, float]:
    """What was changed on the way in, only where something was: the EXIF orientation that was applied, captions left out, regions that
    a crop left out."""
    counts = {
        "exif_orientation": stored.orientation if stored.orientation > 1 else 0,
        "captions_dropped": num_captions_dropped,
        "regions_outside_crop": num_regions_outside,
    }
    return {name: float(count) for name, count in counts.items() if count}


def captions_of(
    given: Words, label: str | None, label_words: Callable[[str], str] | None = None
) -> tuple[list[Caption], list[str]]:
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
        captions = label_captions(label, label_words)
    return captions, refused


def _caption(fields: dict[str, Any], places: dict[int, int]) -> Caption | BadCaption:
    """`parent` follows the caption it means; it is left out with a parent that was, or one that comes later."""
    text = clean_caption(fields["text"])
    if isinstance(text, BadCaption):
        return text
    return Caption(**{**fields, "text": text, "parent": places.get(fields.get("parent", -1))})
