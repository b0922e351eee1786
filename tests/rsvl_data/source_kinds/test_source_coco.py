import json
import shutil

import pytest
from PIL import Image

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sample import Sample
from rsvl_data.sources import coco
from rsvl_data.stage import Dropped

SHIP, BRIDGE = {"id": 1, "name": "ship"}, {"id": 7, "name": "Bridge"}


def picture(path, size=(128, 128), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(path, **options)


def annotation(box, **more):
    return {"id": 1, "image_id": 5, "category_id": 1, "bbox": box, **more}


def read_all(path):
    source = coco.open(coco.find(path), path.name, ImageForm())
    return [(entry, source.read(entry)) for entry in map(as_planned, source.entries())]


def as_planned(entry):
    """Facts go through a plan file."""
    return type(entry)(entry.id, entry.split, json.loads(json.dumps(entry.facts, allow_nan=False)))


def write(path, annotations, *, images=None, **more):
    images = images or [{"id": 5, "file_name": "a.jpg", "width": 128, "height": 128}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [SHIP, BRIDGE], **more}))


def one(tmp_path, annotations, **more):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "instances.json", annotations, **more)
    [(_, sample)] = read_all(tmp_path)
    return sample


def test_fixture(shared):
    folder = shared / "fixtures" / "formats" / "09_boxes"
    expected = json.loads((folder / "expected.json").read_text())["coco"]
    read = read_all(folder / "coco")
    samples = {entry.id: sample for entry, sample in read}
    regions = [region for _, sample in read for region in sample.regions]
    assert len(read) == expected["samples"] and len(regions) == expected["regions"]
    assert {str(region.category_id): region.category for region in regions}.items() <= expected["classes"].items()
    assert sum(not sample.regions for _, sample in read) == expected["images_without_regions"]
    crowds = [(entry.id, region) for entry, sample in read for region in sample.regions if getattr(region, "iscrowd", 0)]
    assert [(name, list(region.bbox), region.area_px) for name, region in crowds] == [
        (expected["crowd"]["image"], expected["crowd"]["bbox"], expected["crowd"]["area_px"])
    ]
    first = samples["000100.jpg"]
    assert first.sha256 == expected["first"]["sha256"]
    assert sorted((list(r.bbox), r.category, r.category_id, r.area_px) for r in first.regions) == sorted(
        (r["bbox"], r["category"], r["category_id"], r["area"]) for r in expected["first"]["regions"]
    )
    assert first.provenance.licence == "research use" and not any(sample.scores for _, sample in read)


def test_bad_annotations_of_the_fixture(shared, tmp_path):
    """Which of them are taken is seen by the box: the file has one image, and every box of the accepted ones is known."""
    folder = shared / "fixtures" / "bad"
    shutil.copy(folder / "boxes" / "scene.jpg", tmp_path)
    shutil.copy(folder / "boxes" / "coco.json", tmp_path)
    (entry, sample), (_, unknown_image) = read_all(tmp_path)
    assert entry.id == "scene.jpg" and unknown_image.reason == "unknown_image"
    [expected] = [
        case for case in json.loads((folder / "expected.json").read_text())["files"] if case["file"] == "boxes/coco.json"
    ]
    given = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert len(given) == len(expected["annotations"])
    taken = [list(region.bbox) for region in sample.regions]
    for case in expected["annotations"]:
        if "bbox" in case:
            assert case["bbox"] in taken, case
    # 20 x 41..47: categories and images that are unknown are left out, bad polygons and areas are not
    widths = {region.bbox[2] - 20 for region in sample.regions if region.bbox[1] == 20 and region.bbox[3] == 40}
    assert widths == {43, 44, 45, 46, 47}
    assert not any(region.polygon for region in sample.regions)
    num_refused = sum(case["case"] in REFUSED for case in expected["annotations"])
    assert num_refused == len(REFUSED)
    assert sample.scores == {"regions_dropped": num_refused - 1, "regions_repaired": len(REPAIRED)}
    for case in expected["annotations"]:
        outcome = "reject" if case["case"] in REFUSED else "repair" if case["case"] in REPAIRED else "accept"
        assert outcome in [case["outcome"], *case.get("also_ok", [])], case
    assert sum(region.area_px > 0 for region in sample.regions) == len(sample.regions) == len(given) - num_refused


REFUSED = (
    "inverted outside zero_width zero_area sub_pixel nan infinite words three_values five_values null normalised "
    "unknown_category unknown_image"
).split()
REPAIRED = "negative_origin partly_outside strings huge odd_polygon two_point_polygon polygon_outside area_lie".split()


@pytest.mark.parametrize(
    ("name", "outcome"), [("coco_size_lie", "size_mismatch"), ("coco_path_escape", "path_outside"), ("coco_no_categories", None)]
)
def test_bad_files_of_the_fixture(shared, tmp_path, name, outcome):
    for file in (f"{name}.json", "scene.jpg"):
        shutil.copy(shared / "fixtures" / "bad" / "boxes" / file, tmp_path)
    if outcome is None:
        with pytest.raises(DataError, match="no list of objects called 'categories'"):
            read_all(tmp_path)
    else:
        [(_, dropped)] = read_all(tmp_path)
        assert dropped.reason == outcome


def test_results_are_no_annotations(shared):
    path = shared / "fixtures" / "bad" / "boxes" / "coco_list.json"
    assert coco.find(path) is None
    with pytest.raises(DataError, match="no list of objects called 'images'"):
        list(coco.open(path, "x", ImageForm()).entries())


def test_boxes_polygons_and_words(tmp_path):
    sample = one(
        tmp_path,
        [
            annotation([10, 20, 30, 40], area=900, segmentation=[[10, 20, 40, 20, 40, 60]]),
            annotation([50, 60, 20, 20], segmentation=[[50, 60, 70, 60, 70, 80], [51, 61, 52, 61, 52, 62]]),
            annotation([0, 0, 10, 10], category_id=7),
        ],
        licenses=[{"id": 0, "name": None, "url": "https://example.org"}],
        images=[{"id": 5, "file_name": "a.jpg", "width": 128, "height": 128, "license": 0, "split": "valid"}],
    )
    ship, two_parts, bridge = sample.regions
    assert (ship.bbox, ship.category, ship.area_px) == ((10, 20, 40, 60), "ship", 900)
    assert ship.polygon == [(10, 20), (40, 20), (40, 60)]
    assert two_parts.polygon is None and two_parts.area_px == 400
    assert (bridge.category, bridge.category_id) == ("Bridge", 7)
    assert [(c.text, c.kind) for c in sample.captions] == [("an aerial image with two ships and one bridge.", "boxes")]
    assert sample.provenance.licence == "https://example.org" and sample.scores == {}


def test_a_caption_does_not_count_what_is_incomplete(tmp_path):
    sample = one(tmp_path, [annotation([1, 2, 30, 40]), annotation([1, 2, -3, 4])])
    assert sample.captions[0].text == "an aerial image with objects of the kind ship." and sample.scores == {"regions_dropped": 1}
    runs = {"size": [128, 128], "counts": [0, 100, 128 * 128 - 100]}
    crowd = one(tmp_path, [annotation([0, 0, 1, 100], iscrowd=1, segmentation=runs)])
    assert crowd.captions[0].text == "an aerial image with objects of the kind ship."
    assert crowd.regions[0].area_px == 100 and crowd.regions[0].iscrowd == 1


@pytest.mark.parametrize(
    "category", [{"id": 1}, {"id": 1, "name": 3}, {"id": 1, "name": " -"}, {"id": 1, "name": "a\0"}, {"id": [1], "name": "ship"}]
)
def test_categories_without_a_name(tmp_path, category):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "x.json", [annotation([1, 2, 30, 40]), annotation([1, 2, 30, 40], category_id=None)], categories=[category])
    [(_, sample)] = read_all(tmp_path)
    assert sample.regions == [] and sample.scores["regions_dropped"] == 2 and sample.captions[0].text == "an aerial image."


def test_numbers_without_bounds(tmp_path):
    ends = [annotation([1, 2, 30, 40], area=10**400, category_id=1, segmentation=[[1e300, 0, 0, 1e300, 1, 1]])]
    sample = one(tmp_path, [*ends, annotation([1e308, 0, 1e308, 5]), annotation([-1e308, -5, 1.7e308, 50], area="12")])
    assert [region.bbox for region in sample.regions] == [(1, 2, 31, 42), (0, 0, 128, 45)]
    assert sample.regions[0].area_px == 1200 and sample.scores == {"regions_dropped": 1, "regions_repaired": 2}


def test_splits_by_file_and_folder(tmp_path):
    picture(tmp_path / "train2017" / "a.jpg")
    picture(tmp_path / "val2017" / "b.jpg")
    for name, image in (("train", "a.jpg"), ("val", "b.jpg")):
        size = {"width": 128, "height": 128}
        write(tmp_path / "annotations" / f"instances_{name}2017.json", [], images=[{"id": 1, "file_name": image, **size}])
    assert [(entry.id, entry.split, type(outcome)) for entry, outcome in read_all(tmp_path)] == [
        ("a.jpg", "train", Sample),
        ("b.jpg", "val", Sample),
    ]


def test_odd_images(tmp_path):
    picture(tmp_path / "images" / "turned.jpg", exif=exif_of_orientation(6))
    (tmp_path / "images" / "text.jpg").write_text("no image")
    picture(tmp_path / "images" / "no_size.jpg")
    names = ["turned.jpg", "text.jpg", "gone.jpg", "/etc/passwd", "no_size.jpg", "no_size.jpg", "long" * 100]
    picture(tmp_path / "images" / "odd_value.jpg", exif=exif_of_orientation(0))
    names.insert(6, "odd_value.jpg")
    images = [{"id": index, "file_name": name} for index, name in enumerate(names)]
    write(tmp_path / "x.json", [], images=[*images, {"id": 9}], licenses=[{"id": [1]}])
    outcomes = [outcome for _, outcome in read_all(tmp_path)]
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Dropped)]
    assert reasons == [
        "turned_by_exif",
        "not_an_image",
        "missing_file",
        "path_outside",
        "duplicate_image",
        "bad_path",
        "missing_field",
    ]
    assert outcomes[6].width == 128
    assert outcomes[4].scores == {"size_unstated": 1} and outcomes[4].captions[0].text == "an aerial image."


def exif_of_orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"images": [1], "annotations": [], "categories": []}', "called 'images'"),
        ('{"images": [{"file_name": "\\ud800.jpg"}], "annotations": [], "categories": []}', "surrogates not allowed"),
        ('{"images": [], "annotations": [{"categories_id": 1}], "categories": []}', "as RRSIS-D does"),
    ],
)
def test_files_of_another_form(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list(coco.open(tmp_path / "x.json", "x", ImageForm()).entries())


def test_real_data(shared):
    read = read_all(shared / "data" / "nwpu_vhr10")
    assert len(read) == 78 and sum(len(sample.regions) for _, sample in read) == 675
    assert [entry.split for entry, _ in read].count("val") == 14
