"""The record that flows through every pipeline and lies in every shard: one image, its words, its facts.

This file is the only definition of `KEY.json`. Fields a newer or foreign writer added are kept on a round trip.
Absent is absent: a fact that is not known is left out of the JSON, never guessed.
"""

import hashlib
import re
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

# `composed` joins several captions into one; `top` and `rotation` are choices among candidates (rsvl_data/ranking).
CaptionKind = Literal[
    "human", "alt", "label", "boxes", "mask", "meta", "vlm", "short", "long", "translation", "composed", "top", "rotation"
]
Season = Literal["spring", "summer", "autumn", "winter"]


_YEAR_OR_MONTH = re.compile(r"\d{4}(-(0[1-9]|1[0-2]))?")


def _iso_8601(text: str | None) -> str | None:
    """A year, a month, a day or a moment; two of them with a slash between are a period."""
    if text is None:
        return None
    for part in text.split("/", maxsplit=1):
        if not _YEAR_OR_MONTH.fullmatch(part):
            try:
                datetime.fromisoformat(part)
            except ValueError:
                raise ValueError(
                    f"{text!r} is not a date by ISO 8601; expected for example 2020-05-01 or 2020-05-01T10:30:00Z"
                ) from None
    return text


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class TextSource(_Record):
    """The engine that wrote a caption: a tool or rule set, and the model behind it."""

    engine: str
    model: str | None = None
    revision: str | None = None


class Prompt(_Record):
    id: str
    hash: str


class Generation(_Record):
    """How a model drew a text: with the same model, prompt and image, the same numbers draw it again."""

    seed: int
    temperature: float
    top_p: float
    top_k: int | None = None
    max_tokens: int


class Caption(_Record):
    text: str = Field(min_length=1)
    lang: str = Field(default="en", min_length=2, description="ISO 639-1 code")
    kind: CaptionKind = "human"
    source: TextSource | None = None
    prompt: Prompt | None = None
    generation: Generation | None = None
    score: float | None = None
    rank: int | None = Field(default=None, description="place among the candidates of its sample, 1 is the best")
    first_score: float | None = Field(default=None, description="cosine with the image by the first CLIP of the ranking")
    second_score: float | None = Field(default=None, description="the same by the second CLIP; absent below its cut")
    rotation_variance: float | None = Field(default=None, description="of the cosine over rotated views of the image")
    parent: int | None = Field(default=None, description="index in `captions` of the text this one was made from")

    @field_validator("text")
    @classmethod
    def _has_no_nul(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("a NUL character ends a text in many readers; take it out")
        return text


class Region(_Record):
    """An object. Coordinates are pixels of the stored image, x to the right, y down; x1 and y1 are exclusive."""

    bbox: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1")
    category: str
    category_id: int | None = None
    polygon: list[tuple[float, float]] | None = Field(default=None, description="corners x, y; not closed")
    caption: str | None = Field(default=None, description="a phrase that singles this object out")
    area_px: float | None = None

    @field_validator("bbox")
    @classmethod
    def _has_area(cls, bbox: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = bbox
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"bbox {bbox} has no area; expected x0 < x1 and y0 < y1")
        return bbox


class Geo(_Record):
    lon: float | None = Field(default=None, ge=-180, le=180)
    lat: float | None = Field(default=None, ge=-90, le=90)
    footprint: list[tuple[float, float]] | None = Field(default=None, description="corners lon, lat; not closed")
    crs: str | None = None
    gsd_m: float | None = Field(default=None, gt=0, description="ground sample distance, metres per pixel")
    acquired: str | None = Field(default=None, description="ISO 8601")
    platform: str | None = None
    sensor: str | None = None
    bands: list[str] | None = None
    stretch: str | None = Field(default=None, description="how the bands became display RGB")
    country: str | None = None
    place: str | None = None
    climate_zone: str | None = None
    season: Season | None = Field(default=None, description="of the hemisphere the image lies in")
    utm_zone: str | None = None

    _acquired_is_a_date = field_validator("acquired")(_iso_8601)


class Provenance(_Record):
    dataset: str | None = None
    split: str | None = None
    original_id: str | None = None
    url: str | None = None
    licence: str | None = None
    attribution: str | None = None
    retrieved: str | None = Field(default=None, description="ISO 8601")

    _retrieved_is_a_date = field_validator("retrieved")(_iso_8601)


class Sample(_Record):
    key: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="unique over the whole dataset; a file name stem")
    width: int = Field(gt=0, lt=2**31)
    height: int = Field(gt=0, lt=2**31)
    original_width: int | None = Field(
        default=None, gt=0, description="upright, before the image was resized; absent if it was not"
    )
    original_height: int | None = Field(default=None, gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the stored image bytes")
    phash: str | None = None
    captions: list[Caption] = []
    regions: list[Region] = []
    label: str | None = Field(default=None, description="scene class, as the source spells it")
    geo: Geo | None = None
    provenance: Provenance = Provenance()
    scores: dict[str, float] = {}

    # Not part of KEY.json: they are members of their own.
    image: bytes = Field(default=b"", exclude=True, repr=False, description="encoded JPEG, PNG or WebP")
    mask: bytes | None = Field(default=None, exclude=True, repr=False, description="encoded index PNG")

    @field_validator("width", "height", mode="before")
    @classmethod
    def _is_no_bool(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"{str(value).lower()} is not a number of pixels")
        return value

    def to_json(self) -> str:
        """The text of `KEY.json`: absent facts left out, keys in the order of the schema, so equal records are equal bytes."""
        return self.model_dump_json(exclude_none=True)

    @classmethod
    def from_json(cls, text: str | bytes, *, image: bytes = b"", mask: bytes | None = None) -> Self:
        """UTF-8, with a byte order mark or without.

        Raises a ValueError: UnicodeDecodeError, or pydantic's ValidationError that names every field in fault.
        """
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        sample = cls.model_validate_json(text)
        sample.image, sample.mask = image, mask
        return sample


def content_key(image_sha256: str, source_id: str) -> str:
    """A key that depends on the picture and on where it came from, and on nothing else: stable between runs, 16 hex digits.

    The source id keeps two records of one picture apart (datasets repeat images: UCM's airplane01 and airplane02 are the same bytes).
    """
    return hashlib.sha256(f"{image_sha256}\0{source_id}".encode()).hexdigest()[:16]
