"""Hugging Face's ImageFolder: images beside a metadata.jsonl, .csv or .parquet, in one folder or one a split.

https://huggingface.co/docs/datasets/image_dataset. The column file_name is relative to the metadata file that holds it, and its sub-folders
are no classes. Captions, label and position come from the columns of `hub_rows`; the licence from README.md. The split is what the row
says, else README.md's configs, else a folder called train, val, validation or test. Rows of one image are joined.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry, split_of_name
from rsvl_data.sources.dataset_card import DatasetCard
from rsvl_data.sources.hub_rows import (
    CAPTION_COLUMNS,
    LABEL_COLUMNS,
    captions_of_row,
    label_of_row,
    position_of_row,
    provenance_of_row,
)
from rsvl_data.sources.table import Records
from rsvl_data.table_rows import Fault, column_names, read_rows

EXPECTS = (
    "metadata.jsonl, .csv or .parquet with file_name and a caption or label, beside the images or in split folders (ImageFolder)"
)
_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_FILE_NAME = ("file_name", "image_file_name")
_MAX_PATH_CHARS = 1_000


def find(path: Path) -> Path | None:
    """The folder, or the one table in it that was named."""
    if path.is_file():
        return path if path.name in _TABLES and _says_something(path) else None
    return path if path.is_dir() and any(_says_something(table) for table in _tables(path)) else None


def open(path: Path, name: str, image_form: ImageForm) -> Records:
    root = path.parent if path.is_file() else path
    return Records(root.resolve().name if path.is_file() else name, root, lambda: list_entries(path), image_form)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a table that cannot be read."""
    root = path.parent if path.is_file() else path
    card = DatasetCard.read(root / "README.md")
    joined: dict[str, Entry] = {}
    faults: list[Entry] = []
    for table in [path] if path.is_file() else _tables(path):
        folder = PurePosixPath(table.relative_to(root).parent.as_posix())
        for number, row in read_rows(table):
            entry = row if isinstance(row, Fault) else _entry(row, folder, f"{table}: row {number}", card)
            if isinstance(entry, Fault):
                faults.append(Entry(f"{folder / table.name}:{number}", None, {"fault": [*entry]}))
            elif entry.id in joined:
                joined[entry.id].facts["captions"] += entry.facts["captions"]
            else:
                joined[entry.id] = entry
    yield from joined.values()
    yield from faults


def _tables(root: Path) -> list[Path]:
    """In the folder and two levels below it (`data/train/`)."""
    folders = [root]
    for parent in [root, *_folders(root)]:
        folders += _folders(parent)
    return sorted(folder / name for folder in folders for name in _TABLES if (folder / name).is_file())


def _folders(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]


def _says_something(table: Path) -> bool:
    try:
        columns = set(column_names(table))
    except DataError:
        return False
    return bool(columns.intersection(_FILE_NAME) and columns.intersection((*CAPTION_COLUMNS, *LABEL_COLUMNS)))


def _entry(row: dict[str, Any], folder: PurePosixPath, where: str, card: DatasetCard) -> Entry | Fault:
    name = next((row[column] for column in _FILE_NAME if row.get(column)), None)
    if not isinstance(name, str):
        return Fault("no_image", f"{where} names no image")
    if "\0" in name or len(name) > _MAX_PATH_CHARS:
        return Fault("bad_path", f"{where} has {name[:80]!r}, which cannot be a path")
    path = folder / name
    facts = {
        "path": path.as_posix(),
        "captions": captions_of_row(row),
        "label": label_of_row(row, card),
        "geo": position_of_row(row),
        "provenance": provenance_of_row(row, card),
    }
    return Entry(path.as_posix(), _split(row, path, card), facts)


def _split(row: dict[str, Any], path: PurePosixPath, card: DatasetCard) -> str | None:
    words = (row.get("split"), card.split_of(path.as_posix()), *path.parts[:-1])
    return next((split for word in words if isinstance(word, str) and (split := split_of_name(word))), None)
