"""Polygons to a mask, pixel for pixel as OpenCV's `fillPoly` does it: the outline drawn, the inside filled by the even-odd rule.

The rule of OpenCV is kept because published indicators depend on it; OpenCV itself is not needed.
In the image it is the same to the pixel (1,000 random cases against 5.0); where a polygon leaves the image, OpenCV takes slopes
from rounded points on the border, and a few pixels there may differ.
https://github.com/opencv/opencv/blob/4.11.0/modules/imgproc/src/drawing.cpp (`CollectPolyEdges`, `FillEdgeCollection`, `LineIterator`)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

Polygon = Sequence[Sequence[float]]  # [x, y] in pixels; the last vertex is joined to the first
_ONE = 1 << 16  # of OpenCV's fixed point
_Point = tuple[int, int]


def even_odd_mask(polygons: Sequence[Polygon], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Vertices are cut to whole pixels. What lies in two polygons is not filled; outlines always are."""
    mask = np.zeros((height, width), dtype=bool)
    edges: list[_Edge] = []
    for polygon in polygons:
        points = [(int(x), int(y)) for x, y, *_ in polygon]
        for start, end in zip([points[-1], *points], points):
            edges += _drawn_edge(mask, start, end)
    for y in range(max(0, min((edge.y0 for edge in edges), default=0)), min(height, max((edge.y1 for edge in edges), default=0))):
        crossings = sorted(edge.x_at(y) for edge in edges if edge.y0 <= y < edge.y1)
        for left, right in zip(crossings[::2], crossings[1::2]):
            mask[y, max(0, -(-left >> 16)) : max(0, (right >> 16) + 1)] = True
    return mask


class _Edge(NamedTuple):
    """From row y0 up to y1, which does not belong to it. `x` at y0 and `dx` a row are in fixed point, half a pixel added to `x`."""

    y0: int
    y1: int
    x: int
    dx: int

    def x_at(self, y: int) -> int:
        return self.x + (y - self.y0) * self.dx


def _drawn_edge(mask: np.ndarray, start: _Point, end: _Point) -> list[_Edge]:
    """Draws the line, and returns the edge that the fill goes by; none where the edge is level."""
    shown, is_visible = _clipped(start, end, *mask.shape)
    if is_visible:
        _draw_line(mask, *shown)
    if start[1] == end[1]:
        return []
    # The slope is that of the part in the image, if it has one: its ends are whole pixels again.
    (xa, ya), (xb, yb) = shown if shown[0][1] != shown[1][1] else (start, end)
    dx = _toward_zero((xb - xa) * _ONE, yb - ya)
    y0, y1 = sorted((start[1], end[1]))
    return [_Edge(y0, y1, xa * _ONE + (y0 - ya) * dx, dx)]


def _toward_zero(numerator: int, denominator: int) -> int:
    """C's division of integers."""
    quotient = abs(numerator) // abs(denominator)
    return quotient if (numerator < 0) == (denominator < 0) else -quotient


def _draw_line(mask: np.ndarray, start: _Point, end: _Point) -> None:
    """Bresenham's line, from left to right, in closed form."""
    (xa, ya), (xb, yb) = sorted((start, end), key=lambda point: point[0]) if start[0] != end[0] else (start, end)
    across, down = xb - xa, abs(yb - ya)
    step = 1 if yb > ya else -1
    long, short = max(across, down), min(across, down)
    along = np.arange(long + 1)
    aside = (2 * short * along + long - 1) // max(2 * long, 1) if long else along
    x, y = (along, aside) if across >= down else (aside, along)
    mask[ya + step * y, xa + x] = True


def _clipped(start: _Point, end: _Point, height: int, width: int) -> tuple[tuple[_Point, _Point], bool]:
    """The line cut at the borders of the image, with the rounding of OpenCV's `clipLine`, and whether any of it is in the image."""
    line = [start, end]
    last = (width - 1, height - 1)

    def side(point: _Point, axis: int) -> int:
        return (point[axis] > last[axis]) - (point[axis] < 0)

    for axis in (1, 0):
        if any(side(start, a) * side(end, a) > 0 for start, end in (line,) for a in (0, 1)):
            return (line[0], line[1]), False
        for i in (0, 1):
            if beyond := side(line[i], axis):
                line[i] = _moved(line[i], line, axis, 0 if beyond < 0 else last[axis])
    return (line[0], line[1]), all(side(point, axis) == 0 for point in line for axis in (0, 1))


def _moved(point: _Point, line: Sequence[_Point], axis: int, to: int) -> _Point:
    (first, second), other = line, 1 - axis
    moved = point[other] + int((to - point[axis]) * (second[other] - first[other]) / (second[axis] - first[axis]))
    return (moved, to) if axis == 1 else (to, moved)
