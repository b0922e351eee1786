"""How well the outlines of classes are met: boundary F1 of each class, within a tolerance in pixels.

Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013, section 3: precision is the share of predicted
boundary pixels with a true one at most `tolerance_px` away (Euclidean), recall the reverse, F1 their harmonic mean. They set the
tolerance to 0.75 % of the image diagonal and average over images; here it is stated in pixels and pixels are pooled over the set, so
that an image with a short outline does not count as much as one with a long one.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num
from scipy.ndimage import distance_transform_edt

CSURKA_DIAGONAL_SHARE = 0.0075


def csurka_tolerance_px(width: int, height: int) -> int:
    """At least 1."""
    return max(1, round(CSURKA_DIAGONAL_SHARE * float(np.hypot(width, height))))


def boundary_counts(
    labels: Integer[np.ndarray, "h w"],
    predicted: Integer[np.ndarray, "rows columns"],
    num_classes: int,
    tolerance_px: float,
    ignore_index: int | None = 255,
) -> Int[np.ndarray, "{num_classes} 4"]:
    """Of each class: true boundary pixels, those of them found, predicted boundary pixels, those of them right.

    A boundary pixel has a neighbour (of four) of another class. The edges of the image and of ignored regions are no boundaries.
    """
    if labels.shape != predicted.shape:
        raise ValueError(f"prediction and label differ in size: {predicted.shape} and {labels.shape} (height, width)")
    counted = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
    counts = np.zeros((num_classes, 4), np.int64)
    true_edges, predicted_edges = _boundary(labels, counted), _boundary(predicted, counted)
    for index in range(num_classes):
        true, found = true_edges & (labels == index), predicted_edges & (predicted == index)
        counts[index] = true.sum(), _near(true, found, tolerance_px), found.sum(), _near(found, true, tolerance_px)
    return counts


def _boundary(ids: Integer[np.ndarray, "h w"], counted: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    edges = np.zeros(ids.shape, bool)
    for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = (ids[one] != ids[other]) & counted[one] & counted[other]
        edges[one] |= differ
        edges[other] |= differ
    return edges


def _near(pixels: Bool[np.ndarray, "h w"], others: Bool[np.ndarray, "h w"], tolerance_px: float) -> int:
    if not pixels.any() or not others.any():
        return 0
    return int((distance_transform_edt(~others)[pixels] <= tolerance_px).sum())


def boundary_f1(counts: Num[np.ndarray, "*b c 4"]) -> Float[np.ndarray, "*b c"]:
    """nan for a class without boundary in labels and predictions; 0 for one that has it in one of them only."""
    true, found, predicted, right = np.moveaxis(counts.astype(np.float64), -1, 0)
    recall = found / np.maximum(true, 1)
    precision = right / np.maximum(predicted, 1)
    f1 = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    return np.where(true + predicted > 0, f1, np.nan)
