"""A table of image URLs, or the folder that a download of one left.

A folder is read as it is: a sample for every image that is there (rows of one image are joined, the URL is the id), and an entry that
reads to Dropped for every row without one, so that the rows of the table are all accounted for. Nothing is asked for again.

A table is handed to `fetch`, which downloads it and answers with such a folder. It is recognised by URLs in a column of URLs, unless it
also names image files that are there: then it is of the kind `table`.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsvl_data.downloading.url_tables import COLUMNS
from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources import table
from rsvl_data.sources.base import Entry, Source
from rsvl_data.stage import Dropped, Outcome
from rsvl_data.table_rows import FORMS, form_of, read_rows

EXPECTS = f"a {FORMS} with a column of URLs (url, image_url) and one of captions, or the folder of a download"
_ROWS_LOOKED_AT = 100

Fetch = Callable[[Path], Path | None]
"""Table to the folder of its download; None for one that may not be downloaded now."""


def find(path: Path) -> Path | None:
    if path.is_dir():
        return path if (path / ".download").is_dir() else None
    return path if path.is_file() and form_of(path) and _has_urls(path) else None


def _has_urls(path: Path) -> bool:
    try:
        first = itertools.islice(read_rows(path, {*COLUMNS["url"], *table.IMAGE_COLUMNS}), _ROWS_LOOKED_AT)
        rows = [row for _, row in first if isinstance(row, dict)]
    except DataError:  # the next kind says what is wrong with it
        return False
    has_urls = any(_is_url(row.get(name)) for row in rows for name in COLUMNS["url"])
    return has_urls and not any(table.names_a_file(path, row) for row in rows)


def _is_url(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip().lower().startswith(("http://", "https://"))


def open(main: Path, name: str, image_form: ImageForm, fetch: Fetch | None = None) -> Source:
    """Raises DataError for a folder whose download is not finished, or is none."""
    folder = main if main.is_dir() else fetch(main) if fetch else None
    return UrlTable(main, name) if folder is None else _downloaded(folder, image_form)


@dataclass(frozen=True)
class UrlTable:
    """A table that has not been downloaded: nothing of it can be listed."""

    table: Path
    name: str
    note: str | None = None
    mask: dict[str, Any] | None = None

    def entries(self) -> Iterator[Entry]:
        raise DataError(
            f"{self.table} is a table of URLs, whose images are not here. Download them with "
            f"`rsvl run data/download --table {self.table} --out FOLDER` and give that folder"
        )

    def read(self, entry: Entry) -> Outcome:
        return Dropped(entry.id, "not_downloaded", f"{self.table} has not been downloaded")


def _downloaded(folder: Path, image_form: ImageForm) -> table.Records:
    try:
        name = json.loads((folder / "download.json").read_text())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} does not hold a finished download ({error}). Give the command of the download again: it goes on where it was"
        ) from error
    return table.Records(name, folder, lambda: _entries(folder, name), image_form)


def _entries(folder: Path, name: str) -> Iterator[Entry]:
    for entry in table.list_entries(folder / "table.jsonl"):
        yield entry if "fault" in entry.facts else replace(entry, id=entry.facts["provenance"]["url"])
    for _, line in read_rows(folder / "dropped.jsonl") if (folder / "dropped.jsonl").stat().st_size else ():
        if isinstance(line, dict):
            yield Entry(f"{name}:{line['row']}", None, {"fault": [line["reason"], f"{line['url']}: {line['detail']}"]})
