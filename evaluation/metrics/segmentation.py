"""Semantic segmentation from one confusion matrix over the whole set, in integers: rows are the truth, columns the prediction.

Rule for absent classes: a class that occurs neither in the labels nor in the predictions has no IoU and no F1 (nan) and leaves their
means; a class only predicted or never found has 0 and stays. Recall is nan for a class without labels, precision for one never
predicted. Ignored pixels are removed before anything is counted, from the prediction too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Integer, Num
from numpy.typing import ArrayLike

from evaluation.bootstrap import OfSums

# Confusion matrices [..., c, c] to a number each, or to one a class.
Measure = Callable[[np.ndarray], np.ndarray]

_UNDRAWN = 1e-9  # far less than a pixel of a drawn image counts


def pixel_confusion(
    labels: Integer[np.ndarray, "h w"],
    predicted: Integer[np.ndarray, "rows columns"],
    num_classes: int,
    ignore_index: int | None = 255,
) -> Int[np.ndarray, "{num_classes} {num_classes}"]:
    """Pixels of one image by true and predicted class, int64.

    Raises ValueError for sizes that differ, labels that are neither a class nor `ignore_index`, and predictions that are no class at
    a pixel that counts. What is predicted at ignored pixels is never looked at.
    """
    if labels.shape != predicted.shape:
        raise ValueError(f"prediction is {_size(predicted)}, label {_size(labels)}; both need the size of the image")
    counted = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
    for what, ids in (("label", labels), ("prediction", predicted)):
        _refuse_unknown_ids(what, ids, counted, num_classes)
    wide = np.dtype(np.uint16 if num_classes <= 255 else np.int64)  # what overflows is an ignored pixel, set below
    pairs = np.multiply(labels.astype(wide), num_classes, dtype=wide) + predicted.astype(wide)
    pairs[~counted] = num_classes**2
    counts = np.bincount(pairs.ravel(), minlength=num_classes**2 + 1)[:-1]
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def _size(ids: np.ndarray) -> str:
    return f"{ids.shape[1]} x {ids.shape[0]} pixels"


def _refuse_unknown_ids(what: str, ids: np.ndarray, counted: np.ndarray, num_classes: int) -> None:
    unknown = counted & ((ids < 0) | (ids >= num_classes))
    if unknown.any():
        some = ", ".join(map(str, np.unique(ids[unknown])[:5]))
        raise ValueError(
            f"{what} ids {some} at {unknown.sum()} pixels; with {num_classes} classes 0 to {num_classes - 1} is allowed"
        )


@dataclass
class SegmentationCounts:
    """Counts of a set, image by image: what every metric and its bootstrap interval are computed from.

    An image whose pixels are all ignored says nothing: it is counted in `num_without_labels` and is no unit of the bootstrap.
    """

    num_classes: int
    ignore_index: int | None = 255
    per_image: list[Int[np.ndarray, "c c"]] = field(default_factory=list)
    num_without_labels: int = 0

    def add(self, labels: Integer[np.ndarray, "h w"], predicted: Integer[np.ndarray, "rows columns"]) -> bool:
        """False if the image had no pixel that counts. Raises as `pixel_confusion`."""
        counts = pixel_confusion(labels, predicted, self.num_classes, self.ignore_index)
        if not counts.any():
            self.num_without_labels += 1
            return False
        self.per_image.append(counts)
        return True

    def stacked(self) -> Int[np.ndarray, "n c c"]:
        """Raises ValueError if no image had a pixel that counts: there is nothing to divide by."""
        if not self.per_image:
            raise ValueError(
                f"no pixel to score: {self.num_without_labels} images, all of their pixels ignored (id {self.ignore_index})"
            )
        return np.stack(self.per_image)

    def total(self) -> Int[np.ndarray, "c c"]:
        return self.stacked().sum(0)


def _ratio(over: ArrayLike, under: ArrayLike) -> np.ndarray:
    """nan for 0 / 0. An array without axes for two numbers."""
    over, under = np.asarray(over), np.asarray(under)
    return np.divide(over, under, out=np.full(np.broadcast(over, under).shape, np.nan), where=under > 0)


def _hits(counts: np.ndarray) -> np.ndarray:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def iou(counts: Num[np.ndarray, "*b c c"]) -> Float[np.ndarray, "*b c"]:
    """Of each class: pixels in both over pixels in either."""
    hits = _hits(counts)
    return _ratio(hits, counts.sum(-1) + counts.sum(-2) - hits)


def recall(counts: Num[np.ndarray, "*b c c"]) -> Float[np.ndarray, "*b c"]:
    """Also called class accuracy."""
    return _ratio(_hits(counts), counts.sum(-1))


def precision(counts: Num[np.ndarray, "*b c c"]) -> Float[np.ndarray, "*b c"]:
    return _ratio(_hits(counts), counts.sum(-2))


def f1(counts: Num[np.ndarray, "*b c c"]) -> Float[np.ndarray, "*b c"]:
    """2TP / (2TP + FP + FN), also called Dice. 0, not nan, for a class that occurs and is never hit."""
    return _ratio(2 * _hits(counts), counts.sum(-1) + counts.sum(-2))


def pixel_accuracy(counts: Num[np.ndarray, "*b c c"]) -> Float[np.ndarray, "*b"]:
    """Share of the counted pixels that are right: aAcc, overall accuracy (OA)."""
    return _ratio(_hits(counts).sum(-1), counts.sum((-1, -2)))


def frequency_weighted_iou(counts: Num[np.ndarray, "*b c c"]) -> Float[np.ndarray, "*b"]:
    share = _ratio(counts.sum(-1), counts.sum((-1, -2))[..., None])
    return np.asarray(np.nansum(share * iou(counts), -1))


def mean_over_classes(per_class: Float[np.ndarray, "*b c"], classes: Sequence[int] | None = None) -> Float[np.ndarray, "*b"]:
    """Over `classes` (all of them unless given) that have a value; nan if none has."""
    chosen = per_class if classes is None else per_class[..., list(classes)]
    return _ratio(np.nansum(chosen, -1), (~np.isnan(chosen)).sum(-1))


def measures(classes: Sequence[int] | None = None) -> dict[str, Measure]:
    """What a Result lists. `classes` are those of the means (background or clutter may be left out); `aacc` counts all pixels."""
    per_class = {"miou": iou, "macc": recall, "mf1": f1, "mprecision": precision}
    return {name: _mean_of(of, classes) for name, of in per_class.items()} | {"aacc": pixel_accuracy}


def _mean_of(per_class: Measure, classes: Sequence[int] | None) -> Measure:
    return lambda counts: mean_over_classes(per_class(counts), classes)


def over_images(measure: Measure, per_image: Int[np.ndarray, "n *counts"]) -> OfSums:
    """The measure of the images drawn, for `evaluation.bootstrap.intervals`: their counts are summed first, as in the whole set.

    Means are always over the classes of the whole set: one that no drawn image has keeps the value it has there.
    """
    return OfSums(per_image.astype(np.float64), measure, undrawn=_UNDRAWN)  # exact up to 2**53 pixels


def mmseg_metrics(counts: Int[np.ndarray, "c c"]) -> dict[str, float]:
    """Means as mmseg 1.2.2 `IoUMetric` prints them, as fractions and under its names.

    Its mFscore is too high where a class is never hit (`_harmonic_f1`); its mDice is right.
    """
    per_class = {"mIoU": iou, "mAcc": recall, "mDice": f1, "mFscore": _harmonic_f1, "mPrecision": precision, "mRecall": recall}
    means = {name: float(mean_over_classes(of(counts))) for name, of in per_class.items()}
    return {"aAcc": float(pixel_accuracy(counts))} | means


def geoseg_metrics(counts: Int[np.ndarray, "c c"]) -> dict[str, float]:
    """Potsdam and Vaihingen as GeoSeg has them: the last class is clutter.

    https://github.com/WangLibo1995/GeoSeg/blob/9453fe48209c4626b29e35e61bab93b61212c4b1/vaihingen_test.py
    mIoU and mF1 leave clutter out but OA keeps it, so here it says so, beside the two OA without it that others use: without pixels
    labelled clutter, and also without pixels predicted as clutter. mF1 is made of `_harmonic_f1`, as in mmseg.
    """
    return {
        "mIoU_without_clutter": float(mean_over_classes(iou(counts)[:-1])),
        "mF1_without_clutter": float(mean_over_classes(_harmonic_f1(counts)[:-1])),
        "OA_with_clutter": float(pixel_accuracy(counts)),
        "OA_clutter_labels_dropped": float(_ratio(_hits(counts)[:-1].sum(), counts[:-1].sum())),
        "OA_clutter_dropped": float(pixel_accuracy(counts[:-1, :-1])),
        "FWIoU": float(frequency_weighted_iou(counts)),
    }


def _harmonic_f1(counts: Int[np.ndarray, "c c"]) -> Float[np.ndarray, "c"]:
    """F1 out of precision and recall, nan for a class that is never hit: it leaves the mean, which is then too high. `f1` is 0 there."""
    return np.where(_hits(counts) > 0, f1(counts), np.nan)
