"""Scene classification without training: an image belongs to the class whose prompts it is nearest to."""

import time
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.benchmarks.classified import classified
from evaluation.benchmarks.features import EmbedOptions, embedding_origin, labelled
from evaluation.bootstrap import Statistic
from evaluation.data import EvalSet
from evaluation.embed import Encoder, EvalPrecision, embed_images, embed_texts
from evaluation.metrics.classification import (
    calibration_bins,
    class_scores,
    class_weights,
    confidence_bins,
    confidences,
    predicted_classes,
)
from evaluation.prompts import SLOT, PromptProtocol, PromptSet, prompt_set_id
from evaluation.prompts_multilingual import prompts_in
from evaluation.result import Result

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
    `prompts` takes the place of those that the protocol prescribes. `per_class` is the recall of each class that the split has images of.
    Confidence is the softmax over the classes at the model's own logit scale, which `details["calibration"]` names with 15 bins;
    an encoder without one gets no calibration error. Intervals and items are those of `classified`.
    Raises DataError when no image of the split has a label, OptionError for an unknown protocol or language.
    """
    began = time.perf_counter()
    found = labelled(data)
    prompts = prompts or _prompts(data, protocol, lang)
    class_embeds = _class_embeds(encoder, data.classes, prompts, embedding.get("precision", "fp32"))
    images = embed_images(encoder, data, **embedding)[torch.from_numpy(found.rows)]
    scores = class_scores(images, class_embeds)
    calibrated, calibration = _calibration(encoder, scores, predicted_classes(scores) == found.labels)
    fields = classified(scores, found.labels, data.classes, num_bootstrap, seed, calibrated)
    class_words = {label: prompts.class_name(label) for label in data.classes}
    fields["details"] |= {"class_words": class_words, **calibration}
    return Result(
        task="zero_shot",
        protocol=protocol,
        prompts=prompt_set_id(prompts),
        seconds=time.perf_counter() - began,
        **fields,
        **embedding_origin(encoder, data, embedding, without_label=found.num_without, **({"lang": lang} if lang != "en" else {})),
    )


def _prompts(data: EvalSet, protocol: PromptProtocol, lang: str) -> PromptSet:
    """A webdataset of CLIP_benchmark brings templates with {c} and class names, which that protocol takes as they are."""
    templates: tuple[str, ...] = getattr(data, "templates", ())
    if protocol == "clip_benchmark" and templates and lang == "en":
        return PromptSet("clip_benchmark_wds", tuple(template.replace("{c}", SLOT) for template in templates), class_name=str)
    return prompts_in(lang, protocol, data.classes)


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
    scale = float(torch.as_tensor(scale).detach())
    confidence = confidences(scores, scale)
    items, confident, hits = calibration_bins(confidence, right, NUM_CALIBRATION_BINS)
    filled = np.maximum(items, 1)
    gap_of_bin = np.zeros((len(confidence), NUM_CALIBRATION_BINS))
    gap_of_bin[np.arange(len(confidence)), confidence_bins(confidence, NUM_CALIBRATION_BINS)] = confidence - right
    return {"expected_calibration_error": lambda drawn: np.abs(drawn @ gap_of_bin).sum(1) / drawn.sum(1)}, {
        "calibration": {
            "logit_scale": scale,
            "items": items.tolist(),
            "confidence": (confident / filled).tolist(),
            "accuracy": (hits / filled).tolist(),
        }
    }
