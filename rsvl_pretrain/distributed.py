"""Rank, world size and gathering; all of it does nothing in a single process."""

import torch
import torch.distributed
import torch.distributed.nn.functional
from torch import Tensor


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world_size() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes in rank order, [world * b, ...]; gradients flow back to the process a row came from."""
    if world_size() == 1:
        return rows
    if not rows.requires_grad:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)
    return torch.cat(torch.distributed.nn.functional.all_gather(rows.contiguous()))
