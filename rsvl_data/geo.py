"""Facts that follow from where and when: position on the map, ground sample distance, UTM zone, season, climate zone.

Easy to get wrong, and tested: a pixel of a degree grid, of Web Mercator or of a grid in feet is not its stated size in metres on
the ground; seasons turn with the hemisphere; UTM zones bend at Norway and Svalbard; scenes cross the 180th meridian.
Positions are WGS 84, longitude first. pyproj is the extra `geo`, imported when it is needed.
"""

import gzip
import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
from PIL import Image

from rsvl_data.errors import DataError, RsvlError
from rsvl_data.sample import Season

_SEASONS: tuple[Season, ...] = ("winter", "spring", "summer", "autumn")
Transform = Sequence[float]
"""a, b, c, d, e, f with x = a * column + b * row + c and y = d * column + e * row + f"""
Window = tuple[float, float, float, float]
"""row, column, number of rows, number of columns"""


def geo_library(name: str) -> ModuleType:
    """rasterio, pyproj or shapely. Raises RsvlError that names the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RsvlError(f"{name} is not installed. GeoTIFFs and map projections need it: pip install 'rsvl[geo]'") from error


def season(lat: float, month: int) -> Season | None:
    """By whole months, December to February being winter in the north and summer in the south. On the equator there is none."""
    if lat == 0:
        return None
    quarter = month % 12 // 3
    return _SEASONS[quarter if lat > 0 else (quarter + 2) % 4]


def utm_zone(lon: float, lat: float) -> str | None:
    """Zone number and hemisphere ("33N", "55S") with the exceptions of Norway and Svalbard; None beyond 84° N and 80° S."""
    if not -80 <= lat <= 84:
        return None
    lon = wrap_longitude(lon)
    number = int((lon + 180) // 6) + 1
    if 56 <= lat < 64 and 3 <= lon < 12:
        number = 32
    elif lat >= 72 and 0 <= lon < 42:
        number = 31 if lon < 9 else 33 if lon < 21 else 35 if lon < 33 else 37
    return f"{number}{'N' if lat >= 0 else 'S'}"


def wrap_longitude(lon: float) -> float:
    """Into [-180, 180)."""
    return lon if -180 <= lon < 180 else (lon + 180) % 360 - 180


# --- rasters on the map


@lru_cache(maxsize=64)
def _projection(crs: str) -> tuple[Any, Any] | None:
    """The CRS and its way to longitude and latitude; None for a CRS without one (a local drawing grid)."""
    pyproj = geo_library("pyproj")
    try:
        given = pyproj.CRS.from_user_input(crs)
        return given, pyproj.Transformer.from_crs(given, "EPSG:4326", always_xy=True)
    except pyproj.exceptions.ProjError:
        return None


def raster_facts(crs: str, transform: Transform, window: Window) -> dict[str, Any]:
    """lon, lat, footprint, gsd_m and utm_zone of a part of a raster, as far as they are defined.

    `crs` is WKT or "EPSG:n"; `transform` is the whole raster's.

    The footprint is the four corners, upper left of the picture first, then clockwise as stored; a longitude past 180° is wrapped,
    so the corners of a scene across the 180th meridian have both signs. It is absent where a corner lies off the Earth.
    """
    projection = _projection(crs)
    if projection is None:
        return {}
    top, left, bottom, right = window[0], window[1], window[0] + window[2], window[1] + window[3]
    corners = [_to_lonlat(projection, transform, *c) for c in ((left, top), (right, top), (right, bottom), (left, bottom))]
    middle = (left + right) / 2, (top + bottom) / 2
    centre = _to_lonlat(projection, transform, *middle)
    facts: dict[str, Any] = {}
    if all(corners):
        facts["footprint"] = [_rounded(corner) for corner in corners if corner]
    if centre is not None:
        lon, lat = _rounded(centre)
        facts |= {"lon": wrap_longitude(lon), "lat": lat, "gsd_m": _ground_sample_distance_m(projection, transform, *middle)}
        # A scene in a UTM grid keeps the zone of its grid, even where it reaches into the next one.
        facts["utm_zone"] = projection[0].utm_zone or utm_zone(lon, lat)
    return {name: value for name, value in facts.items() if value is not None}


def _rounded(position: tuple[float, float]) -> tuple[float, float]:
    """To a millimetre, beyond which digits differ between builds of PROJ. 180° itself stays: it is the edge of world maps."""
    lon, lat = position
    return round(lon if abs(lon) <= 180 else wrap_longitude(lon), 8), round(lat, 8)


def _to_lonlat(projection: tuple[Any, Any], transform: Transform, column: float, row: float) -> tuple[float, float] | None:
    a, b, c, d, e, f = transform[:6]
    lon, lat = projection[1].transform(a * column + b * row + c, d * column + e * row + f)
    return (lon, lat) if math.isfinite(lon) and math.isfinite(lat) and abs(lat) <= 90 else None


def _ground_sample_distance_m(projection: tuple[Any, Any], transform: Transform, column: float, row: float) -> float | None:
    """Measured on the ellipsoid across one pixel; where its sides differ, their geometric mean.

    A projected grid that is true to scale within 1 % (UTM is within 0.1 %) keeps its own figure: a Sentinel-2 pixel has 10 m, not 10.004.
    """
    crs = projection[0]
    a, b, _, d, e, _ = transform[:6]
    sides = []
    for dx, dy, stated in ((0.5, 0, math.hypot(a, d)), (0, 0.5, math.hypot(b, e))):
        start = _to_lonlat(projection, transform, column - dx, row - dy)
        end = _to_lonlat(projection, transform, column + dx, row + dy)
        if start is None or end is None:
            return None
        measured = geo_library("pyproj").Geod(ellps="WGS84").inv(*start, *end)[2]
        if crs.is_projected:
            stated *= crs.axis_info[0].unit_conversion_factor
            measured = stated if abs(measured - stated) < 0.01 * stated else measured
        sides.append(measured)
    distance = math.sqrt(sides[0] * sides[1])
    return float(format(distance, ".6g")) if distance > 0 else None


# --- climate


@dataclass(frozen=True)
class ClimateGrid:
    """Köppen-Geiger classes on a regular grid. `codes[0]` stands for no class (sea); `cells` [rows, columns], north and west first.

    Codes, never ids: the same id is another class in another legend (14 is Cfa with Beck and Csc with Kottek).
    """

    cells: np.ndarray
    codes: tuple[str | None, ...]
    resolution_deg: float
    north: float
    west: float

    def zone(self, lon: float, lat: float) -> str | None:
        """None at sea and off the grid; the nearest land is not asked."""
        row = math.floor((self.north - lat) / self.resolution_deg)
        column = math.floor((wrap_longitude(lon) - self.west) / self.resolution_deg)
        row = min(row, len(self.cells) - 1) if lat == -90 else row
        inside = 0 <= row < self.cells.shape[0] and 0 <= column < self.cells.shape[1]
        return self.codes[self.cells[row, column]] if inside else None

    @classmethod
    def read(cls, path: Path) -> Self:
        """A table of `lat lon class` (.txt, .txt.gz), or an index .png with its legend, the one *legend*.json beside it."""
        if not path.is_file():
            raise DataError(f"{path} does not exist. {_CLIMATE_EXPECTS}")
        try:
            return cls._read_png(path) if path.suffix == ".png" else cls._read_table(path)
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise DataError(f"{path} is not a climate grid ({error!r}). {_CLIMATE_EXPECTS}") from error

    @classmethod
    def _read_png(cls, path: Path) -> Self:
        legends = sorted(path.parent.glob("*legend*.json"))
        if len(legends) != 1:
            raise ValueError(f"{len(legends)} legends beside it")
        legend = json.loads(legends[0].read_text())
        with Image.open(path) as image:
            cells = np.asarray(image)
        step = float(legend["resolution_deg"])
        if cells.shape != (legend["rows"], legend["cols"]) or cells.dtype != np.uint8:
            raise ValueError(f"{cells.dtype} picture of {cells.shape}, legend of {(legend['rows'], legend['cols'])}")
        codes = [legend["classes"].get(str(index)) for index in range(256)]
        return cls(cells, tuple(codes), step, legend["row0_center_lat"] + step / 2, legend["col0_center_lon"] - step / 2)

    @classmethod
    def _read_table(cls, path: Path) -> Self:
        """Rows are cell centres in any order; a first row of words is a header."""
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            rows = [line.split() for line in lines if line.strip()]
        if not rows[0][0].lstrip("-").replace(".", "", 1).isdigit():
            rows = rows[1:]
        lats, lons = (np.array([float(row[axis]) for row in rows]) for axis in (0, 1))
        step = float(np.diff(np.unique(lats)).min())
        north, west = lats.max() + step / 2, lons.min() - step / 2
        shape = (round((north - lats.min()) / step + 0.5), round((lons.max() - west) / step + 0.5))
        if shape[0] * shape[1] > 100_000_000 or abs(lats).max() > 90 or abs(lons).max() > 180:
            raise ValueError(f"a grid of {shape} cells")
        codes = sorted({row[2] for row in rows})
        numbers = {code: number for number, code in enumerate(codes, start=1)}
        cells = np.zeros(shape, np.uint8)
        places = ((north - lats) // step).astype(int), ((lons - west) // step).astype(int)
        cells[places] = [numbers[row[2]] for row in rows]
        return cls(cells, (None, *codes), step, float(north), float(west))


_CLIMATE_EXPECTS = (
    "Expected a Köppen-Geiger table `lat lon class` (.txt or .txt.gz), or an index .png with *legend*.json beside it."
)
