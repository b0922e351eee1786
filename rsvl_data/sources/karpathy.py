"""Captions in the form of Karpathy's split files, as RSICD, RSITMD, UCM-Captions and Sydney-Captions come: `dataset_*.json`.

{"images": [{"filename", "split", "sentences": [{"raw"}], "class"?}]}; the images lie beside it, in `images/` or in `*_images/`.
Captions are `raw`; repeated ones are kept, since retrieval protocols count every sentence. An image of another form is an entry that
reads to Dropped; a file with no image of this form, or with a split we do not know, raises DataError.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsvl_data.caption_text import decode_text
from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.json_records import read_document
from rsvl_data.sources.base import Entry, given_split
from rsvl_data.sources.table import Fault, Records, is_file

EXPECTS = "dataset_*.json (Karpathy form: images[].filename, .split, .sentences[].raw) beside a folder of images"


def find(path: Path) -> Path | None:
    """The JSON file."""
    if path.is_file():
        return path if path.suffix == ".json" and path.name.startswith("dataset") else None
    return next(iter(sorted(path.glob("dataset*.json"))), None)


def open(path: Path, name: str, image_form: ImageForm) -> Records:
    return Records(name, path.parent, lambda: list_entries(path), image_form)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a file that is not of this form."""
    try:
        images = json.loads(decode_text(read_document(path)))["images"]
        if not isinstance(images, list):
            raise TypeError(f"images is a {type(images).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is not in Karpathy's form ({type(error).__name__}: {error}). Expected {EXPECTS}") from error
    folders = [path.parent / "images", *sorted(path.parent.glob("*_images")), path.parent]
    faults = [_fault(image) for image in images]
    if images and all(faults):
        raise DataError(f"{path}: image 0 {faults[0]}. Expected {EXPECTS}")
    seen: set[str] = set()
    for number, (image, fault) in enumerate(zip(images, faults)):
        if not fault and image["filename"] in seen:
            repeated = Fault("duplicate_id", f"{path}: image {number} has the file of one before it, {image['filename']!r}")
            yield Entry(f"{path.name}:{number}", None, {"fault": [*repeated]})
        elif fault:
            yield Entry(f"{path.name}:{number}", None, {"fault": [*Fault("bad_record", f"{path}: image {number} {fault}")]})
        else:
            seen.add(image["filename"])
            yield _entry(image, folders, path.parent)


def _fault(image: Any) -> str | None:
    """What keeps a record from being used, to follow the words "image 7"."""
    if not isinstance(image, dict):
        return f"is a {type(image).__name__}; expected an object"
    absent = [repr(name) for name in ("filename", "sentences") if name not in image]
    if absent:
        return f"lacks {', '.join(absent)}"
    try:
        json.dumps(image, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        return f"cannot be written again: {error}"
    filename, sentences = image["filename"], image["sentences"]
    if not isinstance(filename, str) or not filename or "\0" in filename:
        return f"has filename {str(filename)[:80]!r}; expected a path"
    if not isinstance(sentences, list) or not all(isinstance(s, dict) and isinstance(s.get("raw"), str) for s in sentences):
        return "has sentences of another form; expected a list of objects with a text called raw"
    odd = [name for name in ("split", "class") if not isinstance(image.get(name), str | None)]
    return f"has a {odd[0]} that is no text" if odd else None


def _entry(image: dict[str, Any], folders: list[Path], root: Path) -> Entry:
    filename = image["filename"]
    folder = next((folder for folder in folders if is_file(folder / filename)), folders[0])
    facts = {
        "path": (folder.relative_to(root) / filename).as_posix(),
        "captions": [sentence["raw"] for sentence in image["sentences"]],
        "label": image.get("class"),
    }
    return Entry(filename, given_split(image.get("split"), filename), facts)
