import gzip
import json
import logging
import zipfile

import numpy as np
import pytest

from rsvl_data.country_names import COUNTRY_NAMES
from rsvl_data.country_polygons import CountryPolygons
from rsvl_data.errors import DataError
from rsvl_data.gazetteer import Gazetteer, Places, distance_km

pytest.importorskip("shapely")

TOWNS = [  # name, lat, lon, country
    ("Basel", 47.5584, 7.5733, "CH"),
    ("Saint-Louis", 47.5833, 7.5667, "FR"),
    ("Weil am Rhein", 47.5933, 7.6208, "DE"),
    ("Strasbourg", 48.5839, 7.7455, "FR"),
    ("Kehl", 48.5728, 7.8152, "DE"),
    ("Zürich", 47.3667, 8.55, "CH"),
    ("Suva", -18.1416, 178.4415, "FJ"),
    ("Waiyevo", -16.7903, -179.9871, "FJ"),
    ("Uelen", 66.1594, -169.8090, "RU"),
    ("Egvekinot", 66.3193, -179.1711, "RU"),
    ("Longyearbyen", 78.2233, 15.6469, "SJ"),
    ("Nowhere Camp", 89.9, 100.0, ""),
]


def row(name, lat, lon, country, feature_class="P", code="PPL"):
    return f"1\t{name}\t{name}\tA,B\t{lat}\t{lon}\t{feature_class}\t{code}\t{country}\t\t01\t\t\t\t100\t\t10\tEurope/Paris\t2024-01-01"


def write_places(path, towns=TOWNS, extra=()):
    text = "\n".join([*(town if isinstance(town, str) else row(*town) for town in towns), *extra]) + "\n"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{path.stem}.txt", text)
            archive.writestr("readme.txt", "not a table")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def box(west, south, east, north):
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def feature(rings, kind="Polygon", **properties):
    return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": rings}}


WORLD = [
    feature([box(6, 45.8, 10, 47.58)], ISO_A2="CH", ADMIN="Switzerland"),
    feature([[[0, 43], [6, 43], [6, 47.58], [7.79, 47.58], [7.79, 49], [0, 49], [0, 43]]], ISO_A2="-99", ISO_A2_EH="FR"),
    feature([box(16, -35, 33, -22), box(27, -30.7, 29.5, -28.5)], ISO_A2="ZA", ADMIN="South Africa"),
    feature([box(27, -30.7, 29.5, -28.5)], ISO_A2="LS", ADMIN="Kingdom of Lesotho"),
    feature([[box(177, -19, 180, -16)], [box(-180, -19, -179.5, -16)]], "MultiPolygon", ISO_A2="FJ"),
    feature([[box(170, 60, 180, 72)], [box(-180, 64, -169, 72)]], "MultiPolygon", ISO_A2="RU"),
    feature([box(-180, -90, 180, -65)], ISO_A2="AQ"),
    feature([box(40, 8, 50, 11)], ISO_A2="-99", ADMIN="Somaliland", NAME="Somaliland (disputed)"),
]  # fmt: skip


def write_countries(path, features=WORLD):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def places(tmp_path):
    return write_places(tmp_path / "cities500.txt")


@pytest.fixture
def countries(tmp_path):
    return write_countries(tmp_path / "ne_110m_admin_0_countries.geojson")


# --- nearest place


@pytest.mark.parametrize("name", ["cities500.txt", "cities500.zip", "cities500.txt.gz"])
def test_nearest_place_of_every_form_of_file(tmp_path, name):
    gazetteer = Gazetteer.read(write_places(tmp_path / name))
    assert gazetteer.facts(8.54, 47.37, max_km=10) == {"country": "Switzerland", "place": "Zürich"}
    assert gazetteer.facts(-30, 40) == {}  # the Atlantic


def test_radius(places):
    gazetteer = Gazetteer.read(places)
    apart_km = float(distance_km(15.6469, 79.0, np.array([15.6469]), np.array([78.2233]))[0])
    assert apart_km == pytest.approx(0.7767 * 111.195, rel=1e-3)
    assert gazetteer.facts(15.6469, 79.0, apart_km - 0.01) == {}
    assert gazetteer.facts(15.6469, 79.0, apart_km + 0.01)["place"] == "Longyearbyen"


def test_without_polygons_a_country_only_where_all_places_agree(places):
    gazetteer = Gazetteer.read(places)
    assert gazetteer.facts(7.5733, 47.5584) == {"place": "Basel"}  # three countries within 50 km
    assert gazetteer.facts(7.5733, 47.5584, max_km=1) == {"country": "Switzerland", "place": "Basel"}
    assert gazetteer.facts(7.7455, 48.5839) == {"place": "Strasbourg"}
    assert gazetteer.facts(0, 89.95, 50) == {"place": "Nowhere Camp"}  # without a country in the dump


@pytest.mark.parametrize(
    ("lon", "lat", "place"),
    [
        (179.99, -16.8, "Waiyevo"),
        (-180, -16.8, "Waiyevo"),
        (180, -16.8, "Waiyevo"),
        (179.9, 66.3, "Egvekinot"),
        (-80, 89.9, "Nowhere Camp"),
        (13, 90, "Nowhere Camp"),
    ],
)
def test_across_the_antimeridian_and_the_pole(places, lon, lat, place):
    assert Gazetteer.read(places).facts(lon, lat)["place"] == place


def test_nearby_agrees_with_measuring_all(tmp_path):
    rng = np.random.default_rng(0)
    lons, lats = np.r_[rng.uniform(-180, 180, 400), -180, 180, 0, 5], np.r_[rng.uniform(-90, 90, 400), 10, -10, 90, -90]
    towns = [(f"town {i}", lat, lon, "DE") for i, (lon, lat) in enumerate(zip(lons, lats))]
    found = Places.read(write_places(tmp_path / "a.txt", towns))
    for lon, lat in [
        *zip(rng.uniform(-180, 180, 200), rng.uniform(-90, 90, 200)),
        (180, 0),
        (-180, 0),
        (0, 90),
        (0, -90),
        (7, 89.7),
    ]:
        for max_km in (5, 500, 1000):
            distances = distance_km(lon, lat, lons, lats)
            expected = [f"town {i}" for i in np.argsort(distances) if distances[i] <= max_km]
            assert [found.name(number) for number in found.nearby(lon, lat, max_km)] == expected


def test_only_populated_places_that_are_there(tmp_path):
    towns = [
        ("Matterhorn", 45.97, 7.65, "CH", "T", "MT"),
        ("Old Town", 45.97, 7.65, "CH", "P", "PPLH"),
        ("Ghost Town", 45.97, 7.65, "CH", "P", "PPLQ"),
        ("Zermatt", 46.02, 7.75, "CH", "P", "PPL"),
    ]
    assert Gazetteer.read(write_places(tmp_path / "a.txt", towns)).facts(7.65, 45.97)["place"] == "Zermatt"


# --- countries


@pytest.mark.parametrize(
    ("lon", "lat", "country"),
    [
        (7.5733, 47.5584, "Switzerland"),
        (7.7455, 48.5839, "France"),  # by ISO_A2_EH where ISO_A2 is -99
        (28.2, -29.6, "Lesotho"),  # the name of its code, not of its feature
        (25, -29, "South Africa"),
        (178.4, -18, "Fiji"),
        (-179.8, -16.8, "Fiji"),
        (180, -17, "Fiji"),
        (-180, -17, "Fiji"),
        (179, 66, "Russia"),
        (-175, 66, "Russia"),
        (-30, 40, None),
        (0, 90, None),
        (0, -90, "Antarctica"),
        (45, 9, "Somaliland"),
        (27, -29.5, None),  # on the border of two
    ],
)
def test_country_of_polygons(countries, lon, lat, country):
    assert CountryPolygons.read(countries).at(lon, lat) == country


def test_overlapping_claims_are_no_country(tmp_path):
    claims = [feature([box(0, 0, 4, 4)], ISO_A2="IT"), feature([box(1, 1, 2, 2)], ISO_A2="VA")]
    polygons = CountryPolygons.read(write_countries(tmp_path / "a.geojson", claims))
    assert polygons.at(3, 3) == "Italy" and polygons.at(1.5, 1.5) is None


def test_a_place_across_the_border_is_passed_over(places, countries):
    both = Gazetteer.read(places, countries)
    assert both.facts(7.5667, 47.575) == {"country": "Switzerland", "place": "Basel"}  # Saint-Louis is nearer
    assert Gazetteer.read(places).facts(7.5667, 47.575)["place"] == "Saint-Louis"
    assert both.facts(7.5667, 47.575, max_km=1) == {"country": "Switzerland"}
    # polygons alone, and at sea not even then a country of the nearest place
    assert Gazetteer.read(countries=countries).facts(7.5667, 47.575) == {"country": "Switzerland"}
    assert both.facts(176.9, -18.1, max_km=200) == {"place": "Suva"}


def test_longitudes_past_180(tmp_path):
    polygons = CountryPolygons.read(write_countries(tmp_path / "a.geojson", [feature([box(177, -19, 181, -16)], ISO_A2="FJ")]))
    assert polygons.at(-179.5, -17) == polygons.at(-180, -17) == polygons.at(178, -17) == "Fiji"
    assert polygons.at(-178.5, -17) is None


def test_a_ring_that_crosses_itself(tmp_path):
    bow = [[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]
    polygons = CountryPolygons.read(write_countries(tmp_path / "a.geojson", [feature([bow], NAME="Bow")]))
    assert polygons.at(0.2, 1) == "Bow" and polygons.at(1.8, 1) == "Bow" and polygons.at(1, 1.9) is None


def test_bad_features_are_counted(tmp_path, caplog):
    bad = [
        feature([box(0, 0, 1, 1)]),  # no name
        feature([0, 0], "Point", NAME="Point"),
        feature([box(0, 0, 500_000, 5_000_000)], NAME="Metres"),
        feature([box(0, 0, 500_000, 80)], NAME="Metres"),
        feature([[[179, 0], [-179, 0], [-179, 5], [179, 5], [179, 0]]], NAME="Not cut"),
        feature([[["a", "b"]]], NAME="Words"),
        {"type": "Feature", "properties": None, "geometry": None},
        "feature",
    ]
    with caplog.at_level(logging.WARNING):
        polygons = CountryPolygons.read(write_countries(tmp_path / "a.geojson", [*WORLD, *bad]))
    assert "8 features cannot be used" in caplog.text and "feature 9" in caplog.text
    assert polygons.at(0.5, 2) is None and polygons.at(25, -29) == "South Africa"
    with pytest.raises(DataError, match=r"no country that can be used \(feature 1: .*Expected a GeoJSON"):
        CountryPolygons.read(write_countries(tmp_path / "b.geojson", bad))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"features": {}}', "[" * 100_000, '{"type": "FeatureCollection", "features": []}']
)
def test_not_a_file_of_polygons(tmp_path, content):
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(DataError, match="Expected a GeoJSON FeatureCollection"):
        CountryPolygons.read(tmp_path / "a.geojson")
    with pytest.raises(DataError, match="does not exist"):
        CountryPolygons.read(tmp_path / "none.geojson")


def test_every_code_has_a_name():
    assert len(COUNTRY_NAMES) == 250 and all(
        len(code) == 2 and code.isupper() and name == name.strip() for code, name in COUNTRY_NAMES.items()
    )
    assert len(set(COUNTRY_NAMES.values())) == 250
    assert [COUNTRY_NAMES[code] for code in ("AD", "CI", "GF", "LS", "ZW")] == [
        "Andorra",
        "Côte d'Ivoire",
        "French Guiana",
        "Lesotho",
        "Zimbabwe",
    ]


# --- broken dumps


def test_broken_rows_are_counted(tmp_path, caplog):
    broken = [
        "too\tfew",
        row("Nan", "nan", 5, "DE"),
        row("Far", 95, 5, "DE"),
        row("Word", "north", 5, "DE"),
        row("", 5, 5, "DE"),
        row("Code", 5, 5, "Germany"),
        "x" * 200_000,
    ]
    with caplog.at_level(logging.WARNING):
        places = Places.read(write_places(tmp_path / "a.txt", extra=broken))
    assert len(places.lons) == len(TOWNS)
    assert "10 rows cannot be used" in caplog.text  # the long line is cut into four
    assert f"the first: row {len(TOWNS) + 1}: 2 columns, expected 19" in caplog.text


def test_a_name_that_is_not_utf8_is_a_broken_row(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join(row(*town) for town in TOWNS).encode() + b"\n" + row("Größe", 5, 5, "DE").encode("latin-1"))
    assert len(Places.read(path).lons) == len(TOWNS) and "1 rows cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "it has no place"),
        ("a.txt", b"name,lat,lon\nBasel,47,7\n", "2 of 2 rows are broken, the first: row 1: 1 columns"),
        ("a.txt", b"\x89PNG\r\n\0\0", "rows are broken"),
        ("a.txt", row("Matterhorn", 45.97, 7.65, "CH", "T", "MT").encode(), "it has no place"),
        ("a.zip", b"no zip", "not a zip file"),
        ("a.txt.gz", b"no gzip", "[Nn]ot a gzipped file"),
    ],
)
def test_not_a_gazetteer(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{message}.*Expected a GeoNames dump of 19"):
        Places.read(tmp_path / name)


def test_more_broken_than_sound_is_another_file(tmp_path):
    path = write_places(tmp_path / "a.txt", TOWNS[:1], extra=["x\ty"] * 2)
    with pytest.raises(DataError, match="2 of 3 rows are broken"):
        Places.read(path)


def test_a_zip_of_several_tables_and_a_missing_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("DE.txt", "x")
        archive.writestr("FR.txt", "x")
    with pytest.raises(DataError, match="it holds DE.txt, FR.txt; expected one .txt"):
        Places.read(tmp_path / "a.zip")
    with pytest.raises(DataError, match="does not exist"):
        Places.read(tmp_path / "none.txt")
