"""What the two stages of FarSLIP have in common: a start, a dataset, a run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from recipes.pretrain._pretrain import PretrainOptions, pretrain, val_evaluators
from rsvl_data.colour_jitter import ColourJitter
from rsvl_data.crops import CropConfig
from rsvl_data.errors import OptionError
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Augment
from rsvl_pretrain.dense import DenseHead
from rsvl_pretrain.engine import deepspeed_asked_for
from rsvl_pretrain.farslip_checkpoints import load_farslip
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig, DistillConfig, FarSlipObjective, RegionConfig
from rsvl_pretrain.optim import OptimConfig, share_below_rounding
from rsvl_pretrain.text_positions import NUM_KEPT, context_length, set_context_length
from rsvl_pretrain.train import TrainConfig

log = logging.getLogger(__name__)
_CAPTIONS_LOOKED_AT, _MOST_CUT, _MOST_STUCK = 2000, 0.05, 1e-4


@dataclass(frozen=True, kw_only=True)
class FarSlipOptions(PretrainOptions):
    init_from: str
    """what to start from: ARCHITECTURE,TAG (ViT-B-16-quickgelu,openai), hf-hub:org/name, a run folder, a released FarSLIP file (.pt), or an
    architecture alone for fresh weights"""
    preset: Literal["paper", "recommended"] = "recommended"
    """where all other options start: what the released commands say, or what we would run"""
    context_length: int | None = None
    """tokens of a caption. 248 stretches the positions of a model of 77 as Long-CLIP does; left out: as many as the model reads"""
    convert_positions: bool = False
    """also go back, from 248 tokens to 77"""
    keep_first_positions: bool = True
    """of a model that reads more than it did: the first 20 positions are not trained"""
    batch_size: int = 160
    """samples a step, over all processes together; their crops come on top"""
    colour: bool = False
    """random colours of the picture and of each crop"""
    flips: bool = False
    """one of the eight mirrored and turned orientations of the picture; captions that say `left` or `north` turn false by it"""
    lang: str | None = None
    """draw captions of this language alone, ISO 639-1"""
    head: DenseHead = "segearth"
    """how patches are read (`rsvl_pretrain/dense.py`)"""


def train_farslip(
    recipe: str,
    options: FarSlipOptions,
    dataset: Dataset,
    *,
    crops: Mapping[str, CropConfig],
    distill: DistillConfig | None,
    regions: RegionConfig | None,
    weights: Mapping[str, float],
    max_regions: int = 0,
) -> DualEncoder:
    encoder, was_lengthened = _start(options)
    _warn(dataset, encoder, options)
    objective = FarSlipObjective(
        encoder,
        options.contrastive,
        distill=distill,
        regions=regions,
        head=options.head,
        weights=weights,
        max_regions=max_regions,
        keep_positions=options.keep_first_positions and was_lengthened,
    )
    loader = options.loader(
        augment=Augment("stretch", options.flips, ColourJitter() if options.colour else None), crops=crops, lang=options.lang
    )
    return pretrain(recipe, options, objective, dataset, loader, val_evaluators(dataset))


def as_released(lr: float, warmup: int, steps: int) -> dict[str, Any]:
    """What both released commands share (README of https://github.com/NJU-LHRS/FarSLIP), but for fp16."""
    return {
        "preset": "paper",
        "batch_size": 160,
        "contrastive": ContrastiveConfig(local_loss=False, gather_with_grad=False),
        "optim": OptimConfig(lr=lr, wd=1.0, warmup=warmup, grad_clip_norm=None),
        "train": TrainConfig(steps=steps, save_every=1000),
    }


def _start(options: FarSlipOptions) -> tuple[DualEncoder, bool]:
    """The encoder, and whether it reads more tokens than CLIP's 77 by stretched positions."""
    torch.manual_seed(options.seed)
    encoder = load_farslip(Path(options.init_from)) if options.init_from.endswith(".pt") else DualEncoder.load(options.init_from)
    before = context_length(encoder)
    set_context_length(encoder, options.context_length or before, convert=options.convert_positions)
    if options.grad_checkpointing:
        encoder.model.set_grad_checkpointing(True)
    was_lengthened = context_length(encoder) > min(before, 77)
    if was_lengthened and options.keep_first_positions and deepspeed_asked_for():
        raise OptionError(
            f"DeepSpeed trains the first {NUM_KEPT} positions with the others: take --no-keep-first-positions, or FSDP2"
        )
    return encoder, was_lengthened


def _warn(dataset: Dataset, encoder: DualEncoder, options: FarSlipOptions) -> None:
    stuck = share_below_rounding(encoder, options.optim.lr)
    if stuck > _MOST_STUCK:
        log.warning(
            "--optim.lr %g is less than half of the rounding of %.2g %% of the weights in fp32: a step leaves them as they are",
            options.optim.lr,
            100 * stuck,
        )
    first = dataset.table("train", ["captions"])["captions"].slice(0, _CAPTIONS_LOOKED_AT)
    captions = [text for texts in first.to_pylist() for text in texts]
    tokens = encoder.tokenizer(captions[:_CAPTIONS_LOOKED_AT])
    cut = (tokens[:, -1] != 0).float().mean().item()
    if cut > _MOST_CUT:
        log.warning(
            "%.0f %% of the captions fill all %d tokens that the model reads, and are cut where they are longer; "
            "see --context-length and --caption-kinds",
            100 * cut,
            tokens.shape[1],
        )
