import json
import shutil

import pytest
from PIL import Image

from rsvl_data.boxes import BadGeometry
from rsvl_data.image_form import ImageForm
from rsvl_data.sources import dota
from rsvl_data.sources.dota import object_of_line

QUAD = "10 10 50 10 50 40 10 40"


def dataset(root, labels, images):
    (root / "images").mkdir(parents=True)
    (root / "labelTxt").mkdir()
    for stem, text in labels.items():
        (root / "labelTxt" / f"{stem}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    for stem in images:
        Image.new("RGB", (128, 100)).save(root / "images" / f"{stem}.png")
    return root


def read_all(root):
    source = dota.open(dota.find(root), root.name, ImageForm())
    entries = [type(entry)(entry.id, entry.split, json.loads(json.dumps(entry.facts))) for entry in source.entries()]
    return [(entry, source.read(entry)) for entry in entries]


def one(root, text):
    [(_, sample)] = read_all(dataset(root, {"P1": text}, ["P1"]))
    return sample


def test_fixture(shared):
    folder = shared / "fixtures" / "formats" / "09_boxes"
    expected = json.loads((folder / "expected.json").read_text())["dota"]
    samples = {entry.id.rpartition("/")[2]: sample for entry, sample in read_all(folder / "dota")}
    regions = [region for sample in samples.values() for region in sample.regions]
    assert (len(samples), len(regions)) == (expected["samples"], expected["regions"])
    assert sum(region.difficult for region in regions) == expected["difficult"]
    assert sorted({region.category for region in regions}) == expected["classes"]
    empty = expected["without_header_and_objects"]
    assert {name for name, sample in samples.items() if sample.geo is None} == {*expected["gsd_null"], empty}
    assert samples[empty].regions == [] and samples[empty].captions[0].text == "an aerial image."
    first = samples["P9000.png"]
    assert first.geo.gsd_m == expected["first"]["gsd_m"]
    for region, wanted in zip(first.regions, expected["first"]["regions"], strict=True):
        assert [value for point in region.polygon for value in point] == wanted["polygon"]
        assert (list(region.bbox), region.category, region.difficult) == (wanted["bbox"], wanted["category"], wanted["difficult"])


def test_bad_lines_of_the_fixture(shared, tmp_path):
    folder = shared / "fixtures" / "bad"
    [expected] = [
        case for case in json.loads((folder / "expected.json").read_text())["files"] if case["file"] == "boxes/dota.txt"
    ]
    root = dataset(tmp_path, {"scene": (folder / "boxes" / "dota.txt").read_bytes()}, [])
    shutil.copy(folder / "boxes" / "scene.jpg", root / "images")
    [(_, sample)] = read_all(root)
    wanted = [line["outcome"] for line in expected["lines"] if line["text"] and line["line"] != 14]
    assert len(sample.regions) == 1 + len(wanted) - wanted.count("reject")  # line 14 is read as "large vehicle"
    assert sample.scores == {"regions_dropped": wanted.count("reject"), "regions_repaired": wanted.count("repair")}
    assert sample.geo is None
    assert all(0 <= value <= 128 for region in sample.regions for value in region.bbox)


def test_a_file_with_all_its_lines(tmp_path):
    sample = one(
        tmp_path, f"imagesource:GoogleEarth\r\ngsd:0.5\r\n{QUAD} ship 0\r\n\r\n-20 0 20 0 20 40 -20 40 large-vehicle 1\r\n"
    )
    ship, cut = sample.regions
    assert sample.geo.gsd_m == 0.5
    assert ship.polygon == [(10, 10), (50, 10), (50, 40), (10, 40)] and ship.bbox == (10, 10, 50, 40) and ship.area_px == 1200
    assert cut.bbox == (0, 0, 20, 40) and cut.area_px == 800 and cut.difficult == 1 and cut.polygon[0] == (-20, 0)
    assert sample.scores == {"regions_repaired": 1}
    assert sample.captions[0].text == "an aerial image with one large vehicle and one ship."


@pytest.mark.parametrize(
    ("line", "category", "difficult", "repaired"),
    [
        (f"{QUAD} ship 0", "ship", 0, False),
        (f"{QUAD} ship 1", "ship", 1, False),
        (f"{QUAD} ship 2", "ship", 1, True),
        (f"{QUAD} ship", "ship", 0, True),
        (f"{QUAD} large vehicle 1", "large vehicle", 1, False),
        (f"{QUAD} ship 0".replace(" ", ","), "ship", 0, True),
    ],
)
def test_lines(line, category, difficult, repaired):
    found = object_of_line(line)
    assert (found.category, found.extra["difficult"], found.repaired) == (category, difficult, repaired)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (QUAD, "bad_box"),
        (f"{QUAD} 0", "bad_box"),
        (f"{QUAD} 1.5 ship 0", "bad_box"),
        ("10 10 50 10 50 40 10 ship 0", "bad_box"),
        ("YOLO 0.5 0.5 0.2 0.2", "bad_box"),
        ("nan" + QUAD[2:] + " ship 0", "bad_number"),
        ("1e400" + QUAD[2:] + " ship 0", "bad_number"),
        ("1e20" + QUAD[2:] + " ship 0", "bad_polygon"),
    ],
)
def test_lines_that_are_refused(line, reason):
    with pytest.raises(BadGeometry) as caught:
        object_of_line(line)
    assert caught.value.reason == reason


def test_a_self_crossing_polygon_leaves_its_box(tmp_path):
    [region] = one(tmp_path, "10 10 50 40 50 10 10 40 ship 0").regions
    assert region.polygon is None and region.bbox == (10, 10, 50, 40) and region.area_px == 1200


@pytest.mark.parametrize(("gsd", "found"), [("0.3", 0.3), ("null", None), ("-1", None), ("nan", None), ("1e9", None), ("", None)])
def test_ground_sample_distance(tmp_path, gsd, found):
    sample = one(tmp_path, f"gsd:{gsd}\n")
    assert (sample.geo.gsd_m if sample.geo else None) == found


def test_labels_and_images_that_stand_alone(tmp_path):
    read = read_all(dataset(tmp_path, {"P1": "", "P2": "", "P4": b"\xff\xfe\xff"}, ["P1", "P3", "P4"]))
    assert [getattr(outcome, "reason", "kept") for _, outcome in read] == ["kept", "missing_file", "no_annotation", "encoding"]


def test_splits(tmp_path):
    for split in ("train", "val"):
        dataset(tmp_path / split, {"P1": f"{QUAD} ship 0"}, ["P1"])
    assert [(entry.id, entry.split) for entry, _ in read_all(tmp_path)] == [
        ("train/images/P1.png", "train"),
        ("val/images/P1.png", "val"),
    ]


def test_real_data(shared):
    [(_, sample)] = read_all(shared / "data" / "dota_sample")
    assert len(sample.regions) == 64 and sample.scores == {}
    assert sample.captions[0].text == "an aerial image with 50 large vehicles and 14 small vehicles."
