"""A small source and a small dataset that many tests need: flat images, one colour a label."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from rsvl_data.images import encode
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Caption, Sample, content_key
from rsvl_data.shards import Dataset
from rsvl_data.sources.base import Entry
from rsvl_data.stage import Outcome

COLOURS = {"forest": (20, 120, 30), "lake": (20, 40, 160), "desert": (220, 190, 120), "snow": (240, 240, 250)}


@dataclass(frozen=True)
class ColourSource:
    """Flat images, one colour a label, each with two captions. `extra` adds fields to a record by its number."""

    num: int = 40
    name: str = "colours"
    note: str | None = None
    mask: dict[str, Any] | None = None
    extra: Callable[[int], dict[str, Any]] = field(default=lambda number: {})

    def entries(self) -> Iterator[Entry]:
        return (Entry(f"colour-{number}", facts={"number": number}) for number in range(self.num))

    def read(self, entry: Entry) -> Outcome:
        number = entry.facts["number"]
        label = list(COLOURS)[number % len(COLOURS)]
        red, green, blue = COLOURS[label]
        image = encode(Image.new("RGB", (40, 36), (red, green, (blue + number) % 256)), "jpg", quality=100)
        sha256 = hashlib.sha256(image).hexdigest()
        record = {
            "key": content_key(sha256, entry.id),
            "width": 40,
            "height": 36,
            "sha256": sha256,
            "captions": [Caption(text=f"a {label} from above"), Caption(text=f"{label}, number {number}")],
            "label": label,
            "provenance": {"original_id": entry.id},
            "image": image,
        }
        return Sample(**{**record, **self.extra(number)})


def build_colours(out: Path, **options: Any) -> Dataset:
    chosen = {"samples_per_shard": 10, "workers": 1, **options}
    dataset = build(ColourSource(), [], BuildOptions(out=out, **chosen), recipe="test")
    assert dataset is not None
    return dataset
