"""A batch that does not fit into memory, with all of its negatives: embed piece by piece, judge as a whole, embed again for gradients.

Adding up the gradients of small batches would compare each sample with its own piece alone. Here the embeddings of all pieces are made
without a graph, the loss of the whole batch gives the gradient of each embedding, and each piece is embedded once more to carry these into
the weights (GradCache, arXiv:2101.06983; open_clip's `--accum-freq` does the same with one loss for each piece). Exact but for the order of
addition; the price is one more forward pass.
"""

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rsvl_data.loader import Batch
from rsvl_pretrain.engine import accumulating, backward
from rsvl_pretrain.objectives import Embeds, Objective


class CachedBatch:
    """`losses` of the whole batch, then `backward` into the weights.

    `model` is the objective as accelerate wrapped it. Dropout draws the same both times.
    """

    def __init__(self, model: nn.Module, objective: Objective, batch: Batch, num_parts: int):
        self.model, self.objective, self.parts = model, objective, _parts(batch, num_parts)
        self.random_states: list[list[Tensor]] = []
        embeds: list[Embeds] = []
        with torch.no_grad():
            for part in self.parts:
                self.random_states.append(_random_state())
                embeds.append(model(part, embed_only=True))
        self.num_rows = [{name: len(rows) for name, rows in piece.items() if rows.ndim} for piece in embeds]
        self.leaves = {name: _joined([piece[name] for piece in embeds]) for name in embeds[0]}
        self.losses = objective.losses(self.leaves)

    def backward(self, accelerator: Accelerator) -> None:
        """Adds to `.grad` what `total(losses).backward()` would have added without pieces."""
        learned = {name: leaf for name, leaf in self.leaves.items() if leaf.requires_grad}
        total = self.objective.total(self.losses)
        found = torch.autograd.grad(total, list(learned.values()), allow_unused=True, materialize_grads=True)
        by_piece = self._by_piece(dict(zip(learned, found, strict=True)))
        for index, (part, state, gradients) in enumerate(zip(self.parts, self.random_states, by_piece, strict=True)):
            is_last = index == len(self.parts) - 1
            with torch.random.fork_rng(), accumulating(accelerator, self.model, is_last=is_last):
                _set_random_state(state)
                embeds = self.model(part, embed_only=True)
                terms = [(embeds[name] * gradient).sum() for name, gradient in gradients.items()]
                backward(accelerator, self.model, torch.stack(terms).sum())

    def _by_piece(self, gradients: Embeds) -> list[Embeds]:
        """Rows to the piece that they came from; of a number that all share, each piece takes an equal part."""
        pieces: list[Embeds] = [{} for _ in self.parts]
        for name, gradient in gradients.items():
            shares = (
                gradient.split([num_rows[name] for num_rows in self.num_rows])
                if gradient.ndim
                else [gradient / len(self.parts)] * len(self.parts)
            )
            for piece, share in zip(pieces, shares, strict=True):
                piece[name] = share
        return pieces


def _parts(batch: Batch, num_parts: int) -> list[Batch]:
    size = -(-len(batch.keys) // num_parts)
    return [batch.part(start, start + size) for start in range(0, len(batch.keys), size)]


def _joined(pieces: list[Tensor]) -> Tensor:
    """Rows side by side; a number that all share, once. Both begin a new graph."""
    joined = torch.cat(pieces) if pieces[0].ndim else pieces[0].clone()
    return joined.requires_grad_(joined.is_floating_point())


def _random_state() -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _set_random_state(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1])
