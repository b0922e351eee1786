import builtins
import gzip
import importlib
import json

import numpy as np
import pytest
from PIL import Image

from rsvl_data import geo
from rsvl_data.errors import DataError, RsvlError
from rsvl_data.geo import ClimateGrid, raster_facts, season, utm_zone, wrap_longitude


@pytest.mark.parametrize(
    ("lat", "month", "expected"),
    [
        (52.5, 12, "winter"),
        (52.5, 2, "winter"),
        (52.5, 3, "spring"),
        (52.5, 7, "summer"),
        (52.5, 11, "autumn"),
        (-37.9, 12, "summer"),
        (-37.9, 1, "summer"),
        (-37.9, 4, "autumn"),
        (-37.9, 7, "winter"),
        (-37.9, 9, "spring"),
        (0.0, 7, None),
    ],
)
def test_season_turns_with_the_hemisphere(lat, month, expected):
    assert season(lat, month) == expected


@pytest.mark.parametrize(
    ("lon", "lat", "expected"),
    [
        (13.4, 52.5, "33N"),
        (148.1, -37.9, "55S"),
        (0.0, 0.0, "31N"),
        (-180.0, 10, "1N"),
        (180.0, 10, "1N"),  # the same meridian
        (180.5, -17, "1S"),
        (179.99, -17, "60S"),
        (5.0, 60, "32N"),  # Bergen: zone 31 is narrow here
        (2.9, 60, "31N"),
        (5.0, 55.9, "31N"),
        (5.0, 64, "31N"),
        (8.9, 78, "31N"),  # Svalbard
        (9.0, 78, "33N"),
        (20.9, 78, "33N"),
        (21.0, 78, "35N"),
        (33.0, 78, "37N"),
        (41.9, 84, "37N"),
        (42.0, 78, "38N"),
        (8.9, 71.9, "32N"),
        (10, 84.1, None),
        (10, -80.1, None),
    ],
)
def test_utm_zone(lon, lat, expected):
    assert utm_zone(lon, lat) == expected


def test_wrap_longitude():
    given = (-180, 180, 180.25, -180.25, 540, 12.5)
    assert [wrap_longitude(lon) for lon in given] == [-180, -180, -179.75, 179.75, -180, 12.5]


NORTH_UP_10M = (10, 0, 500000, 0, -10, 5800000)


@pytest.mark.parametrize(
    ("crs", "transform", "gsd_m"),
    [
        ("EPSG:32633", NORTH_UP_10M, 10.0),  # not 10.004: a UTM pixel keeps its own figure
        ("EPSG:2263", (1, 0, 987000, 0, -1, 212000), 0.3048006),  # US survey feet
        ("EPSG:3857", (4, 0, 0, 0, -4, 8399737.9), 4 / np.cosh(8399737.9 / 6378137)),  # 60° N: half
        ("EPSG:4326", (1e-4, 0, 0, 0, -1e-4, 0), 11.0948),  # on the equator, mean of 11.132 and 11.057
        ("EPSG:32631", (0.866025, 0.5, 500200, 0.5, -0.866025, 4649800), 1.0),  # rotated by 30°
        ("EPSG:32631", (2, 0, 500200, 0, -8, 4649800), 4.0),  # sides differ
    ],
)
def test_ground_sample_distance(crs, transform, gsd_m):
    pytest.importorskip("pyproj")
    assert raster_facts(crs, transform, (0, 0, 2, 2))["gsd_m"] == pytest.approx(gsd_m, rel=0.005)


def test_exactly_the_stated_metre_in_utm():
    pytest.importorskip("pyproj")
    assert raster_facts("EPSG:32633", NORTH_UP_10M, (0, 0, 100, 100))["gsd_m"] == 10.0


def test_exactly_the_survey_foot():
    pytest.importorskip("pyproj")
    facts = raster_facts("EPSG:2263", (1, 0, 987000, 0, -1, 212000), (0, 0, 64, 64))
    assert facts["gsd_m"] == pytest.approx(1200 / 3937, rel=2e-6)


def test_a_window_lies_where_it_is():
    pytest.importorskip("pyproj")
    facts = raster_facts("EPSG:4326", (0.01, 0, 10, 0, -0.01, 50), (20, 30, 10, 40))
    assert facts["footprint"] == [(10.3, 49.8), (10.7, 49.8), (10.7, 49.7), (10.3, 49.7)]
    assert (facts["lon"], facts["lat"], facts["utm_zone"]) == (10.5, 49.75, "32N")


def test_across_the_antimeridian():
    pytest.importorskip("pyproj")
    facts = raster_facts("EPSG:4326", (0.005, 0, 179.85, 0, -0.005, -16.4), (0, 0, 80, 80))
    assert facts["lon"] == pytest.approx(-179.95) and facts["utm_zone"] == "1S"
    assert [lon for lon, _ in facts["footprint"]] == [179.85, -179.75, -179.75, 179.85]


def test_a_utm_grid_keeps_its_zone():
    pytest.importorskip("pyproj")
    facts = raster_facts("EPSG:32760", (30, 0, 818551.553, 0, -30, 8117998.19), (0, 0, 80, 80))
    assert facts["lon"] < -179 and facts["utm_zone"] == "60S"


def test_off_the_earth_and_off_the_map():
    pytest.importorskip("pyproj")
    disk = raster_facts("+proj=geos +h=35786023 +lon_0=-75 +sweep=x", (20000, 0, -5.4e6, 0, -20000, 5.4e6), (0, 0, 540, 540))
    assert "footprint" not in disk and disk["lon"] == pytest.approx(-75) and disk["gsd_m"] == 20000
    corner = raster_facts("+proj=geos +h=35786023 +lon_0=-75 +sweep=x", (20000, 0, -5.4e6, 0, -20000, 5.4e6), (0, 0, 8, 8))
    assert corner == {}
    assert raster_facts('LOCAL_CS["site",UNIT["metre",1]]', NORTH_UP_10M, (0, 0, 8, 8)) == {}


def test_missing_library_names_the_extra(monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(RsvlError, match=r"pyproj is not installed.*pip install 'rsvl\[geo\]'"):
        geo.geo_library("pyproj")


# --- climate


def write_table(path, rows):
    opened = gzip.open if path.suffix == ".gz" else builtins.open
    with opened(path, "wt") as file:
        file.writelines(f"{lat} {lon}  {code}\n" for lat, lon, code in rows)
    return path


ROWS = [(50.25, 10.25, "Cfb"), (50.25, 10.75, "Dfb"), (49.75, 11.25, "ET")]


@pytest.mark.parametrize("name", ["grid.txt", "grid.txt.gz"])
def test_climate_table(tmp_path, name):
    grid = ClimateGrid.read(write_table(tmp_path / name, ROWS))
    positions = [(10.1, 50.4), (10.6, 50.01), (11.4, 49.6), (11.4, 50.4), (10.1, 49.6), (0, 50.3), (10.1, -50)]
    assert [grid.zone(*position) for position in positions] == ["Cfb", "Dfb", "ET", None, None, None, None]


def write_png(folder, cells, **legend):
    Image.fromarray(np.array(cells, np.uint8)).save(folder / "grid.png")
    facts = {"resolution_deg": 90, "rows": 2, "cols": 4, "row0_center_lat": 45, "col0_center_lon": -135}
    (folder / "my_legend.json").write_text(json.dumps({**facts, "classes": {"1": "Af", "14": "Csc"}, **legend}))
    return folder / "grid.png"


def test_climate_picture_speaks_in_codes(tmp_path):
    grid = ClimateGrid.read(write_png(tmp_path, [[0, 1, 14, 0], [1, 0, 0, 14]]))
    assert [grid.zone(*at) for at in [(-100, 80), (-1, 80), (1, 0.1), (-180, -90), (180, -1), (179, -1), (-1, 0)]] == [
        None,
        "Af",
        "Csc",
        "Af",
        "Af",
        "Csc",
        None,
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "<html>"),
        ("a.txt", ""),
        ("a.txt", "1 2\n3 4\n"),
        ("a.txt.gz", "no gzip"),
        ("a.png", "x"),
        ("a.txt", "95 0 Af\n0 1 Af\n"),
    ],
)
def test_not_a_climate_grid(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="is not a climate grid.*Expected a Köppen-Geiger table"):
        ClimateGrid.read(tmp_path / name)


def test_climate_grid_that_is_missing_or_of_another_size(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        ClimateGrid.read(tmp_path / "none.txt")
    with pytest.raises(DataError, match="legend of"):
        ClimateGrid.read(write_png(tmp_path, [[0, 1]]))


@pytest.mark.parametrize("name", ["Koeppen-Geiger-ASCII.txt.gz", "koeppen_geiger_0p5deg.png"])
def test_climate_with_official_lookups(shared, name):
    grid = ClimateGrid.read(shared / "data" / "climate" / name)
    for place in json.loads((shared / "fixtures" / "segmentation" / "climate_zones.json").read_text())["lookups"]:
        expected = None if place["raster_id"] == 0 else place["code"]
        assert grid.zone(place["lon"], place["lat"]) == expected, place["place"]


def test_both_forms_of_the_climate_grid_agree(shared):
    table, picture = (
        ClimateGrid.read(shared / "data" / "climate" / n) for n in ("Koeppen-Geiger-ASCII.txt.gz", "koeppen_geiger_0p5deg.png")
    )
    positions = [(lon, lat) for lon in np.arange(-180, 180, 3.7) for lat in np.arange(-89, 90, 2.9)]
    assert [table.zone(*p) for p in positions] == [picture.zone(*p) for p in positions]
