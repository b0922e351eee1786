"""The rows of a table, whatever its form: CSV, TSV, JSON Lines, JSON (a list of objects), each also as .gz, and Parquet.

What the columns mean is the reader's business: `sources/table.py` (image paths), `downloading/url_tables.py` (URLs).

Easy to get wrong: who wrote the file. Its encoding is found out (`caption_text.detect_encoding`), its separator is the one of comma,
semicolon, tab and bar that is most frequent in the header, NUL bytes are taken out, names of columns are compared in lower case. A row
with cells missing or left over, or a line that is no JSON object, is a Fault with its number; quotes that do not match end the file,
since nobody can say where its rows are. A small .gz can hold a line of gigabytes, so lines and whole JSON files are bounded.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from rsvl_data.caption_text import detect_encoding
from rsvl_data.errors import DataError
from rsvl_data.json_records import parse

FORMS = ".csv, .tsv, .jsonl, .json (each also .gz) or .parquet"
MAX_ROW_CHARS = 1_000_000  # of captions; entries are kept in memory until they are planned
_MAX_LINE_CHARS = 16_000_000
_MAX_JSON_CHARS = 256 * 1024 * 1024
_ENCODING_SAMPLE_BYTES = 1 << 20


class Fault(NamedTuple):
    """Why a row or record cannot be used: a word for counting and a sentence."""

    reason: str
    detail: str


Row = dict[str, Any]
Rows = Iterator[tuple[int, Row | Fault]]


def form_of(path: Path) -> str:
    """csv, tsv, jsonl, json or parquet by the name of the file, "" for another one."""
    name = path.name.lower()
    form = name.removesuffix(".gz").rpartition(".")[2]
    return form if form in _READERS and name != f"{form}.gz" and not name.endswith(".parquet.gz") else ""


def read_rows(path: Path, only: Collection[str] | None = None) -> Rows:
    """Numbered from 1, as lines for JSON Lines; column names lower case without white space around.

    `only` names the columns that are wanted, where the form lets us leave others unread. Raises DataError for a file that is no table.
    """
    with _said_plainly(path):
        yield from _READERS[_checked_form(path)](path, only)


def column_names(path: Path) -> list[str]:
    """Of the header, or of the first object, as `read_rows` spells them; [] when there is none. Raises DataError like it."""
    form = _checked_form(path)
    with _said_plainly(path):
        if form == "parquet":
            with pq.ParquetFile(path) as file:
                return [_plain(name) for name in file.schema_arrow.names]
        if form == "jsonl":
            return next((list(row) for _, row in _jsonl_rows(path, None) if isinstance(row, dict)), [])
        with _text(path) as file, _long_cells():
            return _header(_lines(file, path), path)[0] if form != "json" else list(_first_of_list(file.read(MAX_ROW_CHARS)))


def _checked_form(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path} does not exist. Expected a table: {FORMS}")
    if not (form := form_of(path)):
        raise DataError(f"{path} has an unknown ending. Expected a table: {FORMS}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty. Expected a table: {FORMS}")
    return form


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is in no encoding we know: {error}. Save it as UTF-8") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is not whole gzip: {error}") from error
    except (OSError, pa.ArrowException, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as {form_of(path)}: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error


def _plain(name: Any) -> str:
    return str(name).strip().lower()


# --- text


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rb") as file:
        sample = file.read(_ENCODING_SAMPLE_BYTES)
    if len(sample) == _ENCODING_SAMPLE_BYTES and not sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        sample = sample[: sample.rfind(b"\n") + 1] or sample  # not cut inside a character
    with opener(path, "rt", newline="", encoding=detect_encoding(sample)) as file:
        yield file


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Without NUL, and none so long that it fills the memory."""
    while line := file.readline(_MAX_LINE_CHARS):
        if len(line) == _MAX_LINE_CHARS:
            raise DataError(f"{path} has a line of {_MAX_LINE_CHARS} characters or more; expected a table: {FORMS}")
        yield line.replace("\0", "")


# --- forms


@contextmanager
def _long_cells() -> Iterator[None]:
    """Python's own limit would end the file at one long cell. The setting is the process's, so it is put back."""
    limit = csv.field_size_limit(_MAX_LINE_CHARS)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _csv_rows(path: Path, only: Collection[str] | None) -> Rows:
    with _text(path) as file, _long_cells():
        lines = _lines(file, path)
        names, separator = _header(lines, path)
        rows = (row for row in csv.reader(lines, delimiter=separator, strict=True) if any(cell.strip() for cell in row))
        for number, row in enumerate(rows, start=1):
            cells = [cell.strip() for cell in row]
            if len(cells) < len(names) or any(cells[len(names) :]):
                yield (
                    number,
                    Fault("ragged_row", f"{path.name}: row {number} has {len(cells)} cells, the header has {len(names)}"),
                )
            else:
                yield number, {name: cell for name, cell in zip(names, cells, strict=False) if name}


def _header(lines: Iterator[str], path: Path) -> tuple[list[str], str]:
    """The names of the columns and the separator. `lines` goes on behind them."""
    first = next((line for line in lines if line.strip()), "")
    separator = "\t" if form_of(path) == "tsv" else max(",;\t|", key=first.count)
    names = [_plain(name) for name in next(csv.reader([first], delimiter=separator), [])]
    _refuse_repeated(names, path)
    return names, separator


def _refuse_repeated(names: list[str], path: Path) -> None:
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has more than one column called {', '.join(repeated)[:200]}; rename all but one")


def _jsonl_rows(path: Path, only: Collection[str] | None) -> Rows:
    with _text(path) as file:
        for number, line in enumerate(_lines(file, path), start=1):
            if line.strip():
                try:
                    yield number, _object(parse(line))
                except (ValueError, TypeError) as error:
                    yield number, Fault("not_json", f"{path.name}: line {number} is not a JSON object: {error}")


def _json_rows(path: Path, only: Collection[str] | None) -> Rows:
    with _text(path) as file:
        text = file.read(_MAX_JSON_CHARS)
    if len(text) == _MAX_JSON_CHARS:
        raise DataError(f"{path} is too large to read at once; write one object a line and name it .jsonl")
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds one JSON {type(rows).__name__}; expected a list of objects, one a row")
    for number, row in enumerate(rows, start=1):
        try:
            yield number, _object(parse(json.dumps(row)))  # each row is judged alone
        except (ValueError, TypeError) as error:
            yield number, Fault("not_json", f"{path.name}: row {number} is not a JSON object: {error}")


def _object(value: Any) -> Row:
    if not isinstance(value, dict):
        raise TypeError(f"it is a {type(value).__name__}")
    return {_plain(name): cell for name, cell in value.items()}


def _first_of_list(text: str) -> Row:
    """The first object of a file that begins with `text`; {} where that is no list of objects."""
    text = text.lstrip()
    try:
        return _object(json.JSONDecoder().raw_decode(text[1:].lstrip())[0]) if text.startswith("[") else {}
    except (ValueError, TypeError, RecursionError):
        return {}


def _parquet_rows(path: Path, only: Collection[str] | None) -> Rows:
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if only is None or _plain(name) in only]
        _refuse_repeated([_plain(name) for name in names], path)
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield number, {_plain(name): cell for name, cell in row.items()}


_READERS: dict[str, Callable[[Path, Collection[str] | None], Rows]] = {
    "csv": _csv_rows,
    "tsv": _csv_rows,
    "jsonl": _jsonl_rows,
    "json": _json_rows,
    "parquet": _parquet_rows,
}
