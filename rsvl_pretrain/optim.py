"""Parameter groups, and the learning rate as a function of the step."""

import math
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
    lr_scheduler: Literal["cosine", "const"] = "cosine"
    """after the warm-up: half a cosine down to 0, or the peak throughout"""
    grad_clip_norm: float | None = 1.0
    """largest norm of all gradients together"""

    def __post_init__(self) -> None:
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
    progress = (step - config.warmup) / max(num_steps - config.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * progress)) * config.lr


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """open_clip's two groups: one-dimensional parameters and whatever is named bn, ln, bias or logit_scale do not decay."""
    plain: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
            (plain if exempt else decayed).append(parameter)
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": config.wd}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
