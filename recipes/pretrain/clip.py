"""CLIP pretraining on shards: any open_clip model, one process or many.

rsvl run pretrain/clip --data DATASET --out RUN --model ViT-B-32

Several processes take the same options:

torchrun --nproc_per_node 8 -m recipes.pretrain.clip --data DATASET --out RUN --model ViT-B-32
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from evaluation.benchmarks.zero_shot import zero_shot
from evaluation.data import ShardSet
from recipes.config import save_config
from rsvl_data.errors import OptionError
from rsvl_data.loader import LoaderConfig
from rsvl_data.sample import CaptionKind
from rsvl_data.shard_cache import ShardCache, default_cache_folder
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Augment
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective, ContrastiveConfig
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import Evaluator, TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class Options:
    data: Path
    """dataset folder, as `rsvl run data/...` writes it, or its address: hf://datasets/org/name, s3://bucket/path, https://..."""
    out: Path
    """run folder"""
    model: str = "ViT-B-32"
    """what to start from: an open_clip architecture (fresh weights), ARCHITECTURE,TAG, hf-hub:org/name, local-dir:PATH, a run folder"""
    batch_size: int = 256
    """samples a step, over all processes together"""
    workers: int = 2
    """loader processes, each"""
    prefetch: int = 2
    """batches that each loader process has ready"""
    shuffle_shards: int = 64
    """shards whose samples are shuffled together; of data at an address, twice as many should fit into the cache"""
    data_cache: Path = field(default_factory=default_cache_folder)
    """folder where shards of data at an address are kept; all processes of a machine share it"""
    data_cache_gib: float = ShardCache.size_gib
    """the most it may take; what was used longest ago is removed"""
    augment: Literal["none", "open_clip", "rs"] = "open_clip"
    """random crop of the training image: none, open_clip's (90 to 100 % of the area), or rs (50 to 100 %)"""
    flips: bool = False
    """also one of the eight mirrored and turned orientations; captions that say `left` or `north` turn false by it"""
    caption_kinds: tuple[CaptionKind, ...] | None = None
    """draw from these kinds of caption alone: human, alt, label, meta, vlm, ..."""
    lang: str | None = None
    """draw captions of this language alone, ISO 639-1"""
    seed: int = 0
    """of fresh weights, order, captions and views"""
    resume: str | None = None
    """`latest`, or the path of a checkpoint"""
    lock_image: bool = False
    """freeze the image tower, as LiT does (arXiv:2111.07991)"""
    lock_image_unlocked_groups: int = 0
    """so many groups of its layers at the output end are trained all the same"""
    lock_text: bool = False
    """freeze the text tower"""
    lock_text_unlocked_layers: int = 0
    """so many of its layers at the output end are trained all the same"""
    grad_checkpointing: bool = False
    """compute the activations inside the towers again in the backward pass: much less memory, about a third more time"""
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        whole_image = self.lock_image and not self.lock_image_unlocked_groups
        if whole_image and self.lock_text and not self.lock_text_unlocked_layers:
            raise OptionError("--lock-image and --lock-text leave nothing to train; unlock groups or layers of one of them")
        if (self.lock_image_unlocked_groups and not self.lock_image) or (self.lock_text_unlocked_layers and not self.lock_text):
            raise OptionError("groups and layers are unlocked in a locked tower: add --lock-image or --lock-text")


def run(options: Options) -> DualEncoder:
    dataset = Dataset.open(options.data, ShardCache(options.data_cache, options.data_cache_gib))
    torch.manual_seed(options.seed)
    encoder = DualEncoder.load(options.model)
    if options.contrastive.loss == "sigmoid" and encoder.logit_bias is None:
        encoder.add_logit_bias()
    if options.lock_image:
        encoder.model.lock_image_tower(unlocked_groups=options.lock_image_unlocked_groups, freeze_bn_stats=True)
    if options.lock_text:
        encoder.model.lock_text_tower(unlocked_layers=options.lock_text_unlocked_layers)
    if options.grad_checkpointing:
        encoder.model.set_grad_checkpointing(True)
    return train(
        ClipObjective(encoder, options.contrastive),
        dataset,
        options.out,
        config=options.train,
        optim=options.optim,
        loader=LoaderConfig(
            batch_size=options.batch_size,
            workers=options.workers,
            seed=options.seed,
            augment=Augment(options.augment, options.flips),
            caption_kinds=options.caption_kinds,
            lang=options.lang,
            shuffle_shards=options.shuffle_shards,
            prefetch=options.prefetch,
        ),
        seed=options.seed,
        resume=options.resume,
        evaluators=val_evaluators(dataset) if "val" in dataset.splits else None,
        on_start=lambda: save_config(options.out, "pretrain/clip", options),
    )


def val_evaluators(dataset: Dataset) -> dict[str, Evaluator]:
    """Numbers on val to watch while training; the test split is not touched."""
    evaluators: dict[str, Evaluator] = {}
    val = ShardSet(dataset, "val")
    if any(item.label for item in val.items):
        evaluators["val"] = lambda encoder: {"acc1": zero_shot(encoder, val, num_bootstrap=1).metrics["acc1"].value}
    return evaluators


def smoke(folder: Path) -> Options:
    """Ten steps of the tiny model on 48 scenes."""
    from recipes.cli import recipe_module

    scenes = recipe_module("data/scenes")
    scenes.run(scenes.smoke(folder))
    return Options(
        data=folder / "dataset",
        out=folder / "run",
        model="rsvl-tiny",
        batch_size=8,
        train=TrainConfig(steps=10, save_every=5, eval_every=5),
    )


if __name__ == "__main__":
    from recipes.cli import main

    sys.exit(main(["run", "pretrain/clip", *sys.argv[1:]]))
