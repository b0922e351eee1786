"""FarSLIP, stage 1: CLIP with distillation from patch to patch, of any open_clip ViT on any shards.

rsvl run pretrain/farslip1 --data DATASET --out RUN --init-from ViT-B-16-quickgelu,openai --preset paper
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from recipes.pretrain._farslip import FarSlipOptions, as_released, train_farslip
from recipes.pretrain._pretrain import smoke_scenes
from rsvl_data.crops import CropConfig, GridCrops, RandomCrops
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import DistillConfig
from rsvl_pretrain.objectives.farslip import VIEWS
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Options(FarSlipOptions):
    distill: DistillConfig = field(default_factory=DistillConfig)
    distill_weight: float = 0.1
    """factor of the distillation in the total loss"""
    crops: Literal["random", "grid"] = "random"
    """what is compared with the picture"""
    crops_per_image: int = 4
    """their number"""
    crop_area: tuple[float, float] = (0.3, 0.7)
    """range of the share of the image that a random crop shows"""
    crop_px: int | None = None
    """side of a crop, a multiple of the patch; a smaller one costs less. Left out: that of the picture"""


def run(options: Options) -> DualEncoder:
    return train_farslip(
        "pretrain/farslip1",
        options,
        options.dataset(),
        crops={VIEWS: views(options.crops, options.crops_per_image, options.crop_area, options.crop_px)},
        distill=options.distill,
        regions=None,
        weights={"distill": options.distill_weight},
    )


def views(kind: Literal["random", "grid"], count: int, area: tuple[float, float], size_px: int | None) -> CropConfig:
    return GridCrops(count, size_px) if kind == "grid" else RandomCrops(count, area, size_px=size_px)


# `paper`: 4 processes of 40 samples, an epoch of RS5M's 5,070,186. `recommended` differs in what makes the loss that of the global batch
# and the learning rate one that moves the weights.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {**as_released(lr=1e-6, warmup=1000, steps=31_689), "distill": DistillConfig(ema_update="before_step")},
    "recommended": {
        "preset": "recommended",
        "batch_size": 160,
        "optim": OptimConfig(lr=1e-5, wd=0.2, warmup=500),
        "train": TrainConfig(steps=10_000, save_every=1000),
    },
}


def smoke(folder: Path) -> Options:
    """Ten steps of the tiny model on 48 scenes."""
    options = Options(data=smoke_scenes(folder), out=folder / "run", init_from="rsvl-tiny", **PRESETS["recommended"])
    return replace(options, batch_size=8, train=TrainConfig(steps=10, save_every=5, eval_every=5))


if __name__ == "__main__":
    from recipes.cli import main

    sys.exit(main(["run", "pretrain/farslip1", *sys.argv[1:]]))
