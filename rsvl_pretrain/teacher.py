"""A second model that is not trained: it stays as it was, or follows the first one as a running mean."""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rsvl_data.errors import OptionError

Module = TypeVar("Module", bound=nn.Module)


def frozen_copy(module: Module) -> Module:
    """Without gradients, so that no optimizer is given its parameters."""
    return deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, parameter by parameter. Buffers are left as they are.

    1 leaves the teacher as it is, 0 copies the student. Where an engine spreads weights over processes each one averages its part.
    Raises OptionError under ZeRO stage 3, which shows no weight as a whole or in parts.
    """
    check_weights_are_seen(teacher)
    check_weights_are_seen(student)
    olds, news = list(map(_local, teacher.parameters())), list(map(_local, student.parameters()))
    torch._foreach_lerp_(olds, news, 1 - momentum)


@torch.no_grad()
def copy_buffers(teacher: nn.Module, student: nn.Module) -> None:
    """Running statistics of a batch norm and the like: a mean of means is no better than the last one."""
    for kept, new in zip(teacher.buffers(), student.buffers(), strict=True):
        kept.copy_(new)


def check_weights_are_seen(module: nn.Module) -> None:
    """Raises OptionError under ZeRO stage 3, which shows no weight as a whole or in parts."""
    if any(hasattr(parameter, "ds_id") for parameter in module.parameters()):
        raise OptionError(
            "a teacher that follows the student cannot see the weights that ZeRO stage 3 takes apart; use stage 2, or FSDP"
        )


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
