"""Where on Earth, when, and under which sun and air a scene is seen."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from rsvl_data.sample import Geo, Season

# West, south, east, north in degrees, and the climate. Small boxes in which the named ground is common.
_LAND: tuple[tuple[float, float, float, float, str], ...] = (
    (-98, 38, -88, 44, "temperate"),  # US Midwest
    (1, 46, 5, 49, "temperate"),  # France
    (9, 50, 12, 53, "temperate"),  # Germany
    (113, 32, 117, 36, "temperate"),  # North China Plain
    (-63, -37, -60, -33, "temperate"),  # Pampas
    (145, -37.5, 147, -36, "temperate"),  # Victoria
    (-52, -25, -50, -23, "tropical"),  # Parana
    (100, 14, 102, 16, "tropical"),  # Thailand
    (76, 12, 78, 15, "tropical"),  # Karnataka
    (24, 61, 28, 64, "boreal"),  # Finland
    (-114, 53, -106, 55, "boreal"),  # Saskatchewan and Alberta
)
_DRY: tuple[tuple[float, float, float, float, str], ...] = (
    (-113, 32.5, -110, 34, "arid"),  # Arizona
    (2, 29, 6, 32, "arid"),  # Algeria
    (43, 23, 46, 26, "arid"),  # Najd
    (-69.5, -24, -68.5, -22, "arid"),  # Atacama
    (122, -30, 125, -27, "arid"),  # Western Australia
)
_COAST: tuple[tuple[float, float, float, float, str], ...] = (
    (4.0, 51.9, 4.2, 52.0, "temperate"),  # Rotterdam
    (-0.34, 39.42, -0.28, 39.48, "temperate"),  # Valencia
    (-118.3, 33.7, -118.2, 33.78, "temperate"),  # Los Angeles
    (151.15, -33.98, 151.25, -33.9, "temperate"),  # Sydney
    (18.4, -33.92, 18.48, -33.86, "temperate"),  # Cape Town
    (139.75, 35.55, 139.85, 35.65, "temperate"),  # Tokyo
    (103.7, 1.24, 103.85, 1.3, "tropical"),  # Singapore
    (-43.2, -22.92, -43.15, -22.85, "tropical"),  # Rio de Janeiro
    (72.83, 18.92, 72.88, 18.98, "tropical"),  # Mumbai
)
_ISLANDS: tuple[tuple[float, float, float, float, str], ...] = (
    (73.2, 3.5, 73.6, 5.0, "tropical"),  # Maldives
    (-77, 24, -76, 25.5, "tropical"),  # Bahamas
    (177, -18.5, 178, -17, "tropical"),  # Fiji
    (24.5, 36.5, 26, 37.5, "temperate"),  # Cyclades
)
_PEAKS: tuple[tuple[float, float, float, float, str], ...] = (
    (7, 45.9, 8.2, 46.6, "alpine"),  # Alps
    (86, 27.8, 88, 28.2, "alpine"),  # Himalaya
    (-70.2, -33.5, -69.8, -32.5, "alpine"),  # Andes
    (169.8, -43.8, 170.6, -43.4, "alpine"),  # Southern Alps
    (-117.5, 51, -116, 52, "alpine"),  # Rockies
)
PLACES = {
    "land": _LAND,
    "dry": _DRY,
    "coast": _COAST,
    "islands": _ISLANDS,
    "peaks": _PEAKS,
    "anywhere": _LAND + _DRY[:2] + _COAST[:6],
}

# The first month of each meteorological season in the northern hemisphere; six months later in the southern.
_FIRST_MONTH: dict[Season, int] = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}


def season_of(month: int, lat: float) -> Season:
    """The meteorological season of the hemisphere: June is summer in Oslo and winter in Sydney."""
    northern = month if lat >= 0 else (month + 5) % 12 + 1
    return ("winter", "spring", "summer", "autumn")[northern % 12 // 3]


@dataclass(frozen=True)
class Site:
    """`shadow` is where a shadow falls, in metres of ground (x, y) per metre of height; the frame is north up."""

    lon: float
    lat: float
    climate: str
    season: Season
    acquired: datetime
    sun_elevation_deg: float
    shadow: tuple[float, float]
    haze: float

    def geo(self, gsd_m: float) -> Geo:
        return Geo(
            lon=round(self.lon, 5),
            lat=round(self.lat, 5),
            gsd_m=gsd_m,
            acquired=self.acquired.strftime("%Y-%m-%dT%H:%M:%SZ"),
            platform="procedural",
            climate_zone=self.climate,
            season=self.season,
        )


def draw_site(rng: np.random.Generator, places: str) -> Site:
    """A place of the kind `places`, a clear or hazy day, and the sun as it stands there and then."""
    boxes = PLACES[places]
    west, south, east, north, climate = boxes[rng.integers(len(boxes))]
    lon, lat = float(rng.uniform(west, east)), float(rng.uniform(south, north))
    month, day = int(rng.integers(1, 13)), int(rng.integers(2, 28))
    hour_angle = float(rng.uniform(-35, 35))  # 15 degrees an hour from solar noon
    elevation, azimuth = _sun(lat, month, day, hour_angle)
    solar_time = datetime(int(rng.integers(2016, 2025)), month, day, 12, tzinfo=UTC) + timedelta(hours=hour_angle / 15)
    length = 1 / math.tan(math.radians(elevation))
    return Site(
        lon=lon,
        lat=lat,
        climate=climate,
        season=season_of(month, lat),
        acquired=solar_time - timedelta(hours=lon / 15),
        sun_elevation_deg=elevation,
        shadow=(-length * math.sin(azimuth), length * math.cos(azimuth)),
        haze=float(max(rng.uniform(-0.35, 0.3), 0.0)),
    )


def _sun(lat: float, month: int, day: int, hour_angle_deg: float) -> tuple[float, float]:
    """Elevation (degrees, at least 25: lower suns are not flown) and azimuth (radians from north, through east)."""
    declination = math.radians(-23.44 * math.cos(2 * math.pi * (30.4 * (month - 1) + day + 10) / 365))
    phi, hour = math.radians(lat), math.radians(hour_angle_deg)
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    north = math.cos(phi) * math.sin(declination) - math.sin(phi) * math.cos(declination) * math.cos(hour)
    return min(max(math.degrees(math.asin(sine)), 25.0), 75.0), math.atan2(east, north)
