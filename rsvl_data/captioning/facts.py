"""What is known of an image, laid before a model as data: JSON between two marks, which no text inside can close.

Labels, alt texts and place names came from strangers. In this block every character that means something to a chat template, to
Markdown or to the block itself (`<`, `>`, `[`, `{`, the pipe, the back quote, ...) stands as a JSON escape, so no text of theirs can end
the block, open a turn of its own or name an image. What it says is still read by the model: the prompt tells that it is data, and the
answers are checked for what should not be in them.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from rsvl_data.sample import Region, Sample
from rsvl_data.words import words_of_label

Fact = Literal["label", "boxes", "geo", "alt"]

MAX_TEXT_CHARS = 1_000
MAX_BOXES = 40
_BEGIN, _END = "<data>", "</data>"
_GEO_FIELDS = (
    "gsd_m",
    "sensor",
    "platform",
    "country",
    "place",
    "season",
    "climate_zone",
)  # no date and no coordinates: not visible
_SPECIAL = re.compile("[^\\w .,;:!?()'\"/%+*=@#$°–—-]")  # all but letters, digits and everyday marks
_ROLE_MARK = re.compile("#(?=#)")  # "### Assistant:" of older templates


def data_block(sample: Sample, wanted: Sequence[Fact]) -> str:
    """The facts of a sample as one block; those that are absent are left out of it."""
    return f"{_BEGIN}\n{quoted(facts_of(sample, wanted))}\n{_END}"


def facts_of(sample: Sample, wanted: Sequence[Fact]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if "label" in wanted and sample.label and any(character.isalnum() for character in sample.label):
        facts["scene_class"] = words_of_label(sample.label)
    if "boxes" in wanted and sample.regions:
        facts["num_objects"] = len(sample.regions)
        facts["objects"] = [_object(region, sample.width, sample.height) for region in sample.regions[:MAX_BOXES]]
    if "geo" in wanted and sample.geo:
        facts |= {name: value for name in _GEO_FIELDS if (value := getattr(sample.geo, name)) is not None}
    if "alt" in wanted:
        texts = [caption.text[:MAX_TEXT_CHARS] for caption in sample.captions if caption.kind in ("alt", "human")]
        facts |= {"alt_text": texts} if texts else {}
    return facts


def _object(region: Region, width_px: int, height_px: int) -> dict[str, Any]:
    """The box in whole percent of the image, which stay right when the image is scaled."""
    x0, y0, x1, y1 = region.bbox
    box = [round(100 * x0 / width_px), round(100 * y0 / height_px), round(100 * x1 / width_px), round(100 * y1 / height_px)]
    return {"name": region.category[:MAX_TEXT_CHARS], "box_percent": box}


def quoted(value: Any) -> str:
    """JSON whose strings hold letters, digits and everyday punctuation; everything else in them is escaped."""
    if isinstance(value, str):
        return '"' + _ROLE_MARK.sub("\\\\u0023", _SPECIAL.sub(_escape, json.dumps(value, ensure_ascii=False)[1:-1])) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)}: {quoted(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(quoted, value)) + "]"
    return json.dumps(value)


def _escape(match: re.Match[str]) -> str:
    """`json.dumps` has escaped quotes, backslashes and control characters before; its backslashes stay."""
    character = match[0]
    if character == "\\":
        return character
    return json.dumps(character)[1:-1] if ord(character) > 0x7E else f"\\u{ord(character):04x}"
