"""FarSLIP, stage 1: CLIP with distillation from patch to patch, of any open_clip ViT on any shards.

rsvl run pretrain/farslip1 --data DATASET --out RUN --init-from ViT-B-16-quickgelu,openai --preset paper
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recipes.pretrain._farslip import FarSlipOptions, as_released, train_farslip
from recipes.pretrain._pretrain import smoke_scenes
from recipes.pretrain._unused import Needs
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import DistillConfig
from rsvl_pretrain.objectives.farslip import VIEWS
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Options(FarSlipOptions):
    crops: Literal["random", "grid"] = "random"
    """crops that are compared with the picture: at random, or the parts of a grid"""

    def __post_init__(self) -> None:
        self.check(PRESETS, [Needs(self.crops == "random", "--crops random", ("crop_area", "crop_aspect"))])


def run(options: Options) -> DualEncoder:
    return train_farslip(
        "pretrain/farslip1",
        options,
        options.dataset(),
        crops={VIEWS: options.views(options.crops)},
        distill=options.distill,
        regions=None,
    )


# `paper`: an epoch of RS5M's 5,070,186 pairs on 4 processes of 40; their number decides the balance of the terms (docs/objectives.md).
# `recommended` differs in what makes the loss that of the global batch and the learning rate one that moves the weights.
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
