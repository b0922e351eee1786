"""CLIP pretraining on shards: any open_clip model, one process or many.

rsvl run pretrain/clip --data DATASET --out RUN --model ViT-B-32

Several processes take the same options:

torchrun --nproc_per_node 8 -m recipes.pretrain.clip --data DATASET --out RUN --model ViT-B-32
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from recipes.pretrain._pretrain import PretrainOptions, pretrain, smoke_scenes, val_evaluators
from rsvl_data.errors import OptionError
from rsvl_data.transforms import Augment
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Options(PretrainOptions):
    model: str = "ViT-B-32"
    """what to start from: an open_clip architecture (fresh weights), ARCHITECTURE,TAG, hf-hub:org/name, local-dir:PATH, a run folder"""
    augment: Literal["none", "open_clip", "rs"] = "open_clip"
    """random crop of the training image: none, open_clip's (90 to 100 % of the area), or rs (50 to 100 %)"""
    flips: bool = False
    """also one of the eight mirrored and turned orientations; captions that say `left` or `north` turn false by it"""
    lang: str | None = None
    """draw captions of this language alone, ISO 639-1"""
    lock_image: bool = False
    """freeze the image tower, as LiT does (arXiv:2111.07991)"""
    lock_image_unlocked_groups: int = 0
    """so many groups of its layers at the output end are trained all the same"""
    lock_text: bool = False
    """freeze the text tower"""
    lock_text_unlocked_layers: int = 0
    """so many of its layers at the output end are trained all the same"""

    def __post_init__(self) -> None:
        whole_image = self.lock_image and not self.lock_image_unlocked_groups
        if whole_image and self.lock_text and not self.lock_text_unlocked_layers:
            raise OptionError("--lock-image and --lock-text leave nothing to train; unlock groups or layers of one of them")
        if (self.lock_image_unlocked_groups and not self.lock_image) or (self.lock_text_unlocked_layers and not self.lock_text):
            raise OptionError("groups and layers are unlocked in a locked tower: add --lock-image or --lock-text")


def run(options: Options) -> DualEncoder:
    dataset = options.dataset()
    torch.manual_seed(options.seed)
    encoder = options.prepared(DualEncoder.load(options.model))
    if options.lock_image:
        encoder.model.lock_image_tower(unlocked_groups=options.lock_image_unlocked_groups, freeze_bn_stats=True)
    if options.lock_text:
        encoder.model.lock_text_tower(unlocked_layers=options.lock_text_unlocked_layers)
    return pretrain(
        "pretrain/clip",
        options,
        ClipObjective(encoder, options.contrastive),
        dataset,
        options.loader(augment=Augment(options.augment, options.flips), lang=options.lang),
        val_evaluators(dataset),
    )


def smoke(folder: Path) -> Options:
    """Ten steps of the tiny model on 48 scenes."""
    return Options(
        data=smoke_scenes(folder),
        out=folder / "run",
        model="rsvl-tiny",
        batch_size=8,
        train=TrainConfig(steps=10, save_every=5, eval_every=5),
    )


if __name__ == "__main__":
    from recipes.cli import main

    sys.exit(main(["run", "pretrain/clip", *sys.argv[1:]]))
