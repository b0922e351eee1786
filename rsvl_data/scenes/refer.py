"""Phrases that single out one object: "the largest ship", "the building closest to the water".

One table of meanings serves both ways: `referring_expressions` writes a phrase where its meaning holds for exactly one object,
`referents` answers which objects a phrase fits. Near ties count as ties, so a phrase is never a matter of a pixel.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from rsvl_data.sample import Region
from rsvl_data.scenes.land_cover import LAND_COVER

AREA_MARGIN, AREA_MARGIN_PX = 1.15, 6  # the largest is larger than the next by this factor and a few pixels of its outline
PLACE_MARGIN = 0.03  # places differ by more than this share of the frame
_CLOSEST_TO = ("water", "forest", "road")
_MAX_COMPARED = 12  # nobody looks for the closest among more

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
                return found.tolist()
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


def standouts(regions: Sequence[Region], partial: Sequence[Region]) -> list[tuple[str, int]]:
    """The only one or the largest of each kind, with its index in `regions`, where there is such a thing without doubt."""
    seen, found = [*regions, *partial], []
    for category in sorted({r.category for r in regions}):
        members = _members(category, seen)
        largest = members if len(members) == 1 else _largest(members, _areas(members, seen))
        if len(largest) == 1 and largest[0] < len(regions):
            found.append((f"the {category}" if len(members) == 1 else f"the largest {category}", int(largest[0])))
    return found


def _members(category: str, regions: Sequence[Region]) -> Int[np.ndarray, " n"]:
    return np.array([i for i, r in enumerate(regions) if r.category == category])


def _areas(members: Int[np.ndarray, " n"], regions: Sequence[Region]) -> Float[np.ndarray, " n"]:
    return np.array([regions[i].area_px for i in members], dtype=float)


def _largest(members: Int[np.ndarray, " n"], area: Float[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    return members[area * AREA_MARGIN + AREA_MARGIN_PX >= area.max()]


def _meanings(
    category: str, regions: Sequence[Region], mask: UInt8[np.ndarray, "h w"]
) -> Iterator[tuple[str, Int[np.ndarray, " m"]]]:
    """Every phrase about a category, and the indices of the regions it fits."""
    members = _members(category, regions)
    if len(members) == 1:
        yield f"the {category}", members
        yield f"the only {category}", members
        return
    xy, area = centres([regions[i] for i in members]), _areas(members, regions)
    yield f"the largest {category}", _largest(members, area)
    yield f"the smallest {category}", members[area <= area.min() * AREA_MARGIN + AREA_MARGIN_PX]
    margin = PLACE_MARGIN * mask.shape[0]
    for name, place in (("leftmost", xy[:, 0]), ("rightmost", -xy[:, 0]), ("topmost", xy[:, 1]), ("bottommost", -xy[:, 1])):
        yield f"the {name} {category}", members[place <= place.min() + margin]
    yield from _in_cells(category, members, xy, mask.shape[0])
    if len(members) <= _MAX_COMPARED:
        yield from _closest(category, members, xy, regions, mask)


def _in_cells(
    category: str, members: Int[np.ndarray, " n"], xy: Float[np.ndarray, "n 2"], size_px: int
) -> Iterator[tuple[str, Int[np.ndarray, " m"]]]:
    """A phrase holds for what lies in a ninth of the frame or just beside it, if anything lies well inside."""
    third, margin = size_px / 3, PLACE_MARGIN * size_px
    middles = (np.arange(3) + 0.5) * third
    away = np.abs(xy[:, None, :] - middles[:, None])  # [n, 3, 2]: to the middle of each column, of each row
    near, surely = away <= third / 2 + margin, away <= third / 2 - margin
    for row, names in enumerate(CELLS):
        for column, name in enumerate(names):
            if (surely[:, column, 0] & surely[:, row, 1]).any():
                yield f"the {category} in the {name}", members[near[:, column, 0] & near[:, row, 1]]


def _closest(
    category: str,
    members: Int[np.ndarray, " n"],
    xy: Float[np.ndarray, "n 2"],
    regions: Sequence[Region],
    mask: UInt8[np.ndarray, "h w"],
) -> Iterator[tuple[str, Int[np.ndarray, " m"]]]:
    margin = PLACE_MARGIN * mask.shape[0]
    step = max(mask.shape[0] // 64, 1)
    coarse = mask[::step, ::step]
    for cover in _CLOSEST_TO:
        where = np.argwhere(coarse == LAND_COVER.index(cover))[:, ::-1] * step
        if 0.01 < len(where) / coarse.size < 0.4:
            squares = ((xy[:, None, :] - where) ** 2).sum(2)  # [n, pixels of the cover]
            away = np.sqrt(squares.min(1))
            yield f"the {category} closest to the {cover}", members[away <= away.min() + margin]
    others = [r.category for r in regions]
    for other in sorted(set(others) - {category}):
        if others.count(other) == 1:
            away = np.hypot(*(xy - centres([regions[others.index(other)]])).T)
            yield f"the {category} closest to the {other}", members[away <= away.min() + margin]
