"""Zero-shot classification: text embeddings to class weights, images to ranks of the true class, ranks to numbers.

Tie rule: among classes with exactly the same score the one with the lowest index is ranked first. So accuracy, recall and the
confusion matrix tell the same story, and an encoder that gives every class one score gets class 0 right and no other.
"""

from typing import Literal

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

TemplateAverage = Literal["normalize_then_average", "average_then_normalize"]


def class_weights(template_embeds: Float[Tensor, "c t d"], average: TemplateAverage) -> Float[Tensor, "c d"]:
    """One unit vector a class out of the embeddings of its t prompts (not normalised, as the text tower gives them).

    normalize_then_average   unit(mean_t unit(e_t)): OpenAI CLIP, CLIP_benchmark, SkyScript, FarSLIP
    average_then_normalize   unit(mean_t e_t): GeoRSCLIP, so that long vectors count for more
    """
    if template_embeds.shape[1] == 0:
        raise ValueError("class_weights needs at least one prompt a class; got an array with none")
    if average == "normalize_then_average":
        template_embeds = F.normalize(template_embeds, dim=-1)
    return F.normalize(template_embeds.mean(1), dim=-1)


def class_scores(image_embeds: Float[Tensor, "n d"], class_embeds: Float[Tensor, "c d"]) -> Float[np.ndarray, "n c"]:
    """Cosines, float32. Rows may have any length."""
    return (F.normalize(image_embeds.float(), dim=-1) @ F.normalize(class_embeds.float(), dim=-1).T).cpu().numpy()


def predicted_classes(scores: Float[np.ndarray, "n c"]) -> Int[np.ndarray, "n"]:
    _refuse_unusable(scores)
    return scores.argmax(1)


def ranks_of_truth(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Place of the true class among all, from 1 (best) to c. Rank 1 is exactly `predicted_classes(scores) == labels`.

    Raises ValueError for no items, scores that are not finite and labels outside 0..c-1.
    """
    _refuse_unusable(scores)
    num_classes = scores.shape[1]
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}; with {num_classes} classes 0 to {num_classes - 1} is allowed"
        )
    truth = np.take_along_axis(scores, labels[:, None], 1)
    tied_before = (scores == truth) & (np.arange(num_classes) < labels[:, None])
    return 1 + (scores > truth).sum(1) + tied_before.sum(1)


def top_k_accuracy(ranks: Int[np.ndarray, "n"], k: int) -> float:
    """Share of items whose true class is among the k best; 1 with k classes or fewer, where CLIP_benchmark gives nan."""
    _refuse_empty(ranks)
    return float((ranks <= k).mean())


def chance_top_k(num_classes: int, k: int) -> float:
    return min(k, num_classes) / num_classes


def per_class_recall(right: np.ndarray, labels: Int[np.ndarray, "n"], num_classes: int) -> Float[np.ndarray, "c"]:
    """Share of the items of each class that were right (`right`: bool [n]); nan for a class without items."""
    _refuse_empty(labels)
    items = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels, weights=right, minlength=num_classes)
    return np.divide(hits, items, out=np.full(num_classes, np.nan), where=items > 0)


def mean_per_class_recall(right: np.ndarray, labels: Int[np.ndarray, "n"]) -> float:
    """Mean of the recalls of the classes that occur; equals scikit-learn's balanced accuracy, which CLIP_benchmark reports."""
    return float(np.nanmean(per_class_recall(right, labels, int(labels.max(initial=0)) + 1)))


def confusion_counts(labels: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "n"], num_classes: int) -> Int[np.ndarray, "c c"]:
    """Rows are the truth, columns the prediction."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def confidences(scores: Float[np.ndarray, "n c"], logit_scale: float) -> Float[np.ndarray, "n"]:
    """Probability that softmax(logit_scale * scores) gives the predicted class, float64."""
    _refuse_unusable(scores)
    logits = logit_scale * scores.astype(np.float64)
    return 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)


def calibration_bins(
    confidence: Float[np.ndarray, "n"], right: np.ndarray, num_bins: int = 15
) -> tuple[Int[np.ndarray, "{num_bins}"], Float[np.ndarray, "{num_bins}"], Float[np.ndarray, "{num_bins}"]]:
    """Items, summed confidence and summed `right` of equally wide bins ](b - 1) / num_bins, b / num_bins]."""
    bins = confidence_bins(confidence, num_bins)
    return (
        np.bincount(bins, minlength=num_bins),
        np.bincount(bins, weights=confidence, minlength=num_bins),
        np.bincount(bins, weights=right, minlength=num_bins),
    )


def confidence_bins(confidence: Float[np.ndarray, "n"], num_bins: int) -> Int[np.ndarray, "n"]:
    _refuse_empty(confidence)
    return np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)


def expected_calibration_error(confidence: Float[np.ndarray, "n"], right: np.ndarray, num_bins: int = 15) -> float:
    """How far confidence and accuracy are apart, bin by bin, weighted by items: equation 3 of arXiv:1706.04599, from 0 to 1.

    Sampling noise alone makes it greater than 0 when bins hold few items.
    """
    _, confident, hits = calibration_bins(confidence, right, num_bins)
    return float(np.abs(confident - hits).sum() / len(confidence))


def average_precision(scores: Float[np.ndarray, "n c"], targets: Int[np.ndarray, "n c"]) -> Float[np.ndarray, "c"]:
    """Area under precision and recall of each class when an item may have several; nan for a class without positives.

    CLIP_benchmark counts such a class as 0 and keeps it in its mean: `np.nan_to_num(ap).mean()`. Equal scores keep the order of the
    data, as with its sort.
    """
    _refuse_unusable(scores)
    order = np.argsort(-scores, axis=0, kind="stable")
    truth = np.take_along_axis(targets, order, 0)
    precision = truth.cumsum(0) / np.arange(1, len(scores) + 1)[:, None]
    positives = truth.sum(0)
    return np.divide((precision * truth).sum(0), positives, out=np.full(len(positives), np.nan), where=positives > 0)


def _refuse_empty(items: np.ndarray) -> None:
    if len(items) == 0:
        raise ValueError("a metric of no items has no value; give at least one")


def _refuse_unusable(scores: np.ndarray) -> None:
    _refuse_empty(scores)
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).any(1).sum()} of {len(scores)} items have scores that are NaN or infinite")
