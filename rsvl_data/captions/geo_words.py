"""Numbers, dates and codes of the metadata as words, in the two ways that presets ask for.

plain    10 m, 29 July 2016 at 19:05 UTC, 27.8°
rs5m     10.00 m, 19 o'clock, July 29, 2016, 27.80°: the number formats of RS5M (arXiv:2306.11300, appendix B9;
         https://github.com/om-ai-lab/RS5M/tree/084cdd9596a845b69320526a7eef44b8cd3426ed/geometa_extraction_tool)

What cannot be said with certainty is None: an unknown climate code, a month that is no month, a number outside its range.
"""

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from rsvl_data.geo import season as season_of
from rsvl_data.sample import Geo

Preset = Literal["plain", "rs5m"]
MONTHS = (
    "January February March April May June July August September October November December".split()
)  # not strftime: that follows the locale

# Köppen-Geiger codes in words; the names are those in use for Peel, Finlayson and McMahon (2007), doi:10.5194/hess-11-1633-2007.
CLIMATES = {
    "Af": "tropical rainforest",
    "Am": "tropical monsoon",
    "As": "tropical savanna",
    "Aw": "tropical savanna",
    "BWh": "hot desert",
    "BWk": "cold desert",
    "BSh": "hot semi-arid",
    "BSk": "cold semi-arid",
    "Csa": "hot-summer Mediterranean",
    "Csb": "warm-summer Mediterranean",
    "Csc": "cold-summer Mediterranean",
    "Cwa": "monsoon-influenced humid subtropical",
    "Cwb": "subtropical highland",
    "Cwc": "cold subtropical highland",
    "Cfa": "humid subtropical",
    "Cfb": "temperate oceanic",
    "Cfc": "subpolar oceanic",
    "Dsa": "dry and hot-summer continental",
    "Dsb": "dry and warm-summer continental",
    "Dsc": "dry-summer subarctic",
    "Dsd": "dry-summer, extremely cold subarctic",
    "Dwa": "dry-winter, hot-summer continental",
    "Dwb": "dry-winter, warm-summer continental",
    "Dwc": "dry-winter subarctic",
    "Dwd": "dry-winter, extremely cold subarctic",
    "Dfa": "humid, hot-summer continental",
    "Dfb": "humid, warm-summer continental",
    "Dfc": "subarctic",
    "Dfd": "extremely cold subarctic",
    "ET": "tundra",
    "EF": "ice cap",
}
_THE_COUNTRIES = frozenset(
    "bahamas, comoros, congo, gambia, holy see, isle of man, ivory coast, maldives, netherlands, philippines, seychelles, soviet union, "
    "uae, uk, us, usa, vatican".split(", ")
)
_THE_ENDINGS = (" republic", " islands", " federation", " emirates", " states", " kingdom", " territories", " territory")
_MOMENT = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d).*)?)?)?", re.DOTALL)
_CODE = re.compile(r"[A-Z]{2,3}")
_SPELLED_CODES = frozenset({"USA", "UK", "UAE", "US"})


@dataclass(frozen=True)
class Moment:
    """The parts of an ISO 8601 text that are there. `zone` is "UTC", "UTC+2", or "" where the text gives none."""

    year: int
    month: int | None = None
    day: int | None = None
    hour: int | None = None
    minute: int | None = None
    zone: str = ""

    @classmethod
    def parse(cls, text: str | None) -> "Moment | None":
        """None for no text, a period, and what is no date."""
        match = _MOMENT.fullmatch(text.strip()) if text else None
        if match is None:
            return None
        year, month, day, hour, minute = (None if part is None else int(part) for part in match.groups())
        if year is None or (month is not None and not 1 <= month <= 12) or (day is not None and not 1 <= day <= 31):
            return None
        zone = ""
        if hour is not None and text is not None:
            try:
                offset = datetime.fromisoformat(text.strip()).utcoffset()
            except ValueError:
                return None
            if offset is not None:
                hours = offset.total_seconds() / 3600
                zone = "UTC" if hours == 0 else f"UTC{hours:+g}"
        return cls(year, month, day, hour, minute, zone)

    def date(self, preset: Preset) -> str:
        """ "29 July 2016", "July 29, 2016"; less where less is known."""
        if self.month is None:
            return str(self.year)
        month = MONTHS[self.month - 1]
        if self.day is None:
            return f"{month} {self.year}"
        return f"{month} {self.day}, {self.year}" if preset == "rs5m" else f"{self.day} {month} {self.year}"

    def time(self, preset: Preset) -> str | None:
        """ "19:05 UTC", "19 o'clock". None without a time, and at midnight sharp without a zone, which stands for "unknown"."""
        if self.hour is None or (self.hour == self.minute == 0 and not self.zone):
            return None
        if preset == "rs5m":
            return f"{self.hour} o'clock"
        return f"{self.hour:02}:{self.minute:02} {self.zone}".strip()


def season_words(geo: Geo, preset: Preset) -> str | None:
    """Of position and date where both are known, as the hemisphere has it; else what the record says."""
    moment = Moment.parse(geo.acquired)
    season = season_of(geo.lat, moment.month) if moment and moment.month and geo.lat is not None else geo.season
    return "fall" if season == "autumn" and preset == "rs5m" else season


def country_words(country: str | None, *, alone: bool) -> str | None:
    """With its article where English has one and no town stands before it. None for a bare code: "in DE" is no English."""
    name = plain_name(country)
    if name is None or (_CODE.fullmatch(name) and name not in _SPELLED_CODES):
        return None
    lower = name.lower()
    the = (
        lower in _THE_COUNTRIES
        or lower.endswith(_THE_ENDINGS)
        or lower.startswith(("united ", "democratic republic", "republic of"))
    )
    return f"the {name}" if alone and the else name


def plain_name(name: str | None) -> str | None:
    """A name that can stand in a sentence: 1 to 80 printable characters with a letter among them and no mark-up."""
    if name is None:
        return None
    name = " ".join(name.split())
    fit = 1 <= len(name) <= 80 and name.isprintable() and any(map(str.isalpha, name)) and not re.search(r"[{}<>|\\]", name)
    return name if fit else None


def climate_words(code: str | None) -> str | None:
    return CLIMATES.get(code.strip()) if code else None


def number_in_range(value: Any, low: float, high: float) -> float | None:
    """None for what is no finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if low <= value <= high else None


def distance(metres: float, preset: Preset) -> str:
    """ "0.31 m", "20.1 km": three digits and no exponent. "0.31 m", "20055.00 m": two decimals."""
    if preset == "rs5m":
        return f"{metres:.2f} m"
    value, unit = (metres / 1000, "km") if metres >= 1000 else (metres, "m")
    return f"{float(f'{value:.3g}'):.15g} {unit}"


def degrees(value: float, preset: Preset) -> str:
    """To a tenth, or two decimals."""
    return f"{value:.2f}" if preset == "rs5m" else f"{round(value, 1) + 0:g}"


def percent(value: float, preset: Preset) -> str:
    """Whole in the paper's format; a tenth where it is not whole."""
    return f"{value:.0f}" if preset == "rs5m" else f"{round(value, 1) + 0:g}"
