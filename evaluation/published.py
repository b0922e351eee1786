"""What papers print, to stand beside our numbers: `published/*.json`, a file a paper, with source, protocol, split and size of each table.

A printed number compares with ours only under the same protocol on the same images. Whatever differs is said, row by row; nothing is
left to the reader's memory. In farslip.json the sizes of AID and EuroSAT are not printed: they follow from the steps of the scores.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from evaluation.result import Result

FOLDER = Path(__file__).parent / "published"
_UNITS = {"percent": 100.0, "fraction": 1.0}


@dataclass(frozen=True)
class Column:
    """`n`: images, or queries of a task that has no images of its own; None where it is not known."""

    dataset: str
    split: str
    n: int | None
    metric: str


@dataclass(frozen=True)
class Row:
    """Values are fractions, in the order of the columns; `mean` is the paper's own, where it prints one."""

    model: str
    backbone: str | None
    values: tuple[float, ...]
    mean: float | None = None
    trained_on_train_split: bool = False  # of the very datasets it is measured on

    @property
    def name(self) -> str:
        return f"{self.model}, {self.backbone}" if self.backbone else self.model


@dataclass(frozen=True)
class Table:
    """`source` says where it is printed, `url` leads there."""

    task: str
    protocol: str
    source: str
    url: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class PublishedRow:
    """One row of a paper as far as it is about the data of a result of ours.

    `differs` is what forbids a comparison. Where it is empty, `agrees` says how far that was looked at: a paper's images have no checksum.
    """

    table: Table
    row: Row
    values: dict[str, float]
    differs: tuple[str, ...]
    agrees: str

    @property
    def compares(self) -> bool:
        return not self.differs


@cache
def published_tables(folder: Path = FOLDER) -> tuple[Table, ...]:
    return tuple(_table(each) for path in sorted(folder.glob("*.json")) for each in json.loads(path.read_text())["tables"])


def _table(fields: dict[str, Any]) -> Table:
    unit = _UNITS[fields.pop("unit")]
    columns = tuple(Column(**column) for column in fields.pop("columns"))
    rows = tuple(_row(row, unit) for row in fields.pop("rows"))
    if wrong := [row.name for row in rows if len(row.values) != len(columns)]:
        raise ValueError(f"{fields['source']}: {len(columns)} columns, but another number of values in the row of {wrong[0]}")
    return Table(**fields, columns=columns, rows=rows)


def _row(fields: dict[str, Any], unit: float) -> Row:
    values = tuple(value / unit for value in fields.pop("values"))
    mean = fields.pop("mean", None)
    return Row(**fields, values=values, mean=None if mean is None else mean / unit)


def published_beside(result: Result, tables: Sequence[Table] | None = None) -> list[PublishedRow]:
    """Rows about the same task and dataset, of metrics that the result has too; those that compare come first."""
    given = published_tables() if tables is None else tables
    found = [row for table in given for row in _rows_beside(result, table)]
    return sorted(found, key=lambda each: not each.compares)


@dataclass(frozen=True)
class Beside:
    """Published rows for one result of ours, by the tables they are from: the rows of one table all compare or none does."""

    tables: list[tuple[Table, list[PublishedRow]]]
    metrics: list[str]  # that a row has, in the order of the result

    @property
    def num_rows(self) -> int:
        return sum(len(rows) for _, rows in self.tables)

    @property
    def num_comparable(self) -> int:
        return sum(row.compares for _, rows in self.tables for row in rows)


def published_by_source(result: Result) -> Beside:
    rows = published_beside(result)
    tables = [(part[0].table, part) for part in (list(same) for _, same in groupby(rows, key=lambda each: each.table))]
    return Beside(tables, [name for name in result.metrics if any(name in row.values for row in rows)])


def _rows_beside(result: Result, table: Table) -> Iterable[PublishedRow]:
    if table.task != result.task:
        return
    at = [
        i
        for i, column in enumerate(table.columns)
        if _spelled(column.dataset) == _spelled(result.dataset) and column.metric in result.metrics
    ]
    if at:
        column = table.columns[at[0]]
        differs = tuple(_differences(result, table, column))
        agrees = "same protocol and split" + (
            f", {column.n:,} items in both" if column.n else "; the paper's number of items is not known"
        )
        for row in table.rows:
            yield PublishedRow(table, row, {table.columns[i].metric: row.values[i] for i in at}, differs, agrees)


def _differences(result: Result, table: Table, column: Column) -> Iterable[str]:
    if result.protocol != table.protocol:
        yield f"protocol {table.protocol}, ours {result.protocol}"
    if result.split != column.split:
        yield f"{_split_words(column)}, ours {result.split}"
    if column.n is not None and result.n != column.n:
        yield f"{column.n:,} items, ours {result.n:,}"
    if column.n is None and result.options.get("limit") is not None:
        yield f"the whole split, ours its first {result.n:,}"
    if (lang := result.data.get("lang") or "en") != "en":
        yield f"English texts, ours {lang}"
    if result.options.get("own_threshold"):
        yield f"the threshold of the protocol, ours {result.options['threshold']:g}"
    if result.data.get("note"):
        yield "our data carry a note"


def _split_words(column: Column) -> str:
    return "the whole set" if column.split == "all" else f"split {column.split}"


def _spelled(name: str) -> str:
    """One spelling for names of datasets: "ISPRS-Potsdam", "potsdam"."""
    return "".join(filter(str.isalnum, name.lower())).removeprefix("isprs")
