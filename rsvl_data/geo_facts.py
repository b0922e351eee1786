"""A stage that fills in what follows from where and when a picture was taken: country, place, climate zone, season, UTM zone.

What the source said stands; what does not follow stays absent. The files are read once a process: right away, so that a wrong file is told
before the work, and again in every worker that does not inherit them. The stage itself carries paths alone.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from rsvl_data.errors import OptionError
from rsvl_data.gazetteer import Gazetteer
from rsvl_data.geo import ClimateGrid, season, utm_zone
from rsvl_data.sample import Geo, Sample, Season
from rsvl_data.stage import Stage

GEONAMES_CREDIT = "place name: GeoNames (geonames.org), CC BY 4.0"
_MONTHS = re.compile(r"(\d{4})-(\d\d)")
_MAX_PLACE_KM = 1000


@dataclass(frozen=True)
class GeoOptions:
    """Facts for samples that have a position."""

    climate: Path | None = None
    """file of a Koeppen-Geiger grid (lat lon class, or the PNG with its legend), for the climate zone"""
    places: Path | None = None
    """GeoNames dump (cities500.txt, allCountries.zip), for the nearest place; its names are CC BY 4.0 and owe a credit"""
    countries: Path | None = None
    """GeoJSON of country polygons (Natural Earth's admin_0_countries); left out, places that agree say the country"""
    max_place_km: float = 50.0
    """how far the nearest place may be, and how far around all places must agree on the country, in km"""

    def __post_init__(self) -> None:
        if not 0 < self.max_place_km <= _MAX_PLACE_KM:
            raise OptionError(f"max_place_km {self.max_place_km}; allowed are distances above 0 and up to {_MAX_PLACE_KM} km")


def add_geo_facts(options: GeoOptions) -> Stage:
    """Samples without a position pass as they are. Raises DataError for a file that is not what it should be."""
    _climate_grid(options.climate)
    _gazetteer(options.places, options.countries)
    return Stage("geo_facts", partial(_run, options))


def _run(options: GeoOptions, samples: Iterable[Sample]) -> Iterator[Sample]:
    for sample in samples:
        if sample.geo is None or (facts := _absent_facts(sample.geo, options)) == {}:
            yield sample
        else:
            changes: dict[str, Any] = {"geo": sample.geo.model_copy(update=facts)}
            if "place" in facts:
                said = sample.provenance.attribution
                changes["provenance"] = sample.provenance.model_copy(
                    update={"attribution": f"{said}; {GEONAMES_CREDIT}" if said else GEONAMES_CREDIT}
                )
            yield sample.model_copy(update=changes)


def _absent_facts(geo: Geo, options: GeoOptions) -> dict[str, Any]:
    if geo.lon is None or geo.lat is None:
        return {}
    climate = _climate_grid(options.climate)
    facts: dict[str, Any] = {
        **_gazetteer(options.places, options.countries).facts(geo.lon, geo.lat, options.max_place_km),
        "climate_zone": climate.zone(geo.lon, geo.lat) if climate else None,
        "season": season_of_time(geo.lat, geo.acquired) if geo.acquired else None,
        "utm_zone": utm_zone(geo.lon, geo.lat),
    }
    return {name: value for name, value in facts.items() if value is not None and getattr(geo, name) is None}


def season_of_time(lat: float, acquired: str) -> Season | None:
    """Of a month, a day, a moment, or a period within one season. A year has none."""
    months = [_month(part) for part in acquired.split("/", maxsplit=1)]
    first, last = months[0], months[-1]
    if first is None or last is None:
        return None
    seasons = {season(lat, month % 12 + 1) for month in range(first, last + 1)}
    return seasons.pop() if len(seasons) == 1 else None


def _month(time: str) -> int | None:
    """Counted from the year 0, January being a multiple of 12; None for a year alone."""
    if re.fullmatch(r"\d{4}", time):
        return None
    written = _MONTHS.fullmatch(time)
    year, month = (
        (int(written[1]), int(written[2])) if written else (datetime.fromisoformat(time).year, datetime.fromisoformat(time).month)
    )
    return 12 * year + month - 1


@lru_cache(maxsize=2)
def _climate_grid(path: Path | None) -> ClimateGrid | None:
    return ClimateGrid.read(path) if path else None


@lru_cache(maxsize=2)
def _gazetteer(places: Path | None, countries: Path | None) -> Gazetteer:
    return Gazetteer.read(places, countries)
