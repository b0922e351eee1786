"""Windows, their merging and resizing by rows: the official numbers, and plain versions of the whole."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rsvl_segment.resample import RowResizer, resized_rows
from rsvl_segment.windows import RowMerger, padding, row_chunks, spans, windows


@pytest.fixture
def official(shared):
    folder = shared / "fixtures" / "evaluation"
    return json.loads((folder / "ovss.json").read_text()), np.load(folder / "ovss.npz")


def test_windows_are_the_official_ones(official):
    facts = official[0]["sliding_windows"]
    assert len(facts["images"]) == 9
    for name, case in facts["images"].items():
        height, width = map(int, name.split("x"))
        found = windows(height, width, facts["crop"], facts["stride"])
        assert [list(window) for window in found] == case["windows_y0_y1_x0_x1"], name
        hits = np.zeros((height, width), int)
        for y0, y1, x0, x1 in found:
            hits[y0:y1, x0:x1] += 1
        assert (hits.min(), hits.max(), hits.sum()) == (case["count_min"], case["count_max"], case["count_sum"])
        for y0, y1, x0, x1 in found:
            left, right, top, bottom = padding(y1 - y0, x1 - x0, (facts["patch"], facts["patch"]))
            padded = [y1 - y0 + top + bottom, x1 - x0 + left + right, top, left]
            assert padded in case["padded_crop_h_w_and_offset_top_left"]


@pytest.mark.parametrize("name", ["square448", "odd"])
def test_constant_windows_merge_as_officially(official, name):
    case, values = official[0]["constant_windows"]["cases"][name], official[1][f"{name}_window_value"]
    merged = merge(*case["image"], case["crop"], case["stride"], [torch.from_numpy(value)[:, None, None] for value in values])
    assert merged.double().sum((1, 2)).numpy() == pytest.approx(case["merged_sum_per_query"], rel=1e-5)
    golden = official[1][f"{name}_merged_every_16th_pixel"]
    np.testing.assert_allclose(merged[:, ::16, ::16].numpy(), golden, atol=1e-5)


def merge(height, width, window, stride, values):
    """By rows, as scenes are."""
    merger, parts = RowMerger(len(values[0]), height, width, window), []
    for place, value in zip(windows(height, width, window, stride), values, strict=True):
        if place.y0 > merger.top:
            parts.append(merger.finished(place.y0))
        merger.add(place, value.expand(-1, place.y1 - place.y0, place.x1 - place.x0))
    return torch.cat([*parts, merger.finished(height)], 1)


@pytest.mark.parametrize("size", [(50, 70), (16, 16), (17, 33), (5, 40), (40, 5), (1, 1)])
@pytest.mark.parametrize("stride", [1, 5, 8, 16])
def test_merging_by_rows_is_merging_the_whole(size, stride):
    generator = torch.Generator().manual_seed(0)
    places = windows(*size, 16, stride)
    values = [torch.randn(3, y1 - y0, x1 - x0, generator=generator) for y0, y1, x0, x1 in places]
    sums, hits = torch.zeros(3, *size), torch.zeros(size)
    for index in torch.randperm(len(places), generator=generator).tolist():  # the order of windows is no matter
        y0, y1, x0, x1 = places[index]
        sums[:, y0:y1, x0:x1] += values[index]
        hits[y0:y1, x0:x1] += 1
    assert hits.min() >= 1  # every pixel is covered
    torch.testing.assert_close(merge(*size, 16, stride, values), sums / hits, atol=1e-5, rtol=1e-5)


def test_constants_stay_constant():
    values = [torch.full((1, 1, 1), 0.37)] * len(windows(61, 47, 16, 7))
    torch.testing.assert_close(merge(61, 47, 16, 7, values), torch.full((1, 61, 47), 0.37))


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_that_leaves_pixels_out_is_refused(stride):
    with pytest.raises(ValueError, match="allowed is 1 to 16"):
        spans(50, 16, stride)


def test_a_window_above_the_rows_handed_out_is_refused():
    merger = RowMerger(1, 32, 16, 16)
    merger.finished(8)
    with pytest.raises(ValueError, match="begins at row 8"):
        merger.add(windows(16, 16, 16, 16)[0], torch.zeros(1, 16, 16))


# torch places pixels in float32: on noise that is worth 2e-5
SIZES = [
    ((40, 30), (40, 30)),
    ((40, 30), (90, 61)),
    ((97, 83), (31, 17)),
    ((33, 50), (66, 25)),
    ((7, 9), (1, 1)),
    ((1, 1), (5, 3)),
]


@pytest.mark.parametrize("size, new_size", SIZES)
@pytest.mark.parametrize("antialias", [False, True])
def test_resizing_by_rows_is_resizing_the_whole(size, new_size, antialias):
    whole = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(whole[None], size=new_size, mode="bilinear", align_corners=False, antialias=antialias)[0]

    def read(start, stop):
        return whole[:, start:stop]

    for pieces in (1, 3):
        edges = [round(new_size[0] * i / pieces) for i in range(pieces + 1)]
        parts = [part for rows in pairwise(edges) for part in resized_rows(read, size, new_size, rows, antialias=antialias)]
        torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size, new_size", SIZES)
@pytest.mark.parametrize("band", [1, 4, 100])
def test_rows_that_arrive_in_bands_are_resized_as_a_whole(size, new_size, band):
    whole = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    resizer, parts, largest = RowResizer(size, new_size), [], 0
    for start in range(0, size[0], band):
        parts += list(resizer.push(whole[:, start : start + band]))
        largest = max(largest, 0 if resizer._rows is None else resizer._rows.shape[1])
    expected = F.interpolate(whole[None], size=new_size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-4, rtol=1e-4)
    assert largest <= band + 2 * (1 + size[0] // new_size[0]) + 4  # what is used up is let go


def test_chunks_hold_what_they_may():
    assert [(chunk.start, chunk.stop) for chunk in row_chunks(7, 10, max_values=30)] == [(0, 3), (3, 6), (6, 7)]
    assert len(list(row_chunks(3, 100, max_values=30))) == 3
