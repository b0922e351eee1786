"""Captions in the form of Karpathy's split files, as RSICD, RSITMD, UCM-Captions and Sydney-Captions come: `dataset_*.json`.

{"images": [{"filename", "split", "sentences": [{"raw"}], "class"?}]}; the images lie beside it, in `images/` or in `*_images/`.
Captions are `raw`, outer white space trimmed; repeated ones are kept, since retrieval protocols count every sentence.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError
from rsvl_data.images import ImageSuffix
from rsvl_data.sources.base import Entry, ImageFiles, given_split

EXPECTS = "dataset_*.json (Karpathy form: images[].filename, .split, .sentences[].raw) beside a folder of images"


def find(path: Path) -> Path | None:
    """The JSON file."""
    if path.is_file():
        return path if path.suffix == ".json" and path.name.startswith("dataset") else None
    return next(iter(sorted(path.glob("dataset*.json"))), None)


def open(path: Path, name: str, image_suffix: ImageSuffix) -> ImageFiles:
    return ImageFiles(name, path.parent, lambda: list_entries(path), image_suffix)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a file that is not of this form."""
    try:
        images = json.loads(path.read_text(encoding="utf-8-sig"))["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not in Karpathy's form ({error!r}). Expected {EXPECTS}") from error
    folders = [path.parent / "images", *sorted(path.parent.glob("*_images")), path.parent]
    for number, image in enumerate(images):
        try:
            yield _entry(image, folders, path.parent)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: image {number} lacks {error}. Expected {EXPECTS}") from error


def _entry(image: dict[str, Any], folders: list[Path], root: Path) -> Entry:
    filename = image["filename"]
    folder = next((folder for folder in folders if (folder / filename).is_file()), folders[0])
    facts = {
        "path": (folder / filename).relative_to(root).as_posix(),
        "captions": [sentence["raw"].strip() for sentence in image["sentences"]],
        "label": image.get("class"),
    }
    return Entry(filename, given_split(image.get("split"), filename), facts)
