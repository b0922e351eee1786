"""Scene classification without training: an image belongs to the class whose prompts it is nearest to."""

import time
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from evaluation.benchmarks.features import EmbedOptions, embedding_origin, labelled, refuse_non_finite
from evaluation.benchmarks.identity import as_metric
from evaluation.bootstrap import Statistic, class_mean, intervals, share
from evaluation.data import EvalSet
from evaluation.embed import Encoder, EvalPrecision, embed_images, embed_texts
from evaluation.metrics.classification import (
    calibration_bins,
    chance_top_k,
    class_scores,
    class_weights,
    confidence_bins,
    confidences,
    confusion_counts,
    per_class_recall,
    predicted_classes,
    ranks_of_truth,
)
from evaluation.prompts import PromptProtocol, PromptSet, prompt_set_id
from evaluation.prompts_multilingual import prompts_in
from evaluation.result import Metric, Result

NUM_CALIBRATION_BINS = 15


def zero_shot(
    encoder: Encoder,
    data: EvalSet,
    *,
    protocol: PromptProtocol = "rsvl",
    lang: str = "en",
    prompts: PromptSet | None = None,
    seed: int = 0,
    num_bootstrap: int = 1000,
    **embedding: Unpack[EmbedOptions],
) -> Result:
    """acc1, acc5, mean_per_class_recall and expected_calibration_error of a labelled split.

    The classes are those of the whole dataset, whether or not the split has images of them. Images without a label are
    left out and counted in `data`. `lang` is that of class names and prompts; only the own protocol has others than English.
    `prompts` takes the place of those that the protocol prescribes. `per_class` is the recall of each class that the split has images
    of. Confidence is the softmax over the classes at the model's own logit scale, which `details["calibration"]` names with 15 bins;
    an encoder without one gets no calibration error. Intervals: resampled images; for the mean over classes within each class, so
    that its size stays. `details["items"]` holds, in the order of the data, the true class of every image and the rank it got: what
    a paired comparison of two models needs.
    Raises DataError when no image of the split has a label, OptionError for an unknown protocol or language.
    """
    began = time.perf_counter()
    found = labelled(data)
    classes, labels = list(data.classes), found.labels
    prompts = prompts or prompts_in(lang, protocol, classes)
    class_embeds = _class_embeds(encoder, classes, prompts, embedding.get("precision", "fp32"))
    images = embed_images(encoder, data, **embedding)[torch.from_numpy(found.rows)]
    refuse_non_finite(images, data, found.rows)
    scores = class_scores(images, class_embeds)
    ranks = ranks_of_truth(scores, labels)
    recalls = per_class_recall(ranks == 1, labels, len(classes))
    calibrated, calibration = _calibration(encoder, scores, ranks == 1)
    return Result(
        task="zero_shot",
        protocol=protocol,
        n=len(labels),
        metrics=_metrics(ranks, labels, len(classes), calibrated, num_bootstrap, seed),
        per_class={name: float(recall) for name, recall in zip(classes, recalls) if not np.isnan(recall)},
        prompts=prompt_set_id(prompts),
        seconds=time.perf_counter() - began,
        seed=seed,
        details={**_details(classes, prompts, labels, ranks, predicted_classes(scores)), **calibration},
        **embedding_origin(encoder, data, embedding, without_label=found.num_without, **({"lang": lang} if lang != "en" else {})),
    )


def _class_embeds(encoder: Encoder, classes: Sequence[str], prompts: PromptSet, precision: EvalPrecision) -> Float[Tensor, "c d"]:
    texts = [text for label in classes for text in prompts.prompts(label)]
    # Lengths matter only where the average keeps them
    embeds = embed_texts(encoder, texts, precision=precision, normalize=prompts.average == "normalize_then_average")
    return class_weights(embeds.view(len(classes), len(prompts.templates), -1), prompts.average)


def _calibration(
    encoder: Encoder, scores: Float[np.ndarray, "n c"], right: np.ndarray
) -> tuple[dict[str, Statistic], dict[str, Any]]:
    """The statistic, and what a reliability diagram shows; nothing for an encoder without logit scale."""
    scale = getattr(encoder, "logit_scale", None)
    if scale is None:
        return {}, {}
    confidence = confidences(scores, float(scale))
    items, confident, hits = calibration_bins(confidence, right, NUM_CALIBRATION_BINS)
    filled = np.maximum(items, 1)
    gap_of_bin = np.zeros((len(confidence), NUM_CALIBRATION_BINS))
    gap_of_bin[np.arange(len(confidence)), confidence_bins(confidence, NUM_CALIBRATION_BINS)] = confidence - right
    return {"expected_calibration_error": lambda drawn: np.abs(drawn @ gap_of_bin).sum(1) / drawn.sum(1)}, {
        "calibration": {
            "logit_scale": float(scale),
            "items": items.tolist(),
            "confidence": (confident / filled).tolist(),
            "accuracy": (hits / filled).tolist(),
        }
    }


def _metrics(
    ranks: Int[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
    num_classes: int,
    calibrated: dict[str, Statistic],
    num_bootstrap: int,
    seed: int,
) -> dict[str, Metric]:
    right = (ranks == 1).astype(float)
    over_items = {"acc1": share(right), "acc5": share((ranks <= 5).astype(float)), **calibrated}
    found = intervals(over_items, len(ranks), num_bootstrap=num_bootstrap, seed=seed)
    by_class = intervals(
        {"mean_per_class_recall": class_mean(right, labels)}, len(ranks), num_bootstrap=num_bootstrap, seed=seed, strata=labels
    )
    return {
        "acc1": as_metric(found["acc1"], chance_top_k(num_classes, 1)),
        "acc5": as_metric(found["acc5"], chance_top_k(num_classes, 5)),
        "mean_per_class_recall": as_metric(by_class["mean_per_class_recall"], chance_top_k(num_classes, 1)),
        **{name: as_metric(found[name], higher_is_better=False) for name in calibrated},
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
