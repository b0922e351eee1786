"""Where a heat map has its peaks: box filters, the largest value around each pixel, and connected plateaus. Pure NumPy.

A map is uint8. Sums and maxima over a window cost the same for every window, since neither looks at the window pixel by pixel.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

LocalizationProtocol = Literal["rsvl", "semantic_localization_metrics"]

NUM_SMOOTHINGS = 5
BOX_PX: dict[LocalizationProtocol, int] = {
    "rsvl": 51,
    "semantic_localization_metrics": 50,  # even: each pass moves the map half a pixel right and down
}
NEIGHBOURHOOD_PX = 1000  # of which a peak is the highest pixel
LEAST_PROBABILITY = 0.5
_BAND_ROWS = 512


class Peak(NamedTuple):
    """In whole pixels; `probability` is that of the map there, before smoothing."""

    x: int
    y: int
    probability: float


def peaks(heat_map: UInt8[np.ndarray, "h w"], protocol: LocalizationProtocol = "rsvl") -> list[Peak]:
    """Centres of attention, the most probable first: centroids of the plateaus of local maxima of the smoothed map.

    Peaks with less than half of the highest grey level (255) are left out; a map without any has none.
    """
    smooth = heat_map
    for _ in range(NUM_SMOOTHINGS):
        smooth = box_filter(smooth, BOX_PX[protocol])
    is_peak = (smooth == maximum_filter(smooth, NEIGHBOURHOOD_PX)) & (smooth > 0)
    found = [Peak(x, y, float(heat_map[y, x]) / 255) for x, y in plateau_centres(is_peak)]
    return [peak for peak in sorted(found, key=lambda peak: -peak.probability) if peak.probability >= LEAST_PROBABILITY]


def box_filter(image: UInt8[np.ndarray, "h w"], size_px: int) -> UInt8[np.ndarray, "h w"]:
    """Mean over a square, rounded half to even. The pixel is at `size_px // 2` of it; beyond its borders the image is mirrored,
    the outermost pixel not repeated (OpenCV's `boxFilter` with its defaults)."""
    before = size_px // 2
    border = (before, size_px - 1 - before)
    padded = image
    for axis in (0, 1):
        padding = [border if its == axis else (0, 0) for its in (0, 1)]
        padded = np.pad(padded, padding, mode="reflect" if image.shape[axis] > 1 else "edge")
    filtered = np.empty_like(image)
    for top in range(0, len(image), _BAND_ROWS):  # a whole scene of sums would take four times its memory, and miss the caches
        band = padded[top : top + _BAND_ROWS + size_px - 1]
        means = _across(_down(band, size_px), size_px) * (1 / size_px**2)
        filtered[top : top + _BAND_ROWS] = np.rint(means, out=means)
    return filtered


def _down(values: UInt8[np.ndarray, "h w"], size_px: int) -> Int32[np.ndarray, "r w"]:
    """Sums of `size_px` rows: one comes in, one goes out."""
    sums = np.empty((len(values) - size_px + 1, values.shape[1]), dtype=np.int32)
    sums[0] = values[:size_px].sum(0, dtype=np.int32)
    for row in range(1, len(sums)):
        np.add(sums[row - 1], values[row + size_px - 1], out=sums[row])
        sums[row] -= values[row - 1]
    return sums


def _across(values: Int32[np.ndarray, "r w"], size_px: int) -> Int32[np.ndarray, "r c"]:
    """Sums of `size_px` columns. Differences of running sums are right even where these wrap around."""
    running = np.cumsum(values, axis=1, dtype=np.int32)
    sums = running[:, size_px - 1 :].copy()
    sums[:, 1:] -= running[:, :-size_px]
    return sums


def maximum_filter(image: UInt8[np.ndarray, "h w"], size_px: int) -> UInt8[np.ndarray, "h w"]:
    """The largest value of the square around each pixel, as far as it is in the image; the pixel is at `size_px // 2` of it."""
    return _window_maxima(_window_maxima(image, size_px).T, size_px).T


def _window_maxima(image: np.ndarray, size_px: int) -> np.ndarray:
    """Down the columns. Windows are doubled until two of them, overlapping, make up the one wanted."""
    before = size_px // 2
    maxima = np.pad(image, ((before, size_px - 1 - before), (0, 0)))  # 0 is no larger than anything
    length = 1
    while 2 * length <= size_px:
        maxima = np.maximum(maxima[:-length], maxima[length:])
        length *= 2
    rest = size_px - length
    return np.maximum(maxima[: len(maxima) - rest], maxima[rest:])


def plateau_centres(is_peak: Bool[np.ndarray, "h w"]) -> list[tuple[int, int]]:
    """x and y, cut to whole pixels, of the centroid of every group of pixels that touch by a side or a corner, in reading order."""
    ys, starts, ends = _runs(is_peak)
    group = _joined_runs(ys, starts, ends)
    num_pixels = (ends - starts).astype(np.int64)
    twice_x = num_pixels * (starts + ends - 1)
    groups, first_run = np.unique(group, return_index=True)
    centres = []
    for each in groups[np.argsort(first_run, kind="stable")]:
        own = group == each
        total = int(num_pixels[own].sum())
        centres.append((int(twice_x[own].sum()) // (2 * total), int((num_pixels[own] * ys[own]).sum()) // total))
    return centres


def _runs(is_peak: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and the column after the last of every unbroken run in a row, in reading order."""
    steps = np.diff(np.pad(is_peak, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    ys, starts = np.nonzero(steps == 1)
    return ys, starts, np.nonzero(steps == -1)[1]


def _joined_runs(ys: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """For each run the first run of its group."""
    parent = list(range(len(ys)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0
    for run in range(len(ys)):
        while ys[above] < ys[run] - 1 or (ys[above] == ys[run] - 1 and ends[above] < starts[run]):
            above += 1
        other = above
        while ys[other] == ys[run] - 1 and starts[other] <= ends[run]:
            low, high = sorted((root(other), root(run)))
            parent[high] = low
            other += 1
    return np.array([root(run) for run in range(len(ys))], dtype=np.int64)
