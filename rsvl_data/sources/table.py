"""A table of image paths and captions: CSV, TSV, JSON Lines or Parquet.

Columns by name in any case, the first that is there: the image (filepath, filename, image, path, file), one caption or several (caption,
text, title, or captions as a list), and if present label or class, split, lang, licence or license, attribution, url, lat, lon, gsd_m.
Rows that name the same image are joined into one sample with several captions.

Easy to get wrong: who wrote the file. Its encoding is found out (`caption_text.detect_encoding`), its separator is the one of comma,
semicolon, tab and bar that is most frequent in the header, NUL bytes are taken out. A row with cells missing or left over, of a wrong
type, or a line that is no JSON, becomes an entry that reads to Dropped with its number; quotes that do not match end the file, since
nobody can say where its rows are. A position is kept whole, inside the globe (longitude -180 to 180), or not at all.
"""

import csv
import json
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from rsvl_data.caption_text import detect_encoding
from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry, ImageFiles, given_split
from rsvl_data.stage import Dropped, Outcome

EXPECTS = "a .csv, .tsv, .jsonl or .parquet with a column of image paths (filepath, filename, image, path) and one of captions"
_IMAGE = ("filepath", "filename", "image", "path", "file", "file_name", "image_path")
_CAPTION = ("caption", "text", "title", "captions")
_LABEL = ("label", "class")
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

_MAX_LINE_CHARS = 16_000_000
_MAX_ROW_CHARS = 1_000_000  # of captions; entries are kept in memory until they are planned
_ENCODING_SAMPLE_BYTES = 1 << 20
_MAX_PATH_CHARS = 1_000
_LANG = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8})*")

logger = logging.getLogger(__name__)


class Fault(NamedTuple):
    """Why a row or record cannot be used: a word for counting and a sentence."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Records(ImageFiles):
    """Image files of a list in which single records may be bad: their entries carry the `fault` they are dropped for."""

    def read(self, entry: Entry) -> Outcome:
        if fault := entry.facts.get("fault"):
            return Dropped(entry.id, *fault)
        try:
            return super().read(entry)
        except OSError as error:  # a folder, a name too long, no permission
            return Dropped(entry.id, "unreadable_file", str(error))


def find(path: Path) -> Path | None:
    """The table file. In a folder: the first table there that has an image and a caption column."""
    if path.is_file():
        return path if path.suffix in _SUFFIXES else None
    tables = [p for suffix in _SUFFIXES for p in sorted(path.glob(f"*{suffix}"))]
    return next((table for table in tables if _has_columns(table)), None)


def _has_columns(path: Path) -> bool:
    try:
        columns: set[str] = next((set(row) for _, row in _rows(path) if isinstance(row, dict)), set())
    except DataError as error:
        logger.warning("passed over: %s", error)
        return False
    return bool(columns.intersection(_IMAGE) and columns.intersection(_CAPTION))


def open(path: Path, name: str, image_form: ImageForm) -> Records:
    return Records(name, path.parent, lambda: list_entries(path), image_form)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a file that is no table, has no image column, or not one row that can be used."""
    joined: dict[str, Entry] = {}
    faults: list[Entry] = []
    for number, row in _rows(path):
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


# --- rows, whatever the file


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """Numbered from 1, as lines for JSON Lines; column names lower case without white space around. Raises DataError."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty. Expected {EXPECTS}")
        if path.suffix == ".parquet":
            batches = pq.ParquetFile(path).iter_batches(batch_size=1024)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from ((number, _named(row)) for number, row in enumerate(rows, start=1))
            return
        with path.open(newline="" if path.suffix != ".jsonl" else None, encoding=_encoding(path)) as file:
            yield from _json_rows(file, path) if path.suffix == ".jsonl" else _csv_rows(file, path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is in no encoding we know: {error}. Save it as UTF-8") from error
    except (OSError, pa.ArrowException, csv.Error) as error:
        raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        sample = file.read(_ENCODING_SAMPLE_BYTES)
    if len(sample) == _ENCODING_SAMPLE_BYTES and not sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        sample = sample[: sample.rfind(b"\n") + 1] or sample  # not cut inside a character
    return detect_encoding(sample)


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Without NUL, and none so long that it fills the memory."""
    while line := file.readline(_MAX_LINE_CHARS):
        if len(line) == _MAX_LINE_CHARS:
            raise DataError(f"{path} has a line of {_MAX_LINE_CHARS} characters or more; expected {EXPECTS}")
        yield line.replace("\0", "")


def _csv_rows(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    csv.field_size_limit(_MAX_LINE_CHARS)  # Python's own limit would end the file at one long cell; the setting is the process's
    lines = _lines(file, path)
    first = next((line for line in lines if line.strip()), "")
    separator = "\t" if path.suffix == ".tsv" else max(",;\t|", key=first.count)
    names = [name.strip().lower() for name in next(csv.reader([first], delimiter=separator), [])]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has more than one column called {', '.join(repeated)}; rename all but one")
    rows = (row for row in csv.reader(lines, delimiter=separator, strict=True) if any(cell.strip() for cell in row))
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if len(cells) < len(names) or any(cells[len(names) :]):
            yield number, Fault("ragged_row", f"{path}: row {number} has {len(cells)} cells, the header has {len(names)}")
        else:
            yield number, {name: cell for name, cell in zip(names, cells, strict=False) if name}


def _json_rows(file: TextIO, path: Path) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    for number, line in enumerate(_lines(file, path), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()  # halves of surrogate pairs could never be written again
                yield number, _named(row)
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                yield number, Fault("not_json", f"{path}: line {number} is not a JSON object: {error}")


def _named(row: dict[Any, Any]) -> dict[str, Any]:
    return {str(name).strip().lower(): value for name, value in row.items()}


# --- one row


def _entry(row: dict[str, Any], path: Path, number: int, *, is_first: bool) -> Entry | Fault:
    where = f"{path}: row {number}"
    image = _pick(row, _IMAGE)
    if image is None and is_first and not row.keys() & set(_IMAGE):
        raise DataError(f"{where} has columns {', '.join(map(str, row))}; none is {' or '.join(_IMAGE)}")
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
    if sum(map(len, texts)) > _MAX_ROW_CHARS:
        return Fault("caption_too_long", f"{where} has captions of {sum(map(len, texts))} characters")
    lang = row.get("lang") or "en"
    if not isinstance(lang, str) or not _LANG.fullmatch(lang):
        return Fault("bad_lang", f"{where} has lang {str(lang)[:80]!r}; expected a code such as en or pt")
    split = row.get("split")
    if split is not None and not isinstance(split, str):
        return Fault("wrong_type", f"{where} has split {str(split)[:80]!r}; expected a word")
    facts = {**_facts(row), "path": _locate(path, image), "captions": [{"text": text, "lang": lang} for text in texts]}
    return Entry(image, given_split(split, where), facts)


def _pick(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _facts(row: dict[str, Any]) -> dict[str, Any]:
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


def _locate(path: Path, image: str) -> str:
    """Relative to the table, or to `images/` beside it."""
    return image if is_file(path.parent / image) or not is_file(path.parent / "images" / image) else f"images/{image}"


def is_file(path: Path) -> bool:
    """False where a hostile name cannot even be asked for: too long, in a folder that is closed to us."""
    try:
        return path.is_file()
    except OSError:
        return False
