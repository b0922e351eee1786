"""SkyScript, https://github.com/wangzhecheng/SkyScript (arXiv:2312.12856): a CSV of filepath, title, title_multi_objects.

`filepath` is relative to the CSV's folder (images2/..., images3/...). `title` speaks of one object, `title_multi_objects` of its
surroundings too; both were made by rule from OpenStreetMap tags (kind `label`). What is easy to get wrong: one image may have several
rows; their captions are joined, each once. A folder's CSVs are read together: give one file to read only that selection, since the
release's files (top 30 %, top 50 %, all) overlap. The split comes from the file's name.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry
from rsvl_data.sources.tar_members import Described, MemberSource, problem, split_of_path

EXPECTS = "a .csv with the columns filepath, title, title_multi_objects (SkyScript)"
_COLUMNS = {"filepath", "title", "title_multi_objects"}
_SOURCE = {"engine": "SkyScript", "model": "OpenStreetMap tags"}


def find(path: Path) -> Path | None:
    """A table, or a folder that holds some."""
    if path.is_file():
        return path if path.suffix == ".csv" and _has_columns(path) else None
    return path if path.is_dir() and any(_has_columns(table) for table in path.glob("*.csv")) else None


def open(path: Path, name: str, image_form: ImageForm) -> MemberSource:
    root = path if path.is_dir() else path.parent
    return MemberSource(name, root, lambda: list_entries(path), _describe, image_form)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a table that is no CSV."""
    tables = [path] if path.is_file() else [table for table in sorted(path.glob("*.csv")) if _has_columns(table)]
    joined: dict[str, Entry] = {}
    for table in tables:
        split = split_of_path(table.stem)
        for line, row in _rows(table):
            image, titles = row.get("filepath"), [row.get("title"), row.get("title_multi_objects")]
            if not image or not image.strip():
                yield problem(f"{table.stem}/line {line}", "bad_row", f"{table}: line {line} names no image", split)
                continue
            entry = joined.setdefault(image, Entry(image, split, {"files": {"image": image}, "titles": []}))
            known = entry.facts["titles"]
            known += [title for title in dict.fromkeys(titles) if title and title not in known]
    yield from joined.values()


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    with table.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        try:
            for row in rows:
                yield rows.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{table}: line {rows.line_num}: {error}. Expected {EXPECTS}") from error


def _has_columns(table: Path) -> bool:
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            return set(next(csv.reader(lines), [])) >= _COLUMNS
    except (csv.Error, UnicodeDecodeError):
        return False


def _describe(entry: Entry, members: dict[str, bytes]) -> Described:
    captions = [{"text": title, "kind": "label", "source": _SOURCE} for title in entry.facts["titles"]]
    return Described(members["image"], captions)
