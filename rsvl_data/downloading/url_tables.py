"""Tables of image URLs and words: CSV, TSV, JSON Lines, JSON (a list of objects) and Parquet; the text forms also as .gz.

Columns go by name in any case, as LAION, COYO, GAIA and img2dataset users write them (URL/TEXT, image_url/alt, license/licence, ...);
`url_column` and `caption_column` name others. Empty cells, `nan` and LAION's licence "?" are absent. A position off the globe is absent.

Easy to get wrong: a row that cannot be used (cells missing or too many, a line that is no JSON, no words) must not vanish and must not
end a table of millions; it comes out as a row with a `fault`. A file that as a whole is no such table raises DataError. How the forms
are read is in `table_rows.py`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError
from rsvl_data.splits import given_split
from rsvl_data.table_rows import MAX_ROW_CHARS, Fault, Row, column_names, form_of, read_rows

COLUMNS = {
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


@dataclass(frozen=True)
class UrlRow:
    """`number` counts rows from 1 (lines of a JSON Lines file). `url` is as the table has it, "" when absent.

    fault   why the row cannot be used: not_json, ragged_row, wrong_type, no_caption, caption_too_long; None for a good row
    facts   of licence, attribution, label, split, lang, lat, lon, gsd_m those that are there
    """

    number: int
    url: str = ""
    captions: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    fault: Fault | None = None


def read_url_table(path: Path, url_column: str | None = None, caption_column: str | None = None) -> Iterator[UrlRow]:
    """In the order of the file. Raises DataError when it is not a table, has no column of URLs, or a split of unknown name."""
    aliases = {**COLUMNS, **{ours: (name.strip().lower(),) for ours, name in _chosen(url_column, caption_column)}}
    has_urls = False
    for number, row in read_rows(path, only={name for names in aliases.values() for name in names}):
        if isinstance(row, Fault):
            yield UrlRow(number, fault=row)
            continue
        has_urls = has_urls or any(name in row for name in aliases["url"])
        if not has_urls and not form_of(path).startswith("json"):  # objects may differ in their fields; rows do not
            break
        yield _row(number, {ours: _first_given(row, names) for ours, names in aliases.items()}, path)
    if not has_urls and not set(aliases["url"]).intersection(names := column_names(path)):
        listed = ", ".join(repr(name[:40]) for name in names[:20]) or "none at all"
        raise DataError(f"{path} has no column of URLs; it has {listed}. Name it url, or give --url-column")


def _chosen(url_column: str | None, caption_column: str | None) -> list[tuple[str, str]]:
    return [(ours, name) for ours, name in (("url", url_column), ("caption", caption_column)) if name]


def _first_given(row: Row, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


# --- one row --------------------------------------------------------------------------------------------------------------


def _row(number: int, record: dict[str, Any], path: Path) -> UrlRow:
    url, captions = record["url"], record["caption"]
    texts = captions if isinstance(captions, list) else [] if captions is None else [captions]
    if not isinstance(url, str | None) or not all(isinstance(text, str) for text in texts):
        return UrlRow(number, fault=Fault("wrong_type", f"row {number} has no text where a URL or a caption is expected"))
    texts = [text.replace("\0", "") for text in texts if text.strip("\0 \t\r\n")]
    if (length := sum(map(len, texts))) > MAX_ROW_CHARS:
        return UrlRow(number, url or "", fault=Fault("caption_too_long", f"row {number} has captions of {length} characters"))
    facts: dict[str, Any] = {name: _word(record[name]) for name in ("licence", "attribution", "label", "split", "lang")}
    if facts["licence"] == "?":  # LAION's way to say unknown
        facts["licence"] = None
    facts["split"] = given_split(facts["split"], f"{path}: row {number}")
    facts |= _position(record["lat"], record["lon"])
    gsd_m = _number(record["gsd_m"])
    facts["gsd_m"] = gsd_m if gsd_m is not None and gsd_m > 0 else None
    kept = {name: value for name, value in facts.items() if value is not None}
    fault = None if texts or "label" in kept else Fault("no_caption", f"row {number} has neither a caption nor a label")
    return UrlRow(number, url or "", texts, kept, fault)


def _position(lat: Any, lon: Any) -> dict[str, float]:
    """Both or neither."""
    y, x = _number(lat), _number(lon)
    return {"lat": y, "lon": x} if y is not None and x is not None and abs(y) <= 90 and abs(x) <= 180 else {}


def _word(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return None if text.lower() in _ABSENT else text


def _number(value: Any) -> float | None:
    """A decimal comma is read as a point, as European spreadsheets write coordinates."""
    try:
        number = float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
