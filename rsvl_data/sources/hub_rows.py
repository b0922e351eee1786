"""What a row of a Hugging Face dataset says, by the column names in use: captions, scene class, position, licence.

A row is a line of metadata.jsonl, a KEY.json, or what `datasets` yields. Columns in other words are not guessed at.
"""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rsvl_data.sample import Caption
from rsvl_data.sources.dataset_card import DatasetCard

CAPTION_COLUMNS = (
    "caption",
    "captions",
    "text",
    "texts",
    "txt",
    "sentences",
    "raw",
    "caption_0",
    "caption_1",
    "caption_2",
    "caption_3",
    "caption_4",
)
LABEL_COLUMNS = ("label", "class", "class_name", "cls")
_LATITUDE, _LONGITUDE = ("lat", "latitude"), ("lon", "lng", "longitude")


def captions_of_row(row: Mapping[str, Any]) -> list[str | dict[str, Any]]:
    """Texts, or records of `Caption` where the row has them; a text that a list holds as well is not said twice."""
    listed = [caption for column in CAPTION_COLUMNS for caption in _listed(row.get(column))]
    texts = {text_of(caption).strip() for caption in listed}
    captions: list[str | dict[str, Any]] = []
    for column in CAPTION_COLUMNS:
        value = row.get(column)
        captions += [value] if isinstance(value, str) and value.strip() not in texts else _listed(value)
    return captions


def text_of(caption: str | dict[str, Any]) -> str:
    return caption if isinstance(caption, str) else caption["text"]


def _listed(value: Any) -> list[str | dict[str, Any]]:
    return [_caption(item) for item in value if _is_caption(item)] if isinstance(value, list) else []


def _is_caption(item: Any) -> bool:
    return isinstance(item, str) or (isinstance(item, dict) and isinstance(item.get("text"), str))


def _caption(item: str | dict[str, Any]) -> str | dict[str, Any]:
    """Of a record in other terms than ours the text alone is known to be meant."""
    if isinstance(item, str):
        return item
    try:
        return Caption.model_validate(item).model_dump(exclude_none=True)
    except ValidationError:
        return item["text"]


def label_of_row(row: Mapping[str, Any], card: DatasetCard) -> str | None:
    """A word; a number only where the card names the classes."""
    for column in LABEL_COLUMNS:
        value, names = row.get(column), card.class_names.get(column, [])
        if isinstance(value, str) and value.strip() and not value.strip().isdecimal():
            return value.strip()
        number = int(value) if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10 else value
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(names):
            return names[number]
    return None


def position_of_row(row: Mapping[str, Any]) -> dict[str, float]:
    """Whole and on the globe, or nothing."""
    lat, lon = (_number(next((row[name] for name in names if name in row), None)) for names in (_LATITUDE, _LONGITUDE))
    return {"lat": lat, "lon": lon} if abs(lat) <= 90 and abs(lon) <= 180 else {}


def _number(value: Any) -> float:
    """NaN for what is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def provenance_of_row(row: Mapping[str, Any], card: DatasetCard) -> dict[str, str]:
    """The licence of the row before that of the whole dataset."""
    said = {
        "licence": row.get("licence") or row.get("license") or card.licence,
        "attribution": row.get("attribution"),
        "url": row.get("url"),
    }
    return {name: value for name, value in said.items() if isinstance(value, str) and value.strip()}
