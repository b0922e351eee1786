"""What a caption must not say unless it is documented, because no one can see it: dates, coordinates, percentages of cloud, pixel sizes,
and names of places."""

import re
from collections.abc import Iterator

from rsvl_data.sample import Geo

_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?:19|20)\d\d"
_DATES = re.compile(
    rf"\b(?:{_YEAR}-\d\d?(?:-\d\d?)?|\d\d?[./]\d\d?[./](?:{_YEAR}|\d\d)|(?:{_MONTHS})\s+(?:{_DAY}\b,?\s*)?{_YEAR}"
    rf"|(?:{_MONTHS})\s+{_DAY}(?!\s*(?:m|km|meters?|metres?|%))|{_DAY}\s+(?:of\s+)?(?:{_MONTHS}))\b",
    re.IGNORECASE,
)
_YEARS = re.compile(
    rf"(?<![\w.,/-])(?:(?:in|since|from|of|during|year|summer|winter|spring|autumn|fall)\s+|\(|©\s*)({_YEAR})(?![\w%]|[.,]\d)",
    re.IGNORECASE,
)
_NOT_A_YEAR = re.compile(
    r"\s*(?:m|km|ha|meters?|metres?|pixels?|px|feet|ft|square|buildings?|houses?|trees?|vehicles?|cars?|objects?)\b"
)
_COORDINATES = re.compile(
    r"-?\d{1,3}(?:\.\d+)?\s*°\s*(?:\d{1,2}\s*['′]\s*)?(?:\d{1,2}(?:\.\d+)?\s*[\"″]\s*)?[NSEW]\b"
    r"|\b\d{1,3}(?:\.\d+)?\s*(?:degrees?|deg)\b\s*(?:north|south|east|west|[NSEW]\b)"
    r"|\b(?:lat(?:itude)?|lon(?:gitude)?)\b\W{0,3}(?:is|of|at)?\W{0,3}-?\d"
    r"|(?<![\d.])\(?-?\d{1,2}\.\d{3,}\s*,\s*-?\d{1,3}\.\d{3,}",
    re.IGNORECASE,
)
_CLOUD = re.compile(
    r"\d+(?:\.\d+)?\s*(?:%|per\s?cent)[^.;]{0,30}\bcloud|\bcloud\w*[^.;]{0,30}?\d+(?:\.\d+)?\s*(?:%|per\s?cent)", re.IGNORECASE
)
_NUMBER_M = r"(\d+(?:[.,]\d+)?)[\s-]*(km|kilomet(?:er|re)s?|cm|centimet(?:er|re)s?|m|met(?:er|re)s?)"
_GSD = re.compile(
    rf"{_NUMBER_M}\s*(?:/|per|a)\s*(?:pixel|px)|{_NUMBER_M}[\s-]*(?:spatial\s+)?(?:resolution|gsd)\b"
    rf"|\b(?:resolution|gsd|ground sampl(?:e|ing) distance)\s*(?:of|is|:|=)?\s*(?:about\s+|approximately\s+|roughly\s+)?{_NUMBER_M}\b",
    re.IGNORECASE,
)
_NAMED_PLACE = re.compile(
    r"\b(?:in|near|around|outside|over|of|from)\s+(?:the\s+)?((?:[A-ZÀ-Þ][\w'’-]+)(?:[ ,]+[A-ZÀ-Þ][\w'’-]+)*)"
)
_NO_PLACES = frozenset(
    "north south east west northern southern eastern western northeast northwest southeast southwest spring summer autumn fall winter "
    "earth remote satellite sentinel landsat modis sar rgb google january february march april may june july august september october "
    "november december i a an the".split()
)


def undocumented_claim(text: str, geo: Geo | None) -> tuple[str, str] | None:
    """The first claim that the record does not bear out: a word for counting and what was said. None where there is none.

    claims_date, claims_coordinates, claims_cloud_percent or claims_gsd. A year or a pixel size that the record holds may be said; a
    percentage of cloud and coordinates never, for captions are to tell what can be seen. Words are English, numbers are of any language.
    """
    acquired = (geo.acquired or "") if geo else ""
    for said in _dates(text):
        years = re.findall(_YEAR, said)
        if not years or not all(year in acquired for year in years):
            return "claims_date", said
    for pattern, reason in ((_COORDINATES, "claims_coordinates"), (_CLOUD, "claims_cloud_percent")):
        if match := pattern.search(text):
            return reason, match[0]
    for match in _GSD.finditer(text):
        if not _is_documented_gsd(match, geo.gsd_m if geo else None):
            return "claims_gsd", match[0]
    return None


def _dates(text: str) -> Iterator[str]:
    for match in _DATES.finditer(text):
        yield match[0]
    for match in _YEARS.finditer(text):
        if not _NOT_A_YEAR.match(text, match.end()):
            yield match[0]


def _is_documented_gsd(match: re.Match[str], gsd_m: float | None) -> bool:
    """Within a twentieth: 0.31 m may be told as 0.3 m, and 10 m as 10 m."""
    number, unit = next((match[i], match[i + 1].lower()) for i in (1, 3, 5) if match[i])
    scale = 1000.0 if unit.startswith("k") else 0.01 if unit.startswith("c") else 1.0
    return gsd_m is not None and abs(float(number.replace(",", ".")) * scale - gsd_m) <= 0.05 * gsd_m


def undocumented_place(text: str, geo: Geo | None) -> tuple[str, str] | None:
    """The same for names: claims_place, and words with capital letters after a preposition that the record does not hold."""
    documented = " ".join(filter(None, (geo.country, geo.place, geo.sensor, geo.platform))).casefold() if geo else ""
    for match in _NAMED_PLACE.finditer(text):
        words = [word.casefold() for word in re.findall(r"[\w'’-]+", match[1])]
        if not all(word in _NO_PLACES or word in documented for word in words):
            return "claims_place", match[1]
    return None
