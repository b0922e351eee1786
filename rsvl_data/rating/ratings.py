"""Ratings of captions as tables: the columns of RS5M's rating app, a row a caption, a file a rater.

https://github.com/om-ai-lab/RS5M/tree/main/rating_app/rating_sys_webdataset/record
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rsvl_data.errors import DataError

AXES = ("relevance_detail", "hallucination", "fluency")
COLUMNS = ("image_path", "description", *AXES)
LOWEST, HIGHEST = 1, 5
Unit = tuple[str, str]  # image and description


@dataclass(frozen=True)
class Ratings:
    """What one person said. `units[i]` is row i of `values`, whose columns are `AXES`; NaN is an axis left blank.

    A unit may have several rows: all of them count in a mean of marks, the last one where raters are compared. `left_out` counts what
    could not be used, by reason: not_a_rating (a cell), short_row.
    """

    rater: str
    units: list[Unit]
    values: Float[np.ndarray, "n a"]
    left_out: Counter[str]


def read_ratings(path: Path) -> Ratings:
    """Raises DataError for a file that cannot be read as a table or lacks a column."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a CSV of ratings: {error}. Expected the columns {', '.join(COLUMNS)}"
        ) from error
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header)}. Expected {', '.join(COLUMNS)}")
    places = [header.index(name) for name in COLUMNS]
    left_out: Counter[str] = Counter()
    found: list[tuple[Unit, list[float]]] = []
    for row in rows:
        if len(row) != len(header):
            left_out["short_row"] += 1
            continue
        image, description, *given = (row[place] for place in places)
        found.append(((image, description), [_rating(cell, left_out) for cell in given]))
    values = np.array([marks for _, marks in found], dtype=float).reshape(-1, len(AXES))
    return Ratings(path.stem, [unit for unit, _ in found], values, left_out)


def _rating(cell: str, left_out: Counter[str]) -> float:
    """NaN for a blank cell and for what is no rating, which is counted."""
    if not cell.strip():
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not (value.is_integer() and LOWEST <= value <= HIGHEST):
        left_out["not_a_rating"] += 1
        return float("nan")
    return value


def by_unit(raters: Sequence[Ratings], axis: str) -> tuple[list[Unit], Float[np.ndarray, "r u"]]:
    """Every unit that anyone rated, in order of first mention, and who gave it what in the end; NaN where a rater did not."""
    units = list(dict.fromkeys(unit for ratings in raters for unit in ratings.units))
    place = {unit: index for index, unit in enumerate(units)}
    table = np.full((len(raters), len(units)), np.nan)
    for row, ratings in enumerate(raters):
        for unit, mark in zip(ratings.units, ratings.values[:, AXES.index(axis)], strict=True):
            table[row, place[unit]] = mark
    return units, table
