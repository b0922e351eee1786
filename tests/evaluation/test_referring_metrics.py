import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.bootstrap import intervals
from evaluation.metrics.referring import (
    category_ious,
    mask_overlap,
    precision_hits,
    referring_metrics,
    referring_statistics,
    sample_ious,
)


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "fixtures/evaluation"
    case, arrays = (
        json.loads((folder / "referring_segmentation.json").read_text()),
        np.load(folder / "referring_segmentation.npz"),
    )
    n, h, w = arrays["shape"]
    masks = [np.unpackbits(arrays[name], axis=1, count=h * w).reshape(n, h, w) > 0 for name in ("target", "prediction")]
    overlaps = np.array([mask_overlap(*pair) for pair in zip(*masks)])
    assert (overlaps[:, 0] == arrays["intersection"]).all() and (overlaps[:, 1] == arrays["union"]).all()
    return case, overlaps[:, 0], overlaps[:, 1]


def named(scores, iou="mIoU", overall="oIoU", precision="P@{}", times=100):
    names = {"giou": iou, "ciou": overall} | {f"precision@0.{k}": precision.format(f"0.{k}") for k in range(5, 10)}
    return {names[name]: times * value for name, value in scores.items()}


def test_rmsin_golden(golden):
    case, intersection, union = golden
    ours = named(referring_metrics(intersection, union, "rmsin"))
    assert ours == pytest.approx(case["rmsin"]["unrounded_percent"], abs=1e-9)
    assert {k: round(v, 2) for k, v in ours.items()} == pytest.approx(case["rmsin"]["printed_percent"], abs=0.005)


def test_rsrefseg2_golden(golden):
    case, intersection, union = golden
    for kept, key in ((union >= 0, "all_samples"), (union > 0, "without_the_empty_union_sample")):
        theirs = case["rsrefseg2"][key]
        ours = named(referring_metrics(intersection[kept], union[kept], "rsrefseg2"), "gIoU_1", "cIoU_1", "seg_acc_{}_1")
        assert ours == pytest.approx({name: float(theirs[name]) for name in ours}, abs=1e-3, nan_ok=True)
        by_category = category_ious(intersection[kept], union[kept], np.array(case["category"])[kept].tolist())
        assert {k: 100 * v for k, v in by_category.items()} == pytest.approx({k: theirs[k] for k in by_category}, abs=1e-3)
        assert 100 * np.mean(list(by_category.values())) == pytest.approx(theirs["mean_iou"], abs=1e-3)


def test_lisa_golden(golden):
    case, intersection, union = golden
    ours = referring_metrics(intersection, union, "lisa")
    assert ours == pytest.approx({"giou": case["lisa"]["giou"], "ciou": case["lisa"]["ciou"]}, abs=1e-6)


def test_ours_golden(golden):
    case, intersection, union = golden
    ours, right = referring_metrics(intersection, union), case["mathematical"]
    assert ours["giou"] == pytest.approx(right["iou_mean_all_empty_union_as_1"], abs=1e-12)
    assert ours["ciou"] == pytest.approx(right["iou_cumulative"], abs=1e-12)
    of_nothing = (union == 0).mean()
    for threshold, value in right["precision_ge"].items():
        assert ours[f"precision@{threshold}"] == pytest.approx(value + of_nothing, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=20).filter(lambda s: any(map(sum, s))))
def test_rules_keep_their_order(samples):
    intersection = np.array([i for i, _ in samples])
    union = intersection + [more for _, more in samples]
    rsvl, rmsin, strict = (referring_metrics(intersection, union, p) for p in ("rsvl", "rmsin", "rsrefseg2"))
    assert rmsin["giou"] <= rsvl["giou"]
    assert rsvl["ciou"] == rmsin["ciou"] == strict["ciou"]
    for name in set(rsvl) - {"ciou", "giou"}:
        assert strict[name] <= rmsin[name] <= rsvl[name]
    assert rsvl["precision@0.9"] <= rsvl["precision@0.5"]


def test_exactly_at_the_threshold():
    for percent in (50, 60, 70, 80, 90):
        at, union = np.array([percent // 10]), np.array([10])
        assert precision_hits(at, union, percent).all() and precision_hits(at, union, percent, "rmsin").all()
        assert not precision_hits(at, union, percent, "rsrefseg2").any()


def test_of_nothing():
    nothing = np.array([0])
    assert sample_ious(nothing, nothing).tolist() == sample_ious(nothing, nothing, "lisa").tolist() == [1]
    assert sample_ious(nothing, nothing, "rmsin").tolist() == [0]
    assert np.isnan(sample_ious(nothing, nothing, "rsrefseg2")).all()
    assert precision_hits(nothing, nothing, 50).all() and not precision_hits(nothing, nothing, 50, "rmsin").any()
    with pytest.raises(ValueError, match="1 samples without a pixel"):
        referring_metrics(nothing, nothing)


def test_a_resample_of_nothing_but_empty_masks():
    found = intervals(referring_statistics(np.array([5, 0]), np.array([5, 0])), 2)
    assert (found["ciou"].value, found["ciou"].low) == (1, 0)


def test_masks_of_different_size():
    with pytest.raises(ValueError, match="predicted mask is 3 x 2 pixels, the target 2 x 3"):
        mask_overlap(np.zeros((3, 2), bool), np.zeros((2, 3), bool))


def test_phrases_of_one_image_are_drawn_together():
    intersection, union = np.array([10, 10, 0, 0]), np.full(4, 10)
    together = referring_statistics(intersection, union, unit=np.array([0, 0, 1, 1]))
    apart = referring_statistics(intersection, union)
    wide, narrow = intervals(together, 2)["giou"], intervals(apart, 4)["giou"]
    assert (wide.value, narrow.value) == (0.5, 0.5)
    assert (wide.low, wide.high) == (0, 1)
    assert intervals(referring_statistics(intersection, union, "lisa"), 4)["giou"].value == pytest.approx(0.5, abs=1e-5)
