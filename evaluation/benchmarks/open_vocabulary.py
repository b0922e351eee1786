"""Semantic segmentation without training: a pixel belongs to the class whose phrases its patches are nearest to."""

import base64
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from evaluation.benchmarks.chosen_threshold import ChosenThreshold, image_mark, may_choose_on
from evaluation.benchmarks.identity import origin
from evaluation.benchmarks.segmentation import segmentation_metrics
from evaluation.datasets.segmentation.masked_files import SegmentationSet
from evaluation.dense_items import mask_items
from evaluation.embed import EvalPrecision, Progress, no_progress
from evaluation.metrics.boundary import boundary_counts, csurka_tolerance_px
from evaluation.metrics.segmentation import SegmentationCounts, iou, mean_over_classes
from evaluation.prompts import CLIP_BENCHMARK_DEFAULT, RSVL, PromptSet, prompt_set_id
from evaluation.result import Result
from rsvl_data.errors import DataError, OptionError
from rsvl_segment.classes import Classes
from rsvl_segment.overlay import blend
from rsvl_segment.postprocess import NO_CLASS
from rsvl_segment.protocols import PROTOCOL_PROMPTS, Prompts, SegmentOptions, protocol_options
from rsvl_segment.scenes import Pixels
from rsvl_segment.segmenter import Segmenter

# Thresholds and background class of SegEarth-OV, configs/cfg_*.py (https://github.com/likyoo/SegEarth-OV, 4496e8b). How they were chosen
# is not said. Names of the sets are those of `evaluation.datasets.segmentation`.
SEGEARTH_THRESHOLDS: dict[str, tuple[float, int]] = {
    "openearthmap-9": (0.1, 0), "loveda": (0.3, 0), "potsdam": (0.1, 5), "vaihingen": (0.1, 5), "udd5": (0.4, 4), "vdd": (0.3, 0),
    "uavid-7": (0.3, 0), "isaid": (0.4, 0),
}  # fmt: skip
# What RS-OVSS and SegEarth-OV ask with: OpenAI's 80 templates. Ours are for pictures from above.
PROMPT_SETS: dict[Prompts, PromptSet] = {"rsvl": RSVL, "openai_imagenet": replace(CLIP_BENCHMARK_DEFAULT, name="openai_imagenet")}
NUM_SHOWN, SHOWN_PX = 4, 400  # overlays in a result
DEFAULT_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(19))


@dataclass(frozen=True)
class Setting:
    """How a split is segmented. `background` is the index of the class that pixels below the threshold get."""

    protocol: str
    options: SegmentOptions
    prompts: PromptSet
    background: int | None

    @classmethod
    def of(
        cls,
        protocol: str,
        data: SegmentationSet,
        *,
        background: str | None = None,
        threshold: float | None = None,
        choosing: bool = False,
        **changes: Any,
    ) -> "Setting":
        """What a protocol prescribes for a set. `changes` to its options are for our own protocol; a published one stays as it is, but
        for the threshold and background of segearth_ov. With `choosing` a threshold is still to be found, for the background given.

        Raises OptionError for a threshold without a background class or the reverse, and for changes under another's name.
        """
        options = protocol_options(protocol)
        index = _class_index(data, background)
        if protocol == "rsvl":
            options = replace(options, threshold=threshold or 0.0, **changes)
        elif changes:
            raise OptionError(f"{', '.join(changes)}: protocol {protocol} prescribes them. Change them under protocol rsvl.")
        elif protocol == "farslip" and (threshold or background is not None or choosing):
            raise OptionError(
                "protocol farslip has no threshold and no background: its evaluator dropped those of its configurations"
            )
        elif protocol == "segearth_ov":
            published, published_index = _published_threshold(data)
            options = replace(options, threshold=published if threshold is None else threshold)
            index = published_index if index is None else index
        if options.threshold and index is None:
            raise OptionError(
                f"threshold {options.threshold} needs a background class; name one of {', '.join(data.classes)} with --background"
            )
        if background is not None and not options.threshold and not choosing:
            raise OptionError(f"background {background!r} takes the pixels below a threshold; give one above 0, or leave it out")
        return cls(protocol, options, PROMPT_SETS[PROTOCOL_PROMPTS[protocol]], index)


def _published_threshold(data: SegmentationSet) -> tuple[float, int | None]:
    return SEGEARTH_THRESHOLDS.get(data.name, (0.0, None))


def _class_index(data: SegmentationSet, name: str | None) -> int | None:
    if name is None:
        return None
    if name not in data.classes:
        raise OptionError(f"{data.name} has no class {name!r}; it has {', '.join(data.classes)}")
    return data.classes.index(name)


@dataclass(frozen=True)
class _Mapped:
    """One image, segmented without a threshold. `values` is what one is compared with; `mark` is its `image_mark`."""

    mark: str
    truth: UInt8[np.ndarray, "h w"]
    classes: UInt8[np.ndarray, "h w"]
    values: Float[np.ndarray, "h w"]

    def predicted(self, threshold: float, background: int | None) -> UInt8[np.ndarray, "h w"]:
        below = NO_CLASS if background is None else background
        return np.where(self.values < np.float32(threshold), np.uint8(below), self.classes)


def open_vocabulary(
    encoder: Any,
    data: SegmentationSet,
    setting: Setting,
    *,
    chosen: ChosenThreshold | None = None,
    batch_size: int = 16,
    precision: EvalPrecision = "fp32",
    seed: int = 0,
    num_bootstrap: int = 1000,
    progress: Progress = no_progress,
) -> Result:
    """miou, macc, mf1, mprecision, aacc and boundary_f1 of a split with masks, with intervals over its images; `per_class` is the IoU.

    The means are over all classes of the set, background among them. Boundaries may be 0.75 % of an image's diagonal apart. Images whose
    pixels are all ignored are left out and counted in `data`. `chosen` overrules the threshold of the setting.
    Raises DataError for masks that do not fit their images, and when no pixel counts.
    """
    began = time.perf_counter()
    threshold, background = setting.options.threshold, setting.background
    segmenter = _segmenter(encoder, data, setting, batch_size, precision)
    if chosen is not None:
        chosen.check(data, _measured_with(encoder, segmenter.options, data, setting))
        threshold, background = chosen.threshold, _class_index(data, chosen.background)
    counts = SegmentationCounts(len(data.classes), data.ignore_index)
    boundaries: list[Int[np.ndarray, "c 4"]] = []
    keys: list[str] = []
    shown: list[dict[str, Any]] = []
    for index, mapped in _mapped(segmenter, data, progress):
        if chosen is not None:
            chosen.check_image(data.items[index].key, mapped.mark)
        predicted = mapped.predicted(threshold, background)
        if _counted(counts, data, index, mapped.truth, predicted):
            tolerance_px = csurka_tolerance_px(*mapped.truth.shape[::-1])
            boundaries.append(boundary_counts(mapped.truth, predicted, len(data.classes), tolerance_px, data.ignore_index))
            keys.append(data.items[index].key)
            if len(shown) < NUM_SHOWN:
                shown.append(_overlay(data, index, mapped.truth, predicted))
    per_image, classes = _stacked(counts, data), range(len(data.classes))
    edges = np.stack(boundaries) if any(each[:, ::2].any() for each in boundaries) else None  # true or predicted
    return Result(
        task="open_vocabulary",
        protocol=setting.protocol,
        n=len(per_image),
        metrics=segmentation_metrics(counts, "rsvl", classes, edges, num_bootstrap, seed),
        per_class={name: float(value) for name, value in zip(data.classes, iou(per_image.sum(0))) if not np.isnan(value)},
        prompts=prompt_set_id(setting.prompts),
        seed=seed,
        seconds=time.perf_counter() - began,
        options={
            **_recorded(replace(segmenter.options, threshold=threshold), background, data),
            **_about_threshold(setting.protocol, data, threshold, background, chosen),
        },
        details={
            "confusion": {"classes": list(data.classes), "counts": per_image.sum(0).tolist()},
            "items": mask_items(keys, counts, classes, edges),
            "overlays": shown,
        },
        **origin(encoder, data, "exact", precision, without_labels=counts.num_without_labels),
    )


def _recorded(options: SegmentOptions, background: int | None, data: SegmentationSet) -> dict[str, Any]:
    return {
        **asdict(options),
        "background": data.classes[background] if background is not None and options.threshold else None,
        "synonym_phrases": [list(group) for group in data.synonyms],
    }


def _about_threshold(
    protocol: str, data: SegmentationSet, threshold: float, background: int | None, chosen: ChosenThreshold | None
) -> dict[str, Any]:
    """Whether threshold or background are others than the protocol has for this set, and what the threshold was chosen on."""
    prescribed = _published_threshold(data) if protocol == "segearth_ov" else (0.0, None)
    return {
        "own_threshold": (threshold, background if threshold else None) != prescribed,
        "threshold_chosen_on": None if chosen is None else {"split": chosen.split, "data_sha256": chosen.data_sha256},
    }


def _measured_with(encoder: Any, options: SegmentOptions, data: SegmentationSet, setting: Setting) -> dict[str, Any]:
    """All that the best threshold depends on, as JSON gives it back."""
    facts = {
        "model": encoder.weights_sha256(),
        "dataset": data.name,
        "protocol": setting.protocol,
        "prompts": prompt_set_id(setting.prompts),
        **_recorded(options, None, data),
    }
    del facts["threshold"], facts["background"]
    return json.loads(json.dumps(facts))


def choose_threshold(
    encoder: Any,
    data: SegmentationSet,
    setting: Setting,
    *,
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
    batch_size: int = 16,
    precision: EvalPrecision = "fp32",
    progress: Progress = no_progress,
) -> ChosenThreshold:
    """The threshold with the best mIoU on this split, the smallest of equals. One pass over the images serves them all.

    Raises OptionError for a split other than val or train, a setting without background, or no thresholds between 0 and 1.
    """
    if not may_choose_on(data.split):
        raise OptionError(f"a threshold is never chosen on split {data.split!r}; choose on val or train, report on test")
    if setting.background is None or not thresholds or not all(0 <= value <= 1 for value in thresholds):
        raise OptionError(f"choosing needs a background class and thresholds from 0 to 1; got {list(thresholds)}")
    counts = {value: SegmentationCounts(len(data.classes), data.ignore_index) for value in sorted(set(thresholds))}
    segmenter = _segmenter(encoder, data, setting, batch_size, precision)
    images: set[str] = set()
    for index, mapped in _mapped(segmenter, data, progress):
        images.add(mapped.mark)
        for value, of_value in counts.items():
            _counted(of_value, data, index, mapped.truth, mapped.predicted(value, setting.background))
    miou = {value: float(mean_over_classes(iou(_stacked(of_value, data).sum(0)))) for value, of_value in counts.items()}
    return ChosenThreshold(
        threshold=max(miou, key=lambda value: miou[value]),
        background=data.classes[setting.background],
        split=data.split,
        data_sha256=data.sha256(),
        made_for=_measured_with(encoder, segmenter.options, data, setting),
        images=sorted(images),
        miou={str(value): score for value, score in miou.items()},
    )


def _segmenter(encoder: Any, data: SegmentationSet, setting: Setting, batch_size: int, precision: EvalPrecision) -> Segmenter:
    """Without the threshold, which is compared afterwards."""
    options = replace(setting.options, threshold=0.0)
    templates = setting.prompts.templates
    return Segmenter(encoder, Classes(data.synonyms), options, templates=templates, batch_size=batch_size, precision=precision)


def _mapped(segmenter: Segmenter, data: SegmentationSet, progress: Progress) -> Iterator[tuple[int, _Mapped]]:
    marks: list[str] = []
    parts: list[Any] = []

    def pictures() -> Iterator[Pixels]:
        for index, item in enumerate(data.items):
            content = data.image(index)
            marks.append(image_mark(item.key, content))
            yield Pixels.decode(content, item.key)

    def finished(index: int) -> tuple[int, _Mapped]:
        classes, values = (torch.cat([getattr(part, name) for part in parts]).numpy() for name in ("classes", "values"))
        progress(index + 1, len(data.items))
        return index, _Mapped(marks[index], data.mask(index), classes, values)

    for band in segmenter.bands(pictures()):
        if parts and parts[0].picture != band.picture:
            yield finished(parts[0].picture)
            parts.clear()
        parts.append(band)
    yield finished(parts[0].picture)


def _overlay(
    data: SegmentationSet, index: int, truth: UInt8[np.ndarray, "h w"], predicted: UInt8[np.ndarray, "h w"]
) -> dict[str, Any]:
    """One image, bare, under its true and under its predicted classes, small, as the report shows them; the legend names the classes of
    either. What is ignored has no colour."""
    key, classes = data.items[index].key, Classes(data.synonyms)
    pixels = Pixels.decode(data.image(index), key).pixels
    counted = np.where(truth == data.ignore_index, np.uint8(NO_CLASS), truth)
    ids = {"picture": np.full_like(predicted, NO_CLASS), "truth": counted, "image": predicted}
    present = np.union1d(counted, predicted).tolist()
    return {
        "key": key,
        **{f"{name}_base64": _small(blend(pixels, each, classes)) for name, each in ids.items()},
        "legend": [[data.classes[i], list(classes.palette()[i])] for i in present if i < len(data.classes)],
    }


def _small(picture: Image.Image) -> str:
    picture.thumbnail((SHOWN_PX, SHOWN_PX))
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=70)
    return base64.b64encode(content.getvalue()).decode()


def _counted(
    counts: SegmentationCounts, data: SegmentationSet, index: int, truth: UInt8[np.ndarray, "h w"], predicted: np.ndarray
) -> bool:
    try:
        return counts.add(truth, predicted)
    except ValueError as error:
        raise DataError(f"{data.name}: image {data.items[index].key} and its mask cannot be compared: {error}") from error


def _stacked(counts: SegmentationCounts, data: SegmentationSet) -> Int[np.ndarray, "n c c"]:
    try:
        return counts.stacked()
    except ValueError as error:
        raise DataError(f"{data.name}, split {data.split!r}: {error}") from error
