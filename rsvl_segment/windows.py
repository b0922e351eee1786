"""Where windows lie on an image, and the sum of what they say of each pixel."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Window(NamedTuple):
    """Rows y0 to y1 and columns x0 to x1 of the image, the ends exclusive."""

    y0: int
    y1: int
    x0: int
    x1: int


def spans(size: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Starts and ends along one side. The last window is shifted inside; a side shorter than the window is one span.

    Raises ValueError unless 0 < stride <= window: a larger stride leaves pixels out.
    """
    if not 0 < stride <= window:
        raise ValueError(f"stride {stride} with windows of {window} px; allowed is 1 to {window}")
    count = max(size - window + stride - 1, 0) // stride + 1
    ends = [min(index * stride + window, size) for index in range(count)]
    return [(max(end - window, 0), end) for end in ends]


def windows(height: int, width: int, window: int, stride: int) -> list[Window]:
    """Row by row, as mmseg's `slide_inference` and the evaluators of SegEarth-OV and FarSLIP have them."""
    return [Window(*rows, *columns) for rows in spans(height, window, stride) for columns in spans(width, window, stride)]


def padding(height: int, width: int, patch: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, right, top, bottom pixels up to a multiple of the patch: half before, half after, an odd one after."""
    across, down = -width % patch[1], -height % patch[0]
    return across // 2, across - across // 2, down // 2, down - down // 2


class RowMerger:
    """The mean of overlapping windows, row by row: rows that no later window touches are handed out, so memory is that of one band.

    Windows come in the order of `windows`.
    """

    def __init__(self, num_channels: int, height: int, width: int, band_px: int, device: torch.device | str = "cpu"):
        self.height, self.top = height, 0
        self._sums = torch.zeros(num_channels, min(band_px, height), width, device=device)
        self._hits = torch.zeros(min(band_px, height), width, device=device)

    def add(self, window: Window, values: Float[Tensor, "c h w"]) -> None:
        """Raises ValueError for a window that begins above the rows that were handed out, or ends below the band."""
        rows = slice(window.y0 - self.top, window.y1 - self.top)
        if rows.start < 0 or rows.stop > self._hits.shape[0]:
            raise ValueError(f"{window} does not lie in the band of {self._hits.shape[0]} rows that begins at row {self.top}")
        self._sums[:, rows, window.x0 : window.x1] += values
        self._hits[rows, window.x0 : window.x1] += 1

    def finished(self, before_row: int) -> Float[Tensor, "c n w"]:
        """The rows above `before_row` that were not handed out yet; there may be none."""
        count = before_row - self.top
        mean = self._sums[:, :count] / self._hits[:count]
        for buffer in (self._sums, self._hits):
            kept = buffer[..., count:, :].clone()
            buffer.zero_()
            buffer[..., : kept.shape[-2], :] = kept
        self.top = before_row
        return mean


def row_chunks(num_rows: int, values_per_row: int, max_values: int = 2**23) -> Iterator[slice]:
    """Slices of rows that hold at most `max_values` values, or one row."""
    step = max(1, max_values // max(values_per_row, 1))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
