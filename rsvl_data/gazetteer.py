"""Country and nearest place of a position, from files that lie on disk; nothing is asked over a network.

Places come from a GeoNames dump (https://download.geonames.org/export/dump/: cities500.zip, cities15000.zip, allCountries.zip), countries
from polygons (`country_polygons`). GeoNames is CC BY 4.0: a dataset whose captions hold its names owes the credit "GeoNames
(geonames.org), CC BY 4.0".

Absent is absent. Beyond `max_km` no place is near. With polygons they alone say the country, at sea none, and a place that they put into
another country than the position is passed over: a picture of Basel is not said to show Saint-Louis in Switzerland. Without polygons
there is a country only where all places within `max_km` have the same one, which says nothing about territorial waters.

Memory: places of feature class P alone are kept, without those that are no more (PPLH, PPLQ, PPLW, PPLCH), at about 40 bytes each:
8 MB for the 200,000 of cities500, 200 MB for the 5 million of allCountries, in every process, and a little more than twice that for the
moment of reading, which takes most of a minute there.
"""

import gzip
import logging
import math
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

import numpy as np

from rsvl_data.country_names import COUNTRY_NAMES
from rsvl_data.country_polygons import CountryPolygons
from rsvl_data.errors import DataError

_EXPECTS = (
    "Expected a GeoNames dump of 19 tab-separated columns, such as cities500.txt or allCountries.zip "
    "from https://download.geonames.org/export/dump/ (.txt, .gz or .zip)."
)
_NUM_COLUMNS = 19  # readme.txt beside the dumps names them
_NAME, _LAT, _LON, _CLASS, _CODE, _COUNTRY = 1, 4, 5, 6, 7, 8
_NO_MORE = (b"PPLH", b"PPLQ", b"PPLW", b"PPLCH")  # historical, abandoned, destroyed, historical capital
_MAX_LINE_BYTES = 65_536  # alternate names have 10,000 characters at the most; a longer line is broken
_EARTH_RADIUS_KM = 6371.0088  # mean radius of GRS 80; distances on the sphere are true within 0.6 %
_BAND_DEG = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """Populated places, sorted by bands of latitude and by longitude within a band, so that few are measured for a position.

    `names` are laid end to end in UTF-8, that of place i within `name_spans[i]`; `countries[i]` is an index into `codes`.
    `band_starts[b]` is the first place of band b.
    """

    lons: np.ndarray
    lats: np.ndarray
    countries: np.ndarray
    codes: tuple[str, ...]
    band_starts: np.ndarray
    names: bytes
    name_spans: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Self:
        """Rows that cannot be used are counted in one warning. Raises DataError when more are broken than sound, or no place is found."""
        if not path.is_file():
            raise DataError(f"{path} does not exist. {_EXPECTS}")
        try:
            with _opened(path) as file:
                rows = _Rows()
                rows.read(file)
        except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{path} cannot be read as a gazetteer ({error}). {_EXPECTS}") from error
        if not rows.lons or rows.num_broken > rows.num_sound:
            why = (
                f"{rows.num_broken} of {rows.num_broken + rows.num_sound} rows are broken"
                if rows.num_broken
                else "it has no place"
            )
            raise DataError(f"{path} is not a gazetteer: {why}{f', the first: {rows.first}' if rows.first else ''}. {_EXPECTS}")
        if rows.num_broken:
            logger.warning("%s: %d rows cannot be used and are left out; the first: %s", path, rows.num_broken, rows.first)
        return cls._sorted(rows)

    @classmethod
    def _sorted(cls, rows: "_Rows") -> Self:
        lons, lats = np.frombuffer(rows.lons), np.frombuffer(rows.lats)
        ends = np.frombuffer(rows.name_ends, np.uint32)
        spans = np.stack([np.concatenate([[0], ends[:-1]]).astype(np.uint32), ends], axis=1)  # [N, 2]
        bands = np.floor((lats + 90) / _BAND_DEG).astype(int)
        order = np.lexsort((lons, bands))
        starts = np.searchsorted(bands[order], np.arange(_band(90) + 2))
        countries = np.frombuffer(rows.countries, np.uint16)
        return cls(lons[order], lats[order], countries[order], tuple(rows.codes), starts, bytes(rows.names), spans[order])

    def nearby(self, lon: float, lat: float, max_km: float) -> np.ndarray:
        """Numbers of the places within `max_km` along the great circle, nearest first."""
        found = np.concatenate([np.arange(start, end) for start, end in self._windows(lon, lat, max_km / _EARTH_RADIUS_KM)])
        distances = distance_km(lon, lat, self.lons[found], self.lats[found])
        order = np.argsort(distances, kind="stable")
        return found[order][: int((distances <= max_km).sum())]

    def _windows(self, lon: float, lat: float, angle: float) -> Iterator[tuple[int, int]]:
        """Runs of places that hold all within `angle` radians and some beyond. Across the 180th meridian there are two a band."""
        reach_deg = math.degrees(angle) + 1e-9
        low, high = lat - reach_deg, lat + reach_deg
        # The bounding box of a circle on the sphere; one around a pole has every longitude.
        polar = low <= -90 or high >= 90
        width_deg = 180.0 if polar else math.degrees(math.asin(math.sin(angle) / math.cos(math.radians(lat)))) + 1e-9
        for band in range(_band(max(low, -90)), _band(min(high, 90)) + 1):
            start, end = self.band_starts[band : band + 2]
            if width_deg >= 180:
                yield start, end
                continue
            for turn in (-360, 0, 360):
                edges = np.searchsorted(self.lons[start:end], [lon + turn - width_deg, lon + turn + width_deg], side="left")
                yield start + edges[0], start + edges[1]

    def name(self, number: int) -> str:
        start, end = self.name_spans[number]
        return self.names[start:end].decode()

    def country(self, numbers: np.ndarray) -> str | None:
        """The one that all of them lie in."""
        codes = {self.codes[index] for index in np.unique(self.countries[numbers])}
        return COUNTRY_NAMES.get(codes.pop()) if len(codes) == 1 else None


@dataclass(frozen=True)
class Gazetteer:
    places: Places | None = None
    polygons: CountryPolygons | None = None

    @classmethod
    def read(cls, places: Path | None = None, countries: Path | None = None) -> Self:
        """`places` is a GeoNames dump, `countries` a GeoJSON file of polygons. Raises DataError that says what was expected."""
        return cls(Places.read(places) if places else None, CountryPolygons.read(countries) if countries else None)

    def facts(self, lon: float, lat: float, max_km: float = 50.0) -> dict[str, str]:
        """`country` and `place`, as far as they are known."""
        near = self.places.nearby(lon, lat, max_km) if self.places else np.empty(0, int)
        country = self.polygons.at(lon, lat) if self.polygons else self.places.country(near) if self.places else None
        place = self._place(near, country)
        return {name: value for name, value in {"country": country, "place": place}.items() if value is not None}

    def _place(self, near: np.ndarray, country: str | None) -> str | None:
        if self.places is None:
            return None
        for number in near:
            there = self.polygons.at(self.places.lons[number], self.places.lats[number]) if self.polygons and country else None
            if there is None or there == country:  # a town on a coast may lie beside a coarse polygon
                return self.places.name(number)
        return None


def distance_km(lon: float, lat: float, lons: np.ndarray, lats: np.ndarray) -> np.ndarray:
    """Great-circle distance by the haversine formula, which is exact for small distances too."""
    a, b = math.radians(lat), np.radians(lats)
    chord = np.sin((b - a) / 2) ** 2 + math.cos(a) * np.cos(b) * np.sin(np.radians(lons - lon) / 2) ** 2
    return 2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(chord, 1)))


def _band(lat: float) -> int:
    return math.floor((lat + 90) / _BAND_DEG)


# --- the file


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Unpacked as it is read. Raises ValueError for a zip in which it is not clear which file is meant."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            texts = [name for name in archive.namelist() if name.endswith(".txt") and "readme" not in name.lower()]
            if len(texts) != 1:
                raise ValueError(f"it holds {', '.join(texts[:5]) or 'no .txt'}; expected one .txt")
            with archive.open(texts[0]) as file:
                yield file
    elif path.suffix == ".gz":
        with gzip.open(path) as unpacked:
            yield cast(IO[bytes], unpacked)
    else:
        with path.open("rb") as plain:
            yield plain


class _Rows:
    """What is kept of a file, in arrays: lists of Python objects would take ten times the memory."""

    def __init__(self) -> None:
        self.lons, self.lats = array("d"), array("d")
        self.countries, self.name_ends = array("H"), array("I")
        self.names = bytearray()
        self.codes: dict[str, int] = {}
        self.num_sound = self.num_broken = 0
        self.first = ""  # what is wrong with the first broken row

    def read(self, file: IO[bytes]) -> None:
        lines = iter(lambda: file.readline(_MAX_LINE_BYTES), b"")
        for number, line in enumerate(lines, start=1):
            if line.count(b"\t") == _NUM_COLUMNS - 1 and b"\tP\t" not in line:
                self.num_sound += 1  # a mountain or a river
            elif line.strip():
                self._add(number, line.rstrip(b"\r\n").split(b"\t"))

    def _add(self, number: int, cells: list[bytes]) -> None:
        try:
            if len(cells) != _NUM_COLUMNS:
                raise ValueError(f"{len(cells)} columns, expected {_NUM_COLUMNS}")
            lon, lat = float(cells[_LON]), float(cells[_LAT])
            code = cells[_COUNTRY].decode()
            if not (abs(lon) <= 180 and abs(lat) <= 90):
                raise ValueError(f"a position of longitude {lon}, latitude {lat}")
            if not cells[_NAME].decode().strip():
                raise ValueError("no name")
            if len(code) not in (0, 2):
                raise ValueError(f"country code {code[:20]!r}, expected two letters")
        except ValueError as error:
            self.num_broken += 1
            self.first = self.first or f"row {number}: {error}"
            return
        self.num_sound += 1
        if cells[_CLASS] == b"P" and cells[_CODE] not in _NO_MORE:
            self.lons.append(lon)
            self.lats.append(lat)
            self.countries.append(self.codes.setdefault(code, len(self.codes)))
            self.names += cells[_NAME].strip()
            self.name_ends.append(len(self.names))
