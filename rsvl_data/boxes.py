"""Boxes, polygons and run lengths as annotation files hold them, checked: pure functions of numbers.

Our box is x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive. A polygon is a list of corners, not closed.
Run lengths (COCO's RLE) count pixels column by column and begin with background; the compressed text of them is decoded here and not
by pycocotools, whose C code trusts the numbers it is given.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsvl_data.errors import DataError

Box = tuple[float, float, float, float]
Point = tuple[float, float]
_MAX_COORDINATE = 1e9  # products of two stay exact enough to clip with, and finite


class BadGeometry(ValueError):
    """`reason` is a short word for counting: bad_box, bad_number, bad_polygon, bad_rle, size_mismatch, too_large."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def finite_numbers(values: Any, count: int) -> tuple[list[float], bool]:
    """`count` numbers, and whether one of them had to be read from a text. Raises BadGeometry."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        raise BadGeometry("bad_box", f"{_short(values)} is not a list of {count} numbers")
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise BadGeometry("bad_box", f"{_short(values)} holds something that is no number: {str(error)[:100]}") from error
    if not all(map(math.isfinite, numbers)):
        raise BadGeometry("bad_number", f"{_short(values)} holds a number that is not finite")
    return numbers, any(isinstance(value, str) for value in values)


def box_in_image(box: Sequence[float], width: int, height: int) -> tuple[Box, bool]:
    """The box clipped to the image, and whether that changed it. Raises BadGeometry when less than a pixel is left."""
    x0, y0, x1, y1 = box
    if x1 - x0 < 1 or y1 - y0 < 1:
        guess = "; are these fractions of the image?" if all(0 <= value <= 1 for value in box) else ""
        raise BadGeometry("bad_box", f"box {_short(box)} (x0, y0, x1, y1) is inverted or smaller than a pixel{guess}")
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
        raise BadGeometry("bad_box", f"box {_short(box)} lies outside the image of {width} x {height}")
    return clipped, clipped != (x0, y0, x1, y1)


def box_area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def corners(flat: Any) -> list[Point]:
    """[x, y, x, y, ...] as points. Raises BadGeometry for an odd number of values or fewer than three points."""
    if not isinstance(flat, Sequence) or isinstance(flat, str) or len(flat) % 2 or len(flat) < 6:
        raise BadGeometry("bad_polygon", f"{_short(flat)} is not x, y of three points or more")
    numbers, _ = finite_numbers(flat, len(flat))
    if max(map(abs, numbers)) > _MAX_COORDINATE:
        raise BadGeometry("bad_polygon", f"{_short(flat)} leaves every image: no coordinate may exceed {_MAX_COORDINATE:.0f}")
    return list(zip(numbers[::2], numbers[1::2]))


def box_of_points(points: Sequence[Point]) -> Box:
    xs, ys = zip(*points)
    return min(xs), min(ys), max(xs), max(ys)


def polygon_area(points: Sequence[Point]) -> float:
    """Of a polygon that does not cross itself, in either turning direction; 0 for none."""
    pairs = zip(points, [*points[1:], *points[:1]])
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


def clip_polygon(points: Sequence[Point], width: int, height: int) -> list[Point]:
    """What of a polygon lies in the image, by Sutherland and Hodgman (1974): one border at a time. Empty when nothing does."""
    clipped = list(points)
    for axis, sign, limit in ((0, 1, 0), (0, -1, -width), (1, 1, 0), (1, -1, -height)):
        source, clipped = clipped, []
        for before, point in zip([*source[-1:], *source[:-1]], source):
            outside_before, outside = limit - sign * before[axis], limit - sign * point[axis]  # above 0: beyond the border
            if (outside_before > 0) != (outside > 0):
                part = outside_before / (outside_before - outside)
                clipped.append((before[0] + part * (point[0] - before[0]), before[1] + part * (point[1] - before[1])))
            if outside <= 0:
                clipped.append(point)
    return clipped


def is_bow_tie(quad: Sequence[Point]) -> bool:
    """Whether two opposite sides of a polygon of four points cross."""
    a, b, c, d = quad
    return _cross(a, b, c, d) or _cross(b, c, d, a)


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    def turn(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


# --- masks of one object


def segmentation_mask(segmentation: Any, width: int, height: int, *, max_pixels: int = 100_000_000) -> np.ndarray:
    """COCO's `segmentation` as booleans [height, width]: run lengths in either spelling, a list of them, or polygons.

    Raises BadGeometry, before anything of the claimed size is allocated. Polygons need the extra `boxes`.
    """
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    if not parts or not all(isinstance(part, dict) for part in parts):
        return _polygon_mask(parts, width, height)
    masks = [_run_mask(part, width, height, max_pixels) for part in parts]
    return np.logical_or.reduce(masks)


def box_of_mask(mask: np.ndarray) -> Box | None:
    """None for a mask without a true pixel."""
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return (float(xs[0]), float(ys[0]), float(xs[-1]) + 1, float(ys[-1]) + 1) if len(xs) else None


def _polygon_mask(parts: list[Any], width: int, height: int) -> np.ndarray:
    if not parts or not all(isinstance(part, list) for part in parts):
        raise BadGeometry("bad_rle", f"{_short(parts)} is neither run lengths nor a list of polygons")
    flat = [[value for point in corners(part) for value in point] for part in parts]
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise DataError('Polygons become masks by pycocotools: pip install "rsvl[boxes]"') from error
    limit = 2.0**20  # pycocotools turns coordinates into 32-bit integers, five times enlarged
    bounded = [[min(max(value, -limit), limit) for value in polygon] for polygon in flat]
    runs = coco_mask.merge(coco_mask.frPyObjects(bounded, height, width))
    return _run_mask({"size": [height, width], "counts": runs["counts"].decode()}, width, height, width * height)


def _run_mask(runs: dict[str, Any], width: int, height: int, max_pixels: int) -> np.ndarray:
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and 0 < side < 2**31 for side in size):
        raise BadGeometry("bad_rle", f"size {_short(size)} is not [height, width]")
    if size[0] * size[1] > max_pixels:
        raise BadGeometry("too_large", f"run lengths of {size[1]} x {size[0]} are above {max_pixels} pixels")
    lengths = _decompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(isinstance(n, int) and 0 <= n < 2**31 for n in lengths):
        raise BadGeometry("bad_rle", f"counts {_short(counts)} are not run lengths")
    if sum(lengths) != size[0] * size[1]:
        raise BadGeometry("bad_rle", f"the runs add up to {sum(lengths)} pixels, not to {size[1]} x {size[0]}")
    if size != [height, width]:
        raise BadGeometry("size_mismatch", f"run lengths of {size[1]} x {size[0]} in an image of {width} x {height}")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape((height, width), order="F")


def _decompressed(text: str) -> list[int]:
    """rleFrString of https://github.com/cocodataset/cocoapi/blob/8c9bcc3cf640524c4c20a9c40e89cb6a2f2fa0e9/common/maskApi.c#L213

    Six bits a character: five of the number, lowest first, and one that says whether it goes on. From the fourth on a number is
    the difference to the one two before it.
    """
    lengths: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadGeometry("bad_rle", f"{_short(text)} is no text of run lengths")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (1 << shift) if bits & 16 else 0
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number = shift = 0
    if shift:
        raise BadGeometry("bad_rle", f"{_short(text)} ends within a number")
    return lengths


def _short(value: Any) -> str:
    """A value for an error message, which must not grow with the file."""
    if isinstance(value, list | tuple):
        value = list(itertools.islice(value, 9))
    text = repr(value[:80]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
