"""Procedural overhead scenes with exact captions, boxes and masks -> image-text shards.

rsvl run data/scenes --num 20000 --out DATASET
"""

from dataclasses import dataclass
from pathlib import Path

from recipes.config import save_config
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.shards import Dataset
from rsvl_data.sources.scenes import Scenes


@dataclass(frozen=True, kw_only=True)
class Options(BuildOptions):
    num: int = 1000
    """scenes to render"""
    size_px: int = 256
    """side of the square image, 64 to 512"""


def run(options: Options) -> Dataset | None:
    source = Scenes(options.num, options.size_px, options.seed)
    dataset = build(source, [], options, recipe="data/scenes")
    if dataset is not None:
        save_config(options.out, "data/scenes", options)
    return dataset


def smoke(folder: Path) -> Options:
    return Options(out=folder / "dataset", num=48, size_px=64, samples_per_shard=20)
