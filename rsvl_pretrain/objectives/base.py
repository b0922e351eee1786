"""What the trainer asks of an objective: batch in, named losses out. It adds them up and asks nothing else.

An objective has two halves, `embed` and `losses`, so that a batch that does not fit can be embedded piece by piece and still be judged
as a whole (`accumulate.py`).

Whatever else it learns with (a teacher, a head) is a submodule: it is saved in checkpoints and resumed, never exported, and trained where
its parameters want a gradient.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rsvl_data.loader import Batch
from rsvl_pretrain.model import DualEncoder

Embeds = dict[str, Tensor]


class Objective(nn.Module, ABC):
    """`weights` has the factor of each loss, 1 where it names none. A loss of factor 0 is a number to watch: logged, without a gradient."""

    def __init__(self, encoder: DualEncoder, weights: Mapping[str, float] | None = None):
        super().__init__()
        self.encoder, self.weights = encoder, dict(weights or {})

    def forward(self, batch: Batch, *, embed_only: bool = False) -> dict[str, Tensor]:
        """Losses by name; the embeddings alone when asked for, since a wrapped module (DDP, FSDP) must be entered here."""
        embeds = self.embed(batch)
        return embeds if embed_only else self.losses(embeds)

    @abstractmethod
    def embed(self, batch: Batch) -> Embeds:
        """Rows of this batch, and numbers that all rows share. Whatever takes a weight of the model happens here.

        Tensors of any number of rows, or of shape () for what is shared. Every process must run the same blocks of the model the same
        number of times, also one whose batch has nothing for them: engines exchange weights and gradients there.
        """

    @abstractmethod
    def losses(self, embeds: Embeds) -> dict[str, Tensor]:
        """Named and not yet weighted, from the `embeds` of one batch, or of several put together row by row.

        The mean over processes is the loss of the global batch; so is that of the gradients. Always the same names.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a continued run must share, as JSON."""

    @property
    def lr_shares(self) -> dict[str, float]:
        """Learning rate of parameters whose name begins with a key, as a share of the others'."""
        return {}

    def before_step(self, step: int) -> None:
        """Called after the gradients are known and before the optimizer changes the weights."""

    def after_step(self, step: int) -> None:
        """Called after the optimizer changed the weights; for teachers that follow them."""

    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Those that are trained on, each with its factor: their sum is what is minimised."""
        return {name: self.factor(name) * loss for name, loss in losses.items() if self.factor(name)}

    def factor(self, name: str) -> float:
        return self.weights.get(name, 1.0)

    def total(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        return torch.stack(list(self.terms(losses).values())).sum()

    def profiled_parts(self) -> list[tuple[Any, str, str]]:
        """Owner, name of the method and name of the part in a profile (`step_profile.PARTS`)."""
        return [
            (self.encoder, "encode_image", "image tower"),
            (self.encoder, "encode_tokens", "text tower"),
            (self, "losses", "loss"),
        ]
