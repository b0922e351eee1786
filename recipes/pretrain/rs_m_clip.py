"""RS-M-CLIP: CLIP on captions in many languages, with self-distillation of the image tower.

rsvl run pretrain/rs_m_clip --preset reconstruction --data DATASET --out RUN
rsvl run pretrain/rs_m_clip --preset light --data DATASET --out RUN

`reconstruction` starts from the checkpoint that the paper names; settings that it leaves open are its ancestors' (`docs/objectives.md` says
which). `light` is a small model for a CPU. A dataset's captions may be in any of the languages; `rsvl data stats` counts its captions.
Several processes take the same options:

torchrun --nproc_per_node 8 -m recipes.pretrain.rs_m_clip --preset reconstruction --data DATASET --out RUN
"""

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch

from evaluation.benchmarks.retrieval import ALL, retrieval
from evaluation.data import ShardSet
from evaluation.prompts_multilingual import LANGS
from recipes.pretrain._pretrain import PretrainOptions, pretrain, smoke_scenes, val_evaluators
from recipes.pretrain._unused import Needs, refuse_unused
from rsvl_data.caption_draw import LanguageDraw
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Augment
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import RsMClipObjective, ViewConfig
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.self_distillation import SelfDistillationConfig
from rsvl_pretrain.train import Evaluator, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Options(PretrainOptions):
    preset: Literal["reconstruction", "light"] = "reconstruction"
    """where all other options start: the paper as far as it is known, or a small model; `--preset light --help` shows what it sets"""
    model: str = "hf-hub:laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k"
    """what to start from: an open_clip architecture (fresh weights), ARCHITECTURE,TAG, hf-hub:org/name, local-dir:PATH, a run folder"""
    languages: tuple[str, ...] = LANGS
    """draw captions in these, ISO 639-1; of a sample, in those of them that it has"""
    english_share: float | None = None
    """how often English is drawn where a sample has it and another language; left out: as often as each other language"""
    distillation: SelfDistillationConfig = field(default_factory=SelfDistillationConfig)
    views: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        self.language_draw  # noqa: B018  wrong languages are named at once
        refuse_unused(self, PRESETS, self._needs())

    def _needs(self) -> list[Needs]:
        is_distilled, has_local = self.distillation.weight > 0, self.views.local_crops > 0
        has_global = is_distilled or self.views.contrastive == "global"
        of_loss = [f"distillation.{each.name}" for each in fields(self.distillation) if each.name != "weight"]
        of_local = ["views.local_area", "views.local_px", "views.local_flips"]
        of_global = ["views.global_crops", "views.global_area", "views.global_flips"]
        return [
            Needs(is_distilled, "a --distillation.weight above 0", [*of_loss, "views.local_crops"]),
            Needs(is_distilled and has_local, "local crops, and a --distillation.weight above 0", of_local),
            Needs(has_global, "--views.contrastive global, or a --distillation.weight above 0", of_global),
        ]

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
    dataset = options.dataset()
    torch.manual_seed(options.seed)
    encoder = options.prepared(DualEncoder.load(options.model))
    objective = RsMClipObjective(
        encoder,
        contrastive=options.contrastive,
        distillation=options.distillation,
        views=options.views,
        languages=options.languages,
        num_steps=options.train.steps,
    )
    loader = options.loader(
        augment=Augment("open_clip"),
        crops=options.views.crops(distilled=options.distillation.weight > 0),
        languages=options.language_draw,
    )
    evaluators = {**val_evaluators(dataset), **language_evaluators(dataset)}
    return pretrain("pretrain/rs_m_clip", options, objective, dataset, loader, evaluators)


def language_evaluators(dataset: Dataset) -> dict[str, Evaluator]:
    """Retrieval on val in each of its languages, on the images that have captions in all of them, and the mean."""
    if "val" not in dataset.splits:
        return {}
    val = ShardSet(dataset, "val")
    langs_of_items = [{lang for _, lang in item.captions} for item in val.items]
    langs = set().union(*langs_of_items)
    if not langs or langs not in langs_of_items:
        return {}
    return {
        "val_retrieval": lambda encoder: {
            name: metric.value
            for name, metric in retrieval(encoder, val, lang=ALL, num_bootstrap=1).metrics.items()
            if name.startswith("mean_recall")
        }
    }


def smoke(folder: Path) -> Options:
    """Ten steps of the tiny model on 48 scenes."""
    return Options(
        data=smoke_scenes(folder),
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
