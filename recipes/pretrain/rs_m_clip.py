"""RS-M-CLIP: CLIP on captions in many languages, with self-distillation of the image tower.

rsvl run pretrain/rs_m_clip --preset reconstruction --data DATASET --out RUN
rsvl run pretrain/rs_m_clip --preset light --data DATASET --out RUN

`reconstruction` starts from the checkpoint that the paper names; settings that it leaves open are its ancestors' (`docs/objectives.md` says
which). `light` is a small model for a CPU. A dataset's captions may be in any of the languages; `rsvl data stats` counts its captions.
Several processes take the same options:

torchrun --nproc_per_node 8 -m recipes.pretrain.rs_m_clip --preset reconstruction --data DATASET --out RUN
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from evaluation.benchmarks.retrieval import ALL, retrieval
from evaluation.data import ShardSet
from evaluation.prompts_multilingual import LANGS
from recipes.config import save_config
from recipes.pretrain import clip
from rsvl_data.caption_draw import LanguageDraw
from rsvl_data.loader import LoaderConfig
from rsvl_data.sample import CaptionKind
from rsvl_data.shard_cache import ShardCache, default_cache_folder
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Augment
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig, RsMClipObjective, ViewConfig
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.self_distillation import SelfDistillationConfig
from rsvl_pretrain.train import Evaluator, TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class Options:
    data: Path
    """dataset folder, as `rsvl run data/...` writes it, or its address: hf://datasets/org/name, s3://bucket/path, https://..."""
    out: Path
    """run folder"""
    preset: Literal["reconstruction", "light"] = "reconstruction"
    """where all other options start: the paper as far as it is known, or a small model for a CPU"""
    model: str = "hf-hub:laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k"
    """what to start from: an open_clip architecture (fresh weights), ARCHITECTURE,TAG, hf-hub:org/name, local-dir:PATH, a run folder"""
    languages: tuple[str, ...] = LANGS
    """draw captions in these, ISO 639-1; of a sample, in those of them that it has"""
    english_share: float | None = None
    """how often English is drawn where a sample has it and another language; left out: as often as each other language"""
    caption_kinds: tuple[CaptionKind, ...] | None = None
    """draw from these kinds of caption alone: human, alt, translation, ..."""
    batch_size: int = 256
    """samples a step, over all processes together"""
    workers: int = 2
    """loader processes, each"""
    shuffle_shards: int = 64
    """shards whose samples are shuffled together; of data at an address, twice as many should fit into the cache"""
    data_cache: Path = field(default_factory=default_cache_folder)
    """folder where shards of data at an address are kept; all processes of a machine share it"""
    data_cache_gib: float = ShardCache.size_gib
    """the most it may take; what was used longest ago is removed"""
    seed: int = 0
    """of fresh weights, order, captions and views"""
    resume: str | None = None
    """`latest`, or the path of a checkpoint"""
    grad_checkpointing: bool = False
    """compute the activations inside the towers again in the backward pass: much less memory, about a third more time"""
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    distillation: SelfDistillationConfig = field(default_factory=SelfDistillationConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.language_draw  # noqa: B018  wrong languages are named at once

    @property
    def language_draw(self) -> LanguageDraw:
        return LanguageDraw(self.languages, self.english_share)


PRESETS: dict[str, dict[str, Any]] = {
    # Section 3.3 of the reference: bf16, 20 epochs of 40,402 images, 5 % of them warm-up. All of it is inferred.
    "reconstruction": {
        "distillation": SelfDistillationConfig(head_lr_share=50.0),  # 5e-4
        "optim": OptimConfig(lr=1e-5, warmup=158),
        "train": TrainConfig(steps=3160, precision="amp_bf16", eval_every=158),
    },
    "light": {
        "preset": "light",
        "model": "rsvl-tiny-multilingual",
        "batch_size": 64,
        # A narrower head begins with features near 0, whose direction pulls at the tower harder than the captions do.
        "distillation": SelfDistillationConfig(prototypes=1024, hidden_dim=512),
        "views": ViewConfig(local_crops=4, local_px=32),
        "train": TrainConfig(steps=300, eval_every=100),
    },
}


def run(options: Options) -> DualEncoder:
    dataset = Dataset.open(options.data, ShardCache(options.data_cache, options.data_cache_gib))
    torch.manual_seed(options.seed)
    encoder = DualEncoder.load(options.model)
    if options.grad_checkpointing:
        encoder.model.set_grad_checkpointing(True)
    objective = RsMClipObjective(
        encoder,
        contrastive=options.contrastive,
        distillation=options.distillation,
        views=options.views,
        languages=options.languages,
        num_steps=options.train.steps,
    )
    return train(
        objective,
        dataset,
        options.out,
        config=options.train,
        optim=options.optim,
        loader=LoaderConfig(
            batch_size=options.batch_size,
            workers=options.workers,
            seed=options.seed,
            augment=Augment("open_clip"),
            crops=options.views.crops(distilled=options.distillation.weight > 0),
            caption_kinds=options.caption_kinds,
            languages=options.language_draw,
            shuffle_shards=options.shuffle_shards,
        ),
        seed=options.seed,
        resume=options.resume,
        evaluators=val_evaluators(dataset) if "val" in dataset.splits else None,
        on_start=lambda: save_config(options.out, "pretrain/rs_m_clip", options),
    )


def val_evaluators(dataset: Dataset) -> dict[str, Evaluator]:
    """Retrieval on val in each of its languages, on the images that have captions in all of them, and the mean."""
    evaluators = clip.val_evaluators(dataset)
    val = ShardSet(dataset, "val")
    langs_of_items = [{lang for _, lang in item.captions} for item in val.items]
    if (langs := set().union(*langs_of_items)) and langs in langs_of_items:
        evaluators["val_retrieval"] = lambda encoder: {
            name: metric.value
            for name, metric in retrieval(encoder, val, lang=ALL, num_bootstrap=1).metrics.items()
            if name.startswith("mean_recall")
        }
    return evaluators


def smoke(folder: Path) -> Options:
    """Ten steps of the tiny model on 48 scenes."""
    from recipes.cli import recipe_module

    scenes = recipe_module("data/scenes")
    scenes.run(scenes.smoke(folder))
    return Options(
        data=folder / "dataset",
        out=folder / "run",
        model="rsvl-tiny-multilingual",
        batch_size=8,
        distillation=SelfDistillationConfig(prototypes=64, hidden_dim=512),
        views=ViewConfig(local_crops=2, local_px=32),
        train=TrainConfig(steps=10, save_every=5, eval_every=5),
    )


if __name__ == "__main__":
    from recipes.cli import main

    sys.exit(main(["run", "pretrain/rs_m_clip", *sys.argv[1:]]))
