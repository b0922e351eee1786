"""Captions of a finished dataset, ranked by two CLIP models and by rotation -> a dataset with `top` and `rotation` captions.

rsvl run data/rank --source DATASET --out NEW --model1 ViT-H-14,laion2b_s32b_b79k --model2 RN50x64-quickgelu,openai

The defaults are RS5M's: the first model keeps 10 of 20 candidates, the second 5 of these; of the 5 the one whose similarity changes
least over 12 rotations is the `rotation` caption. Nothing is captioned anew, and a ranked dataset can be ranked again with other
models. Train on both choices alike with `rsvl run pretrain/clip --caption-kinds top rotation`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from recipes.config import save_config
from rsvl_data.image_form import ImageForm
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.ranking.candidates import RS5M, RS5M_FIRST, RS5M_SECOND, DefaultCaption, Ranking, default_caption, prune_below
from rsvl_data.ranking.rotation import Rotation, rotation_choice
from rsvl_data.ranking.two_stage import two_stage
from rsvl_data.shards import Dataset
from rsvl_data.sources import rsvl_dataset
from rsvl_data.stage import Stage
from rsvl_pretrain.lazy_encoder import LazyEncoder


@dataclass(frozen=True, kw_only=True)
class RankOptions:
    model1: str = RS5M_FIRST
    """CLIP that ranks all candidates: an open_clip architecture, ARCHITECTURE,TAG, hf-hub:org/name, local-dir:PATH, a run folder"""
    model2: str = RS5M_SECOND
    """CLIP that ranks what the first one keeps; another design than the first, so that they do not share their mistakes"""
    ranking: Ranking = RS5M
    rotation: Rotation = field(default_factory=Rotation)
    rotation_model: Literal["model1", "model2"] = "model1"
    """which of the two compares the rotated views; the paper does not say, its figure shows a ViT"""
    prune: bool = False
    """leave out the candidates that the second model did not keep; else they stay with their scores"""
    default_caption: DefaultCaption = "top"
    """which choice becomes the first caption, which is KEY.txt; unchanged leaves the order of the source"""
    batch_size: int = 16
    """images scored at a time; times `rotation.num_views` for the choice by rotation"""
    device: str | None = None
    """where the models run: cpu, cuda, cuda:1; left out, cuda where there is one"""


@dataclass(frozen=True, kw_only=True)
class Options(RankOptions, BuildOptions):
    source: Path
    """dataset folder whose samples hold candidate captions, as `rsvl run data/...` writes it"""
    workers: int = 1
    """processes; each holds both models"""
    val: Annotated[float, tyro.conf.Suppress] = 0.0  # the source has its splits, so these three would change nothing
    test: Annotated[float, tyro.conf.Suppress] = 0.0
    group_by: Annotated[str | None, tyro.conf.Suppress] = None


def run(options: Options) -> Dataset | None:
    source = Dataset.open(options.source)
    suffix = source.manifest["image"]
    records = rsvl_dataset.open(options.source, source.name, ImageForm(suffix))
    dataset = build(records, ranking_stages(options, options.seed), options, recipe="data/rank", image_suffix=suffix)
    if dataset is not None:
        save_config(options.out, "data/rank", options)
    return dataset


def ranking_stages(options: RankOptions, seed: int) -> list[Stage]:
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    first, second = (LazyEncoder(name, device, seed) for name in (options.model1, options.model2))
    turned = first if options.rotation_model == "model1" else second
    return [
        two_stage(first, second, options.ranking, batch_size=options.batch_size),
        rotation_choice(turned, options.ranking, options.rotation, batch_size=options.batch_size),
        *([prune_below(options.ranking)] if options.prune else []),
        default_caption(options.default_caption),
    ]


def smoke(folder: Path) -> Options:
    """Twelve flat-coloured images; the sentences made from their labels are ranked by two tiny models with fresh weights."""
    from recipes.cli import recipe_module

    labelled = recipe_module("data/import")
    labelled.run(labelled.smoke(folder))
    return Options(
        source=folder / "dataset",
        out=folder / "ranked",
        model1="rsvl-tiny",
        model2="rsvl-tiny",
        ranking=Ranking(candidates=5, first_keep=3, second_keep=2, candidate_kind="label"),
        rotation=Rotation(num_views=4),
    )
