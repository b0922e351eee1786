"""Where objects lie in the picture and to each other, measured from their boxes: the facts behind "in the upper left" and "in a row".

A relation holds with a margin or it is not said. All lengths are pixels of the image, x to the right and y down.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rsvl_data.boxes import Box, Point, box_area
from rsvl_data.sample import Geo

_CELLS = (("upper left", "top", "upper right"), ("left", "centre", "right"), ("lower left", "bottom", "lower right"))
_EDGES = (("left edge", 0, 1), ("right edge", 0, -1), ("top edge", 1, 1), ("bottom edge", 1, -1))
_HALVES = (("left half", 0, 1), ("right half", 0, -1), ("upper half", 1, 1), ("lower half", 1, -1))
_COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")


@dataclass(frozen=True)
class Frame:
    """`north_up`: north is at the top of the picture; False where that is not known."""

    width_px: int
    height_px: int
    gsd_m: float | None = None
    north_up: bool = False


def is_north_up(geo: Geo | None) -> bool:
    """By the corners of the footprint: the side from lower left to upper left points north within 10 degrees."""
    if geo is None or geo.footprint is None or len(geo.footprint) != 4:
        return False
    (ul_lon, ul_lat), (ur_lon, ur_lat), (lr_lon, lr_lat), (ll_lon, ll_lat) = geo.footprint
    north = (ul_lat + ur_lat - ll_lat - lr_lat) / 2
    lon_shrink = math.cos(math.radians((ul_lat + ll_lat) / 2))
    east = ((ul_lon + ur_lon - ll_lon - lr_lon + 180) % 360 - 180) / 2 * lon_shrink
    not_mirrored = 0 < (ur_lon - ul_lon) % 360 < 180
    return north > 0 and not_mirrored and abs(east) < math.tan(math.radians(10)) * north


def centre(box: Box) -> Point:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def cell(box: Box, frame: Frame) -> str:
    """The ninth of the picture in which the middle of a box lies: "upper left", "top", ..., "centre", ..., "lower right"."""
    x, y = centre(box)
    return _CELLS[min(int(3 * y / frame.height_px), 2)][min(int(3 * x / frame.width_px), 2)]


def place_of_group(boxes: Sequence[Box], frame: Frame) -> str | None:
    """What holds for all of two objects or more: a cell ("upper left"), an edge along which they lie ("left edge"), or a half."""
    cells = {cell(box, frame) for box in boxes}
    if len(cells) == 1:
        return cells.pop()
    size = frame.width_px, frame.height_px
    middles = [centre(box) for box in boxes]
    for name, axis, side in _EDGES:
        distances = [(m[axis] if side > 0 else size[axis] - m[axis]) / size[axis] for m in middles]
        along = [m[1 - axis] / size[1 - axis] for m in middles]
        if len(boxes) >= 3 and max(distances) < 1 / 6 and max(along) - min(along) > 0.5:
            return name
    return next((name for name, axis, side in _HALVES if all(_in_half(box, axis, side, size) for box in boxes)), None)


def half_of_most(boxes: Sequence[Box], frame: Frame) -> str | None:
    """The half that holds 70 % and more, but not all, of six objects or more."""
    size = frame.width_px, frame.height_px
    for name, axis, side in _HALVES:
        share = sum(_in_half(box, axis, side, size) for box in boxes) / len(boxes)
        if len(boxes) >= 6 and 0.7 <= share < 1:
            return name
    return None


def is_spread(boxes: Sequence[Box], frame: Frame) -> bool:
    """Whether each quarter of the picture holds a tenth and more of eight objects or more."""
    if len(boxes) < 8:
        return False
    quarters = [0, 0, 0, 0]
    for x, y in map(centre, boxes):
        quarters[2 * (y > frame.height_px / 2) + (x > frame.width_px / 2)] += 1
    return min(quarters) >= 0.1 * len(boxes)


def _in_half(box: Box, axis: int, side: int, size: tuple[int, int]) -> bool:
    """With its middle, and not more than a twentieth of the picture beyond the line."""
    near, far = (box[axis], box[axis + 2]) if side > 0 else (size[axis] - box[axis + 2], size[axis] - box[axis])
    return (near + far) / 2 < 0.5 * size[axis] and far <= 0.55 * size[axis]


# --- one to another


def are_neighbours(first: Box, second: Box) -> bool:
    """The gap is at most half the long side of the smaller one, and neither lies in or over the other."""
    overlap_x = min(first[2], second[2]) - max(first[0], second[0])
    overlap_y = min(first[3], second[3]) - max(first[1], second[1])
    if min(overlap_x, overlap_y) > 0 and overlap_x * overlap_y > 0.1 * min(box_area(first), box_area(second)):
        return False
    gap = math.hypot(max(0.0, -overlap_x), max(0.0, -overlap_y))
    return gap <= 0.5 * min(_long_side(first), _long_side(second))


def direction(of: Box, seen_from: Box, *, north_up: bool) -> str | None:
    """ "above", "to the left of", "above and to the right of"; "north of" where north is up. None where the boxes share both spans."""
    x, y = centre(of)[0] - centre(seen_from)[0], centre(of)[1] - centre(seen_from)[1]
    apart_x = of[2] <= seen_from[0] or seen_from[2] <= of[0]
    apart_y = of[3] <= seen_from[1] or seen_from[3] <= of[1]
    if not apart_x and not apart_y:
        return None
    if north_up:
        return f"{_COMPASS[round(math.degrees(math.atan2(x, -y)) / 45) % 8]} of"
    across = "to the left of" if x < 0 else "to the right of"
    upright = "above" if y < 0 else "below"
    if apart_x and apart_y and 0.5 < abs(x) / abs(y) < 2:
        return f"{upright} and {across}"
    return across if apart_x and (not apart_y or abs(x) > abs(y)) else upright


def are_in_a_row(boxes: Sequence[Box]) -> bool:
    """Three to thirty objects of like size on one line, at steps that are even and not wide."""
    if not 3 <= len(boxes) <= 30:
        return False
    middles = [centre(box) for box in boxes]
    mean_x, mean_y = (statistics.fmean(axis) for axis in zip(*middles))
    xx, yy = sum((x - mean_x) ** 2 for x, _ in middles), sum((y - mean_y) ** 2 for _, y in middles)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in middles)
    turn = 0.5 * math.atan2(2 * xy, xx - yy)  # of the main axis of the scatter
    cos, sin = math.cos(turn), math.sin(turn)
    off_line = max(abs((y - mean_y) * cos - (x - mean_x) * sin) for x, y in middles)
    along = sorted((x - mean_x) * cos + (y - mean_y) * sin for x, y in middles)
    steps = [after - before for before, after in itertools.pairwise(along)]
    breadth = statistics.median(min(box[2] - box[0], box[3] - box[1]) for box in boxes)
    lengths = sorted(map(_long_side, boxes))
    alike = lengths[-1] <= 2 * lengths[0]
    even = 0 < max(steps) <= 2.5 * min(steps) and statistics.median(steps) <= 2 * statistics.median(lengths)
    return alike and even and off_line < 0.4 * breadth


def is_surrounded(middle: Box, others: Sequence[Box]) -> bool:
    """Four objects or more within its own long side of the box, none inside it, with no gap of 120 degrees between them."""
    reach = _long_side(middle)
    grown = (middle[0] - reach, middle[1] - reach, middle[2] + reach, middle[3] + reach)
    x0, y0 = centre(middle)
    angles = []
    for x, y in map(centre, others):
        if middle[0] < x < middle[2] and middle[1] < y < middle[3]:
            return False
        if grown[0] < x < grown[2] and grown[1] < y < grown[3]:
            angles.append(math.degrees(math.atan2(y - y0, x - x0)))
    angles.sort()
    gaps = [(after - before) % 360 for before, after in zip(angles, [*angles[1:], *angles[:1]])]
    return len(angles) >= 4 and max(gaps) < 120


def _long_side(box: Box) -> float:
    return max(box[2] - box[0], box[3] - box[1])


# --- size


def sides_px(polygon: Sequence[Point]) -> tuple[float, float]:
    """The long and the short side of the smallest rectangle around a polygon. One of its sides lies along the convex hull."""
    hull = _convex_hull(polygon)
    best = (math.inf, 0.0, 0.0)
    for (x0, y0), (x1, y1) in zip(hull, [*hull[1:], *hull[:1]]):
        length = math.hypot(x1 - x0, y1 - y0)
        cos, sin = (x1 - x0) / length, (y1 - y0) / length
        along = [x * cos + y * sin for x, y in hull]
        across = [y * cos - x * sin for x, y in hull]
        width, height = max(along) - min(along), max(across) - min(across)
        best = min(best, (width * height, max(width, height), min(width, height)))
    return best[1], best[2]


def _convex_hull(points: Sequence[Point]) -> list[Point]:
    """Andrew's monotone chain (1979): the lower and the upper border from left to right and back. Empty where all are equal."""
    ordered = sorted(set(points))
    hull: list[Point] = []
    for start in (ordered, ordered[::-1]):
        border: list[Point] = []
        for x, y in start:
            while len(border) > 1 and _turn(border[-2], border[-1], (x, y)) <= 0:
                border.pop()
            border.append((x, y))
        hull += border[:-1]
    return hull


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def touches_border(box: Box, frame: Frame) -> bool:
    """An object that may go on beyond the picture."""
    return box[0] < 1 or box[1] < 1 or box[2] > frame.width_px - 1 or box[3] > frame.height_px - 1
