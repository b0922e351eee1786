"""`rsvl eval segmentation`, `referring`, `quality`: predictions that lie as files, scored. No model runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.progress import Progress

from evaluation.benchmarks import quality as quality_benchmark
from evaluation.benchmarks import referring as referring_benchmark
from evaluation.benchmarks import segmentation as segmentation_benchmark
from evaluation.benchmarks.segmentation import SegmentationProtocol
from evaluation.datasets.referring_sets import open_referring
from evaluation.datasets.segmentation import open_segmentation
from evaluation.metrics.referring import ReferringProtocol
from evaluation.predicted_masks import PredictedMasks
from evaluation.result import Result
from evaluation.wording import summary_table


@dataclass(frozen=True, kw_only=True)
class _Scored:
    predicted: Path
    """folder of KEY.png, one for every key of the split"""
    dataset: str
    """name of the set, see rsvl eval ls"""
    root: Path
    """folder that holds the set"""
    out: Path
    """result file to write, .json"""
    split: str | None = None
    """split to score; left out, the first one listed that is there"""
    num_bootstrap: int = 1000
    """resamples of images behind the 95 % intervals"""
    seed: int = 0
    """of the bootstrap"""


@dataclass(frozen=True, kw_only=True)
class Segmentation(_Scored):
    protocol: SegmentationProtocol = "rsvl"
    """which metrics and rules; numbers under different protocols do not compare"""
    leave_out: tuple[str, ...] = ()
    """classes that the means leave out, such as clutter"""
    boundary_px: float | None = None
    """tolerance of the boundary F1 in pixels; left out, it is not measured"""


@dataclass(frozen=True, kw_only=True)
class Referring(_Scored):
    predicted: Path
    """folder of KEY.png with 0 and one other value, or a JSON file of COCO run lengths by key"""
    protocol: ReferringProtocol = "rsvl"
    """what an empty union counts, and whether P@X means at least or more than X"""


def segmentation(options: tyro.conf.OmitArgPrefixes[Segmentation]) -> int:
    """Predicted masks of class ids, 0 to K - 1 in the order of the set's classes: mIoU, mAcc, mF1, accuracy, boundary F1."""
    data = open_segmentation(options.dataset, options.root, options.split)
    return _measure(
        options,
        lambda progress: segmentation_benchmark.segmentation(
            PredictedMasks(options.predicted),
            data,
            protocol=options.protocol,
            leave_out=options.leave_out,
            boundary_px=options.boundary_px,
            num_bootstrap=options.num_bootstrap,
            seed=options.seed,
            progress=progress,
        ),
    )


def referring(options: tyro.conf.OmitArgPrefixes[Referring]) -> int:
    """Predicted masks of phrases: overall and mean IoU, P@0.5 to P@0.9."""
    data = open_referring(options.dataset, options.root, options.split)
    return _measure(
        options,
        lambda progress: referring_benchmark.referring(
            PredictedMasks(options.predicted),
            data,
            protocol=options.protocol,
            num_bootstrap=options.num_bootstrap,
            seed=options.seed,
            progress=progress,
        ),
    )


def _measure(options: _Scored, benchmark: Callable[[Callable[[int, int], None]], Result]) -> int:
    with Progress(transient=True) as bar:
        task = bar.add_task("scoring masks", total=None)
        result = benchmark(lambda done, total: bar.update(task, completed=done, total=total))
    return _written(result, options.out)


def _written(result: Result, out: Path) -> int:
    result.save(out)
    print(summary_table([result]))
    print(f"result: {out}")
    return 0


def quality(scores: Path, out: Path, dataset: str | None = None, num_bootstrap: int = 1000, seed: int = 0) -> int:
    """A table of predicted and true quality: correlations, errors, and what choosing a method by prediction gives.

    Args:
        scores: CSV or Parquet with the columns predicted and true, and image and method where methods are compared
        out: result file to write, .json
        dataset: name of what was scored, the same for the tables of all models that the report should compare; left out: the file's name
        num_bootstrap: resamples of images behind the 95 % intervals
        seed: of the bootstrap
    """
    return _written(quality_benchmark.quality(scores, dataset=dataset, num_bootstrap=num_bootstrap, seed=seed), out)


MASK_VERBS = {"segmentation": segmentation, "referring": referring, "quality": quality}
