import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from PIL import Image
from test_gazetteer import row, write_countries, write_places

from recipes.cli import main
from rsvl_data import geo_facts
from rsvl_data.errors import DataError, OptionError
from rsvl_data.geo_facts import GEONAMES_CREDIT, GeoOptions, add_geo_facts, season_of_time
from rsvl_data.sample import Geo, Provenance, Sample
from rsvl_data.shards import Dataset

pytest.importorskip("shapely")

BERLIN = {"lon": 13.4, "lat": 52.5}


@pytest.fixture
def files(tmp_path):
    grid = tmp_path / "grid.txt"
    grid.write_text("52.25 13.25 Cfb\n51.75 13.75 Dfb\n")
    return {
        "climate": grid,
        "places": write_places(tmp_path / "cities.txt", [("Berlin", 52.52, 13.41, "DE"), ("Potsdam", 52.4, 13.06, "DE")]),
        "countries": write_countries(tmp_path / "world.geojson"),
    }


def sample_at(geo):
    return Sample(key="k", width=8, height=8, sha256="0" * 64, geo=geo and Geo(**geo), image=b"picture")


def facts_of(geo, **options):
    [sample] = add_geo_facts(GeoOptions(**options)).run([sample_at(geo)])
    assert sample.image == b"picture"
    return sample.geo and sample.geo.model_dump(exclude_none=True)


def test_what_is_absent_is_filled(files):
    del files["countries"]
    assert facts_of({**BERLIN, "acquired": "2021-07-14T10:23:45Z"}, **files) == {
        **BERLIN,
        "acquired": "2021-07-14T10:23:45Z",
        "country": "Germany",
        "place": "Berlin",
        "climate_zone": "Cfb",
        "season": "summer",
        "utm_zone": "33N",
    }


def test_each_option_changes_the_outcome(files):
    assert facts_of(BERLIN) == {**BERLIN, "utm_zone": "33N"}
    assert facts_of(BERLIN, climate=files["climate"]) == {**BERLIN, "utm_zone": "33N", "climate_zone": "Cfb"}
    assert facts_of(BERLIN, places=files["places"])["place"] == "Berlin"
    assert "place" not in facts_of({"lon": 13.4, "lat": 53.0}, places=files["places"])
    assert facts_of({"lon": 13.4, "lat": 53.0}, places=files["places"], max_place_km=60)["place"] == "Berlin"
    assert facts_of({"lon": 25, "lat": -29}, countries=files["countries"])["country"] == "South Africa"


def test_a_name_of_geonames_carries_its_credit(files):
    stage = add_geo_facts(GeoOptions(places=files["places"]))
    named, credited, elsewhere = sample_at(BERLIN), sample_at(BERLIN), sample_at({"lon": 0.0, "lat": 10.0})
    credited.provenance = Provenance(attribution="ESA")
    assert [sample.provenance.attribution for sample in stage.run([named, credited, elsewhere])] == [
        GEONAMES_CREDIT,
        f"ESA; {GEONAMES_CREDIT}",
        None,
    ]


def test_what_the_source_said_stands(files):
    said = {**BERLIN, "country": "Prussia", "place": "Cölln", "climate_zone": "Dfb", "season": "winter", "utm_zone": "32N"}
    assert facts_of({**said, "acquired": "2021-07-14"}, **files) == {**said, "acquired": "2021-07-14"}
    assert facts_of({**BERLIN, "place": "Mitte"}, places=files["places"]) == {
        **BERLIN,
        "utm_zone": "33N",
        "place": "Mitte",
        "country": "Germany",
    }


@pytest.mark.parametrize("geo", [None, {}, {"lon": 13.4}, {"lat": 52.5, "acquired": "2021-07-14"}])
def test_without_a_position_nothing_follows(files, geo):
    assert facts_of(geo, **files) == geo


def test_the_sample_that_came_in_is_not_changed(files):
    before = sample_at(BERLIN)
    [after] = add_geo_facts(GeoOptions(**files)).run([before])
    assert before.geo.utm_zone is None and after.geo.utm_zone == "33N"
    # the same order of fields as a record that was read
    assert Sample.from_json(after.to_json()).to_json() == after.to_json()


@pytest.mark.parametrize(
    ("acquired", "season"),
    [
        ("2021-07-14", "summer"),
        ("2021-07", "summer"),
        ("20210714T102345Z", "summer"),
        ("2021-12-31T23:59:59-03:00", "winter"),
        ("2021", None),
        ("2021/2022", None),
        ("2021-06/2021-08", "summer"),
        ("2021-06-01/2021-09-01", None),
        ("2020-12/2021-02", "winter"),
        ("2021-07/2020-07", None),
        ("2020-07/2021-07", None),
        ("2020/2021-07", None),
    ],
)
def test_season_of_a_time(acquired, season):
    assert Geo(acquired=acquired).acquired == acquired
    assert season_of_time(50, acquired) == season
    assert season_of_time(0, acquired) is None


def test_season_of_the_south():
    assert season_of_time(-35, "2021-07-14") == "winter"


@pytest.mark.parametrize(("lon", "lat", "zone"), [(180, -17, "1S"), (-180, 17, "1N"), (0, 90, None), (5, 60, "32N")])
def test_at_the_edges_of_the_map(files, lon, lat, zone):
    assert facts_of({"lon": lon, "lat": lat}, **files).get("utm_zone") == zone


@pytest.mark.parametrize("name", ["climate", "places", "countries"])
def test_a_wrong_file_is_told_before_the_work(tmp_path, name):
    (tmp_path / "wrong").write_text("<html>")
    with pytest.raises(DataError, match="Expected"):
        add_geo_facts(GeoOptions(**{name: tmp_path / "wrong"}))


@pytest.mark.parametrize("max_place_km", [0, -1, 1001, float("nan")])
def test_bad_distance(max_place_km):
    with pytest.raises(OptionError, match="above 0 and up to 1000 km"):
        GeoOptions(max_place_km=max_place_km)


def run_there(stage):
    return [sample.geo.place for sample in stage.run([sample_at(BERLIN)] * 3)], geo_facts._gazetteer.cache_info().misses


def test_the_stage_travels_without_its_files_and_reads_them_once(tmp_path):
    towns = [row(f"town {number}", number % 180 - 90, 5, "DE") for number in range(5000)] + [row("Berlin", 52.52, 13.41, "DE")]
    stage = add_geo_facts(GeoOptions(places=write_places(tmp_path / "a.txt", towns)))
    next(iter(stage.run([sample_at(BERLIN)])))
    assert len(pickle.dumps(stage)) < 2000
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(run_there, stage).result() == (["Berlin"] * 3, 1)


def test_in_the_recipe(tmp_path, files):
    root = tmp_path / "source"
    root.mkdir()
    Image.new("RGB", (16, 16)).save(root / "a.png")
    (root / "table.jsonl").write_text(json.dumps({"image": "a.png", "caption": "a town", "lat": 52.5, "lon": 13.4}))
    command = ["run", "data/import", "--source", str(root), "--val", "0", "--test", "0"]
    given = [word for name, path in files.items() if name != "countries" for word in (f"--geo.{name}", str(path))]
    assert main([*command, "--out", str(tmp_path / "out"), *given]) == 0
    [sample] = Dataset.open(tmp_path / "out").samples("train")
    assert (sample.geo.country, sample.geo.place, sample.geo.climate_zone) == ("Germany", "Berlin", "Cfb")
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--out", str(tmp_path / "b"), "--geo.max-place-km", "0"])
    assert main([*command, "--out", str(tmp_path / "b"), "--geo.places", str(root / "a.png")]) == 1


def test_with_the_official_climate_lookups(shared):
    grid = shared / "data" / "climate" / "koeppen_geiger_0p5deg.png"
    lookups = json.loads((shared / "fixtures" / "segmentation" / "climate_zones.json").read_text())["lookups"]
    stage = add_geo_facts(GeoOptions(climate=grid))
    samples = stage.run(sample_at({"lon": place["lon"], "lat": place["lat"]}) for place in lookups)
    assert [s.geo.climate_zone for s in samples] == [None if place["raster_id"] == 0 else place["code"] for place in lookups]
