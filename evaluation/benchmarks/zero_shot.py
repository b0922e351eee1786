"""Scene classification without training: an image belongs to the class whose prompts it is nearest to."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from evaluation.benchmarks.identity import as_metric, origin
from evaluation.bootstrap import class_mean, intervals, share
from evaluation.data import EvalSet
from evaluation.embed import Encoder, EvalPrecision, Progress, embed_images, embed_texts, no_progress
from evaluation.metrics.classification import (
    chance_top_k,
    class_scores,
    class_weights,
    confusion_counts,
    per_class_recall,
    predicted_classes,
    ranks_of_truth,
)
from evaluation.prompts import PromptProtocol, PromptSet, prompt_set_id, prompts_of_protocol
from evaluation.result import Metric, Result
from rsvl_data.errors import DataError
from rsvl_data.transforms import Engine


def zero_shot(
    encoder: Encoder,
    data: EvalSet,
    *,
    protocol: PromptProtocol = "rsvl",
    batch_size: int = 64,
    workers: int = 2,
    precision: EvalPrecision = "fp32",
    engine: Engine = "exact",
    seed: int = 0,
    num_bootstrap: int = 1000,
    progress: Progress = no_progress,
) -> Result:
    """acc1, acc5 and mean_per_class_recall of a labelled split.

    The classes are those of the whole dataset, whether or not the split has images of them. Images without a label are
    left out and counted in `data`. `per_class` is the recall of each class that the split has images of. Intervals: resampled
    images; for the mean over classes within each class, so that its size stays. `details["items"]` holds, in the order of the
    data, the true class of every image and the rank it got: what a paired comparison of two models needs.
    Raises DataError when no image of the split has a label, OptionError for an unknown protocol.
    """
    began = time.perf_counter()
    raw_labels = [item.label for item in data.items]
    labelled = [i for i, label in enumerate(raw_labels) if label is not None]
    if not labelled:
        raise DataError(
            f"{data.name}: no sample of split {data.split!r} has a label, so there is nothing to classify. "
            "Use a dataset of class folders, or `rsvl eval retrieval` for one with captions."
        )
    classes = list(data.classes)
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[label] for label in raw_labels if label is not None])
    prompts = prompts_of_protocol(protocol, classes)
    images = embed_images(
        encoder,
        data,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
        engine=engine,
        progress=progress,
    )
    scores = class_scores(images[labelled], _class_embeds(encoder, classes, prompts, precision))
    ranks = ranks_of_truth(scores, labels)
    recalls = per_class_recall(ranks == 1, labels, len(classes))
    return Result(
        task="zero_shot",
        protocol=protocol,
        n=len(labels),
        metrics=_metrics(ranks, labels, len(classes), num_bootstrap, seed),
        per_class={name: float(recall) for name, recall in zip(classes, recalls) if not np.isnan(recall)},
        prompts=prompt_set_id(prompts),
        seconds=time.perf_counter() - began,
        seed=seed,
        details=_details(classes, prompts, labels, ranks, predicted_classes(scores)),
        **origin(encoder, data, engine, precision, without_label=len(raw_labels) - len(labelled)),
    )


def _class_embeds(encoder: Encoder, classes: Sequence[str], prompts: PromptSet, precision: EvalPrecision) -> Float[Tensor, "c d"]:
    texts = [text for label in classes for text in prompts.prompts(label)]
    # Lengths matter only where the average keeps them
    embeds = embed_texts(encoder, texts, precision=precision, normalize=prompts.average == "normalize_then_average")
    return class_weights(embeds.view(len(classes), len(prompts.templates), -1), prompts.average)


def _metrics(
    ranks: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"], num_classes: int, num_bootstrap: int, seed: int
) -> dict[str, Metric]:
    right = (ranks == 1).astype(float)
    over_items = {"acc1": share(right), "acc5": share((ranks <= 5).astype(float))}
    found = intervals(over_items, len(ranks), num_bootstrap=num_bootstrap, seed=seed)
    by_class = intervals(
        {"mean_per_class_recall": class_mean(right, labels)}, len(ranks), num_bootstrap=num_bootstrap, seed=seed, strata=labels
    )
    return {
        "acc1": as_metric(found["acc1"], chance_top_k(num_classes, 1)),
        "acc5": as_metric(found["acc5"], chance_top_k(num_classes, 5)),
        "mean_per_class_recall": as_metric(by_class["mean_per_class_recall"], chance_top_k(num_classes, 1)),
    }


def _details(
    classes: list[str],
    prompts: PromptSet,
    labels: Int[np.ndarray, "n"],
    ranks: Int[np.ndarray, "n"],
    predicted: Int[np.ndarray, "n"],
) -> dict[str, Any]:
    return {
        "confusion": {"classes": classes, "counts": confusion_counts(labels, predicted, len(classes)).tolist()},
        "class_words": {label: prompts.class_name(label) for label in classes},
        "items": {"truth": labels.tolist(), "rank": ranks.tolist()},
    }
