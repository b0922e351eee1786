"""A table of image paths and captions: CSV, TSV, JSON Lines or Parquet.

Columns by name, the first that is there: the image (filepath, filename, image, path, file), one caption or several (caption, text,
title, or captions as a list), and if present label or class, split, lang, licence or license, attribution, url, lat, lon, gsd_m.
Rows that name the same image are joined into one sample with several captions.
"""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rsvl_data.errors import DataError
from rsvl_data.images import ImageSuffix
from rsvl_data.sources.base import Entry, ImageFiles, given_split

EXPECTS = "a .csv, .tsv, .jsonl or .parquet with a column of image paths (filepath, filename, image, path) and one of captions"
_IMAGE = ("filepath", "filename", "image", "path", "file", "file_name", "image_path")
_CAPTION = ("caption", "text", "title", "captions")
_LABEL = ("label", "class")


def find(path: Path) -> Path | None:
    """The table file. In a folder: the only table there that has an image and a caption column."""
    if path.is_file():
        return path if path.suffix in (".csv", ".tsv", ".jsonl", ".parquet") else None
    tables = [p for pattern in ("*.csv", "*.tsv", "*.jsonl", "*.parquet") for p in sorted(path.glob(pattern))]
    return next((table for table in tables if _has_columns(table)), None)


def _has_columns(path: Path) -> bool:
    first = next(_rows(path), {})
    return _pick(first, _IMAGE) is not None and _pick(first, _CAPTION) is not None


def open(path: Path, name: str, image_suffix: ImageSuffix) -> ImageFiles:
    return ImageFiles(name, path.parent, lambda: list_entries(path), image_suffix)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a table without an image column, or a row it cannot read."""
    joined: dict[str, Entry] = {}
    for number, row in enumerate(_rows(path), start=1):
        image = _pick(row, _IMAGE)
        if image is None:
            raise DataError(f"{path}: row {number} has columns {', '.join(map(str, row))}; none is {' or '.join(_IMAGE)}")
        captions = _captions(row)
        if image in joined:
            joined[image].facts["captions"] += captions
        else:
            joined[image] = Entry(
                image,
                given_split(row.get("split"), f"{path}: row {number}"),
                {**_facts(row, path), "path": _locate(path, image), "captions": captions},
            )
    yield from joined.values()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        yield from (row for batch in pq.ParquetFile(path).iter_batches() for row in batch.to_pylist())
        return
    with path.open(newline="", encoding="utf-8-sig") as lines:
        if path.suffix == ".jsonl":
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        yield dict(json.loads(line))
                    except (ValueError, TypeError) as error:
                        raise DataError(f"{path}: line {number} is not a JSON object: {error}") from error
        else:
            yield from csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")


def _pick(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _captions(row: dict[str, Any]) -> list[dict[str, Any]]:
    value = _pick(row, _CAPTION)
    texts = value if isinstance(value, list) else [] if value is None else [value]
    return [{"text": str(text), "lang": row.get("lang") or "en"} for text in texts]


def _facts(row: dict[str, Any], path: Path) -> dict[str, Any]:
    geo = {name: _number(row.get(name)) for name in ("lat", "lon", "gsd_m")}
    provenance = {"licence": _pick(row, ("licence", "license")), "attribution": row.get("attribution"), "url": row.get("url")}
    return {
        "label": _pick(row, _LABEL),
        "geo": {name: value for name, value in geo.items() if value is not None},
        "provenance": {name: value for name, value in provenance.items() if value},
    }


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _locate(path: Path, image: str) -> str:
    """Relative to the table, or to `images/` beside it."""
    return image if (path.parent / image).is_file() or not (path.parent / "images" / image).is_file() else f"images/{image}"
