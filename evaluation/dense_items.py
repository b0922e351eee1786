"""What results of masks, heat maps and predicted quality keep of each item, and the statistics that this tells: for paired comparisons.

`Result.details["items"]` of a task holds
    segmentation, open_vocabulary   key, and of every image and class: pixels right, labelled and predicted; boundary counts; `mean_over`,
                                    the classes of the means
    referring                       intersection, union and image of every phrase
    localization                    query, its scene (what is resampled) and its indicators
    quality                         predicted and true score, and the unit (image) of every row
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from evaluation.bootstrap import Statistic, share
from evaluation.metrics.boundary import boundary_f1
from evaluation.metrics.quality import RAW_SCORES, score_statistic
from evaluation.metrics.referring import ReferringProtocol, referring_statistics
from evaluation.metrics.segmentation import SegmentationCounts, mean_over_classes, measures, over_images

Statistics = dict[str, Statistic]
INDICATORS = ("rsu", "ras", "rda", "rmi")


def mask_items(
    keys: Sequence[str], counts: SegmentationCounts, mean_over: Sequence[int], edges: Int[np.ndarray, "n c 4"] | None
) -> dict[str, Any]:
    """Of an image's confusion matrix its diagonal and margins: all that the metrics need, and little to store."""
    per_image = counts.stacked()
    return {
        "key": list(keys),
        "mean_over": list(mean_over),
        "right": np.diagonal(per_image, axis1=1, axis2=2).tolist(),
        "labelled": per_image.sum(2).tolist(),
        "predicted": per_image.sum(1).tolist(),
        "boundary": None if edges is None else edges.tolist(),
    }


def of_masks(items: Mapping[str, Any]) -> tuple[Statistics, int]:
    """Statistics by metric, and the number of images they are resampled over."""
    right, labelled, predicted = (np.array(items[name]) for name in ("right", "labelled", "predicted"))
    classes = items["mean_over"]
    found: Statistics = {
        name: over_images(measure, _with_errors_apart(right, labelled, predicted)) for name, measure in measures(classes).items()
    }
    found["aacc"] = share(right.sum(1).astype(float), labelled.sum(1).astype(float))
    if items["boundary"] is not None:
        found["boundary_f1"] = over_images(
            lambda counts: mean_over_classes(boundary_f1(counts), classes), np.array(items["boundary"])
        )
    return found, len(right)


def _with_errors_apart(
    right: Int[np.ndarray, "n c"], labelled: Int[np.ndarray, "n c"], predicted: Int[np.ndarray, "n c"]
) -> Int[np.ndarray, "n d d"]:
    """Confusion matrices with the same diagonal and margins, whose errors all lie in one more row and column: IoU, recall, precision and
    F1 of a class are those of the real one."""
    num_images, num_classes = right.shape
    counts = np.zeros((num_images, num_classes + 1, num_classes + 1), np.int64)
    index = np.arange(num_classes)
    counts[:, index, index] = right
    counts[:, index, -1] = labelled - right
    counts[:, -1, index] = predicted - right
    return counts


def of_phrases(items: Mapping[str, Any], protocol: ReferringProtocol) -> tuple[Statistics, int]:
    image = np.array(items["image"])
    return referring_statistics(np.array(items["intersection"]), np.array(items["union"]), protocol, unit=image), int(
        image.max()
    ) + 1


def of_queries(items: Mapping[str, Any]) -> tuple[Statistics, int]:
    scenes, scene = np.unique(items["scene"], return_inverse=True)
    return {name: share(np.array(items[name], dtype=float), unit=scene) for name in INDICATORS}, len(scenes)


def of_scores(items: Mapping[str, Any]) -> tuple[Statistics, int]:
    predicted, true, unit = (np.array(items[name]) for name in ("predicted", "true", "unit"))
    return {name: score_statistic(name, predicted, true, unit) for name in RAW_SCORES}, int(unit.max()) + 1
