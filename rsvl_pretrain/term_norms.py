"""How much each term of the total loss pulls at the weights."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rsvl_pretrain.distributed import world_size


def term_norms(model: nn.Module, terms: dict[str, Tensor]) -> dict[str, float]:
    """Norm of the gradient of each term by all trained parameters, over the global batch. The graphs of the terms stay.

    Each process holds whole weights; every process must call. It costs a backward pass for each term.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return {f"grad_norm/{name}": _norm(term, trained) for name, term in terms.items()}


def _norm(term: Tensor, trained: list[nn.Parameter]) -> float:
    # `autograd.grad` does not touch `.grad`, and does not wake DDP.
    gradients = torch.autograd.grad(term, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    if world_size() > 1:
        dist.all_reduce(flat)
    return (flat.norm() / world_size()).item()
