"""The classes of the mask, and what the ground of a class looks like in a climate and a season."""

from dataclasses import dataclass, replace

import numpy as np

from rsvl_data.sample import Season

LAND_COVER: tuple[str, ...] = ("water", "forest", "cropland", "grass", "bare land", "built-up", "road", "beach", "snow")
LAND_COVER_PALETTE: tuple[tuple[int, int, int], ...] = (
    (38, 110, 190),
    (25, 95, 45),
    (228, 190, 80),
    (130, 190, 90),
    (165, 120, 80),
    (200, 60, 60),
    (95, 95, 100),
    (245, 225, 165),
    (240, 245, 250),
)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Material:
    """What a surface shows to the sensor, and which class of the mask it is.

    The depths are fractions of brightness: `grain` of mottled soil or grass, `crowns` of a closed tree canopy,
    `ripple` of waves, `depth` of parallel rows `period_m` apart that run along `angle`.
    """

    colour: Colour
    cover: str
    grain: float = 0.04
    crowns: float = 0.0
    ripple: float = 0.0
    angle: float = 0.0
    period_m: float = 0.0
    depth: float = 0.0

    def rows(self, angle: float, period_m: float, depth: float) -> "Material":
        return replace(self, angle=round(angle, 3), period_m=period_m, depth=depth)

    def tinted(self, factor: float | tuple[float, float, float]) -> "Material":
        """The same surface with its colour multiplied, one factor or one for each of R, G, B."""
        factors = (factor, factor, factor) if isinstance(factor, int | float) else factor
        r, g, b = (int(min(max(c * f, 0), 255)) for c, f in zip(self.colour, factors, strict=True))
        return replace(self, colour=(r, g, b))

    def coloured(self, colour: Colour) -> "Material":
        return replace(self, colour=colour)


_GRASS: dict[str, Colour] = {
    "spring": (112, 132, 82),
    "summer": (104, 122, 76),
    "autumn": (134, 124, 84),
    "winter": (126, 120, 94),
}
_FOREST: dict[str, Colour] = {"spring": (76, 102, 58), "summer": (58, 84, 52), "autumn": (132, 96, 54), "winter": (92, 86, 72)}
_CROP: dict[str, Colour] = {
    "spring": (112, 138, 66),
    "summer": (150, 142, 78),
    "autumn": (158, 132, 88),
    "winter": (128, 110, 84),
}
_CLIMATE_SEASON = {"tropical": "summer"}


def ground_materials(rng: np.random.Generator, climate: str, season: Season) -> dict[str, Material]:
    """One material per class of the mask, as this scene shows it: jittered within what the climate and the season allow."""
    look = _CLIMATE_SEASON.get(climate, season)
    grass, forest, crop = _GRASS[look], _FOREST[look], _CROP[look]
    if climate == "arid":
        grass, forest, crop = (140, 130, 90), (84, 92, 60), (126, 134, 76)
    if climate == "boreal":
        forest = (48, 70, 50)
    soil = {"arid": (196, 160, 116), "tropical": (160, 120, 92)}.get(climate, (156, 130, 102))
    water = [(34, 62, 78), (52, 82, 84), (30, 76, 98), (84, 96, 82)][rng.integers(4)]
    kinds = {
        "water": Material(water, "water", grain=0.015, ripple=0.05),
        "forest": Material(forest, "forest", grain=0.10, crowns=0.5),
        "cropland": Material(crop, "cropland", grain=0.06),
        "grass": Material(grass, "grass", grain=0.08),
        "bare land": Material(soil, "bare land", grain=0.10),
        "built-up": Material((168, 164, 158), "built-up", grain=0.03),
        "road": Material((112, 112, 114), "road", grain=0.03),
        "beach": Material((222, 204, 166), "beach", grain=0.04),
        "snow": Material((214, 220, 230), "snow", grain=0.02),
    }
    jitter = rng.uniform(0.9, 1.1, (len(LAND_COVER), 1)) * rng.uniform(0.96, 1.04, (len(LAND_COVER), 3))
    jitter[LAND_COVER.index("snow")] = 1.0
    return {name: kinds[name].tinted(tuple(j)) for name, j in zip(LAND_COVER, jitter.tolist(), strict=True)}
