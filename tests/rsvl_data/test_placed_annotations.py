import math

import pytest

from rsvl_data.image_form import ImageForm
from rsvl_data.placed_annotations import place_geo, place_regions
from rsvl_data.sample import Geo, Region


def form(resize, size_px, **options):
    return ImageForm(size_px=size_px, resize=resize, **options)


def region(box, polygon=None, area_px=None):
    return Region(bbox=box, category="ship", category_id=3, caption="a ship", polygon=polygon, area_px=area_px)


def test_an_image_that_stays_keeps_its_regions():
    given = [region((1, 2, 30, 40), [(1, 2), (30, 2), (30, 40)], 500)]
    assert place_regions(given, ImageForm().placement(300, 200)) == (given, 0)


def test_a_region_is_scaled_and_padded():
    given = region((20, 40, 60, 100), [(20, 40), (60, 40), (60, 100)], 1200)
    [placed], outside = place_regions([given], form("keep_ratio", 100).placement(400, 200))
    assert placed.bbox == (10, 20, 30, 50) and placed.polygon == [(10, 20), (30, 20), (30, 50)] and placed.area_px == 300
    assert (placed.category, placed.category_id, placed.caption, outside) == ("ship", 3, "a ship", 0)
    [placed], _ = place_regions([given], form("border", 200).placement(400, 200))
    assert placed.bbox == (10, 70, 30, 100) and placed.area_px == 300
    [placed], _ = place_regions([region((0, 0, 10, 10))], form("keep_ratio", 600, upscale=True).placement(400, 200))
    assert placed.bbox == (0, 0, 30, 30) and placed.area_px is None


def test_the_whole_image_stays_the_whole_image():
    for size in ((301, 203), (640, 411)):
        placement = form("keep_ratio", 97).placement(*size)
        [placed], _ = place_regions([region((0, 0, *size))], placement)
        assert placed.bbox == (0, 0, placement.width, placement.height)


@pytest.mark.parametrize(
    ("box", "polygon", "area_px", "expected"),
    [
        ((150, 50, 250, 150), None, 10_000, ((25, 25, 75, 75), None, 2500)),  # inside
        ((0, 0, 90, 200), None, None, None),  # outside
        ((0, 0, 101, 200), None, None, None),  # half a pixel is left
        ((0, 0, 102, 200), None, None, ((0, 0, 1, 100), None, None)),
        ((0, 0, 200, 200), None, 40_000, ((0, 0, 50, 100), None, 5000)),  # the area was the box
        ((0, 0, 200, 200), None, 9_000, ((0, 0, 50, 100), None, None)),  # of a mask: what is left of it is not known
        ((0, 0, 200, 200), [(0, 0), (200, 0), (0, 200)], 20_000, ((0, 0, 50, 50), [(0, 50), (0, 0), (50, 0)], 1250)),
        ((0, 0, 110, 200), [(0, 0), (90, 0), (90, 200), (0, 200)], None, None),  # the box reaches in, the object does not
    ],
)
def test_a_crop_cuts(box, polygon, area_px, expected):
    """400 x 200 to 100: half the size, the 100 source pixels on the left and on the right are cut away."""
    placed, outside = place_regions([region(box, polygon, area_px)], form("center_crop", 100).placement(400, 200))
    assert outside == (expected is None)
    if expected is not None:
        [cut] = placed
        assert (cut.bbox, cut.area_px) == (expected[0], expected[2])
        assert (set(cut.polygon) if cut.polygon else None) == (set(expected[1]) if expected[1] else None)


def test_geo_facts():
    geo = Geo(lon=1, lat=2, gsd_m=0.5, footprint=[(0, 3), (2, 3), (2, 1), (0, 1)], place="x")
    placed = place_geo(geo, form("keep_ratio", 100).placement(400, 200))
    assert placed == geo.model_copy(update={"gsd_m": 1.0})
    assert place_geo(geo, form("border", 100).placement(400, 200)).footprint == geo.footprint
    cropped = place_geo(geo, form("center_crop", 100).placement(400, 200))
    assert cropped.footprint is None and (cropped.lon, cropped.lat, cropped.gsd_m) == (1, 2, 1.0)
    uneven = form("keep_ratio", 67).placement(301, 200)  # 101 x 67
    assert place_geo(geo, uneven).gsd_m == pytest.approx(0.5 * math.sqrt(301 * 200 / (101 * 67)))
    assert place_geo(Geo(lat=2, lon=1), uneven).gsd_m is None
