"""Rank and world size; a single process is rank 0 of 1. Rows of all processes together."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_rows(rows: Shaped[Tensor, "b *d"]) -> Shaped[Tensor, "n *d"]:
    """Those of all processes, in the order of their ranks; each may have another number of them, or none.

    For what all processes then compute alike from all rows: its mean over processes is the loss, and the mean of the gradients, which DDP
    forms, is that of the loss.
    """
    return rows if world_size() == 1 else _GatherRows.apply(rows)


def mean_of_all(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """A number whose mean over processes is the mean of the values of all of them, and whose gradients' mean is its gradient. 0 for no
    values anywhere."""
    count = torch.tensor(float(len(values)), device=values.device)
    if world_size() > 1:
        dist.all_reduce(count)
    return values.sum() * (world_size() / count.clamp_min(1))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
        dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
        counts = torch.cat(sizes).tolist()
        ctx.own = slice(sum(counts[: rank()]), sum(counts[: rank() + 1]))
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Every process has the same gradient of all rows, so that the sum over processes need not be formed."""
        return world_size() * gradients[0][ctx.own]
