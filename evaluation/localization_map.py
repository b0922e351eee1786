"""From similarities of windows to a heat map: where a scene looks like a sentence.

Windows at several scales on two grids; a pixel gets the mean similarity of the windows that cover it; then a median blur.
https://github.com/xiaoyuan1996/SemanticLocalizationMetrics/blob/1e9596ded8dbdb83ea534987f8c2e2c6ee3f1d20/predict/generate_selo.py

The borders of all windows cut a scene into cells, some hundreds where it has millions of pixels, and the map is constant in each. So
means are taken over cells, and the blur, a weighted median of the few cells in reach, is exact without looking at pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from evaluation.metrics.heat_map_peaks import LocalizationProtocol
from rsvl_data.errors import OptionError

SCALES_PX = (256, 512, 768)
MEDIAN_PX = 251


class Window(NamedTuple):
    """Rows and columns of a scene, ends excluded. Starts are negative only under the authors' protocol."""

    top: int
    bottom: int
    left: int
    right: int

    def seen(self, height: int, width: int) -> "Window":
        """The pixels that Python's slices take: a negative start counts from the other side, as the authors' code has it."""
        rows, columns = (range(size)[start:stop] for start, stop, size in zip(self[::2], self[1::2], (height, width)))
        return Window(rows.start, rows.stop, columns.start, columns.stop)


def windows(
    height: int, width: int, scales_px: Sequence[int] = SCALES_PX, protocol: LocalizationProtocol = "rsvl"
) -> list[Window]:
    """Every window once: by scale, by grid (from 0, then from half a window along both sides), by column, by row.

    A window that would reach the border is moved back to end there. Where a side is shorter than the window, `rsvl` takes the whole
    side; the authors' code starts at a negative row or column, and so takes a strip from the other end (`Window.seen`).
    Raises OptionError for scales that are not even numbers of pixels.
    """
    if not scales_px or any(scale < 2 or scale % 2 for scale in scales_px):
        raise OptionError(f"scales of {tuple(scales_px)} px; give even numbers from 2 on, such as 256 512 768")
    found = {
        Window(*rows, *columns): None
        for scale in scales_px
        for offset in (0, scale // 2)
        for columns in _spans(width, scale, offset, protocol)
        for rows in _spans(height, scale, offset, protocol)
    }
    return list(found)


def _spans(side: int, scale: int, offset: int, protocol: LocalizationProtocol) -> Iterator[tuple[int, int]]:
    for start in range(offset, side, scale):
        first = side - scale if start + scale >= side else start
        yield (max(0, first) if protocol == "rsvl" else first), min(first + scale, side)


@dataclass(frozen=True)
class CellMap:
    """A map that is constant in the cells of an uneven grid. Edges run from 0 to the height, and to the width."""

    row_edges: Int[np.ndarray, "r1"]
    column_edges: Int[np.ndarray, "c1"]
    values: np.ndarray  # [r, c]

    def pixels(self) -> np.ndarray:
        return self.values.repeat(np.diff(self.row_edges), 0).repeat(np.diff(self.column_edges), 1)


def mean_similarity(seen: Sequence[Window], similarity: Float[np.ndarray, "n"], height: int, width: int) -> CellMap:
    """Mean over the windows that cover a cell, by differences at their corners and two running sums. `seen` lie in the scene.

    NaN where no window is, which no grid of `windows` leaves.
    """
    corners = np.array(seen)
    row_edges, column_edges = np.unique([0, height, *corners[:, :2].ravel()]), np.unique([0, width, *corners[:, 2:].ravel()])
    top, bottom = (np.searchsorted(row_edges, corners[:, i]) for i in (0, 1))
    left, right = (np.searchsorted(column_edges, corners[:, i]) for i in (2, 3))
    differences = np.zeros((2, len(row_edges), len(column_edges)))
    for row, column, sign in ((top, left, 1), (bottom, left, -1), (top, right, -1), (bottom, right, 1)):
        np.add.at(differences[0], (row, column), sign * similarity)
        np.add.at(differences[1], (row, column), sign)
    total, count = differences.cumsum(1).cumsum(2)[:, :-1, :-1]
    with np.errstate(invalid="ignore"):
        return CellMap(row_edges, column_edges, total / np.where(np.rint(count) == 0, np.nan, np.rint(count)))


def grey_levels(similarity: CellMap) -> CellMap:
    """The least value becomes 0, the greatest 255, cut to whole levels. A map of one value says nothing: all 0."""
    values = similarity.values - similarity.values.min()
    highest = values.max()
    # Sums in another order differ in the last bits: what is equal to the eye must not be stretched to black and white.
    flat = highest <= 1e-12 * max(1.0, float(np.abs(similarity.values).max()))
    levels = np.zeros_like(values) if flat else 255 * (values / highest)
    return CellMap(similarity.row_edges, similarity.column_edges, levels.astype(np.uint8))


def median_blur(grey: CellMap, size_px: int = MEDIAN_PX) -> UInt8[np.ndarray, "h w"]:
    """Median over the square around every pixel; the image goes on beyond its borders as its outermost pixels (OpenCV's `medianBlur`).

    Raises OptionError for a size that is not an odd number from 1 to 4095, up to which float32 counts pixels exactly.
    """
    if not 1 <= size_px < 4096 or size_px % 2 == 0:
        raise OptionError(f"a median of {size_px} px; give an odd number from 1 to 4095, such as {MEDIAN_PX}")
    rows, columns = _bands(grey.row_edges, size_px), _bands(grey.column_edges, size_px)
    blurred = np.empty((int(grey.row_edges[-1]), int(grey.column_edges[-1])), dtype=np.uint8)
    for row in rows:
        for column in columns:
            values = grey.values[row.first : row.first + len(row.reach), column.first : column.first + len(column.reach)]
            blurred[row.start : row.stop, column.start : column.stop] = _weighted_median(
                values, row.reach, column.reach, size_px**2
            )
    return blurred


class _Band(NamedTuple):
    """Pixels `start` to `stop` along one side, all of which reach the same cells, from number `first` on.

    `reach[k, p]` is how many of the pixels in the window of pixel p lie in cell `first + k`.
    """

    start: int
    stop: int
    first: int
    reach: Float[np.ndarray, "k p"]


def _bands(edges: Int[np.ndarray, "e"], size_px: int) -> list[_Band]:
    size, half = int(edges[-1]), size_px // 2
    inner = edges[1:-1]
    cuts = np.unique(np.clip(np.concatenate([[0, size], inner - half, inner + half]), 0, size))
    bands = []
    for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist()):
        pixels = np.arange(start, stop)
        first, last = (int(np.searchsorted(inner, at, "right")) for at in (start - half, stop - 1 + half))
        low = np.r_[-np.inf, inner, np.inf][first : last + 1, None]  # the outermost cells go on beyond the border
        high = np.r_[inner, np.inf][first : last + 1, None]
        reach = np.minimum(high, pixels + half + 1) - np.maximum(low, pixels - half)
        bands.append(_Band(start, stop, first, np.maximum(reach, 0).astype(np.float32)))
    return bands


def _weighted_median(
    values: UInt8[np.ndarray, "k l"], rows: Float[np.ndarray, "k p"], columns: Float[np.ndarray, "l q"], total: int
) -> UInt8[np.ndarray, "p q"] | np.uint8:
    """Cell (k, l) has weight rows[k, p] * columns[l, q] at pixel (p, q); the weights of a pixel sum to `total`, an odd number."""
    levels = np.unique(values)
    if len(levels) == 1:
        return levels[0]
    place = np.zeros((rows.shape[1], columns.shape[1]), dtype=np.uint8)
    for level in levels[:-1]:
        up_to = rows.T @ ((values <= level).astype(np.float32) @ columns)
        place += up_to <= total // 2
    return levels[place]


def heat_map(seen: Sequence[Window], similarity: Float[np.ndarray, "n"], height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """The probability of the sentence at each pixel, in 255ths of the highest."""
    return median_blur(grey_levels(mean_similarity(seen, similarity, height, width)))
