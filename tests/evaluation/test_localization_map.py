import numpy as np
import pytest

from evaluation.localization_map import CellMap, Window, grey_levels, heat_map, mean_similarity, median_blur, windows
from evaluation.metrics.localization import localization
from rsvl_data.errors import OptionError

AUTHORS = "semantic_localization_metrics"


def seen_windows(height, width, scales_px=(256, 512, 768), protocol="rsvl"):
    return [window.seen(height, width) for window in windows(height, width, scales_px, protocol)]


def plain_mean(seen, similarity, height, width):
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (top, bottom, left, right), value in zip(seen, similarity):
        total[top:bottom, left:right] += value
        count[top:bottom, left:right] += 1
    return total / count, count


# --- Golden numbers of the authors' code ---


def test_windows_are_those_of_the_authors(golden):
    facts, _ = golden("selo_windows")
    for size, case in facts["images"].items():
        height, width = map(int, size.split("x"))
        found = windows(height, width, facts["scales"], AUTHORS)
        assert [list(window) for window in found] == case["unique_windows_r0_r1_c0_c1_in_first_seen_order"], size
        negative = [list(window.seen(height, width)) for window in found if min(window) < 0]
        assert negative == case["effective_windows_if_negative"]
        _, count = plain_mean([window.seen(height, width) for window in found], np.ones(len(found)), height, width)
        assert (count.min(), count.max(), count.sum()) == (case["coverage_min"], case["coverage_max"], case["coverage_sum"])


def test_map_and_blur_are_those_of_the_authors(golden):
    facts, arrays = golden("selo_map")
    height, width = facts["shape"]
    seen = [Window(*map(int, row)) for row in arrays["windows"]]
    assert set(seen) == set(windows(height, width, facts["scales"], AUTHORS))
    similarity = mean_similarity(seen, arrays["similarity"], height, width)
    floats = similarity.pixels()
    for name in ("min", "max", "mean"):
        assert getattr(floats, name)() == pytest.approx(facts["float_map"][name], abs=1e-9)
    before = grey_levels(similarity)
    differing = before.pixels() != arrays["map_before_blur"]
    assert differing.mean() <= 0.001 and np.abs(before.pixels().astype(int) - arrays["map_before_blur"]).max() <= 1
    after = median_blur(before, facts["median_blur"])
    assert np.abs(after.astype(int) - arrays["map_after_blur"]).max() <= 1
    found, official = localization(after, facts["regions"], AUTHORS), facts["metrics_on_map_after_blur"]
    for name in ("Rsu", "Ras", "Rda", "Rmi"):
        assert getattr(found, name.lower()) == pytest.approx(official[name], abs=1e-6)


# --- Windows ---


@pytest.mark.parametrize("size", [(1, 1), (100, 3000), (300, 2000), (512, 700), (769, 1300)])
def test_own_windows_lie_in_the_scene_and_cover_it(size):
    found = windows(*size)
    assert len(set(found)) == len(found) and all(window == window.seen(*size) for window in found)
    _, count = plain_mean(found, np.ones(len(found)), *size)
    assert count.min() >= 1
    assert all(0 <= top < bottom <= size[0] and 0 <= left < right <= size[1] for top, bottom, left, right in found)


def test_own_windows_differ_from_the_authors_only_where_a_side_is_short():
    assert windows(1000, 1500) == windows(1000, 1500, protocol=AUTHORS)
    ours, theirs = windows(512, 700), windows(512, 700, protocol=AUTHORS)
    assert Window(0, 512, 0, 700) in ours and Window(-256, 512, -68, 700) in theirs


def test_scales_say_which_windows_there_are():
    assert {bottom - top for top, bottom, _, _ in windows(600, 600, (100, 200))} == {100, 200}
    for scales in ((), (255,), (0,), (-2,)):
        with pytest.raises(OptionError, match="even numbers"):
            windows(600, 600, scales)


# --- Map and blur against plain versions ---


@pytest.mark.parametrize("protocol", ["rsvl", AUTHORS])
def test_mean_is_that_of_the_windows_over_a_pixel(protocol):
    for height, width in ((70, 130), (33, 20), (9, 300)):
        seen = seen_windows(height, width, (16, 32, 48), protocol)
        similarity = np.random.default_rng(0).normal(size=len(seen))
        plain, _ = plain_mean(seen, similarity, height, width)
        assert mean_similarity(seen, similarity, height, width).pixels() == pytest.approx(plain, abs=1e-12)
        order = np.random.default_rng(1).permutation(len(seen))
        again = mean_similarity([seen[i] for i in order], similarity[order], height, width)
        assert again.pixels() == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("size_px", [1, 3, 9, 31])
def test_median_is_that_of_the_window_with_borders_repeated(size_px):
    for height, width in ((40, 61), (5, 23), (1, 1)):
        seen = seen_windows(height, width, (8, 12))
        grey = grey_levels(mean_similarity(seen, np.random.default_rng(2).random(len(seen)), height, width))
        padded = np.pad(grey.pixels(), size_px // 2, mode="edge")
        every = np.lib.stride_tricks.sliding_window_view(padded, (size_px, size_px))
        assert np.array_equal(median_blur(grey, size_px), np.median(every, axis=(2, 3)).astype(np.uint8))


def test_median_wants_an_odd_size():
    grey = CellMap(np.array([0, 4]), np.array([0, 4]), np.zeros((1, 1), np.uint8))
    for size_px in (0, 2, 4097):
        with pytest.raises(OptionError, match="odd number"):
            median_blur(grey, size_px)


def test_the_best_window_is_the_brightest_and_scale_means_nothing():
    seen = seen_windows(900, 1200)
    similarity = np.random.default_rng(3).random(len(seen)) * 0.1
    similarity[[i for i, (top, bottom, left, right) in enumerate(seen) if top <= 300 < bottom and left <= 800 < right]] += 1
    found = heat_map(seen, similarity, 900, 1200)
    assert found.dtype == np.uint8 and found[300, 800] > 150 and found[800, 100] < 60
    moved = heat_map(seen, 3 * similarity - 7, 900, 1200)
    assert np.abs(found.astype(int) - moved).max() <= 1


def test_equal_similarities_make_a_blank_map():
    """Sums in another order leave a last bit, which must not become black and white."""
    seen = seen_windows(900, 1200)
    assert not heat_map(seen, np.full(len(seen), 0.1), 900, 1200).any()
