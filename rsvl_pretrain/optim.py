"""Parameter groups, and the learning rate as a function of the step."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from rsvl_data.errors import OptionError


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with open_clip's defaults for ViT (open_clip `src/open_clip_train/params.py`, `get_default_params`)."""

    lr: float = 5e-4
    """peak learning rate"""
    beta1: float = 0.9
    """share of the old mean of gradients that is kept each step"""
    beta2: float = 0.98
    """the same for the mean of squared gradients"""
    eps: float = 1e-6
    """keeps the division by the root of that mean finite"""
    wd: float = 0.2
    """weight decay of matrices; gains, biases and the logit scale have none"""
    warmup: int = 100
    """steps of linear warm-up; never more than a tenth of a run that is shorter than ten times as long"""
    lr_scheduler: Literal["cosine", "const", "const-cooldown"] = "cosine"
    """after the warm-up: half a cosine down to 0, the peak throughout, or the peak until the last `cooldown_steps` and then down"""
    cooldown_steps: int = 0
    """steps of const-cooldown at the end"""
    cooldown_power: float = 1.0
    """shape of the way down: 1 is a straight line"""
    cooldown_end_lr: float = 0.0
    """where it would arrive at the end"""
    layer_decay: float | None = None
    """lr of each block of a tower as a share of the next higher one's, 0.65 to 0.9 being usual; what comes after the blocks keeps lr"""
    grad_clip_norm: float | None = 1.0
    """largest norm of all gradients together"""

    def __post_init__(self) -> None:
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise OptionError(f"--optim.layer-decay {self.layer_decay} must be above 0 and at most 1")
        if (self.lr_scheduler == "const-cooldown") != (self.cooldown_steps > 0):
            raise OptionError(
                f"--optim.lr-scheduler {self.lr_scheduler} with --optim.cooldown-steps {self.cooldown_steps}: "
                "const-cooldown needs steps above 0, and nothing else takes them"
            )
        if self.lr <= 0 or self.warmup < 0 or self.wd < 0:
            raise OptionError(
                f"--optim.lr {self.lr} must be above 0, --optim.warmup {self.warmup} and --optim.wd {self.wd} at least 0"
            )


def learning_rate(step: int, config: OptimConfig, num_steps: int) -> float:
    """Of the step with this number, counted from 0: warm-up to the peak, then constant or a half cosine that would reach 0 at
    `num_steps` (open_clip `src/open_clip_train/scheduler.py`)."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.lr_scheduler == "const":
        return config.lr
    if config.lr_scheduler == "const-cooldown":
        left = num_steps - step
        if left > config.cooldown_steps:
            return config.lr
        return (left / config.cooldown_steps) ** config.cooldown_power * (
            config.lr - config.cooldown_end_lr
        ) + config.cooldown_end_lr
    progress = (step - config.warmup) / max(num_steps - config.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * progress)) * config.lr


def make_optimizer(model: nn.Module, config: OptimConfig, lr_shares: Mapping[str, float] | None = None) -> torch.optim.AdamW:
    """open_clip's two groups: one-dimensional parameters and whatever is named bn, ln, bias or logit_scale do not decay.

    With `layer_decay` (BEiT, arXiv:2106.08254, appendix) there are two for each depth; parameters whose name begins with a key of
    `lr_shares` have groups of their own. Every group's `lr_scale` is its share of the learning rate.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
            share = config.layer_decay ** _blocks_above(name, names) if config.layer_decay else 1.0
            share *= next((own for prefix, own in (lr_shares or {}).items() if name.startswith(prefix)), 1.0)
            groups.setdefault((share, not exempt), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[share, decays], "weight_decay": config.wd if decays else 0.0, "lr_scale": share}
            for share, decays in sorted(groups)
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,  # one kernel for all parameters; on a CPU as well
    )


@torch.no_grad()
def share_below_rounding(model: nn.Module, lr: float) -> float:
    """Share of the trained weights that a change of `lr` leaves as they are, since it is less than half of what they are rounded to.

    AdamW's steps are about as large as the learning rate. Weight decay is `lr * wd` of a weight, and lost on all where that is below 6e-8.
    """
    stuck = total = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            size = parameter.abs()
            ulp = torch.nextafter(size, torch.full_like(size, torch.inf)) - size
            stuck += int((ulp > 2 * lr).sum())
            total += parameter.numel()
    return stuck / max(total, 1)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


_BLOCK = re.compile(r"(.*\.)?(?:resblocks|blocks|layer|layers)\.(\d+)\.")
_BEFORE_BLOCKS = (
    "conv1",
    "class_embedding",
    "positional_embedding",
    "pos_embed",
    "cls_token",
    "ln_pre",
    "patch_embed",
    "token_embedding",
    "embeddings",
)


def _blocks_above(name: str, names: Sequence[str]) -> int:
    """How many blocks of its tower lie between a parameter and the output; for embeddings all of them and one more. What an objective
    has beside its encoder comes after the towers."""
    in_encoder = [other for other in names if other.startswith("encoder.")]
    if in_encoder and name not in in_encoder:
        return 0
    names = in_encoder or names
    tower = "visual." in name
    if any(".stages." in other for other in names):
        raise OptionError(
            "--optim.layer-decay counts the blocks of a transformer; this model has a tower in stages (ConvNeXt, Swin)"
        )
    numbers = {int(match[2]) for other in names if ("visual." in other) == tower and (match := _BLOCK.match(other))}
    if match := _BLOCK.match(name):
        return max(numbers) - int(match[2]) + 1
    return len(numbers) + 1 if any(word in name for word in _BEFORE_BLOCKS) else 0
