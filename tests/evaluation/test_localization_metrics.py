from collections import deque

import numpy as np
import pytest

from evaluation.metrics.heat_map_peaks import Peak, box_filter, maximum_filter, peaks, plateau_centres
from evaluation.metrics.localization import (
    BadRegions,
    Circle,
    Localization,
    circle_around,
    discrete_attention,
    localization,
    region_mask,
    rsu_of_even_map,
)
from evaluation.metrics.polygon_mask import even_odd_mask

AUTHORS = "semantic_localization_metrics"
SQUARE = [[20, 10], [60, 10], [60, 50], [20, 50]]


def blob(height: int, width: int, x: float, y: float, sigma_px: float = 40) -> np.ndarray:
    ys, xs = np.mgrid[:height, :width]
    return np.rint(255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma_px**2))).astype(np.uint8)


# --- Golden numbers of the authors' code ---


def test_indicators_are_those_of_the_authors(golden):
    facts, maps = golden("selo_metrics")[0], dict(np.load(_maps_path()))
    found = []
    for name in facts["finite_cases"]:
        case = facts["cases"][name]
        assert [list(circle_around(region)) for region in case["regions"]] == case["center_radius_xy_r"]
        candidates = peaks(maps[name], AUTHORS)
        assert [[peak.x, peak.y] for peak in candidates] == case["candidate_centers_xy_sorted"]
        assert [peak.probability for peak in candidates] == pytest.approx(case["candidate_probability"])
        mask = region_mask(case["regions"], *case["shape"], AUTHORS)
        assert mask.sum() == case["mask_area"]
        assert (mask.sum(1) * np.arange(len(mask))).sum() == case["mask_row_sums_checksum"]
        ours = localization(maps[name], case["regions"], AUTHORS)
        found.append(ours)
        for official in ("Rsu", "Ras", "Rda", "Rmi"):
            assert getattr(ours, official.lower()) == pytest.approx(case[official], abs=1e-6), (name, official)
    for official, mean in facts["mean_over_finite_cases"].items():
        assert np.mean([getattr(each, official.lower()) for each in found]) == pytest.approx(mean, abs=1e-6)
    rsu, ras, rda, rmi = facts["checks"]["Rmi_identity"]
    assert Localization(rsu, ras, rda).rmi == pytest.approx(rmi, abs=1e-5)


def test_what_gives_the_authors_nan_or_a_crash_is_refused_with_a_word(golden):
    facts, maps = golden("selo_metrics")[0], dict(np.load(_maps_path()))
    outside, flat = facts["cases"]["region_outside"], facts["cases_where_the_official_code_raises"]["degenerate_region"]
    for protocol in ("rsvl", AUTHORS):
        with pytest.raises(BadRegions, match="no pixel in the image of 1100 x 900") as error:
            localization(maps["region_outside"], outside["regions"], protocol)
        assert error.value.reason == "region_outside"
        with pytest.raises(BadRegions, match="no extent") as error:
            localization(maps["degenerate_region"], flat["regions"], protocol)
        assert error.value.reason == "degenerate_region"


def test_the_own_protocol_mends_the_shift_and_the_overlap(golden):
    facts, maps = golden("selo_metrics")[0], dict(np.load(_maps_path()))
    name = "single_centred_plateau"  # of 160 px from 280 and 240: centre 359.5, 319.5
    assert [peak[:2] for peak in peaks(maps[name], "rsvl")] == [(359, 319)]
    assert [peak[:2] for peak in peaks(maps[name], AUTHORS)] == [(362, 322)]
    case = facts["cases"]["concave_overlapping_and_clipped"]
    union = region_mask(case["regions"], *case["shape"], "rsvl")
    assert union.sum() > case["mask_area"] and not (region_mask(case["regions"], *case["shape"], AUTHORS) & ~union).any()


def _maps_path():
    from shared_folder import SHARED

    return SHARED / "fixtures" / "evaluation" / "selo_maps.npz"


# --- Laws ---


def test_a_map_that_points_at_the_region_is_near_perfect():
    found = localization(blob(300, 400, 200, 150), [[[160, 110], [240, 110], [240, 190], [160, 190]]])
    assert found.rda == 1 and found.ras < 0.02 and found.rsu > 0.9 and found.rmi > 0.9


def test_a_map_that_points_elsewhere_is_near_nothing():
    found = localization(blob(300, 400, 350, 250), [[[10, 10], [80, 10], [80, 80], [10, 80]]])
    assert found.rda == 0 and found.ras == pytest.approx(1) and found.rsu < 0.01


@pytest.mark.parametrize("protocol", ["rsvl", AUTHORS])
def test_order_of_regions_and_start_of_a_polygon_mean_nothing(protocol):
    image, other = blob(200, 300, 120, 90), [[150, 100], [220, 120], [180, 170]]
    turned = [*SQUARE[2:], *SQUARE[:2]]
    assert _close(localization(image, [SQUARE, other], protocol), localization(image, [other, turned], protocol))


def _close(one: Localization, other: Localization) -> bool:
    return (one.rsu, one.ras, one.rda) == pytest.approx((other.rsu, other.ras, other.rda), abs=1e-12)


def test_the_own_protocol_turns_with_the_map():
    """A half turn of map and region changes nothing but the pixel that whole centres are cut to."""
    image = blob(301, 401, 130, 120)
    region = [[100, 90], [170, 90], [170, 160], [100, 160]]
    turned = [[400 - x, 300 - y] for x, y in region]
    there, back = localization(image, [region]), localization(image[::-1, ::-1].copy(), [turned])
    assert (there.rsu, there.rda) == pytest.approx((back.rsu, back.rda)) and there.ras == pytest.approx(back.ras, abs=0.02)


def test_a_region_given_twice_counts_once_in_the_area_of_the_own_protocol():
    image = blob(100, 100, 40, 30)
    assert localization(image, [SQUARE, SQUARE]).rsu == pytest.approx(localization(image, [SQUARE]).rsu)
    # even-odd leaves the outline alone
    assert region_mask([SQUARE, SQUARE], 100, 100, AUTHORS).sum() < region_mask([SQUARE], 100, 100, AUTHORS).sum() / 5


def test_many_candidates_are_worth_less_than_one():
    circle = Circle(100, 100, 50)
    near, far, outside = Peak(100, 100, 1), Peak(130, 100, 1), Peak(100, 151, 1)
    assert discrete_attention(circle, []) == 0 and discrete_attention(circle, [near, outside]) == 1
    # by hand: both 15 px from their middle, 0.5 (1 - 15 / 50) + exp(-0.5 * 4)
    assert discrete_attention(circle, [near, far]) == pytest.approx(0.35 + np.exp(-2))
    assert discrete_attention(circle, [near, near]) == pytest.approx(0.5 + np.exp(-2))


@pytest.mark.parametrize("region", [SQUARE, [[0, 0], [99, 0], [99, 70], [0, 70]]])
def test_an_even_map_says_nothing_of_any_region(region):
    found = localization(np.full((100, 120), 90, np.uint8), [region])
    assert found.rsu == pytest.approx(rsu_of_even_map(), abs=1e-6) == pytest.approx(1 - np.exp(-0.707), abs=1e-6)


def test_maps_without_peaks_and_whole_regions():
    blank = np.zeros((80, 90), np.uint8)
    found = localization(blank, [SQUARE])
    assert (found.rsu, found.ras, found.rda) == pytest.approx((0, 1, 0))
    whole = [[0, 0], [90, 0], [90, 80], [0, 80]]
    assert localization(np.full((80, 90), 255, np.uint8), [whole]).rsu == 0
    assert localization(np.full((1, 1), 255, np.uint8), [[[-5, -5], [5, -5], [5, 5], [-5, 5]]]).rsu == 0


@pytest.mark.parametrize(
    ("regions", "reason"),
    [
        ([], "no_region"),
        ([[]], "degenerate_region"),
        ([[[5, 5]]], "degenerate_region"),
        ([[[5, 5], [np.nan, 9], [7, 7]]], "degenerate_region"),
        ([[[5, 5], [np.inf, 9], [7, 7]]], "degenerate_region"),
        ([SQUARE, [[500, 500], [600, 500], [600, 600]]], "region_outside"),
        ([[[1e9, 1e9], [2e9, 1e9], [2e9, 2e9]]], "region_outside"),
    ],
)
def test_regions_that_cannot_be_measured_by(regions, reason):
    with pytest.raises(BadRegions) as error:
        localization(blob(100, 100, 40, 30), regions)
    assert error.value.reason == reason


# --- Parts against plain versions ---


def test_box_filter_is_the_rounded_mean_of_the_mirrored_window():
    image = np.random.default_rng(0).integers(0, 256, (13, 700), dtype=np.uint8)
    for values in (image, image.T.copy()):  # more than a band of rows
        for size in (4, 5):
            before = size // 2
            padded = np.pad(values, (before, size - 1 - before), mode="reflect").astype(np.int64)
            sums = sum(padded[i : i + values.shape[0], j : j + values.shape[1]] for i in range(size) for j in range(size))
            assert np.array_equal(box_filter(values, size), np.rint(sums / size**2).astype(np.uint8))


def test_an_odd_box_filter_keeps_symmetry_and_an_even_one_moves():
    dot = np.zeros((41, 41), np.uint8)
    dot[15:26, 15:26] = 255
    odd, even = box_filter(dot, 7), box_filter(dot, 6)
    assert np.array_equal(odd, odd[::-1, ::-1]) and not np.array_equal(even, even[::-1, ::-1])


def test_maximum_filter_looks_at_every_pixel_of_its_window():
    image = np.random.default_rng(1).integers(0, 256, (17, 23), dtype=np.uint8)
    for size in (1, 2, 3, 6, 40):
        plain = np.empty_like(image)
        for y, x in np.ndindex(image.shape):
            top, left = y - size // 2, x - size // 2
            plain[y, x] = image[max(0, top) : top + size, max(0, left) : left + size].max()
        assert np.array_equal(maximum_filter(image, size), plain), size


def test_plateaus_touch_by_sides_and_corners():
    for seed in range(40):
        mask = np.random.default_rng(seed).random((12, 15)) < 0.35
        assert plateau_centres(mask) == flooded_centres(mask)
    assert plateau_centres(np.zeros((3, 3), bool)) == []


def flooded_centres(mask: np.ndarray) -> list[tuple[int, int]]:
    left, centres = mask.copy(), []
    for start in map(tuple, np.argwhere(mask)):
        if not left[start]:
            continue
        queue, group = deque([start]), []
        left[start] = False
        while queue:
            y, x = queue.popleft()
            group.append((y, x))
            for near in ((y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                if 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1] and left[near]:
                    left[near] = False
                    queue.append(near)
        ys, xs = zip(*group)
        centres.append((sum(xs) // len(xs), sum(ys) // len(ys)))
    return centres


def test_polygons_fill_outline_and_inside():
    mask = even_odd_mask([[[2, 1], [6, 1], [6, 4], [2, 4]]], 7, 9)
    assert np.argwhere(mask).min(0).tolist() == [1, 2] and np.argwhere(mask).max(0).tolist() == [4, 6] and mask.sum() == 20
    hole = even_odd_mask([[[0, 0], [8, 0], [8, 8], [0, 8]], [[2, 2], [6, 2], [6, 6], [2, 6]]], 9, 9)
    assert not hole[3:6, 3:6].any() and hole[2, 2:7].all() and hole[0].all()


def test_triangles_hold_the_pixels_inside_them():
    """Against shapely, but for the pixels along the outline."""
    shapely = pytest.importorskip("shapely")
    generator = np.random.default_rng(2)
    for _ in range(60):
        points = generator.integers(0, 30, (3, 2)).tolist()
        triangle = shapely.Polygon(points)
        if triangle.area == 0:
            continue
        mask = even_odd_mask([points], 30, 30)
        for y, x in np.ndindex(30, 30):
            distance = triangle.exterior.distance(shapely.Point(x, y))
            if distance > 1:
                assert mask[y, x] == triangle.contains(shapely.Point(x, y)), (points, x, y)
