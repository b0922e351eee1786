"""What all classification benchmarks report of class scores, so that zero-shot, probe and neighbours read alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from evaluation.benchmarks.identity import as_metric
from evaluation.bootstrap import Statistic, class_mean, class_strata, intervals, share
from evaluation.metrics.classification import (
    chance_top_k,
    confusion_counts,
    per_class_recall,
    predicted_classes,
    ranks_of_truth,
)
from evaluation.result import Metric


def classified(
    scores: Float[np.ndarray, "n c"],
    labels: Int[np.ndarray, "n"],
    classes: tuple[str, ...],
    num_bootstrap: int,
    seed: int,
    errors: Mapping[str, Statistic] | None = None,
) -> dict[str, Any]:
    """The fields `n`, `metrics`, `per_class`, `seed` and `details` of a Result.

    acc1, acc5 and mean_per_class_recall; intervals resample images, for the mean over classes within each class where classes are large
    enough (`class_strata`). `errors` are statistics over the images of which less is better. They get no interval: a calibration error
    cannot fall below 0, and near 0, where every resample adds to it, no bootstrap covers it (Andrews, Econometrica 68, 2000).
    `details["items"]` holds, in the order of the data, the true class of every image and the rank it got: what a paired comparison of two
    models needs.
    """
    ranks, num_classes = ranks_of_truth(scores, labels), len(classes)
    right, errors = (ranks == 1).astype(float), errors or {}
    over_items = {"acc1": share(right), "acc5": share((ranks <= 5).astype(float))}
    found = intervals(over_items, len(ranks), num_bootstrap=num_bootstrap, seed=seed)
    over_classes = {"mean_per_class_recall": class_mean(right, labels)}
    found |= intervals(over_classes, len(ranks), num_bootstrap=num_bootstrap, seed=seed, strata=class_strata(labels))
    metrics: dict[str, Metric] = {
        "acc1": as_metric(found["acc1"], chance_top_k(num_classes, 1)),
        "acc5": as_metric(found["acc5"], chance_top_k(num_classes, 5)),
        "mean_per_class_recall": as_metric(found["mean_per_class_recall"], chance_top_k(num_classes, 1)),
        **{name: Metric(float(of(np.ones((1, len(ranks))))[0]), higher_is_better=False) for name, of in errors.items()},
    }
    recalls = per_class_recall(ranks == 1, labels, num_classes)
    counts = confusion_counts(labels, predicted_classes(scores), num_classes)
    return {
        "n": len(labels),
        "metrics": metrics,
        "per_class": {name: float(recall) for name, recall in zip(classes, recalls) if not np.isnan(recall)},
        "seed": seed,
        "details": {
            "confusion": {"classes": list(classes), "counts": counts.tolist()},
            "items": {"truth": labels.tolist(), "rank": ranks.tolist()},
        },
    }
