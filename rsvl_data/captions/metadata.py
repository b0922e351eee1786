"""Sentences on where, when and how a picture was taken, from its `geo` record. Each sentence stands alone and tells one group of facts.

Beside the fields of `Geo` these extra ones are told where a source gives them (STAC's names in brackets):
    cloud_cover_percent (eo:cloud_cover), off_nadir_deg (view:off_nadir), azimuth_deg (view:azimuth), sun_elevation_deg
    (view:sun_elevation), sun_azimuth_deg (view:sun_azimuth), scan_direction ("forward" or "reverse")

Nothing is said that the record does not hold: no "satellite" without a satellite's name, no town without one. The season follows the
hemisphere; RS5M's own captions have the northern one everywhere.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from rsvl_data.captions.by_rule import Dice, Templates, rule_stage
from rsvl_data.captions.english import noun_of_label
from rsvl_data.captions.geo_words import (
    Moment,
    Preset,
    climate_words,
    country_words,
    degrees,
    distance,
    number_in_range,
    percent,
    plain_name,
    season_words,
)
from rsvl_data.captions.labels import has_words
from rsvl_data.captions.layout import Frame
from rsvl_data.errors import OptionError
from rsvl_data.sample import Geo, Sample
from rsvl_data.stage import Stage

_SATELLITES = re.compile(
    r"(sentinel|landsat|worldview|geoeye|quickbird|ikonos|pl[eé]iades|spot|rapideye|planetscope|skysat|gaofen|gf-?\d|ziyuan|zy-?\d|jilin|"
    r"superview|kompsat|terra|aqua|modis|alos|envisat|radarsat|terrasar|tandem|cosmo|cartosat|resourcesat|goes|himawari|meteosat|"
    r"noaa|suomi|eo-1|aster|cbers|formosat|triplesat|deimos|amazonia|prisma|enmap|iceye|capella|umbra)",
    re.IGNORECASE,
)

_PLACE = Templates(
    "An overhead view of {what} {where} in {season}",
    "{what} {where}, seen from above in {season}",
    "This {season} image shows {what} {where}",
    "Taken in {season}, this overhead image shows {what} {where}",
    "{where}, {what} can be seen from above in {season}",
    "In {season}, the sensor looked down on {what} {where}",
    "{a_season} view from above of {what} {where}",
    "An overhead view of {what} {where}",
    "{what} {where}, seen from above",
    "This overhead image shows {what} {where}",
    "A remote sensing image of {what} {where}",
    "{where}, {what} can be seen from above",
    "An overhead view of {what} in {season}",
    "{what}, seen from above in {season}",
    "This {season} image shows {what}",
    "{a_season} view from above of {what}",
    "An overhead view taken {where} in {season}",
    "This {season} image was taken {where}",
    "The picture was taken {where} in {season}",
    "{a_season} view from above, taken {where}",
    "An overhead view taken {where}",
    "The picture was taken from above {where}",
    "This scene lies {where}",
    "The place shown here is {where}",
    "The picture was taken in {season}",
    "This is {a_season} scene",
    "{a_season} image taken from above",
    "It is {season} in this overhead image",
    "An overhead view of {what}",
    "{what}, seen from above",
    "This overhead image shows {what}",
)
_CLIMATE = Templates(
    "The area has {a_climate} climate",
    "The place lies in {a_climate} climate",
    "The climate here is {climate}",
    "It is a region of {climate} climate",
    "{a_climate} climate prevails here",
)
_TIME = Templates(
    "It was taken on {date} at {time}",
    "The image was acquired at {time} on {date}",
    "Acquisition was at {time} on {date}",
    "On {date} at {time} the scene was recorded",
    "The scene dates from {date}, {time}",
    "It was taken on {date}",
    "The image was acquired on {date}",
    "The scene was recorded on {date}",
    "The scene dates from {date}",
)
_TIME_RS5M = Templates(
    "It was taken at {time}, {date}",
    "The image was acquired at {time}, {date}",
    "The scene was recorded at {time}, {date}",
    "The time of acquisition is {time}, {date}",
    "It was taken on {date}",
    "The image was acquired on {date}",
    "The scene dates from {date}",
)
_MONTH_OR_YEAR = Templates(
    "It was taken in {date}",
    "The image was acquired in {date}",
    "The scene was recorded in {date}",
    "The scene dates from {date}",
)
_SENSOR = Templates(
    "{platform} took the image with its {sensor} sensor",
    "The image comes from the {sensor} sensor of {platform}",
    "It was acquired by {platform} ({sensor})",
    "The {sensor} sensor on {platform} recorded the scene",
    "The image was taken by {platform}",
    "It was acquired by {platform}",
    "{platform} recorded the scene",
    "The image comes from {platform}",
    "The {sensor} sensor recorded the scene",
    "The sensor is {sensor}",
    "The image comes from the {sensor} sensor",
)
_SATELLITE_SENSOR = Templates(
    "This is a satellite image from {platform} ({sensor})",
    "The satellite {platform} took the image with its {sensor} sensor",
    "This satellite image comes from {platform}, sensor {sensor}",
    "This is a satellite image from {platform}",
    "The satellite {platform} recorded the scene",
    "This satellite image was acquired by {platform}",
)
_RESOLUTION = Templates(
    "At {gsd} per pixel, it covers about {extent} of ground",
    "The ground sample distance is {gsd}, and the image covers about {extent}",
    "Each pixel is {gsd} on the ground, the whole image about {extent}",
    "The image spans about {extent} on the ground at {gsd} per pixel",
    "The ground sample distance is {gsd}",
    "Each pixel covers {gsd} on the ground",
    "The spatial resolution is {gsd} per pixel",
    "It is sampled at {gsd} per pixel",
    "One pixel stands for {gsd} on the ground",
)
_UTM = Templates(
    "The scene lies in UTM zone {utm}",
    "It belongs to UTM zone {utm}",
    "The location is in UTM zone {utm}",
    "Its UTM zone is {utm}",
)
_CLOUDS = Templates(
    "Clouds cover {clouds}% of the scene",
    "The cloud cover is {clouds}%",
    "Cloud cover amounts to {clouds}%",
    "The sky was {clouds}% cloudy",
    "The scene is cloud-free, with {no_clouds}% cloud cover",
    "There are no clouds: the cloud cover is {no_clouds}%",
    "The sky was clear, with a cloud cover of {no_clouds}%",
)
_SCAN = Templates(
    "The scan direction is {scan}", "It was scanned in the {scan} direction", "The sensor scanned in the {scan} direction"
)
_VIEW = Templates(
    "The sensor looked {off_nadir}° off nadir at a target azimuth of {azimuth}°",
    "The off-nadir angle is {off_nadir}° and the target azimuth {azimuth}°",
    "It was seen at an off-nadir angle of {off_nadir}° and a target azimuth of {azimuth}°",
    "The view is {off_nadir}° off nadir, with a target azimuth of {azimuth}°",
    "The off-nadir angle is {off_nadir}°",
    "The sensor looked {off_nadir}° off nadir",
    "The view is {off_nadir}° off nadir",
    "The target azimuth is {azimuth}°",
    "The sensor looked from a target azimuth of {azimuth}°",
)
_SUN = Templates(
    "The sun stood {elevation}° above the horizon at an azimuth of {azimuth}°",
    "The sun elevation is {elevation}° and its azimuth {azimuth}°",
    "The sun stood {elevation}° above the horizon",
    "The sun elevation is {elevation}°",
    "The sun azimuth is {azimuth}°",
    "The light came from a sun azimuth of {azimuth}°",
)


def metadata_sentences(*, preset: Preset = "plain", groups: Sequence[str] | None = None, seed: int = 0) -> Stage:
    """Adds a sentence for each group of facts that a sample holds, in place of the plain one that its source wrote.

    preset   plain, or rs5m: the facts and number formats of RS5M's captions of fMoW in sentences of our own
    groups   which and in which order; None: those of the preset. The composer keeps the first ones where not all have room

    Raises OptionError for an unknown preset or group.
    """
    if preset not in get_args(Preset):
        raise OptionError(f"preset is {preset!r}; allowed are {', '.join(get_args(Preset))}")
    chosen = PRESET_GROUPS[preset] if groups is None else tuple(groups)
    unknown = [group for group in chosen if group not in _GROUPS]
    if unknown or not chosen:
        raise OptionError(f"groups {unknown or chosen} cannot be told; allowed are {', '.join(_GROUPS)}")

    def texts_of(sample: Sample) -> list[str]:
        told = Told(sample.geo or Geo(), Frame(sample.width, sample.height), sample.label, preset)
        return metadata_texts(told, Dice(seed, sample.key, "metadata"), chosen)

    return rule_stage("metadata_sentences", "meta", texts_of)


@dataclass(frozen=True)
class Told:
    """What there is to tell of one picture, and in which formats."""

    geo: Geo
    frame: Frame
    label: str | None = None
    preset: Preset = "plain"

    def holds(self, fact: str) -> bool:
        """Whether the picture is narrow enough for it; taken for granted where its scale is not known."""
        return (self.geo.gsd_m or 0) * max(self.frame.width_px, self.frame.height_px) <= 1000 * _WIDEST_KM[fact]

    def extra(self, name: str) -> Any:
        return (self.geo.model_extra or {}).get(name)


def metadata_texts(told: Told, dice: Dice, groups: Sequence[str] | None = None) -> list[str]:
    """One sentence a group, as far as facts are known. A label joins the place; alone it is no metadata."""
    texts = (_GROUPS[group](told, dice) for group in groups or PRESET_GROUPS[told.preset])
    return [text for text in texts if text]


def _place(told: Told, dice: Dice) -> str:
    facts = {"where": _where(told.geo, dice), "season": season_words(told.geo, told.preset)}
    known = {name: words for name, words in facts.items() if words and told.holds(name)}
    if not known:
        return ""
    if told.label is not None and has_words(told.label):
        known["what"] = noun_of_label(told.label).phrase
    return _PLACE.fill(dice, known)


def _where(geo: Geo, dice: Dice) -> str | None:
    """ "near Ankara, Türkiye", "in the Netherlands". The town is the nearest one: the picture need not show it."""
    town = plain_name(geo.place)
    country = country_words(geo.country, alone=town is None)
    if town is None:
        return f"in {country}" if country else None
    where = f"{dice.pick(('near', 'around', 'in the area of'))} {town}"
    if country is None or country.lower() in town.lower():
        return where
    return f"{where}, {country}" if dice.below(2) else f"{where} in {country_words(geo.country, alone=True)}"


def _climate(told: Told, dice: Dice) -> str:
    words = climate_words(told.geo.climate_zone) if told.holds("climate") else None
    return _CLIMATE.fill(dice, {"climate": words}) if words else ""


def _time(told: Told, dice: Dice) -> str:
    moment = Moment.parse(told.geo.acquired)
    if moment is None:
        return ""
    date, time = moment.date(told.preset), moment.time(told.preset)
    if moment.day is None:
        return _MONTH_OR_YEAR.fill(dice, {"date": date})
    facts = {"date": date, "time": time} if time else {"date": date}
    return (_TIME_RS5M if told.preset == "rs5m" else _TIME).fill(dice, facts)


def _sensor(told: Told, dice: Dice) -> str:
    names = {"platform": plain_name(told.geo.platform), "sensor": plain_name(told.geo.sensor)}
    facts = {name: words for name, words in names.items() if words}
    if facts.get("platform") == facts.get("sensor"):
        facts.pop("sensor", None)
    if not facts:
        return ""
    is_satellite = "platform" in facts and _SATELLITES.match(facts["platform"])
    return (_SATELLITE_SENSOR if is_satellite and dice.below(2) else _SENSOR).fill(dice, facts)


def _resolution(told: Told, dice: Dice) -> str:
    if told.geo.gsd_m is None or distance(told.geo.gsd_m, told.preset) == "0.00 m":
        return ""
    facts = {"gsd": distance(told.geo.gsd_m, told.preset)}
    if told.preset == "plain":
        facts["extent"] = extent_words(told.frame.width_px * told.geo.gsd_m, told.frame.height_px * told.geo.gsd_m)
    return _RESOLUTION.fill(dice, facts)


def extent_words(width_m: float, height_m: float) -> str:
    """ "260 by 200 m", "5.1 by 5.1 km": two digits."""
    unit, name = (1000.0, "km") if max(width_m, height_m) >= 1000 else (1.0, "m")
    width, height = (f"{float(f'{side / unit:.2g}'):.15g}" for side in (width_m, height_m))
    return f"{width} by {height} {name}"


def _utm(told: Told, dice: Dice) -> str:
    zone = told.geo.utm_zone.strip() if told.geo.utm_zone and told.holds("utm") else ""
    return _UTM.fill(dice, {"utm": zone}) if re.fullmatch(r"([1-9]|[1-5]\d|60)[A-Z]", zone) else ""


def _clouds(told: Told, dice: Dice) -> str:
    value = number_in_range(told.extra("cloud_cover_percent"), 0, 100)
    if value is None:
        return ""
    return _CLOUDS.fill(dice, {"no_clouds" if value == 0 else "clouds": percent(value, told.preset)})


def _scan(told: Told, dice: Dice) -> str:
    scan = told.extra("scan_direction")
    known = isinstance(scan, str) and scan.lower() in ("forward", "reverse")
    return _SCAN.fill(dice, {"scan": scan.lower()}) if known else ""


def _angles(told: Told, dice: Dice, *, templates: Templates, fields: Mapping[str, tuple[str, float, float]]) -> str:
    values = {name: number_in_range(told.extra(field), low, high) for name, (field, low, high) in fields.items()}
    facts = {name: degrees(value, told.preset) for name, value in values.items() if value is not None}
    return templates.fill(dice, facts) if facts else ""


_VIEW_FIELDS = {"off_nadir": ("off_nadir_deg", 0.0, 90.0), "azimuth": ("azimuth_deg", 0.0, 360.0)}
_SUN_FIELDS = {"elevation": ("sun_elevation_deg", math.ulp(0.0), 90.0), "azimuth": ("sun_azimuth_deg", 0.0, 360.0)}
_GROUPS: dict[str, Callable[[Told, Dice], str]] = {
    "place": _place,
    "climate": _climate,
    "time": _time,
    "sensor": _sensor,
    "resolution": _resolution,
    "utm": _utm,
    "clouds": _clouds,
    "scan": _scan,
    "view": partial(_angles, templates=_VIEW, fields=_VIEW_FIELDS),
    "sun": partial(_angles, templates=_SUN, fields=_SUN_FIELDS),
}
# The widest picture of which a fact of its middle still holds. A disk of the Earth has no climate zone.
_WIDEST_KM = {"climate": 100, "where": 200, "utm": 500, "season": 1500}
# In the order in which a caption that is too long loses them, last first.
PRESET_GROUPS: dict[Preset, tuple[str, ...]] = {
    "plain": ("place", "climate", "time", "resolution", "sensor", "clouds", "utm", "view", "sun", "scan"),
    "rs5m": ("place", "resolution", "time", "utm", "clouds", "scan", "view"),
}
