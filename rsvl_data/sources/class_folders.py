"""Folders named after scene classes: ROOT/CLASS/image, ROOT/images/CLASS/image or ROOT/SPLIT/CLASS/image.

A `splits.csv` beside them (columns filename, split; filename with its class folder or without) gives the split of every image;
folders called train, val, validation or test are splits themselves. Other files are skipped.
The label keeps the folder's own spelling.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.images import READABLE_SUFFIXES
from rsvl_data.sources.base import Entry, ImageFiles, given_split, split_of_name
from rsvl_data.words import words_of_folder

FolderWords = Literal["split", "folder"]
EXPECTS = "a folder with one folder of images per class, below split folders (train, val, test) or not"


def find(path: Path) -> Path | None:
    """The folder that holds the class folders."""
    if not path.is_dir():
        return None
    for root in (path, path / "images"):
        if root.is_dir() and any(_classes(folder) for folder in (root, *_split_folders(root))):
            return root
    return None


def open(root: Path, name: str, image_form: ImageForm, *, words: FolderWords = "split") -> ImageFiles:
    """`words` says what the captions call a class: its name split into words, or as GeoRSCLIP writes it."""
    label_words = words_of_folder if words == "folder" else None
    return ImageFiles(name, root, lambda: list_entries(root), image_form, label_words=label_words)


def list_entries(root: Path) -> Iterator[Entry]:
    given = _read_splits(root)
    split_folders = _split_folders(root)
    for folder in split_folders or [root]:
        for label in _classes(folder):
            for path in _images(folder / label):
                relative = path.relative_to(root).as_posix()
                split = split_of_name(folder.name) if split_folders else given.get(relative, given.get(path.name))
                yield Entry(relative, split, {"path": relative, "label": label})


def _split_folders(root: Path) -> list[Path]:
    return [folder for folder in sorted(root.iterdir()) if folder.is_dir() and split_of_name(folder.name)]


def _classes(folder: Path) -> list[str]:
    folders = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [child.name for child in folders if not split_of_name(child.name) and next(_images(child), None)]


def _images(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in READABLE_SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def _read_splits(root: Path) -> dict[str, str]:
    path = next((path for path in (root / "splits.csv", root.parent / "splits.csv") if path.is_file()), None)
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    if rows and not {"filename", "split"} <= rows[0].keys():
        raise DataError(f"{path} has columns {', '.join(rows[0])}; expected filename and split")
    splits = {row["filename"]: given_split(row["split"], f"{path}: {row['filename']}") for row in rows}
    return {filename: split for filename, split in splits.items() if split}
