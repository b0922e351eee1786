import json
import math
import sys

import numpy as np
import pytest

from rsvl_data.boxes import (
    BadGeometry,
    box_in_image,
    box_of_mask,
    box_of_points,
    clip_polygon,
    corners,
    finite_numbers,
    is_bow_tie,
    polygon_area,
    segmentation_mask,
)
from rsvl_data.errors import DataError


@pytest.mark.parametrize(
    ("box", "expected", "changed"),
    [
        ((10, 20, 40, 60), (10, 20, 40, 60), False),
        ((0, 0, 128, 100), (0, 0, 128, 100), False),
        ((10.5, 20.25, 41, 61), (10.5, 20.25, 41, 61), False),
        ((-15, 10, 25, 40), (0, 10, 25, 40), True),
        ((100, 90, 160, 1e12), (100, 90, 128, 100), True),
    ],
)
def test_boxes_that_are_taken(box, expected, changed):
    assert box_in_image(box, 128, 100) == (expected, changed)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((60, 60, 40, 50), "inverted or smaller than a pixel$"),
        ((50, 50, 50, 70), "smaller than a pixel$"),
        ((0.1, 0.2, 0.4, 0.6), "fractions of the image"),
        ((300, 300, 320, 320), "outside the image of 128 x 100"),
        ((0, 99.5, 20, 130), "outside the image"),
    ],
)
def test_boxes_that_are_refused(box, message):
    with pytest.raises(BadGeometry, match=message) as caught:
        box_in_image(box, 128, 100)
    assert caught.value.reason == "bad_box"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "bad_box"),
        ("1234", "bad_box"),
        ([1, 2, 3], "bad_box"),
        ([1, 2, 3, "d"], "bad_box"),
        ([1, 2, 3, None], "bad_box"),
        ([1, 2, 3, 10**400], "bad_box"),
        ([1, 2, 3, math.nan], "bad_number"),
        ([1, 2, 3, "1e400"], "bad_number"),
    ],
)
def test_numbers_that_are_none(values, reason):
    with pytest.raises(BadGeometry) as caught:
        finite_numbers(values, 4)
    assert caught.value.reason == reason and len(str(caught.value)) < 300


def test_numbers_given_as_text():
    assert finite_numbers(["1", 2, 3.5, "4"], 4) == ([1, 2, 3.5, 4], True)
    assert finite_numbers([1, 2, 3.5, 4], 4) == ([1, 2, 3.5, 4], False)


@pytest.mark.parametrize("flat", [None, [], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [0, 0, 1e300, 0, 0, 1e300]])
def test_polygons_that_are_none(flat):
    with pytest.raises(BadGeometry, match="three points|leaves every image"):
        corners(flat)


def test_polygon_by_hand():
    triangle = corners([0, 0, 4, 0, 0, 3])
    assert polygon_area(triangle) == polygon_area(triangle[::-1]) == 6
    assert box_of_points(triangle) == (0, 0, 4, 3)
    assert polygon_area([]) == 0


@pytest.mark.parametrize(
    ("polygon", "area"),
    [
        ([(1, 1), (3, 1), (3, 3), (1, 3)], 4),
        ([(-5, -5), (5, -5), (5, 5), (-5, 5)], 25),
        ([(-10, 5), (5, -10), (20, 5), (5, 20)], 100),
        ([(20, 20), (30, 20), (30, 30)], 0),
    ],
)
def test_clipped_polygons(polygon, area):
    for turned in (polygon, polygon[::-1]):
        clipped = clip_polygon(turned, 10, 10)
        assert polygon_area(clipped) == pytest.approx(area)
        assert all(0 <= x <= 10 and 0 <= y <= 10 for x, y in clipped)


def test_bow_tie():
    assert is_bow_tie([(10, 10), (50, 40), (50, 10), (10, 40)])
    assert is_bow_tie([(10, 10), (50, 10), (10, 40), (50, 40)])
    assert not is_bow_tie([(10, 10), (50, 10), (50, 40), (10, 40)])
    assert not is_bow_tie([(10, 10), (10, 10), (50, 40), (10, 40)])


# --- run lengths


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_compressed_runs_equal_pycocotools(density):
    coco_mask = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(0)
    for shape in ((1, 1), (3, 700), (50, 41)):
        mask = generator.random(shape) < density
        runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        runs = {"size": list(shape), "counts": runs["counts"].decode()}
        assert (segmentation_mask(runs, shape[1], shape[0]) == mask).all()
        assert (segmentation_mask([runs], shape[1], shape[0]) == mask).all()


def test_plain_runs_go_down_the_columns():
    mask = segmentation_mask({"size": [2, 3], "counts": [1, 3, 2]}, 3, 2)
    assert mask.astype(int).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert box_of_mask(mask) == (0, 0, 2, 2)
    assert box_of_mask(np.zeros((2, 2), bool)) is None


def test_polygon_masks_cover_the_polygon():
    pytest.importorskip("pycocotools")
    mask = segmentation_mask([[2, 2, 8, 2, 8, 6, 2, 6], [10, 1, 14, 1, 14, 3, 10, 3]], 20, 10)
    assert mask.shape == (10, 20) and mask[4, 5] and mask[2, 12] and not mask[8, 5]
    assert mask.sum() == pytest.approx(24 + 8, abs=8)


def test_polygons_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(DataError, match=r"rsvl\[boxes\]"):
        segmentation_mask([[2, 2, 8, 2, 8, 6]], 20, 10)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [2, 3], "counts": [1, 3]}, "bad_rle"),
        ({"size": [2, 3], "counts": [0, 7]}, "bad_rle"),
        ({"size": [2, 3], "counts": [4, -1, 3]}, "bad_rle"),
        ({"size": [2, 3], "counts": "~~~%%"}, "bad_rle"),
        ({"size": [2, 3], "counts": "oooooooooooooooooooo"}, "bad_rle"),
        ({"size": [2, 3], "counts": "o"}, "bad_rle"),
        ({"size": [2, 3], "counts": None}, "bad_rle"),
        ({"size": "2x3", "counts": [6]}, "bad_rle"),
        ({"size": [2**31 - 1, 2**31 - 1], "counts": "0"}, "too_large"),
        ({"size": [3, 2], "counts": [6]}, "size_mismatch"),
        ("POLYGON((1 1, 2 2))", "bad_rle"),
        (None, "bad_rle"),
        ([], "bad_rle"),
        ([[1, 2, 3]], "bad_polygon"),
    ],
)
def test_bad_runs(segmentation, reason):
    with pytest.raises(BadGeometry) as caught:
        segmentation_mask(segmentation, 3, 2)
    assert caught.value.reason == reason


def test_bad_runs_of_the_fixture(shared):
    folder = shared / "fixtures" / "bad"
    [expected] = [
        case for case in json.loads((folder / "expected.json").read_text())["files"] if case["file"] == "masks/rle.json"
    ]
    given = {case["case"]: case["segmentation"] for case in json.loads((folder / "masks" / "rle.json").read_text())}
    assert {case["case"] for case in expected["cases"]} == set(given)
    for case in expected["cases"]:
        if case["outcome"] == "accept":
            assert segmentation_mask(given[case["case"]], 96, 96).sum() == case["area_px"]
        else:
            with pytest.raises(BadGeometry) as caught:
                segmentation_mask(given[case["case"]], 96, 96)
            assert caught.value.reason == case["reason"], case["case"]
