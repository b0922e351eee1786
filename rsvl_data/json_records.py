"""JSON as others write it. A list of records is never loaded whole: its records are found one by one and read when they are needed.

Parsed JSON takes several times its text, and a build holds all entries at once. So an entry says where its record lies (`Span`), and
200,000 records of 2 kB cost a few hundred bytes each. What has to be seen whole, because its parts point at one another, is refused
when `MAX_PARSED_BYTES` could not hold it.

A streaming parser such as ijson would bound the parsing, but not what the entries keep, and cannot tell where a record lies.
"""

import json
import math
import mmap
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError

MAX_PARSED_BYTES = 2 << 30
MAX_RECORD_BYTES = 16 << 20
_MAX_DEPTH = 100  # pydantic stops writing at 255
# What CPython takes for one at the least, each told by a character: an item of a list or a number, half a text, a list, an object.
_PARSED_BYTES = {b",": 40, b'"': 25, b"[": 72, b"{": 232}

Span = tuple[int, int, int]  # offset and size in bytes, and the CRC-32 of what lay there when the span was found

_SPACE = re.compile(rb"[ \t\r\n]*+")
_WITHOUT_BRACKETS = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_SCALAR = re.compile(rb'(?:"(?:[^"\\]++|\\.)*+"|[^",\[\]{}]++)', re.DOTALL)


def parse(text: str | bytes, not_finite: Callable[[str], Any] = lambda _: None) -> Any:
    """Numbers that are not finite become None, or what `not_finite` makes of their text: they say that nothing is known.

    Raises ValueError for what is no JSON, no UTF-8, holds half of a surrogate pair, or is nested deeper than 100 levels.
    """
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text

    def number(digits: str) -> Any:
        return value if math.isfinite(value := float(digits)) else not_finite(digits)

    try:
        value = json.loads(text, parse_constant=not_finite, parse_float=number)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode()
    if text.count("[") + text.count("{") > _MAX_DEPTH and _is_deep(value):
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        level = [node for node in level if isinstance(node, dict | list)]
    return bool(level)


# --- lists of records


def is_list(path: Path) -> bool:
    """Whether the document begins as one."""
    with path.open("rb") as file:
        return file.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def list_records(path: Path, expects: str) -> Iterator[tuple[Any, Span]]:
    """The records of a list or of JSON Lines, None for one that `parse` refuses. Raises DataError where nobody can say where the next
    begins."""
    try:
        for span in line_spans(path) if path.suffix == ".jsonl" else list_spans(path):
            try:
                yield read_span(path, span), span
            except ValueError:
                yield None, span
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Expected {expects}") from error


def list_spans(path: Path) -> Iterator[Span]:
    """Where the values of the list in a file lie, whatever they are. Raises ValueError where the list cannot be followed."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        place = _after_space(text, 3 if text[:3] == b"\xef\xbb\xbf" else 0)
        if text[place : place + 1] != b"[":
            raise ValueError("it is no list")
        place = _after_space(text, place + 1)
        while text[place : place + 1] != b"]":
            end = _end_of_value(text, place)
            yield (place, end - place, zlib.crc32(text[place:end]))
            place = _after_space(text, end)
            if text[place : place + 1] == b",":
                place = _after_space(text, place + 1)
            elif text[place : place + 1] != b"]":
                raise ValueError(f"expected a comma at byte {place}")
        if _after_space(text, place + 1) < len(text):
            raise ValueError(f"something follows the list at byte {place + 1}")


def _after_space(text: mmap.mmap, place: int) -> int:
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # an empty match is one


def _end_of_value(text: mmap.mmap, begin: int) -> int:
    """Brackets are counted, not compared: the parser of the record does that."""
    limit = begin + MAX_RECORD_BYTES
    scalar = _SCALAR.match(text, begin, limit)
    if scalar:
        return scalar.end()
    place, depth = begin, 0
    while True:
        bracket = text[place : place + 1]
        if not bracket or bracket == b'"' or place >= limit:
            raise ValueError(f"the value at byte {begin} has no end within {MAX_RECORD_BYTES} bytes")
        depth += 1 if bracket in b"[{" else -1
        place += 1
        if depth <= 0:
            return place
        place = _WITHOUT_BRACKETS.match(text, place, limit).end()  # type: ignore[union-attr]


def line_spans(path: Path) -> Iterator[Span]:
    """Where the lines of a file that are not blank lie."""
    with path.open("rb") as file:
        offset = 0
        while line := file.readline(MAX_RECORD_BYTES):
            if line.strip():
                yield (offset, len(line), zlib.crc32(line))
            offset += len(line)


def read_span(path: Path, span: Sequence[int]) -> Any:
    """The value there. Raises ValueError when the file has changed, or as `parse` does; OSError."""
    offset, size, crc32 = span
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if zlib.crc32(content) != crc32:
        raise ValueError(f"{path} has changed since its records were listed")
    return parse(content)


# --- documents that have to be seen whole


def read_document(path: Path) -> bytes:
    """Raises DataError when parsing it could take more than `MAX_PARSED_BYTES`."""
    needed = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            needed += len(chunk) * (2 if chunk.isascii() else 5)  # the bytes, and the text at one to four bytes a character
            needed += sum(size * chunk.count(mark) for mark, size in _PARSED_BYTES.items())
    if needed > MAX_PARSED_BYTES:
        raise DataError(
            f"{path} would take some {needed / 2**30:.1f} GiB of memory once parsed; at the most {MAX_PARSED_BYTES / 2**30:g} GiB are "
            "allowed. Split it into several files, such as one a split or a part of the images each"
        )
    return path.read_bytes()
