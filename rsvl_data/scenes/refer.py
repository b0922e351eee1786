"""Phrases that single out one object: "the largest ship", "the building closest to the water".

One table of meanings serves both ways: `referring_expressions` writes a phrase where its meaning holds for exactly one object,
`referents` answers which objects a phrase fits. Near ties count as ties, so a phrase is never a matter of a pixel.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from rsvl_data.sample import Region
from rsvl_data.scenes.land_cover import LAND_COVER

AREA_MARGIN, AREA_MARGIN_PX = 1.15, 6  # the largest is larger than the next by this factor and a few pixels of its outline
PLACE_MARGIN = 0.03  # places differ by more than this share of the frame
_CLOSEST_TO = ("water", "forest", "road")
_MAX_COMPARED = 24  # nobody looks for the closest among more
_GRID_PX = 4

CELLS: tuple[tuple[str, ...], ...] = (
    ("upper left", "upper middle", "upper right"),
    ("middle left", "center", "middle right"),
    ("lower left", "lower middle", "lower right"),
)


def centres(regions: Sequence[Region]) -> Float[np.ndarray, "n 2"]:
    """The middles x, y of the boxes, in pixels."""
    boxes = np.array([r.bbox for r in regions], dtype=float).reshape(-1, 4)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def cell_name(x: float, y: float, size_px: int) -> str:
    """Which ninth of the frame a point lies in."""
    return CELLS[min(int(3 * y / size_px), 2)][min(int(3 * x / size_px), 2)]


def referents(expression: str, regions: Sequence[Region], mask: UInt8[np.ndarray, "h w"]) -> list[int]:
    """Indices of the regions the phrase fits, near ties included; empty where the phrase means nothing here."""
    for category in {r.category for r in regions}:
        for phrase, found in _meanings(category, regions, mask):
            if phrase == expression:
                return found
    return []


def referring_expressions(
    rng: np.random.Generator, regions: Sequence[Region], partial: Sequence[Region], mask: UInt8[np.ndarray, "h w"]
) -> list[str | None]:
    """For each region a phrase that fits it and nothing else in view, `partial` objects included; None where there is none."""
    phrases: list[list[str]] = [[] for _ in regions]
    seen = [*regions, *partial]
    for category in sorted({r.category for r in regions}):
        for phrase, found in _meanings(category, seen, mask):
            if len(found) == 1 and found[0] < len(regions):
                phrases[found[0]].append(phrase)
    return [options[int(rng.integers(len(options)))] if options else None for options in phrases]


def _meanings(category: str, regions: Sequence[Region], mask: UInt8[np.ndarray, "h w"]) -> Iterator[tuple[str, list[int]]]:
    """Every phrase about a category, and the indices of the regions it fits."""
    members = np.array([i for i, r in enumerate(regions) if r.category == category])
    if len(members) == 1:
        yield f"the {category}", members.tolist()
        yield f"the only {category}", members.tolist()
        return
    size_px = mask.shape[0]
    xy = centres([regions[i] for i in members])
    area = np.array([regions[i].area_px for i in members], dtype=float)
    yield f"the largest {category}", members[area * AREA_MARGIN + AREA_MARGIN_PX >= area.max()].tolist()
    yield f"the smallest {category}", members[area <= area.min() * AREA_MARGIN + AREA_MARGIN_PX].tolist()
    margin = PLACE_MARGIN * size_px
    for name, place in (("leftmost", xy[:, 0]), ("rightmost", -xy[:, 0]), ("topmost", xy[:, 1]), ("bottommost", -xy[:, 1])):
        yield f"the {name} {category}", members[place <= place.min() + margin].tolist()
    third = size_px / 3
    for row, names in enumerate(CELLS):
        for column, name in enumerate(names):
            middle = np.array([column + 0.5, row + 0.5]) * third
            near = (np.abs(xy - middle) <= third / 2 + margin).all(1)
            surely = (np.abs(xy - middle) <= third / 2 - margin).all(1)
            yield f"the {category} in the {name}", members[near].tolist() if surely.any() else []
    if len(members) <= _MAX_COMPARED:
        yield from _closest(category, members.tolist(), xy, regions, mask)


def _closest(
    category: str, members: list[int], xy: Float[np.ndarray, "n 2"], regions: Sequence[Region], mask: UInt8[np.ndarray, "h w"]
) -> Iterator[tuple[str, list[int]]]:
    margin = PLACE_MARGIN * mask.shape[0]
    coarse = mask[:: _GRID_PX // 2, :: _GRID_PX // 2] if mask.shape[0] < 128 else mask[::_GRID_PX, ::_GRID_PX]
    step = mask.shape[0] / coarse.shape[0]
    for cover in _CLOSEST_TO:
        where = np.argwhere(coarse == LAND_COVER.index(cover))[:, ::-1] * step
        if 0.01 < len(where) / coarse.size < 0.4:
            away = np.array([np.hypot(*(where - point).T).min() for point in xy])
            yield f"the {category} closest to the {cover}", [members[i] for i in np.flatnonzero(away <= away.min() + margin)]
    others = [r.category for r in regions]
    for other in sorted(set(others) - {category}):
        if others.count(other) == 1:
            away = np.hypot(*(xy - centres([regions[others.index(other)]])).T)
            yield f"the {category} closest to the {other}", [members[i] for i in np.flatnonzero(away <= away.min() + margin)]
