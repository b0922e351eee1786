"""Datasets of a few small pictures, shard by shard as a test wants them."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rsvl_data.sample import Caption, Sample, content_key
from rsvl_data.shards import Dataset, write_shard
from rsvl_data.transforms import Preprocess

PREPROCESS = Preprocess(size=16)
CAPTIONS = [
    Caption(text="a river", kind="human"),
    Caption(text="a river with a bridge", kind="vlm"),
    Caption(text="water left of houses", kind="boxes"),
    Caption(text="ein Fluss", lang="de", kind="translation"),
]


def tokenize(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[ord(letter) for letter in text[:12].ljust(12)] for text in texts])


def jpeg(seed: int, side: int = 40) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def make_sample(number: int, *, image: bytes | None = None, captions: Sequence[Caption] = CAPTIONS) -> Sample:
    image = image or jpeg(number)
    sha256 = hashlib.sha256(image).hexdigest()
    return Sample(
        key=content_key(sha256, str(number)),
        width=40,
        height=40,
        sha256=sha256,
        captions=list(captions),
        label=f"class{number % 3}",
        image=image,
    )


def write_dataset(root: Path, shards: Sequence[Sequence[Sample]], split: str = "train") -> Dataset:
    lines = []
    for number, samples in enumerate(shards):
        line = write_shard(root / "data", f"{split}-{number:05d}", iter(samples))
        assert line is not None
        lines.append({**line, "split": split})
    count = sum(len(samples) for samples in shards)
    manifest = {"format_version": 1, "name": "tiny", "note": None, "splits": {split: count}, "shards": lines, "stages": []}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return Dataset.open(root)
