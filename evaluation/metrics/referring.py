"""Referring segmentation: a phrase, its true mask, the predicted one. Scores come from the pixels in both (intersection) and in either
(union) of every sample, as whole numbers.

cIoU, oIoU: sum of intersections over sum of unions; large objects count more. gIoU, mIoU: mean of the IoU of each sample.
P@t: share of samples whose IoU reaches t. The published codes differ where it matters, so a rule has a name:

    protocol    union of no pixel      P@t    where
    rsvl        IoU 1: right           IoU >= t, in whole numbers
    rmsin       IoU 0: wrong           >=     github.com/Lsan2401/RMSIN b4a9b27, test.py (and the LAVT family)
    rsrefseg2   nan, also the mean's   >      github.com/KyanChen/RSRefSeg2 7cda8cd, iou_metrics.py, the foreground (`_1`)
    lisa        IoU 1                  none   github.com/dvlab-research/LISA 3cb2d43, train_ds.py; adds 1e-5 to unions and to n
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from evaluation.bootstrap import OfSums, Statistic, share

ReferringProtocol = Literal["rsvl", "rmsin", "rsrefseg2", "lisa"]
THRESHOLDS_PERCENT = (50, 60, 70, 80, 90)


def mask_overlap(target: Bool[np.ndarray, "h w"], predicted: Bool[np.ndarray, "rows columns"]) -> tuple[int, int]:
    """Pixels of the intersection and of the union. Raises ValueError for masks of different size."""
    if target.shape != predicted.shape:
        size, other = (f"{mask.shape[1]} x {mask.shape[0]}" for mask in (predicted, target))
        raise ValueError(f"the predicted mask is {size} pixels, the target {other}")
    return int((target & predicted).sum()), int((target | predicted).sum())


def sample_ious(
    intersection: Int[np.ndarray, "n"], union: Int[np.ndarray, "n"], protocol: ReferringProtocol = "rsvl"
) -> Float[np.ndarray, "n"]:
    if protocol == "lisa":
        return np.where(union == 0, 1.0, intersection / (union + 1e-5))
    of_nothing = {"rsvl": 1.0, "rmsin": 0.0, "rsrefseg2": np.nan}[protocol]
    return np.divide(intersection, union, out=np.full(len(union), of_nothing), where=union > 0)


def precision_hits(
    intersection: Int[np.ndarray, "n"], union: Int[np.ndarray, "n"], percent: int, protocol: ReferringProtocol = "rsvl"
) -> Bool[np.ndarray, "n"]:
    """Which samples reach an IoU of `percent` / 100. Compared in whole numbers: 3 of 5 pixels is exactly 60 %."""
    if protocol == "rsrefseg2":
        return 100 * intersection > percent * union
    reached = 100 * intersection >= percent * union
    return reached if protocol == "rsvl" else reached & (union > 0)


def referring_statistics(
    intersection: Int[np.ndarray, "n"],
    union: Int[np.ndarray, "n"],
    protocol: ReferringProtocol = "rsvl",
    unit: Int[np.ndarray, "n"] | None = None,
) -> dict[str, Statistic]:
    """`ciou`, `giou` and, but for lisa, `precision@0.5` to `precision@0.9`, to resample over units (`unit[j]`: the image of sample j).

    Raises ValueError without samples, and if every union is empty: cIoU would be 0 / 0.
    """
    if not union.any():
        raise ValueError(f"{len(union)} samples without a pixel in target or prediction: there is nothing to overlap")
    mean = share(sample_ious(intersection, union, protocol), unit=unit)
    found: dict[str, Statistic] = {
        "ciou": _cumulative_iou(intersection, union, np.arange(len(union)) if unit is None else unit),
        "giou": _lisa_mean(mean, len(union)) if protocol == "lisa" else mean,
    }
    if protocol == "lisa":
        return found
    for percent in THRESHOLDS_PERCENT:
        hits = precision_hits(intersection, union, percent, protocol)
        found[f"precision@{percent / 100}"] = share(hits.astype(np.float64), unit=unit)
    return found


def _cumulative_iou(intersection: Int[np.ndarray, "n"], union: Int[np.ndarray, "n"], unit: Int[np.ndarray, "n"]) -> OfSums:
    """0 in a resample without a single pixel, as the published codes would have it."""
    hits, pixels = np.bincount(unit, weights=intersection), np.bincount(unit, weights=union)
    return OfSums(np.stack([hits, pixels], axis=1), lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1))


def _lisa_mean(mean: OfSums, num_samples: int) -> OfSums:
    return OfSums(mean.counts, lambda sums: mean.measure(sums) * num_samples / (num_samples + 1e-5))


def referring_metrics(
    intersection: Int[np.ndarray, "n"], union: Int[np.ndarray, "n"], protocol: ReferringProtocol = "rsvl"
) -> dict[str, float]:
    """Fractions. Under rsrefseg2 `giou` is nan as soon as one union is empty, as theirs is."""
    once = np.ones((1, len(union)))
    return {name: float(of(once)[0]) for name, of in referring_statistics(intersection, union, protocol).items()}


def category_ious(intersection: Int[np.ndarray, "n"], union: Int[np.ndarray, "n"], categories: Sequence[str]) -> dict[str, float]:
    """Mean IoU of the samples of each category, those with an empty union left out; their plain mean is RSRefSeg 2's `mean_iou`."""
    ious, names = sample_ious(intersection, union, "rsrefseg2"), np.array(categories)
    kept = ~np.isnan(ious)
    return {name: float(ious[kept & (names == name)].mean()) for name in dict.fromkeys(names[kept].tolist())}
