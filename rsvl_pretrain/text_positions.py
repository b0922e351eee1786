"""Text towers that read 248 tokens in place of 77, from the weights of one that reads 77 (Long-CLIP, arXiv:2403.15378, section 3.1).

The first 20 positions are well trained, since most captions end there: they stay as they are and are not trained. Between each two of the
others three are put in, a quarter of the way apart; after the last one they go on along the last difference.
"""

from copy import copy
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder

NUM_KEPT = 20
_FACTOR = 4
_STRETCHED_CLIP = NUM_KEPT + _FACTOR * (77 - NUM_KEPT)  # 248; no text tower has so many of its own


def stretched(table: Float[Tensor, "n w"]) -> Float[Tensor, "m w"]:
    """Four times as many positions after the first 20: 77 become 248."""
    kept, rest = table[:NUM_KEPT], table[NUM_KEPT:]
    after = torch.cat([rest[1:], 2 * rest[-1:] - rest[-2:-1]])
    parts = torch.arange(_FACTOR, dtype=table.dtype, device=table.device)[:, None] / _FACTOR
    between = rest[:, None] * (1 - parts) + after[:, None] * parts  # [rest, 4, w]
    return torch.cat([kept, between.flatten(0, 1)])


def shortened(table: Float[Tensor, "m w"]) -> Float[Tensor, "n w"]:
    """Every fourth position after the first 20: 248 become 77. What `stretched` made is taken back exactly."""
    return torch.cat([table[:NUM_KEPT], table[NUM_KEPT::_FACTOR]])


def context_length(encoder: DualEncoder) -> int:
    """Tokens that the text tower reads at most. Raises OptionError for one without positions of its own."""
    return len(_tower(encoder).positional_embedding)


def is_stretched_clip(encoder: DualEncoder) -> bool:
    """Whether it reads the 248 tokens that CLIP's 77 become: an earlier run or a release stretched it, and nothing else says so."""
    table = getattr(_text_tower(encoder), "positional_embedding", None)
    return isinstance(table, nn.Parameter) and len(table) == _STRETCHED_CLIP


def set_context_length(encoder: DualEncoder, length: int, *, convert: bool = False) -> None:
    """Bring the text tower to this number of tokens, by `stretched` or, only where `convert` asks for it, `shortened`.

    Raises OptionError for lengths that these do not lead to, and where positions would be lost unasked.
    """
    tower = _tower(encoder)
    table = tower.positional_embedding.detach()
    if length == len(table):
        return
    if getattr(tower, "attn_mask", None) is None:
        raise OptionError(f"the text tower of {encoder.name} is not causal; its {len(table)} tokens cannot be changed")
    if length < len(table) and not convert:
        raise OptionError(
            f"{encoder.name} reads {len(table)} tokens and {length} were asked for: positions would be left out. Take "
            f"--context-length {len(table)}, or ask for it with --convert-positions."
        )
    changed = stretched(table) if length > len(table) else shortened(table)
    if len(changed) != length:
        raise OptionError(f"{encoder.name} reads {len(table)} tokens; they can become {len(changed)}, not {length}")
    tower.positional_embedding = nn.Parameter(changed, requires_grad=tower.positional_embedding.requires_grad)
    tower.attn_mask = torch.full((length, length), -torch.inf, device=table.device).triu_(1)
    tower.context_length = length
    encoder.config["text_cfg"]["context_length"] = length
    encoder.tokenizer = copy(encoder.tokenizer)
    encoder.tokenizer.context_length = length


def _text_tower(encoder: DualEncoder) -> Any:
    return getattr(encoder.model, "text", encoder.model)


def _tower(encoder: DualEncoder) -> Any:
    tower = _text_tower(encoder)
    if not isinstance(getattr(tower, "positional_embedding", None), nn.Parameter):
        raise OptionError(f"the text tower of {encoder.name} has no positions of its own; leave out --context-length")
    return tower


class KeptPositions(nn.Module):
    """The first 20 positions of a text tower as they were, whatever an optimizer does.

    Long-CLIP has two tables for it, added with masks: one is not trained and serves the first 20, the other all from there. Their sum is
    the one table that is kept here, so the model stays one that open_clip knows; rows 20 and on are trained and decayed alike.
    """

    def __init__(self, encoder: DualEncoder):
        super().__init__()
        self.rows: Tensor
        self.register_buffer("rows", _tower(encoder).positional_embedding.detach().clone())

    @torch.no_grad()
    def mask_gradient(self, encoder: DualEncoder) -> None:
        """Before a step: the first 20 rows have no gradient."""
        gradient = _tower(encoder).positional_embedding.grad
        if gradient is not None:
            is_first, _ = self._own_part(gradient)
            _local(gradient).masked_fill_(is_first, 0)

    @torch.no_grad()
    def restore(self, encoder: DualEncoder) -> None:
        """After a step, whose weight decay moves them all the same."""
        table = _tower(encoder).positional_embedding
        is_first, rows = self._own_part(table)
        _local(table).copy_(torch.where(is_first, rows, _local(table)))

    def _own_part(self, like: Tensor) -> tuple[Bool[Tensor, "r 1"], Float[Tensor, "r w"]]:
        """Which rows are among the first 20, and what they were: of those that this process has of a table."""
        is_first = torch.arange(len(self.rows), device=self.rows.device)[:, None] < NUM_KEPT
        if not isinstance(like, DTensor):
            return is_first, self.rows
        numbers = is_first.expand_as(self.rows).to(self.rows.dtype).contiguous()
        spread = [distribute_tensor(whole, like.device_mesh, like.placements).to_local() for whole in (numbers, self.rows)]
        return spread[0][:, :1] > 0, spread[1]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
