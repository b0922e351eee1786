"""Bilinear resizing of pictures too large to hold: what `F.interpolate` gives of the whole, from the rows that are needed."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rsvl_segment.windows import row_chunks


def row_weights(size: int, new_size: int, start: int, stop: int, *, antialias: bool) -> tuple[int, int, Float[Tensor, "n m"]]:
    """First and last (exclusive) of the old rows that the new rows `start` to `stop` are made of, and by how much.

    A triangle over the distance of pixel centres, one old row wide on either side; with `antialias` as wide as a new row where the size
    shrinks. Weights beyond the edge go to the edge row without antialias, and are left out with it, as in torch.
    """
    ratio = size / new_size
    centres = (torch.arange(start, stop, dtype=torch.float64) + 0.5) * ratio - 0.5
    radius = max(ratio, 1.0) if antialias else 1.0
    if not antialias:
        centres = centres.clamp(0, size - 1)
    first = max(0, math.floor(float(centres[0]) - radius))
    last = min(size, math.ceil(float(centres[-1]) + radius) + 1)
    distance = (torch.arange(first, last, dtype=torch.float64)[None] - centres[:, None]).abs()
    weights = (1 - distance / radius).clamp(min=0)
    return first, last, (weights / weights.sum(1, keepdim=True)).float()


def resized_rows(
    read: Callable[[int, int], Float[Tensor, "c m w"]],
    size: tuple[int, int],
    new_size: tuple[int, int],
    rows: tuple[int, int],
    *,
    antialias: bool,
) -> Iterator[Float[Tensor, "c n v"]]:
    """Rows of the resized picture, a few at a time. `read(start, stop)` gives rows of the picture as it is; sizes are height, width."""
    (height, width), (new_height, new_width) = size, new_size
    taken_per_row = math.ceil(height / new_height) + 1
    for chunk in row_chunks(rows[1] - rows[0], 3 * max(width * taken_per_row, new_width)):
        first, last, weights = row_weights(height, new_height, rows[0] + chunk.start, rows[0] + chunk.stop, antialias=antialias)
        picture = read(first, last).float()
        if width != new_width:
            across = (last - first, new_width)
            picture = F.interpolate(picture[None], size=across, mode="bilinear", align_corners=False, antialias=antialias)[0]
        yield torch.einsum("nm,cmv->cnv", weights.to(picture.device), picture)


class RowResizer:
    """The same for rows that arrive from above one band at a time, and are not kept longer than needed. It enlarges or shrinks without
    antialias: logits are smooth already."""

    def __init__(self, size: tuple[int, int], new_size: tuple[int, int]):
        self.size, self.new_size = size, new_size
        self._rows: Tensor | None = None
        self._first = 0  # number of the first row kept
        self._done = 0  # new rows handed out

    def push(self, rows: Float[Tensor, "c n w"]) -> Iterator[Float[Tensor, "c m v"]]:
        """New rows that can be made by now."""
        if self.size == self.new_size:
            yield rows
            return
        kept = rows if self._rows is None else torch.cat([self._rows, rows], 1)
        self._rows = kept
        end = self._first + kept.shape[1]
        ready = self._ready(end)
        yield from resized_rows(self._read, self.size, self.new_size, (self._done, ready), antialias=False)
        self._done = ready
        if ready < self.new_size[0]:
            needed, _, _ = row_weights(self.size[0], self.new_size[0], ready, ready + 1, antialias=False)
            used_up = min(max(needed - self._first, 0), kept.shape[1])
            self._rows, self._first = kept[:, used_up:].clone(), self._first + used_up

    def _read(self, start: int, stop: int) -> Tensor:
        assert self._rows is not None
        return self._rows[:, start - self._first : stop - self._first]

    def _ready(self, end: int) -> int:
        """How many new rows the old rows up to `end` are enough for."""
        height, new_height = self.size[0], self.new_size[0]
        if end >= height:
            return new_height
        # new row r reaches two rows below its centre (r + 0.5) * height / new_height - 0.5, by the rounding of `row_weights`
        return max(self._done, math.floor((end - 2 + 0.5) * new_height / height - 0.5))
