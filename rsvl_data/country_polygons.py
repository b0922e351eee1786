"""Which country a position lies in, from polygons: a GeoJSON FeatureCollection such as Natural Earth's ne_10m_admin_0_countries.geojson.

https://www.naturalearthdata.com (public domain). The name comes from the ISO 3166-1 alpha-2 code of a feature (`country_names`); a feature
without one (Natural Earth writes -99) gives its own name, ADMIN before NAME.

Easy to get wrong, and tested: enclaves (a hole is no land of the country around it); countries across the 180th meridian, which must be
cut there (RFC 7946, 3.1.9) as Natural Earth's are; a feature that is not cut would cover the world the wrong way round and is left out.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from rsvl_data.country_names import COUNTRY_NAMES
from rsvl_data.errors import DataError
from rsvl_data.geo import geo_library

_EXPECTS = (
    "Expected a GeoJSON FeatureCollection of country polygons in longitude and latitude, "
    "with ISO_A2, ADMIN or NAME, such as Natural Earth's ne_10m_admin_0_countries.geojson."
)
_CODES = (
    "ISO_A2_EH",
    "ISO_A2",
    "ISO3166-1-ALPHA-2",
    "ISO_3166_1_ALPHA_2",
    "ISO2",
)  # _EH: Natural Earth's code for France and Norway too
_NAMES = ("ADMIN", "NAME_EN", "NAME", "COUNTRY", "NAME_LONG")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CountryPolygons:
    """`names[i]` is the country of the polygon `tree.geometries[i]`; a country has as many as it has parts."""

    tree: Any
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Features that cannot be used are counted in one warning. Raises DataError for a file without one that can."""
        shapely = geo_library("shapely")
        polygons: list[Any] = []
        names: list[str] = []
        faults: list[str] = []
        for number, feature in enumerate(_features(path), start=1):
            try:
                name, parts = _name(feature["properties"]), list(_parts(feature["geometry"]))
            except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
                faults.append(f"feature {number}: {error!r}")
                continue
            polygons += parts
            names += [name] * len(parts)
        if not polygons:
            raise DataError(f"{path} has no country that can be used ({faults[0] if faults else 'no feature'}). {_EXPECTS}")
        if faults:
            logger.warning("%s: %d features cannot be used and are left out; the first is %s", path, len(faults), faults[0])
        shapely.prepare(polygons)
        return cls(shapely.STRtree(polygons), tuple(names))

    def at(self, lon: float, lat: float) -> str | None:
        """None at sea, and where two countries claim the position: on a border, or in polygons that overlap."""
        shapely = geo_library("shapely")
        # The 180th meridian has two longitudes, and files may count past it.
        points = [shapely.Point(lon + turn, lat) for turn in (-360, 0, 360)]
        near = zip(*self.tree.query(points), strict=True)  # by their boxes
        claims = {self.names[i] for point, i in near if self.tree.geometries[i].intersects(points[point])}
        return claims.pop() if len(claims) == 1 else None


def _features(path: Path) -> list[Any]:
    if not path.is_file():
        raise DataError(f"{path} does not exist. {_EXPECTS}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        features = content["features"]
        if not isinstance(features, list):
            raise TypeError("features is not a list")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is not a file of country polygons ({error!r:.200}). {_EXPECTS}") from error
    return features


def _name(properties: dict[str, Any]) -> str:
    said = {key.upper(): value.strip() for key, value in properties.items() if isinstance(value, str) and value.strip()}
    codes = (COUNTRY_NAMES.get(said[key].upper()) for key in _CODES if key in said)
    names = (said[key] for key in _NAMES if key in said)
    name = next((code for code in codes if code), None) or next(names, None)
    if name is None:
        raise ValueError(f"no country in its properties {', '.join(list(properties)[:8])}")
    return name


def _parts(geometry: dict[str, Any]) -> Iterator[Any]:
    """One polygon at a time: the boxes of parts are small where that of a whole country spans the world."""
    shapely = geo_library("shapely")
    if geometry["type"] not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"a {geometry['type']}; expected Polygon or MultiPolygon")
    rings = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    for shell, *holes in rings:
        for ring in (shell, *holes):
            _check_ring(np.array([position[:2] for position in ring], float))
        yield shapely.Polygon([p[:2] for p in shell], [[p[:2] for p in hole] for hole in holes])


def _check_ring(ring: np.ndarray) -> None:
    lons, lats = ring.T
    if not np.isfinite(ring).all() or abs(lons).max() > 360 or abs(lats).max() > 90:
        raise ValueError("coordinates that are no longitude and latitude")
    steps = abs(np.diff(lons))
    # A side from -180 to 180 is real: it runs along the South Pole or closes a ring around a pole.
    if ((steps > 180) & (steps < 360)).any():
        raise ValueError("a polygon across the 180th meridian that is not cut there")
