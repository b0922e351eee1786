"""Shapes at tensor borders are checked while the tests run; small sources and datasets that many tests need."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

jaxtyping.install_import_hook(
    ["rsvl_data.transforms", "rsvl_data.scenes", "rsvl_pretrain", "evaluation.metrics", "evaluation.bootstrap"], "typechecking.check"
)

from PIL import Image  # noqa: E402

from rsvl_data.images import encode  # noqa: E402
from rsvl_data.pipeline import BuildOptions, build  # noqa: E402
from rsvl_data.sample import Caption, Sample, content_key  # noqa: E402
from rsvl_data.shards import Dataset  # noqa: E402
from rsvl_data.sources.base import Entry  # noqa: E402
from rsvl_data.stage import Outcome  # noqa: E402

COLOURS = {"forest": (20, 120, 30), "lake": (20, 40, 160), "desert": (220, 190, 120), "snow": (240, 240, 250)}


@dataclass(frozen=True)
class ColourSource:
    """Flat images, one colour a label, each with two captions. `extra` adds fields to a record by its number."""

    num: int = 40
    name: str = "colours"
    note: str | None = None
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


@pytest.fixture
def colours(tmp_path: Path) -> Dataset:
    """40 samples in 4 classes: train, val and test in shards of 10."""
    return build_colours(tmp_path / "colours")


def build_colours(out: Path, **options: Any) -> Dataset:
    chosen = {"samples_per_shard": 10, "workers": 1, **options}
    dataset = build(ColourSource(), [], BuildOptions(out=out, **chosen), recipe="test")
    assert dataset is not None
    return dataset


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and sample data; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("RSVL_SHARED", Path(__file__).parents[2] / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared fixtures at {path}; set RSVL_SHARED")
    return path
