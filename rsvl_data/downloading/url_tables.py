"""Tables of image URLs and words: CSV, TSV, JSON Lines, JSON (a list of objects) and Parquet; the text forms also as .gz.

Columns go by name in any case, as LAION, COYO, GAIA and img2dataset users write them (URL/TEXT, image_url/alt, license/licence, ...);
`url_column` and `caption_column` name others. Empty cells, `nan` and LAION's licence "?" are absent. A position off the globe is absent.

Easy to get wrong: a row that cannot be used (cells missing or too many, a line that is no JSON, no words) must not vanish and must not
end a table of millions; it comes out as a row with a `fault`. A file that as a whole is no such table raises DataError.
"""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from rsvl_data.errors import DataError
from rsvl_data.sources.base import given_split

EXPECTS = "a table of URLs and captions: .csv, .tsv, .jsonl, .json (each also .gz) or .parquet"
_ALIASES = {
    "url": ("url", "image_url", "img_url", "image_link", "contenturl"),
    "caption": ("caption", "text", "alt", "alt_text", "title", "captions"),
    "licence": ("licence", "license"),
    "attribution": ("attribution", "author", "creator", "credit"),
    "label": ("label", "class"),
    "split": ("split",),
    "lang": ("lang", "language"),
    "lat": ("lat", "latitude"),
    "lon": ("lon", "lng", "longitude"),
    "gsd_m": ("gsd_m",),
}
_ABSENT = ("", "nan", "none", "null", "n/a")
_LONGEST_LINE = 16 * 1024 * 1024
_LONGEST_CELL = 131_072  # Python's own default
_LARGEST_JSON = 256 * 1024 * 1024


@dataclass(frozen=True)
class UrlRow:
    """`number` counts rows from 1 (lines of a JSON Lines file). `url` is as the table has it, "" when absent.

    fault   why the row cannot be used, a short word for counting: not_json, ragged_row, wrong_type, no_caption; "" for a good row
    facts   of licence, attribution, label, split, lang, lat, lon, gsd_m those that are there
    """

    number: int
    url: str = ""
    captions: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    fault: str = ""


def read_url_table(path: Path, url_column: str | None = None, caption_column: str | None = None) -> Iterator[UrlRow]:
    """In the order of the file. Raises DataError when it is not a table, has no column of URLs, or a split of unknown name."""
    kind = _kind(path)
    with _said_plainly(path):
        for number, record in _RECORDS[kind](path, _columns_of(path, url_column, caption_column)):
            if isinstance(record, str):
                yield UrlRow(number, fault=record)
            else:
                yield _row(number, record, path)


def _kind(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path} does not exist. Expected {EXPECTS}")
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind not in _RECORDS or (kind == "parquet" and path.suffix.lower() == ".gz"):
        raise DataError(f"{path} has an unknown ending. Expected {EXPECTS}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty. Expected {EXPECTS}")
    return kind


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}). Convert it, for example with iconv"
        ) from error
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is not whole gzip: {error}") from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not readable Parquet: {str(error).splitlines()[0]}") from error


# --- columns --------------------------------------------------------------------------------------------------------------

Columns = dict[str, str]  # our name of a column -> the table's name
_ColumnsOf = Callable[[list[str]], Columns]


def _columns_of(path: Path, url_column: str | None, caption_column: str | None) -> _ColumnsOf:
    """A function from the names in a header to the columns we use; {} when there is no URL among them."""
    chosen = {"url": url_column, "caption": caption_column}

    def columns_of(header: list[str]) -> Columns:
        plain = [name.strip().lower() for name in header]
        found = {}
        for ours, aliases in _ALIASES.items():
            wanted = chosen.get(ours)
            names = (wanted.strip().lower(),) if wanted else aliases
            name = next((name for name in names if name in plain), None)
            if name is not None:
                if plain.count(name) > 1:
                    raise DataError(f"{path} has {plain.count(name)} columns named {name}; leave one")
                found[ours] = header[plain.index(name)]
        return found if "url" in found else {}

    return columns_of


def _no_url_column(path: Path, header: list[str]) -> DataError:
    names = ", ".join(repr(name[:40]) for name in header[:20]) or "none at all"
    return DataError(f"{path} has no column of URLs; it has {names}. Name it url, or give --url-column")


# --- forms: each yields (row number, record by our names of the columns, or the fault as a word) --------------------------------

_Records = Iterator[tuple[int, dict[str, Any] | str]]


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8-sig") as file:
        yield file


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Bounded: a small .gz can hold a line of gigabytes."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{path} has a line of more than {_LONGEST_LINE} characters. Expected {EXPECTS}")
        yield line


def _csv_records(path: Path, columns_of: _ColumnsOf) -> _Records:
    csv.field_size_limit(_LONGEST_CELL)  # a setting of the process, so said here too
    with _text(path) as file:
        lines = _lines(file, path)
        first = next(lines, "")
        delimiters = "\t" if ".tsv" in path.name.lower() else ",\t;"
        headers = {delimiter: next(csv.reader([first], delimiter=delimiter), []) for delimiter in delimiters}
        delimiter = next((delimiter for delimiter, header in headers.items() if columns_of(header)), delimiters[0])
        header, columns = headers[delimiter], columns_of(headers[delimiter])
        if not columns:
            raise _no_url_column(path, header)
        rows = (row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row)
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                yield number, "ragged_row"
            else:
                cells = dict(zip(header, row))
                yield number, {ours: cells[theirs] for ours, theirs in columns.items()}


def _json_records(path: Path, columns_of: _ColumnsOf) -> _Records:
    with _text(path) as file:
        text = file.read(_LARGEST_JSON)
    if len(text) == _LARGEST_JSON:
        raise DataError(f"{path} is too large to read at once; write one object a line and name it .jsonl")
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds one JSON {type(rows).__name__}; expected a list of objects with url and caption")
    yield from _objects(enumerate(rows, start=1), path, columns_of)


def _jsonl_records(path: Path, columns_of: _ColumnsOf) -> _Records:
    def parsed(lines: Iterator[str]) -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    yield number, None

    with _text(path) as file:
        yield from _objects(parsed(_lines(file, path)), path, columns_of)


def _objects(rows: Iterator[tuple[int, Any]], path: Path, columns_of: _ColumnsOf) -> _Records:
    """Objects may differ in their fields; when none of them has a URL it is not such a table."""
    found, names = False, []
    for number, row in rows:
        if not isinstance(row, dict):
            yield number, "not_json"
            continue
        columns = columns_of(list(row))
        found, names = found or bool(columns), list(row)
        yield number, {ours: row[theirs] for ours, theirs in columns.items()}
    if not found:
        raise _no_url_column(path, names)


def _parquet_records(path: Path, columns_of: _ColumnsOf) -> _Records:
    with pq.ParquetFile(path) as file:
        columns = columns_of(file.schema_arrow.names)
        if not columns:
            raise _no_url_column(path, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(batch_size=8192, columns=sorted(set(columns.values()))):
            for row in batch.to_pylist():
                number += 1
                yield number, {ours: row[theirs] for ours, theirs in columns.items()}


_RECORDS: dict[str, Callable[[Path, _ColumnsOf], _Records]] = {
    "csv": _csv_records,
    "tsv": _csv_records,
    "jsonl": _jsonl_records,
    "json": _json_records,
    "parquet": _parquet_records,
}


# --- one row --------------------------------------------------------------------------------------------------------------


def _row(number: int, record: dict[str, Any], path: Path) -> UrlRow:
    url, captions = record.get("url"), record.get("caption")
    texts = captions if isinstance(captions, list) else [] if captions is None else [captions]
    if not isinstance(url, str | None) or not all(isinstance(text, str) for text in texts):
        return UrlRow(number, fault="wrong_type")
    texts = [text.replace("\0", "") for text in texts if text.strip("\0 \t\r\n")]
    facts: dict[str, Any] = {name: _word(record.get(name)) for name in ("licence", "attribution", "label", "split", "lang")}
    if facts["licence"] == "?":  # LAION's way to say unknown
        facts["licence"] = None
    facts["split"] = given_split(facts["split"], f"{path}: row {number}")
    facts |= _position(record.get("lat"), record.get("lon"))
    gsd_m = _number(record.get("gsd_m"))
    facts["gsd_m"] = gsd_m if gsd_m is not None and gsd_m > 0 else None
    kept = {name: value for name, value in facts.items() if value is not None}
    return UrlRow(number, url or "", texts, kept, "" if texts or "label" in kept else "no_caption")


def _position(lat: Any, lon: Any) -> dict[str, float]:
    """Both or neither."""
    y, x = _number(lat), _number(lon)
    return {"lat": y, "lon": x} if y is not None and x is not None and abs(y) <= 90 and abs(x) <= 180 else {}


def _word(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return None if text.lower() in _ABSENT else text


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
