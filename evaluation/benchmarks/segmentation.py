"""Semantic segmentation: predicted masks against the masks of a set."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from evaluation.benchmarks.identity import as_metric
from evaluation.bootstrap import intervals
from evaluation.datasets.segmentation import SegmentationSet
from evaluation.dense_items import mask_items
from evaluation.metrics.blind_guess import blind_guess
from evaluation.metrics.boundary import boundary_counts, boundary_f1
from evaluation.metrics.segmentation import (
    SegmentationCounts,
    geoseg_metrics,
    iou,
    mean_over_classes,
    measures,
    mmseg_metrics,
    over_images,
)
from evaluation.predicted_masks import PredictedMasks
from evaluation.result import Metric, Result
from rsvl_data.errors import DataError, OptionError
from rsvl_data.version import code_version

SegmentationProtocol = Literal["rsvl", "mmseg", "geoseg"]
Progress = Callable[[int, int], None]


def segmentation(
    predicted: PredictedMasks,
    data: SegmentationSet,
    *,
    protocol: SegmentationProtocol = "rsvl",
    leave_out: Sequence[str] = (),
    boundary_px: float | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """miou, macc, mf1, mprecision, aacc, intervals over images; with `boundary_px` also boundary_f1 at that tolerance.

    `leave_out` are classes that the means leave out, such as clutter; their pixels still count as wrong where a class is predicted.
    mmseg and geoseg give their own names and rules, without intervals. `per_class` is the IoU of each class that occurs.
    Images whose pixels are all ignored are counted in `data["without_labels"]`.
    Raises DataError for predictions that are missing, of another size or of unknown ids, and if no pixel counts.
    """
    began = time.perf_counter()
    keys = [item.key for item in data.items]
    predicted.check(keys)
    chosen = _kept_classes(data.classes, leave_out)
    counts, edges, scored = _compared(predicted, data, boundary_px, progress)
    return Result(
        task="segmentation",
        dataset=data.name,
        split=data.split,
        protocol=protocol,
        n=len(counts.per_image),
        metrics=segmentation_metrics(counts, protocol, chosen, edges, num_bootstrap, seed),
        model={"name": predicted.path.name, "sha256": predicted.sha256(keys)},
        data={"name": data.name, "note": data.note, "sha256": data.sha256(), "without_labels": counts.num_without_labels},
        code=code_version(),
        seconds=time.perf_counter() - began,
        per_class={name: float(of) for name, of in zip(data.classes, iou(counts.total())) if not np.isnan(of)},
        seed=seed,
        options={"leave_out": list(leave_out), "boundary_px": boundary_px},
        details={
            "confusion": {"classes": list(data.classes), "counts": counts.total().tolist()},
            "items": mask_items(scored, counts, chosen, edges),
        },
    )


def _compared(
    predicted: PredictedMasks, data: SegmentationSet, boundary_px: float | None, progress: Progress | None
) -> tuple[SegmentationCounts, np.ndarray | None, list[str]]:
    """Counts of every image that has a labelled pixel, those of its boundaries where they are asked for, and the keys of these images."""
    counts = SegmentationCounts(len(data.classes), data.ignore_index)
    boundaries: list[np.ndarray] = []
    scored: list[str] = []
    for index, item in enumerate(data.items):
        labels = data.mask(index)
        found = predicted.ids(item.key, *labels.shape)
        try:
            counted = counts.add(labels, found)
        except ValueError as error:
            raise DataError(f"prediction {predicted.path / item.key}.png: {error}") from error
        if counted:
            scored.append(item.key)
        if counted and boundary_px is not None:
            boundaries.append(boundary_counts(labels, found, len(data.classes), boundary_px, data.ignore_index))
        if progress:
            progress(index + 1, len(data.items))
    if not scored:
        raise DataError(
            f"{data.name}, split {data.split}: no pixel to score in {counts.num_without_labels} images, all are ignored"
        )
    return counts, np.stack(boundaries) if boundaries else None, scored


def _kept_classes(classes: tuple[str, ...], leave_out: Sequence[str]) -> list[int]:
    unknown = sorted(set(leave_out) - set(classes))
    kept = [index for index, name in enumerate(classes) if name not in leave_out]
    if unknown or not kept:
        raise OptionError(f"leave_out is {', '.join(leave_out)}; give some of {', '.join(classes)}, not all")
    return kept


def segmentation_metrics(
    counts: SegmentationCounts,
    protocol: SegmentationProtocol,
    classes: Sequence[int],
    edges: np.ndarray | None,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Metric]:
    """`edges` are the boundary counts of each image [n, c, 4]. Chance, under our own protocol, is what `blind_guess` scores."""
    if protocol != "rsvl":
        theirs = mmseg_metrics(counts.total()) if protocol == "mmseg" else geoseg_metrics(counts.total())
        return {name: Metric(value) for name, value in theirs.items() if not np.isnan(value)}
    per_image = counts.stacked()
    statistics = {name: over_images(measure, per_image) for name, measure in measures(classes).items()}
    if edges is not None:
        statistics["boundary_f1"] = over_images(lambda found: mean_over_classes(boundary_f1(found), classes), edges)
    found = intervals(statistics, len(per_image), num_bootstrap=num_bootstrap, seed=seed)
    chance = blind_guess(per_image.sum((0, 2)), classes)
    return {
        name: as_metric(interval, chance.get(name), num_units=len(per_image))
        for name, interval in found.items()
        if not np.isnan(interval.value)
    }
