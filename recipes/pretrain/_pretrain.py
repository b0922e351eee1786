"""What every pretraining recipe has: the options that all share, and what they make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.benchmarks.zero_shot import zero_shot
from evaluation.data import ShardSet
from recipes.config import save_config
from rsvl_data.loader import LoaderConfig
from rsvl_data.sample import CaptionKind
from rsvl_data.shard_cache import ShardCache, default_cache_folder
from rsvl_data.shards import Dataset
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig, Objective
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import Evaluator, TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    data: Path
    """dataset folder, as `rsvl run data/...` writes it, or its address: hf://datasets/org/name, s3://bucket/path, https://..."""
    out: Path
    """run folder"""
    batch_size: int = 256
    """samples a step, over all processes together; crops of them come on top"""
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
    caption_kinds: tuple[CaptionKind, ...] | None = None
    """draw from these kinds of caption alone: human, label, vlm, translation, short for brief captions, long for detailed ones, ..."""
    seed: int = 0
    """of fresh weights, order, captions, views and crops"""
    resume: str | None = None
    """`latest`, or the path of a checkpoint"""
    grad_checkpointing: bool = False
    """compute the activations inside the towers again in the backward pass: much less memory, about a third more time"""
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def dataset(self) -> Dataset:
        return Dataset.open(self.data, ShardCache(self.data_cache, self.data_cache_gib))

    def prepared(self, encoder: DualEncoder) -> DualEncoder:
        """Ready for the loss and the backward pass that are asked for."""
        if self.contrastive.loss == "sigmoid" and encoder.logit_bias is None:
            encoder.add_logit_bias()
        if self.grad_checkpointing:
            encoder.model.set_grad_checkpointing(True)
        return encoder

    def loader(self, **views_and_captions: Any) -> LoaderConfig:
        """`views_and_captions` are the fields of LoaderConfig that a recipe decides."""
        return LoaderConfig(
            batch_size=self.batch_size,
            workers=self.workers,
            prefetch=self.prefetch,
            shuffle_shards=self.shuffle_shards,
            caption_kinds=self.caption_kinds,
            seed=self.seed,
            **views_and_captions,
        )


def pretrain(
    recipe: str,
    options: PretrainOptions,
    objective: Objective,
    dataset: Dataset,
    loader: LoaderConfig,
    evaluators: Mapping[str, Evaluator],
) -> DualEncoder:
    """Trains, and writes the options beside what comes out."""
    return train(
        objective,
        dataset,
        options.out,
        config=options.train,
        optim=options.optim,
        loader=loader,
        seed=options.seed,
        resume=options.resume,
        evaluators=evaluators,
        on_start=lambda: save_config(options.out, recipe, options),
    )


def val_evaluators(dataset: Dataset) -> dict[str, Evaluator]:
    """Numbers on val, where there is one, to watch while training; the test split is not touched."""
    if "val" not in dataset.splits:
        return {}
    val = ShardSet(dataset, "val")
    if not any(item.label for item in val.items):
        return {}
    return {"val": lambda encoder: {"acc1": zero_shot(encoder, val, num_bootstrap=1).metrics["acc1"].value}}


def smoke_scenes(folder: Path) -> Path:
    """A dataset of 48 scenes."""
    from recipes.cli import recipe_module

    scenes = recipe_module("data/scenes")
    options = scenes.smoke(folder)
    scenes.run(options)
    return options.out
