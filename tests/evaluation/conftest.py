"""Golden numbers of the official implementations, and an encoder and a dataset small enough to know by heart."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_encoder import ColourEncoder
from PIL import Image
from shared_folder import SHARED

from rsvl_data.sample import Caption, Sample
from rsvl_data.shards import Dataset, write_shard


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Parameters and arrays of `fixtures/evaluation/NAME`; skips where the fixtures are not on this machine."""

    def load(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        path = SHARED / "fixtures" / "evaluation" / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"no fixtures at {SHARED}; set RSVL_SHARED to the folder that holds fixtures/evaluation")
        arrays = path.with_suffix(".npz")
        return json.loads(path.read_text()), dict(np.load(arrays)) if arrays.is_file() else {}

    return load


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


def painted(key: str, colour: tuple[int, int, int], label: str | None = None, captions: Sequence[Caption] = ()) -> Sample:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), colour).save(buffer, "PNG")
    content = buffer.getvalue()
    return Sample(
        key=key,
        width=12,
        height=10,
        sha256=hashlib.sha256(content).hexdigest(),
        label=label,
        captions=list(captions),
        image=content,
    )


def write_dataset(root: Path, splits: dict[str, list[list[Sample]]], note: str | None = None) -> Dataset:
    """`splits[name]` is a list of shards."""
    shards = []
    for split, parts in splits.items():
        for number, samples in enumerate(parts):
            line = write_shard(root / "data", f"{split}-{number:05d}", iter(samples), image_suffix="png")
            shards.append({**line, "split": split})
    counts = {split: sum(map(len, parts)) for split, parts in splits.items()}
    manifest = {"format_version": 1, "name": "tiny", "note": note, "splits": counts, "shards": shards, "stages": []}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return Dataset.open(root)


@pytest.fixture
def colours(tmp_path: Path) -> Dataset:
    """Two test shards with five images, one of them labelled wrongly, and a class that only the train split has.

    Captions: r0 and r1 share a sentence but for case and stop; b0 has one in Portuguese only.
    """
    a_red, deep_red = Caption(text="a red field ."), Caption(text="deep red")
    test = [
        [
            painted("r0", (250, 5, 5), "red_field", [a_red, deep_red]),
            painted("r1", (240, 20, 10), "red_field", [Caption(text="A red field")]),
            painted("g0", (5, 250, 5), "GreenField", [Caption(text="green all over")]),
        ],
        [
            painted("g1", (200, 60, 60), "GreenField", [Caption(text="green and red")]),
            painted("b0", (0, 0, 250), "blue", [Caption(text="campo azul (blue)", lang="pt")]),
        ],
    ]
    train, plain = [painted("y0", (0, 0, 9), "yellow")], [painted("p0", (9, 0, 0))]
    return write_dataset(tmp_path / "tiny", {"train": [train], "test": test, "plain": [plain]}, "painted by a test")


@pytest.fixture
def same_words(tmp_path: Path) -> Dataset:
    """Two images with one and the same caption."""
    samples = [painted(key, (250, 5, 5), None, [Caption(text="red")]) for key in ("a", "b")]
    return write_dataset(tmp_path / "same", {"test": [samples]})


@pytest.fixture
def numbered(tmp_path: Path) -> Dataset:
    """Twelve images k0 to k11 of different colours, each with a caption that says its number and nothing of its colour."""
    samples = [painted(f"k{i}", (20 * i, 255 - 20 * i, 9 * i), None, [Caption(text=f"number {i}")]) for i in range(12)]
    return write_dataset(tmp_path / "numbered", {"test": [samples]})


@pytest.fixture
def fifty(tmp_path: Path) -> Dataset:
    """Images k0 to k49 with two captions each: of a hundred, each reads like one other."""
    texts = [[Caption(text=f"number {i % 25}"), Caption(text=f"red {i % 25}")] for i in range(50)]
    samples = [painted(f"k{i}", (5 * i, 250 - 5 * i, i), None, captions) for i, captions in enumerate(texts)]
    return write_dataset(tmp_path / "fifty", {"test": [samples]})


@pytest.fixture
def two_languages(tmp_path: Path) -> Dataset:
    """Three images with an English and a Portuguese caption each, the last pair the wrong way round in Portuguese; one without."""
    shades = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}
    in_portuguese = {"red": "campo red", "green": "campo blue", "blue": "campo green"}
    samples = [
        painted(name, rgb, None, [Caption(text=f"a {name} field"), Caption(text=in_portuguese[name], lang="pt")])
        for name, rgb in shades.items()
    ]
    samples.append(painted("dark", (9, 9, 9), None, [Caption(text="only English")]))
    return write_dataset(tmp_path / "languages", {"test": [samples]})


@pytest.fixture
def two_classes(tmp_path: Path) -> Dataset:
    samples = [painted("a", (250, 5, 5), "golf_course"), painted("b", (5, 250, 5), "SeaLake")]
    return write_dataset(tmp_path / "classes", {"test": [samples]})


@pytest.fixture
def reddish(tmp_path: Path) -> Dataset:
    """Train, val and test of three classes whose colours overlap: 20, 8 and 12 images a class."""
    generator, splits = np.random.default_rng(0), {"train": 20, "val": 8, "test": 12}
    centres = {"a": (150, 90, 90), "b": (120, 120, 90), "c": (100, 100, 150)}
    return write_dataset(
        tmp_path / "reddish",
        {
            split: [
                [
                    painted(f"{split}{label}{i}", tuple(np.clip(generator.normal(rgb, 25), 0, 255).astype(int).tolist()), label)
                    for label, rgb in centres.items()
                    for i in range(count)
                ]
            ]
            for split, count in splits.items()
        },
    )


@pytest.fixture
def few_items_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models are compared on a handful of items, too, whose numbers can be checked by hand."""
    monkeypatch.setattr("evaluation.comparison.LEAST_UNITS", 1)
