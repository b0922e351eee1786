"""Contrastive losses over a whole global batch that never hold its logits: value and gradients are exact, in tiles.

A batch of B rows has B x B logits: 4 GiB at 32,768. Here they are made tile by tile, used and dropped, and made again for the
gradients, so memory is linear in B. It costs no time: the plain loss makes the logits of both directions apart (open_clip
`src/open_clip/loss.py`), one product serves both here.

With several processes each holds its own rows and the others' pass by (`exchange.py`). Each process answers the loss of its own rows,
as open_clip's `local_loss` with `gather_with_grad`: the mean over processes is the loss of the global batch, and so is the mean of
their gradients, which is what DDP forms. The gradient that flows in must be the same on every process (it is, where losses are
weighted and added).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from rsvl_pretrain.distributed import rank, world_size
from rsvl_pretrain.exchange import Block, Exchange, Join, visit_all

SameGroup = Literal["positive", "excluded"]


def clip_loss(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""],
    *,
    groups: Int[Tensor, " b"] | None = None,
    same_group: SameGroup = "positive",
    exchange: Exchange = "gather",
    local_loss: bool = True,
    gather_with_grad: bool = True,
    tile: int | None = None,
) -> Float[Tensor, ""]:
    """The CLIP loss (arXiv:2103.00020, figure 3), mean of both directions.

    Rows are unit vectors, row i of `image` belongs to row i of `text`; b is the same on every process. `scale` multiplies similarities
    (it is not a log). Pairs with the same number in `groups` also belong together: with "positive" the target of a row is uniform
    over its group (StableRep, arXiv:2306.00984; FarSLIP's multi-positive loss), with "excluded" other members of the group are
    left out of its denominator. `tile` is the side of the squares in which logits are made; None: 512 on a CPU, 8192 on a GPU.

    `local_loss` and `gather_with_grad` are open_clip's. Without `local_loss` every process answers the loss of the global batch. Without
    `gather_with_grad` the gradients are not those of the global batch: embeddings get 1/world of them, or with `local_loss` only
    what the own rows' directions ask for. That is how much published training ran, and the reason to reproduce it.
    """
    return clip_loss_and_rows(
        image,
        text,
        scale,
        groups=groups,
        same_group=same_group,
        exchange=exchange,
        local_loss=local_loss,
        gather_with_grad=gather_with_grad,
        tile=tile,
    )[0]


def clip_loss_and_rows(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""],
    *,
    groups: Int[Tensor, " b"] | None = None,
    same_group: SameGroup = "positive",
    exchange: Exchange = "gather",
    local_loss: bool = True,
    gather_with_grad: bool = True,
    tile: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
    """`clip_loss`, and what each row of this process has in it, without a gradient: their mean over all processes is the loss."""
    if not (local_loss or gather_with_grad):
        image, text = (rows.detach() + (rows - rows.detach()) / world_size() for rows in (image, text))
    way = _Way(same_group, exchange, one_sided=local_loss and not gather_with_grad, tile=tile or _default_tile(image))
    loss, by_row = _ClipLoss.apply(image, text, scale, groups, way)
    if local_loss or world_size() == 1:
        return loss, by_row
    total = loss.detach().clone()
    dist.all_reduce(total)
    return loss + (total / world_size() - loss.detach()), by_row


def siglip_loss(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    *,
    exchange: Exchange = "bidir",
    tile: int | None = None,
) -> Float[Tensor, ""]:
    """The sigmoid loss (SigLIP, arXiv:2303.15343, algorithm 1): each pair is judged alone; the sum over the rows of this process and the
    columns of all, divided by the number of those rows."""
    return _SiglipLoss.apply(image, text, scale, bias, exchange, tile or _default_tile(image))


def _default_tile(rows: Tensor) -> int:
    return 8192 if rows.is_cuda else 512


class _Way(NamedTuple):
    """How the CLIP loss is computed. `one_sided`: rows teach images alone and columns texts alone."""

    same_group: SameGroup
    exchange: Exchange
    one_sided: bool
    tile: int


class _ClipLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor, scale: Tensor, groups: Tensor | None, way: _Way) -> tuple[Tensor, Tensor]:
        softmax = _Softmax(image, scale, groups, way)
        rows = softmax.new_totals()

        def visit(owner: int, block: Block) -> Block:
            columns = softmax.new_totals()
            softmax.add_totals(owner, block, rows, columns)
            return columns

        with torch.autocast(image.device.type, enabled=False):
            columns = visit_all((text, *softmax.groups), visit, softmax.joins, way.exchange)
        ctx.save_for_backward(image, text, scale, groups, *rows, *columns)
        ctx.way = way
        if softmax.multi_positive:
            own = rows[1] / rows[2] + columns[1] / columns[2]
        else:
            own = 2 * scale * (image * text).sum(dim=1, dtype=scale.dtype)
        by_row = (rows[0] + columns[0] - own) / 2
        ctx.mark_non_differentiable(by_row)
        return by_row.mean(), by_row

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        image, text, scale, groups, *totals = ctx.saved_tensors
        softmax = _Softmax(image, scale, groups, ctx.way)
        rows, columns = totals[: len(totals) // 2], totals[len(totals) // 2 :]
        image_gradient = torch.zeros_like(image, dtype=scale.dtype)

        def visit(owner: int, block: Block) -> Block:
            return (softmax.add_gradients(owner, block, rows, image_gradient),)

        with torch.autocast(image.device.type, enabled=False):
            (text_gradient,) = visit_all((text, *softmax.groups, *columns), visit, ("sum",), ctx.way.exchange)
        factor = gradients[0] / (2 * len(image))
        scale_gradient = (image_gradient * image).sum(dtype=scale.dtype)
        if ctx.way.one_sided:
            scale_gradient += (text_gradient * text).sum(dtype=scale.dtype)
        of_image, of_text = (
            gradient.mul_(factor * scale).to(rows.dtype) for gradient, rows in ((image_gradient, image), (text_gradient, text))
        )
        return of_image, of_text, factor * scale_gradient, None, None


class _Softmax:
    """The images of this process against one block of texts at a time. Totals and blocks are tuples, so that they can travel."""

    def __init__(self, image: Tensor, scale: Tensor, groups: Tensor | None, way: _Way):
        self.image, self.scale, self.way = image, scale, way
        self.groups: Block = () if groups is None else (groups,)
        self.multi_positive = groups is not None and way.same_group == "positive"
        self.joins: tuple[Join, ...] = ("logsumexp", "sum", "sum") if self.multi_positive else ("logsumexp",)

    def new_totals(self) -> Block:
        """For each row: the log of its summed exponentials, and with several positives the sum of their logits and their number."""
        blank = self.scale.new_zeros(len(self.image))
        return (torch.full_like(blank, -torch.inf), *(torch.zeros_like(blank) for _ in self.joins[1:]))

    def add_totals(self, owner: int, block: Block, rows: Block, columns: Block) -> None:
        for at, to, logits, mates in self._logits(owner, block):
            for totals, places, dim in ((rows, at, 1), (columns, to, 0)):
                totals[0][places] = torch.logaddexp(totals[0][places], _log_sum_exp(logits, dim))
                if mates is not None and self.multi_positive:
                    totals[1][places] += torch.where(mates, logits, 0).sum(dim)
                    totals[2][places] += mates.sum(dim)

    def add_gradients(self, owner: int, block: Block, rows: Sequence[Tensor], image_gradient: Tensor) -> Tensor:
        """Of the summed loss, by the similarities, times the other side; still to be multiplied with the scale."""
        text, columns = block[0], block[-len(self.joins) :]
        text_gradient = torch.zeros_like(text, dtype=self.scale.dtype)
        for at, to, logits, mates in self._logits(owner, block):
            by_row = (logits - rows[0][at, None]).exp_()
            by_column = logits.sub_(columns[0][None, to]).exp_()
            if mates is not None and self.multi_positive:
                by_row -= mates / rows[2][at, None]
                by_column -= mates / columns[2][None, to]
            elif owner == rank():
                _diagonal(by_row, at, to).sub_(1)
                _diagonal(by_column, at, to).sub_(1)
            if not self.way.one_sided:
                by_row = by_column = by_row.add_(by_column)
            image_gradient[at] += by_row.to(text.dtype) @ text[to]
            text_gradient[to] += by_column.to(text.dtype).T @ self.image[at]
        return text_gradient

    def _logits(self, owner: int, block: Block) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
        """Tile by tile: its rows, its columns, its logits, and which pairs share a group."""
        text = block[0]
        for at in _slices(len(self.image), self.way.tile):
            for to in _slices(len(text), self.way.tile):
                logits = (self.image[at] @ text[to].T).to(self.scale.dtype).mul_(self.scale)
                mates = self.groups[0][at, None] == block[1][None, to] if self.groups else None
                if mates is not None and not self.multi_positive:
                    if owner == rank():
                        _diagonal(mates, at, to).fill_(False)
                    logits.masked_fill_(mates, -torch.inf)
                yield at, to, logits, mates


class _SiglipLoss(torch.autograd.Function):
    """The gradients of a tile follow from its logits alone, so they are made on the way forward and the logits only once."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, exchange: Exchange, tile: int) -> Tensor:
        loss, bias_gradient = scale.new_zeros(()), scale.new_zeros(())
        image_gradient = torch.zeros_like(image, dtype=scale.dtype)
        with_gradients = any(ctx.needs_input_grad)

        def visit(owner: int, block: Block) -> Block:
            (text,) = block
            text_gradient = torch.zeros_like(text, dtype=scale.dtype)
            for at in _slices(len(image), tile):
                for to in _slices(len(text), tile):
                    logits = (image[at] @ text[to].T).to(scale.dtype).mul_(scale).add_(bias)
                    loss.add_(torch.nn.functional.softplus(logits).sum())
                    if owner == rank():
                        loss.sub_(_diagonal(logits, at, to).sum())  # softplus(-z) = softplus(z) - z
                    if with_gradients:
                        weights = logits.sigmoid_()
                        if owner == rank():
                            _diagonal(weights, at, to).sub_(1)
                        bias_gradient.add_(weights.sum())
                        weights = weights.to(text.dtype)
                        image_gradient[at] += weights @ text[to]
                        text_gradient[to] += weights.T @ image[at]
            return (text_gradient,)

        with torch.autocast(image.device.type, enabled=False):
            (text_gradient,) = visit_all((text,), visit, ("sum",), exchange)
        ctx.save_for_backward(image, scale, image_gradient, text_gradient, bias_gradient)
        ctx.text_dtype = text.dtype
        return loss / len(image)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        image, scale, image_gradient, text_gradient, bias_gradient = ctx.saved_tensors
        factor = gradients[0] / len(image)
        scale_gradient = factor * (image_gradient * image).sum(dtype=scale.dtype)
        of_image = (image_gradient * (factor * scale)).to(image.dtype)
        of_text = (text_gradient * (factor * scale)).to(ctx.text_dtype)
        return of_image, of_text, scale_gradient, factor * bias_gradient, None, None


def _log_sum_exp(logits: Tensor, dim: int) -> Tensor:
    """As `torch.logsumexp`, which takes nine times as long on a CPU (torch 2.15)."""
    largest = logits.amax(dim, keepdim=True)
    largest.masked_fill_(largest == -torch.inf, 0)
    return (logits - largest).exp_().sum(dim).log_() + largest.squeeze(dim)


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def _diagonal(tile: Tensor, at: slice, to: slice) -> Tensor:
    """A view of the entries whose row and column have the same number; empty in a tile that the diagonal does not cross."""
    offset = at.start - to.start
    inside = -tile.shape[0] < offset < tile.shape[1]
    return tile.diagonal(offset) if inside else tile[:0, 0]
