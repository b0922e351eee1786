"""A table of image paths and captions: CSV, TSV, JSON Lines, JSON or Parquet; how they are read is in `table_rows.py`.

Columns by name in any case, the first that is there: the image (filepath, filename, image, path, file), one caption or several (caption,
text, title, or captions as a list), and if present label or class, split, lang, licence or license, attribution, url, lat, lon, gsd_m.
Rows that name the same image are joined into one sample with several captions.

Easy to get wrong: a row that cannot be used, of a wrong type or with cells missing, must not vanish and must not end the table; it becomes
an entry that reads to Dropped with its number. A position is kept whole, inside the globe (longitude -180 to 180), or not at all.
"""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry, ImageFiles, given_split
from rsvl_data.stage import Dropped, Outcome
from rsvl_data.table_rows import FORMS, MAX_ROW_CHARS, Fault, Row, column_names, form_of, read_rows

EXPECTS = f"a {FORMS} with a column of image paths (filepath, filename, image, path) and one of captions"
IMAGE_COLUMNS = ("filepath", "filename", "image", "path", "file", "file_name", "image_path")
_CAPTION = ("caption", "text", "title", "captions")
_LABEL = ("label", "class")
_OTHERS = ("lang", "split", "licence", "license", "attribution", "url", "lat", "lon", "gsd_m")
_ORDER = ("csv", "tsv", "jsonl", "parquet", "json")  # of trial in a folder

_MAX_PATH_CHARS = 1_000
_LANG = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8})*")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Records(ImageFiles):
    """Image files of a list in which single records may be bad: their entries carry the `fault` they are dropped for."""

    def read(self, entry: Entry) -> Outcome:
        if fault := entry.facts.get("fault"):
            return Dropped(entry.id, *fault)
        return super().read(entry)


def find(path: Path) -> Path | None:
    """The table file. In a folder: the first table there that has an image and a caption column."""
    if path.is_file():
        return path if form_of(path) and not _is_other_json(path) else None
    tables = (
        sorted((p for p in path.iterdir() if form_of(p)), key=lambda p: (_ORDER.index(form_of(p)), p.name))
        if path.is_dir()
        else []
    )
    return next((table for table in tables if _has_columns(table)), None)


def _is_other_json(path: Path) -> bool:
    """JSON has many uses besides a list of rows."""
    return form_of(path) == "json" and not _names(path)


def _has_columns(path: Path) -> bool:
    names = set(_names(path))
    return bool(names.intersection(IMAGE_COLUMNS) and names.intersection(_CAPTION))


def _names(path: Path) -> list[str]:
    try:
        return column_names(path)
    except DataError as error:
        logger.warning("passed over: %s", error)
        return []


def open(path: Path, name: str, image_form: ImageForm) -> Records:
    return Records(name, path.parent, lambda: list_entries(path), image_form)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a file that is no table, has no image column, or not one row that can be used."""
    joined: dict[str, Entry] = {}
    faults: list[Entry] = []
    for number, row in read_rows(path, only={*IMAGE_COLUMNS, *_CAPTION, *_LABEL, *_OTHERS}):
        entry = row if isinstance(row, Fault) else _entry(row, path, number, is_first=not joined and not faults)
        if isinstance(entry, Fault):
            faults.append(Entry(f"{path.name}:{number}", None, {"fault": [*entry]}))
        elif entry.id in joined:
            joined[entry.id].facts["captions"] += entry.facts["captions"]
        else:
            joined[entry.id] = entry
    if faults and not joined:
        raise DataError(f"{path} has no row that can be used: {faults[0].facts['fault'][1]}. Expected {EXPECTS}")
    yield from joined.values()
    yield from faults


# --- one row


def _entry(row: Row, path: Path, number: int, *, is_first: bool) -> Entry | Fault:
    where = f"{path.name}: row {number}"
    image = _pick(row, IMAGE_COLUMNS)
    if image is None and is_first and not row.keys() & set(IMAGE_COLUMNS):
        raise DataError(f"{where} has columns {', '.join(column_names(path))[:200]}; none is {' or '.join(IMAGE_COLUMNS)}")
    if image is None:
        return Fault("no_image", f"{where} names no image")
    if not isinstance(image, str):
        return Fault("wrong_type", f"{where} has {str(image)[:80]!r} where the path of an image is expected")
    if "\0" in image or len(image) > _MAX_PATH_CHARS:
        return Fault("bad_path", f"{where} has {image[:80]!r}, which cannot be a path")
    value = _pick(row, _CAPTION)
    texts = value if isinstance(value, list) else [] if value is None else [value]
    texts = [text for text in texts if text is not None]
    if not all(isinstance(text, str) for text in texts):
        return Fault("wrong_type", f"{where} has {str(value)[:80]!r} where a caption is expected")
    if sum(map(len, texts)) > MAX_ROW_CHARS:
        return Fault("caption_too_long", f"{where} has captions of {sum(map(len, texts))} characters")
    lang = row.get("lang") or "en"
    if not isinstance(lang, str) or not _LANG.fullmatch(lang):
        return Fault("bad_lang", f"{where} has lang {str(lang)[:80]!r}; expected a code such as en or pt")
    split = row.get("split")
    if split is not None and not isinstance(split, str):
        return Fault("wrong_type", f"{where} has split {str(split)[:80]!r}; expected a word")
    facts = {**_facts(row), "path": _locate(path, image), "captions": [{"text": text, "lang": lang} for text in texts]}
    return Entry(image, given_split(split, where), facts)


def _pick(row: Row, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _facts(row: Row) -> dict[str, Any]:
    lat, lon, gsd_m = (_number(row.get(name)) for name in ("lat", "lon", "gsd_m"))
    geo: dict[str, float] = {}
    if lat is not None and lon is not None and abs(lat) <= 90 and abs(lon) <= 180:
        geo |= {"lat": lat, "lon": lon}
    if gsd_m is not None and gsd_m > 0:
        geo["gsd_m"] = gsd_m
    said = {"licence": _pick(row, ("licence", "license")), "attribution": row.get("attribution"), "url": row.get("url")}
    label = _pick(row, _LABEL)
    return {
        "label": str(label) if isinstance(label, str | int) else None,
        "geo": geo,
        "provenance": {name: value for name, value in said.items() if value and isinstance(value, str)},
    }


def _number(value: Any) -> float | None:
    """A decimal comma is read as a point, as European spreadsheets write coordinates."""
    try:
        number = float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def names_a_file(path: Path, row: Row) -> bool:
    """Whether this row of the table at `path` names an image file that is there."""
    image = _pick(row, IMAGE_COLUMNS)
    return isinstance(image, str) and is_file(path.parent / _locate(path, image))


def _locate(path: Path, image: str) -> str:
    """Relative to the table, or to `images/` beside it."""
    return image if is_file(path.parent / image) or not is_file(path.parent / "images" / image) else f"images/{image}"


def is_file(path: Path) -> bool:
    """False where a hostile name cannot even be asked for: too long, in a folder that is closed to us."""
    try:
        return path.is_file()
    except OSError:
        return False
