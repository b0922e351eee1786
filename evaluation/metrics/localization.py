"""How well a heat map points at the regions that a sentence means: Rsu, Ras, Rda and their mean Rmi.

Yuan et al., "Learning to Evaluate Performance of Multi-modal Semantic Localization", TGRS 2022 (arXiv:2209.06515).
https://github.com/xiaoyuan1996/SemanticLocalizationMetrics/blob/1e9596ded8dbdb83ea534987f8c2e2c6ee3f1d20/evaluations/SLM.py

Two protocols. `semantic_localization_metrics` is the authors' code, number for number. `rsvl` is the same measure without its slips:
                    semantic_localization_metrics                     rsvl
  several regions   what two of them share belongs to neither         their union
  candidates        about 2.5 px right of and below the peak          at the peak
A region outside the image or without extent has no value under either: `region_mask` refuses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from evaluation.metrics.heat_map_peaks import LocalizationProtocol, Peak, peaks
from evaluation.metrics.polygon_mask import Polygon, even_odd_mask
from rsvl_data.errors import DataError

RSU_BETA, RSU_EPSILON = 0.707, 1e-7
CIRCLE_FACTOR = 1.5  # of the mean distance from centre to vertex
RAS_BETA = 3.0
RDA_ETA = 0.5
SU_WEIGHT, AS_WEIGHT, DA_WEIGHT = 0.4, 0.35, 0.25


class Circle(NamedTuple):
    """Around a region, in whole pixels: a candidate in it counts for the region."""

    x: int
    y: int
    radius_px: int


@dataclass(frozen=True)
class Localization:
    """All from 0 to 1.

    rsu   significant area proportion: how much of the probability lies in the regions, against their area
    ras   attention shift: how far the candidates are from the centres of the regions; lower is better
    rda   discrete attention: whether a region has one candidate, rather than none or many
    rmi   mean: 0.4 rsu + 0.35 (1 - ras) + 0.25 rda
    """

    rsu: float
    ras: float
    rda: float

    @property
    def rmi(self) -> float:
        return SU_WEIGHT * self.rsu + AS_WEIGHT * (1 - self.ras) + DA_WEIGHT * self.rda


def localization(
    heat_map: UInt8[np.ndarray, "h w"], regions: Sequence[Polygon], protocol: LocalizationProtocol = "rsvl"
) -> Localization:
    """`heat_map` is the probability in 255ths. Regions are polygons of [x, y] in its pixels.

    Regions that cover the whole map leave nothing to tell apart: rsu is 0. Raises BadRegions as `region_mask` does.
    """
    height, width = heat_map.shape
    mask = region_mask(regions, height, width, protocol)
    candidates = peaks(heat_map, protocol)
    circles = [circle_around(region) for region in regions]
    return Localization(
        significant_area(heat_map, mask),
        attention_shift(circles, [_distances_within(circle, candidates) for circle in circles]),
        float(np.mean([discrete_attention(circle, candidates) for circle in circles])),
    )


class BadRegions(DataError):
    """Regions that no map can be measured by. `reason` is a word to count by."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def region_mask(
    regions: Sequence[Polygon], height: int, width: int, protocol: LocalizationProtocol = "rsvl"
) -> Bool[np.ndarray, "h w"]:
    """Raises BadRegions: no_region; degenerate_region (no extent); region_outside (not one pixel in the image).

    `rsvl` demands a pixel of each polygon, the authors' code of all together, so there regions can also cancel each other.
    """
    if not regions:
        raise BadRegions("no_region", "a query needs at least one polygon")
    for number, region in enumerate(regions):
        if not len(region) or not np.isfinite(np.asarray(region, dtype=float)).all() or circle_around(region).radius_px == 0:
            raise BadRegions(
                "degenerate_region", f"polygon {number} of {len(region)} vertices has no extent; it needs three or more"
            )
    if protocol == "rsvl":
        masks = [even_odd_mask([region], height, width) for region in regions]
    else:
        masks = [even_odd_mask(regions, height, width)]
    for number, mask in enumerate(masks):
        if not mask.any():
            raise BadRegions("region_outside", f"polygon {number} has no pixel in the image of {width} x {height} pixels")
    return np.logical_or.reduce(masks)


def circle_around(region: Polygon) -> Circle:
    """Centre: the mean vertex, cut to whole pixels; a vertex that is given twice counts twice."""
    vertices = np.asarray(region, dtype=float)
    x, y = (int(sum(vertices[:, axis].tolist()) / len(vertices)) for axis in (0, 1))
    return Circle(x, y, int(np.hypot(vertices[:, 0] - x, vertices[:, 1] - y).mean() * CIRCLE_FACTOR))


def significant_area(heat_map: UInt8[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> float:
    """Rsu. `mask` holds at least one pixel."""
    inside, area = int(heat_map[mask].sum(dtype=np.int64)) / 255, int(mask.sum())
    outside = int(heat_map.sum(dtype=np.int64)) / 255 - inside
    return float(1 - np.exp(-RSU_BETA * inside / (outside + RSU_EPSILON) * (mask.size - area) / area))


def rsu_of_even_map() -> float:
    """What `significant_area` gives to a map that is the same everywhere, whatever the regions: inside over outside is then their area
    over the rest."""
    return float(1 - np.exp(-RSU_BETA))


def attention_shift(circles: Sequence[Circle], distances_px: Sequence[np.ndarray]) -> float:
    """Ras. A circle without candidate counts as if it had one at its rim."""
    shift = float(np.mean([d.mean() / c.radius_px if len(d) else 1.0 for c, d in zip(circles, distances_px)]))
    return float(np.expm1(RAS_BETA * shift) / np.expm1(RAS_BETA))


def discrete_attention(circle: Circle, candidates: Sequence[Peak]) -> float:
    """Rda of one region: 0 without a candidate, 1 with one; with more, less the more there are and the further apart."""
    own = np.array([(p.x, p.y) for p in candidates if _distance_px(circle, p) <= circle.radius_px], dtype=float)
    if len(own) < 2:
        return float(len(own))
    spread_px = np.hypot(*(own - own.mean(0)).T).mean()
    return float(0.5 * (1 - spread_px / circle.radius_px) + np.exp(-RDA_ETA * (len(own) + 2)))


def _distances_within(circle: Circle, candidates: Sequence[Peak]) -> np.ndarray:
    distances = np.array([_distance_px(circle, peak) for peak in candidates])
    return distances[distances <= circle.radius_px]


def _distance_px(circle: Circle, peak: Peak) -> float:
    return float(np.hypot(circle.x - peak.x, circle.y - peak.y))
