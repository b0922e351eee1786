"""How large images are cut for measuring: the windows, and the cutting in memory.

Windows start every `stride_px` and are moved back inside at the right and lower edge, so the last ones overlap more; a window that
comes twice is taken once. This is what mmseg's converters write, where later files replace earlier ones of the same name:
https://github.com/open-mmlab/mmsegmentation/tree/v1.2.2/tools/dataset_converters (isaid.py, potsdam.py, vaihingen.py). An image smaller
than the tile is padded on the right and below, black in the image and ignored in the mask. Theirs forgets it for an image exactly as high
as a tile and narrower (or the reverse), and cuts a strip.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """Columns x0 to x1, rows y0 to y1, the ends not included; may reach over the edge of a small image."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Tiles:
    width_px: int
    height_px: int
    stride_x_px: int
    stride_y_px: int

    def windows(self, width: int, height: int) -> list[Window]:
        """Column by column, as the converters go."""
        return [
            Window(x, y, x + self.width_px, y + self.height_px)
            for x in _starts(width, self.width_px, self.stride_x_px)
            for y in _starts(height, self.height_px, self.stride_y_px)
        ]


def square_tiles(side_px: int, overlap_px: int = 0) -> Tiles:
    return Tiles(side_px, side_px, side_px - overlap_px, side_px - overlap_px)


def _starts(length: int, tile: int, stride: int) -> list[int]:
    last = max(0, length - tile)
    return sorted({min(start, last) for start in range(0, length, stride)})


def cut(pixels: np.ndarray, window: Window, fill: int) -> np.ndarray:
    """The window of [h, w] or [h, w, 3], with `fill` where it reaches over the edge."""
    part = pixels[window.y0 : window.y1, window.x0 : window.x1]
    below = window.y1 - window.y0 - part.shape[0]
    right = window.x1 - window.x0 - part.shape[1]
    return np.pad(part, [(0, below), (0, right), *[(0, 0)] * (pixels.ndim - 2)], constant_values=fill)
