"""What the two stages of FarSLIP have in common: a start, a dataset, a run."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from recipes.pretrain._pretrain import PretrainOptions, pretrain, val_evaluators
from recipes.pretrain._unused import Needs, refuse_unused
from rsvl_data.colour_jitter import ColourJitter
from rsvl_data.crops import CropConfig, GridCrops, RandomCrops
from rsvl_data.errors import OptionError
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Augment
from rsvl_pretrain.dense import DenseHead
from rsvl_pretrain.engine import deepspeed_asked_for
from rsvl_pretrain.farslip_checkpoints import load_farslip
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig, DistillConfig, FarSlipObjective, RegionConfig
from rsvl_pretrain.optim import OptimConfig, share_below_rounding
from rsvl_pretrain.text_positions import NUM_KEPT, context_length, is_stretched_clip, set_context_length
from rsvl_pretrain.train import TrainConfig

log = logging.getLogger(__name__)
_CAPTIONS_LOOKED_AT, _MOST_CUT, _MOST_STUCK = 2000, 0.05, 1e-4


@dataclass(frozen=True, kw_only=True)
class FarSlipOptions(PretrainOptions):
    init_from: str
    """what to start from: ViT-B-16-quickgelu,openai (ARCHITECTURE,TAG), hf-hub:org/name, a run folder, a released FarSLIP file (.pt)"""
    preset: Literal["paper", "recommended"] = "recommended"
    """where all other options start: as the released commands, or as we would run it; `--preset paper --help` shows what it sets"""
    context_length: int | None = None
    """tokens of a caption: 248 stretches the positions of a model of 77 as Long-CLIP does; left out: as many as the model reads"""
    convert_positions: bool = False
    """let --context-length 77 shorten a model of 248, whose other positions are lost"""
    keep_first_positions: bool = True
    """do not train the first 20 positions of a model of 77 tokens that was stretched, now or before"""
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
    contrastive_weight: float = 1.0
    """factor of the contrastive loss in the total; 0 only watches it; 0.25 on one process balances as the paper's four processes do"""
    distill: DistillConfig = field(default_factory=DistillConfig)
    distill_weight: float = 0.1
    """factor of the distillation (crops compared with the patches of the picture) in the total loss"""
    crops_per_image: int = 4
    """random or grid crops of an image that are compared with it"""
    crop_area: tuple[float, float] = RandomCrops.area
    """smallest and largest share of the image that a random crop shows"""
    crop_aspect: tuple[float, float] = RandomCrops.aspect
    """smallest and largest width of a random crop by its height"""
    crop_px: int | None = None
    """side of a random or grid crop, a multiple of the patch; a smaller one costs less. Left out: that of the picture"""

    @property
    def weights(self) -> dict[str, float]:
        """Factors of the terms in the total loss."""
        return {"contrastive": self.contrastive_weight, "distill": self.distill_weight}

    def views(self, kind: Literal["random", "grid"]) -> CropConfig:
        """Crops that are compared with the picture."""
        if kind == "grid":
            return GridCrops(self.crops_per_image, self.crop_px)
        return RandomCrops(self.crops_per_image, self.crop_area, self.crop_aspect, self.crop_px)

    def check(self, presets: Mapping[str, Mapping[str, Any]], needs: Sequence[Needs]) -> None:
        """Raises OptionError for weights that train nothing, and for what neither `needs` nor the options of both stages have a use for."""
        named = ", ".join(f"--{'region' if name == 'regions' else name}-weight {weight}" for name, weight in self.weights.items())
        if min(self.weights.values()) < 0 or not any(self.weights.values()):
            raise OptionError(f"{named}: none may be below 0, and one must be above")
        of_mean, of_length = ("distill.momentum", "distill.ema_update"), ("convert_positions",)
        in_common = [
            Needs(self.distill.teacher == "ema", "--distill.teacher ema", of_mean),
            Needs(self.context_length is not None, "--context-length", of_length),
        ]
        refuse_unused(self, presets, [*needs, *in_common])


def train_farslip(
    recipe: str,
    options: FarSlipOptions,
    dataset: Dataset,
    *,
    crops: Mapping[str, CropConfig],
    distill: DistillConfig | None,
    regions: RegionConfig | None,
    max_regions: int = 0,
) -> DualEncoder:
    if not options.contrastive_weight and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError(
            "--contrastive-weight 0 leaves weights without a gradient, for which several processes would wait: take one"
        )
    torch.manual_seed(options.seed)
    from_file = options.init_from.endswith(".pt")
    encoder = options.prepared(load_farslip(Path(options.init_from)) if from_file else DualEncoder.load(options.init_from))
    keep_positions = _fit_positions(encoder, options)
    _warn_of_lost_rate(encoder, options.optim.lr)
    _warn_of_cut_captions(encoder, dataset, options)
    objective = FarSlipObjective(
        encoder,
        options.contrastive,
        distill=distill,
        regions=regions,
        head=options.head,
        weights=options.weights,
        max_regions=max_regions,
        keep_positions=keep_positions,
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


def _fit_positions(encoder: DualEncoder, options: FarSlipOptions) -> bool:
    """Brings the text tower to the tokens that are asked for, and says whether its first positions stay as they are in training."""
    was_lengthened = False
    if options.context_length is not None:
        before = context_length(encoder)
        set_context_length(encoder, options.context_length, convert=options.convert_positions)
        was_lengthened = options.context_length > before
    was_lengthened = was_lengthened or is_stretched_clip(encoder)
    if not (was_lengthened or options.keep_first_positions):
        raise OptionError(
            "--no-keep-first-positions changes nothing: no position is kept unless --context-length 248 stretches them"
        )
    if was_lengthened and options.keep_first_positions and deepspeed_asked_for():
        raise OptionError(
            f"DeepSpeed trains the first {NUM_KEPT} positions with the others: take --no-keep-first-positions, or FSDP2"
        )
    return was_lengthened and options.keep_first_positions


def _warn_of_lost_rate(encoder: DualEncoder, lr: float) -> None:
    stuck = share_below_rounding(encoder, lr)
    if stuck > _MOST_STUCK:
        log.warning(
            "--optim.lr %g is less than half of the rounding of %.2g %% of the weights in fp32: a step leaves them as they are",
            lr,
            100 * stuck,
        )


def _warn_of_cut_captions(encoder: DualEncoder, dataset: Dataset, options: FarSlipOptions) -> None:
    """Of the captions that the run draws from, how many are longer than what the text tower reads."""
    kinds, lang = options.caption_kinds, options.lang
    first = dataset.table("train", ["captions", "caption_kinds", "caption_langs"]).slice(0, _CAPTIONS_LOOKED_AT)
    columns = (first[name].to_pylist() for name in ("captions", "caption_kinds", "caption_langs"))
    each = (caption for of_sample in zip(*columns) for caption in zip(*of_sample))
    drawn = [text for text, its_kind, its_lang in each if (not kinds or its_kind in kinds) and lang in (None, its_lang)]
    if not drawn:
        return
    tokens = encoder.tokenizer(drawn[:_CAPTIONS_LOOKED_AT])
    length = tokens.shape[1]
    # With room for one token more, what was cut has a word where its end was.
    wider = encoder.tokenizer(drawn[:_CAPTIONS_LOOKED_AT], context_length=length + 1)
    cut = (wider[:, :length] != tokens).any(dim=1).float().mean().item()
    if cut > _MOST_CUT:
        log.warning(
            "%.0f %% of the captions are longer than the %d tokens that the model reads, and are cut; "
            "see --context-length and --caption-kinds",
            100 * cut,
            length,
        )
