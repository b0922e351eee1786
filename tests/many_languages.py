"""Flat images whose captions are in three languages, not all of them everywhere."""

from pathlib import Path
from typing import Any

from colour_source import COLOURS, ColourSource

from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Caption
from rsvl_data.shards import Dataset

NAMES = {
    "es": dict(zip(COLOURS, ("bosque", "lago", "desierto", "nieve"))),
    "ru": dict(zip(COLOURS, ("лес", "озеро", "пустыня", "снег"))),
}


def build_colours_in_languages(out: Path, *, everywhere: bool = False) -> Dataset:
    """English and Spanish for every image; Russian for half of them, or for all."""

    def extra(number: int) -> dict[str, Any]:
        label = list(COLOURS)[number % len(COLOURS)]
        langs = ["es", "ru"] if everywhere or number % 8 < 4 else ["es"]
        translations = [Caption(text=f"{NAMES[lang][label]} {number}", lang=lang, kind="translation") for lang in langs]
        return {"captions": [Caption(text=f"a {label} from above"), Caption(text=f"{label}, number {number}"), *translations]}

    options = BuildOptions(out=out, samples_per_shard=10, workers=1)
    dataset = build(ColourSource(name="languages", extra=extra), [], options, recipe="test")
    assert dataset is not None
    return dataset
