"""FarSLIP, stage 2: CLIP with crops of objects against the words of their categories.

rsvl run pretrain/farslip2 --data DATASET --out RUN --init-from runs/stage1 --preset paper

The dataset's samples have regions (boxes with a category), as sources of detection data and the procedural scenes write them.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc

from recipes.pretrain._farslip import FarSlipOptions, as_released, train_farslip
from recipes.pretrain._pretrain import smoke_scenes
from recipes.pretrain._unused import Needs
from rsvl_data.crops import CropConfig, ObjectCrops
from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import DistillConfig, RegionConfig
from rsvl_pretrain.objectives.farslip import REGIONS, VIEWS
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Options(FarSlipOptions):
    regions: RegionConfig = field(default_factory=RegionConfig)
    region_weight: float = 1.0
    """factor of the region loss in the total loss"""
    regions_per_image: int = 4
    """objects that are drawn of a sample at most"""
    min_area_px: float = 64.0**2
    """smallest box that is used, in square pixels"""
    max_area_px: float = 1024.0**2
    """largest box that is used"""
    margin: float = 0.0
    """context on each side of a box, as a share of its width or height"""
    letterbox: bool = False
    """keep the aspect of a box and fill up its square, in place of stretching it"""
    prompt: str = "a satellite image of {category}"
    """text of a region that has no caption of its own"""
    region_captions: Literal["ignored", "own_category", "no_category"] = "own_category"
    """a region's own caption: not used, a category of its own, or without a category (and so left out of the multi-positive loss)"""
    distill_from: Literal["none", "random", "grid", "objects"] = "none"
    """also distil, as in stage 1: compare the picture with random crops, with those of a grid, or with those of the objects"""

    def __post_init__(self) -> None:
        reads_patches = self.distill_from != "none" or self.regions.align != "cls"
        has_views, has_random = self.distill_from in ("random", "grid"), self.distill_from == "random"
        needs = [
            Needs(self.distill_from != "none", "--distill-from random, grid or objects", ("distill", "distill_weight")),
            Needs(has_views, "--distill-from random or grid", ("crops_per_image", "crop_px")),
            Needs(has_random, "--distill-from random", ("crop_area", "crop_aspect")),
            Needs(reads_patches, "--distill-from, or --regions.align pooled or roi", ("head",)),
            Needs(self.regions.align != "roi", "--regions.align cls or pooled", ("letterbox",)),
        ]
        self.check(PRESETS, needs)
        if self.letterbox and self.distill_from == "objects":
            raise OptionError(
                "--letterbox fills up crops of objects, which --distill-from objects compares with their boxes: drop one"
            )

    @property
    def weights(self) -> dict[str, float]:
        of_crops = {"distill": self.distill_weight} if self.distill_from != "none" else {}
        return {"contrastive": self.contrastive_weight, "regions": self.region_weight, **of_crops}


def run(options: Options) -> DualEncoder:
    dataset = options.dataset()
    if not pc.sum(dataset.table("train", ["num_regions"])["num_regions"]).as_py():
        raise OptionError(f"{options.data} has no regions in its train split; stage 2 needs boxes with a category")
    crops: dict[str, CropConfig] = {
        REGIONS: ObjectCrops(
            options.regions_per_image,
            options.min_area_px,
            options.max_area_px,
            margin=options.margin,
            letterbox=options.letterbox,
            prompt=options.prompt,
            captions=options.region_captions,
        )
    }
    if options.distill_from in ("random", "grid"):
        crops[VIEWS] = options.views(options.distill_from)
    return train_farslip(
        "pretrain/farslip2",
        options,
        dataset,
        crops=crops,
        distill=None if options.distill_from == "none" else options.distill,
        regions=options.regions,
        max_regions=options.regions_per_image,
    )


# `paper`: ten epochs of MGRS-200k on 4 processes of 40. In fp32 its weight decay is lost on all weights, its rate on those from 1/8 on; the
# run says which share these are. Captions are the detailed ones, or the one that a record has in place of both.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        **as_released(lr=4e-9, warmup=250, steps=12_500),
        "colour": True,
        "caption_kinds": ("long", "vlm"),
        "region_captions": "no_category",
        "distill": DistillConfig(ema_update="before_step"),
    },
    "recommended": {
        "preset": "recommended",
        "batch_size": 160,
        "optim": OptimConfig(lr=1e-5, wd=0.2, warmup=250),
        "train": TrainConfig(steps=5000, save_every=1000),
    },
}


def smoke(folder: Path) -> Options:
    """Ten steps of the tiny model on 48 scenes and their objects."""
    options = Options(data=smoke_scenes(folder), out=folder / "run", init_from="rsvl-tiny", **PRESETS["recommended"])
    return replace(options, batch_size=8, min_area_px=64, train=TrainConfig(steps=10, save_every=5, eval_every=5))


if __name__ == "__main__":
    from recipes.cli import main

    sys.exit(main(["run", "pretrain/farslip2", *sys.argv[1:]]))
