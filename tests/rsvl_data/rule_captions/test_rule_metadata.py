import json
import random
import re

import pytest

from rsvl_data.captions.by_rule import Dice
from rsvl_data.captions.geo_words import (
    CLIMATES,
    MONTHS,
    Moment,
    climate_words,
    country_words,
    degrees,
    distance,
    plain_name,
    season_words,
)
from rsvl_data.captions.layout import Frame
from rsvl_data.captions.metadata import PRESET_GROUPS, Told, extent_words, metadata_sentences, metadata_texts
from rsvl_data.errors import OptionError
from rsvl_data.geo import season
from rsvl_data.sample import Caption, Geo, Sample

FRAME = Frame(512, 256)
FULL = {
    "lon": 149.1,
    "lat": -35.2,
    "gsd_m": 2.3349,
    "acquired": "2016-07-29T19:05:59Z",
    "platform": "WorldView-2",
    "sensor": "WV110",
    "country": "Australia",
    "place": "Canberra",
    "climate_zone": "Cfb",
    "season": "winter",
    "utm_zone": "55S",
    "cloud_cover_percent": 3,
    "off_nadir_deg": 27.805,
    "azimuth_deg": 87.7,
    "sun_elevation_deg": 41.26,
    "sun_azimuth_deg": 120.0,
    "scan_direction": "Forward",
}


def texts(facts, label=None, key="k", preset="plain", groups=None):
    return metadata_texts(Told(Geo(**facts), FRAME, label, preset), Dice(0, key, "metadata"), groups)


def some_facts(rng):
    facts = FULL | {
        "lat": round(rng.uniform(-89, 89), 4),
        "gsd_m": rng.choice((0.05, 0.3, 0.5, 1, 10, 29.97, 300.04)),
        "acquired": f"{rng.randrange(1999, 2026)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
        + rng.choice(("", "T09:07:00Z", "T00:00:00", "T23:59:59+02:00")),
        "place": rng.choice(("Canberra", "Washington, D.C.", "São Paulo", "Ōsaka", "St. Louis")),
        "country": rng.choice(("Australia", "United States", "Netherlands", "Türkiye", "Republic of Korea", "DE")),
        "climate_zone": rng.choice((*CLIMATES, "Xyz")),
        "platform": rng.choice(("Sentinel-2A", "NAIP", "GF-2")),
        "sensor": rng.choice(("MSI", "UltraCam", "PMS1")),
        "utm_zone": rng.choice(("31N", "55S", "1X", "99N")),
        "cloud_cover_percent": rng.choice((0, 3, 12.5, 100)),
        "off_nadir_deg": rng.uniform(0, 45),
        "azimuth_deg": rng.choice((0.0, 359.994, 87.7)),
        "sun_elevation_deg": rng.uniform(-10, 80),
    }
    facts["season"] = season(facts["lat"], int(facts["acquired"][5:7]))
    return {name: value for name, value in facts.items() if rng.random() < 0.75}


def numbers_of(facts, preset):
    """Every number that may be told, written down once more from the facts."""
    allowed = set()
    if "acquired" in facts:
        year, _, day = facts["acquired"][:10].split("-")
        allowed |= {year, str(int(day))}
        if "T" in facts["acquired"]:
            hour, minute = facts["acquired"][11:16].split(":")
            allowed |= {str(int(hour))} if preset == "rs5m" else {hour, minute, "2"}
    if "gsd_m" in facts:
        gsd = facts["gsd_m"]
        allowed |= {f"{gsd:.2f}"} if preset == "rs5m" else {f"{gsd:.3g}"}
        allowed |= set(re.findall(r"[\d.]+", extent_words(512 * gsd, 256 * gsd)))
    for name in ("off_nadir_deg", "azimuth_deg", "sun_elevation_deg", "sun_azimuth_deg", "cloud_cover_percent"):
        if name in facts:
            allowed |= {f"{facts[name]:.2f}", f"{round(facts[name], 1):g}", f"{facts[name]:.0f}"}
    for name in ("platform", "sensor", "utm_zone"):
        allowed |= set(re.findall(r"\d+", facts.get(name, "")))
    return allowed


def test_thousands_of_records():
    rng, told = random.Random(0), set()
    for index in range(2500):
        facts = some_facts(rng)
        preset = rng.choice(("plain", "rs5m"))
        for text in texts(facts, rng.choice((None, "airport", "farmland", "aircraft", "storage_tanks")), str(index), preset):
            told.add(re.sub(r"\d", "", text))
            assert text[0].isupper() and text.endswith(".") and not re.search(r"[{}]|  |\.\.|None|nan|\bin in\b| [.,]", text), (
                text
            )
            assert not re.search(r"\ba (?!uni|eu|one)[aeiou]|\ban [bcdfgjklmnpqrtvwxyz]|\ba farmland|aircrafts", text, re.I), text
            assert set(re.findall(r"\d+(?:\.\d+)?", text)) <= numbers_of(facts, preset), (text, facts)
            seasons = set(re.findall(r"spring|summer|autumn|fall|winter", re.sub(r"\w+-(summer|winter)", "", text)))
            if seasons and "lat" in facts and "acquired" in facts:
                right = season(facts["lat"], int(facts["acquired"][5:7]))
                assert seasons == {"fall" if preset == "rs5m" and right == "autumn" else right}, (text, facts)
            assert "satellite" not in text.lower() or facts["platform"] != "NAIP", text
    assert len(told) > 2000, "wording varies"


def test_nothing_known_nothing_said():
    assert texts({}) == [] and texts({}, "airport") == []
    assert texts({"crs": "EPSG:32618", "stretch": "minmax", "lon": 3.0, "lat": 4.0}) == []


@pytest.mark.parametrize("name", sorted(set(FULL) - {"lon", "lat", "season", "acquired"}))
def test_each_fact_is_told_where_it_is_known(name):
    with_it, without = (
        {t for key in range(30) for t in texts(f, key=str(key))} for f in (FULL, {k: v for k, v in FULL.items() if k != name})
    )
    words = {
        "climate_zone": "temperate oceanic",
        "scan_direction": "forward",
        "gsd_m": "2.33",
        "cloud_cover_percent": "3%",
        "utm_zone": "55S",
    }
    words |= {"off_nadir_deg": "27.8", "sun_elevation_deg": "41.3", "sun_azimuth_deg": "120", "azimuth_deg": "87.7"}
    word = words.get(name, str(FULL[name]))
    assert any(word in text for text in with_it) and not any(word in text for text in without)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cloud_cover_percent", 101), ("cloud_cover_percent", "3"), ("off_nadir_deg", -1), ("azimuth_deg", 400), ("sun_elevation_deg", -5),
     ("scan_direction", "sideways"), ("cloud_cover_percent", True), ("climate_zone", "Zz"), ("utm_zone", "61N"), ("country", "DE"),
     ("place", "{place}"), ("place", "a\tb" * 40), ("platform", "<b>x</b>"), ("acquired", "2020-01/2020-06")],
)  # fmt: skip
def test_what_cannot_be_is_not_said(name, value):
    assert texts({name: value}) == []


def test_season_follows_position_and_date_before_the_record():
    assert season_words(Geo(lat=-35, acquired="2016-07-29", season="summer"), "plain") == "winter"
    assert season_words(Geo(season="autumn"), "plain") == "autumn" and season_words(Geo(season="autumn"), "rs5m") == "fall"
    assert season_words(Geo(lat=0, acquired="2016-07-29"), "plain") is None


@pytest.mark.parametrize(
    ("country", "alone", "words"),
    [("United States", True, "the United States"), ("United States", False, "United States"), ("Netherlands", True, "the Netherlands"),
     ("Czech Republic", True, "the Czech Republic"), ("France", True, "France"), ("DE", True, None), ("UK", True, "the UK"),
     (None, True, None), ("Solomon Islands", True, "the Solomon Islands")],
)  # fmt: skip
def test_countries(country, alone, words):
    assert country_words(country, alone=alone) == words


@pytest.mark.parametrize(
    ("text", "date", "time", "rs5m"),
    [
        ("2016-07-29T19:05:59Z", "29 July 2016", "19:05 UTC", "19 o'clock, July 29, 2016"),
        ("2016-07-29T09:05:59+02:00", "29 July 2016", "09:05 UTC+2", "9 o'clock, July 29, 2016"),
        ("2016-07-29 09:05", "29 July 2016", "09:05", "9 o'clock, July 29, 2016"),
        ("2016-07-29T00:00:00", "29 July 2016", None, "July 29, 2016"),
        ("2016-07", "July 2016", None, "July 2016"),
        ("2016", "2016", None, "2016"),
    ],
)
def test_moments(text, date, time, rs5m):
    moment = Moment.parse(text)
    assert (moment.date("plain"), moment.time("plain")) == (date, time)
    assert ", ".join(part for part in (moment.time("rs5m"), moment.date("rs5m")) if part) == rs5m


@pytest.mark.parametrize("text", [None, "", "2016-13", "2016-07-40", "yesterday", "2016-07-29T99:00:00", "2015/2016"])
def test_no_moments(text):
    assert Moment.parse(text) is None


def test_number_formats_of_rs5m(shared):
    """Of the official scripts: hour, month name, day, year; two decimals; UTM zone."""
    official = json.loads((shared / "fixtures/evaluation/rs5m_facts.json").read_text())["official_outputs"]
    for case in official["fmow_captions"]:
        facts, filled = case["input"], case["filled"].split("|")
        moment = Moment.parse(facts["timestamp"])
        assert f"{moment.time('rs5m')}, {moment.date('rs5m')}" == filled[6]
        assert distance(facts["multi_resolution_dbl"], "rs5m") == f"{filled[4]} m"
        assert (
            degrees(facts["target_azimuth_dbl"], "rs5m") == filled[9]
            and degrees(facts["off_nadir_angle_dbl"], "rs5m") == filled[10]
        )
    for case in official["fmow_timestamps"] + official["ben_timestamps"]:
        moment = Moment.parse(case["timestamp"])
        _, day, month, year, hour = case["season_day_month_year_hour"]
        assert (str(moment.day), MONTHS[moment.month - 1], str(moment.year), str(moment.hour)) == (day, month, year, hour)


def test_only_no_clouds_are_no_clouds():
    clear = re.compile("no clouds|cloud-free|clear")
    for value, is_clear in ((0, True), (0.04, False), (3, False), (100, False)):
        told = {text for key in range(30) for text in texts({"cloud_cover_percent": value}, key=str(key))}
        assert told and all(bool(clear.search(text)) is is_clear for text in told)


def test_climates_in_words():
    assert climate_words("Cfb") == "temperate oceanic" and climate_words(" EF ") == "ice cap" and climate_words("14") is None
    assert len(CLIMATES) == 31


def test_names_that_can_stand_in_a_sentence():
    assert plain_name("  New \n York ") == "New York"
    assert [plain_name(name) for name in ("", "12", "a{b}", "<i>", "x\0", "y" * 81, None)] == [None] * 7


def test_a_fact_of_the_middle_is_not_told_of_a_disk_of_the_earth():
    for gsd_m, told in ((100, ["Canberra", "oceanic", "55S", "winter"]), (300, ["Canberra", "55S", "winter"]), (600, ["55S", "winter"]),
                        (1200, ["winter"]), (20055, [])):  # fmt: skip
        text = " ".join(texts(FULL | {"gsd_m": gsd_m}))
        assert [word for word in ("Canberra", "oceanic", "55S", "winter") if word in text] == told
    assert "Canberra" in " ".join(texts({name: value for name, value in FULL.items() if name != "gsd_m"}))


def test_distances():
    assert [distance(metres, "plain") for metres in (0.305, 10, 300.04, 20055)] == ["0.305 m", "10 m", "300 m", "20.1 km"]
    assert distance(20055, "rs5m") == "20055.00 m"


def test_extents():
    assert extent_words(512 * 0.31, 256 * 0.31) == "160 by 79 m" and extent_words(5120, 2560) == "5.1 by 2.6 km"


def run(facts, label=None, **options):
    sample = Sample(key="k", width=512, height=256, sha256="0" * 64, geo=Geo(**facts) if facts else None, label=label)
    sample.captions = [Caption(text="x", kind="vlm")]
    (out,) = metadata_sentences(**options).run([sample])
    return [caption.text for caption in out.captions]


def test_the_stage():
    assert len(run(FULL)) == 1 + len(PRESET_GROUPS["plain"]) and run(None) == ["x"]
    assert any("an airport" in text.lower() for text in run(FULL, "airport")) and run(None, "airport") == ["x"]
    assert any("27.80°" in text or "27.81°" in text for text in run(FULL, preset="rs5m")) and not any(
        "UTC" in t for t in run(FULL, preset="rs5m")
    )
    assert [bool(re.search("UTM|55S", text)) for text in run(FULL, groups=["utm", "place"])] == [False, True, False]
    assert len({tuple(run(FULL, seed=seed)) for seed in range(9)}) == 9
    with pytest.raises(OptionError, match="preset is 'fmow'; allowed are plain, rs5m"):
        metadata_sentences(preset="fmow")
    for groups in (["weather"], []):
        with pytest.raises(OptionError, match="cannot be told; allowed are place"):
            metadata_sentences(groups=groups)
