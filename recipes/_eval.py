"""`rsvl eval ...`: numbers of a model on a dataset, and one page of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from evaluation.benchmarks import retrieval as retrieval_benchmark
from evaluation.benchmarks import zero_shot as zero_shot_benchmark
from evaluation.metrics.retrieval import RetrievalProtocol
from evaluation.prompts import PromptProtocol
from evaluation.report import summary_table, write_report
from evaluation.result import Result
from rsvl_data.shards import Dataset
from rsvl_pretrain.model import DualEncoder


@dataclass(frozen=True, kw_only=True)
class _Common:
    model: str
    """run folder, export folder, hf-hub:org/name, ARCHITECTURE,TAG"""
    data: Path
    """dataset folder"""
    out: Path
    """result file to write, .json"""
    split: str = "test"
    """split to measure on; choose on val, report on test"""
    batch_size: int = 128
    """images encoded at once"""
    workers: int = 2
    """processes that decode images"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """where the model runs"""
    seed: int = 0
    """of the bootstrap and of the examples shown"""
    num_bootstrap: int = 1000
    """resamples behind the 95 % intervals"""


@dataclass(frozen=True, kw_only=True)
class ZeroShot(_Common):
    protocol: PromptProtocol = "rsvl"
    """prompts and their averaging"""


@dataclass(frozen=True, kw_only=True)
class Retrieval(_Common):
    protocol: RetrievalProtocol = "rsvl"
    """what counts as found; numbers under different protocols do not compare"""
    lang: str = "en"
    """language of the captions"""


def zero_shot(options: tyro.conf.OmitArgPrefixes[ZeroShot]) -> int:
    """Zero-shot scene classification: acc1, acc5, mean per-class recall."""
    dataset, encoder = _open(options)
    result = zero_shot_benchmark.zero_shot(
        encoder,
        dataset,
        options.split,
        protocol=options.protocol,
        batch_size=options.batch_size,
        workers=options.workers,
        seed=options.seed,
        num_bootstrap=options.num_bootstrap,
    )
    return _finish(result, options.out)


def retrieval(options: tyro.conf.OmitArgPrefixes[Retrieval]) -> int:
    """Image-text retrieval both ways: R@1/5/10, mean recall, median rank."""
    dataset, encoder = _open(options)
    result = retrieval_benchmark.retrieval(
        encoder,
        dataset,
        options.split,
        protocol=options.protocol,
        lang=options.lang,
        batch_size=options.batch_size,
        workers=options.workers,
        seed=options.seed,
        num_bootstrap=options.num_bootstrap,
    )
    return _finish(result, options.out)


def report(
    results: Annotated[list[Path], tyro.conf.Positional],
    /,
    out: Path = Path("report.html"),
    data: Path | None = None,
    run: Path | None = None,
) -> int:
    """One self-contained HTML page of any number of results.

    Args:
        results: result files
        out: page to write
        data: dataset folder, for pictures, counts and what the build left out
        run: run folder, for the training curves
    """
    loaded = [Result.load(path) for path in results]
    write_report(out, loaded, dataset=Dataset.open(data) if data else None, run=run)
    print(summary_table(loaded))
    print(f"report: {out}")
    return 0


def _open(options: _Common) -> tuple[Dataset, DualEncoder]:
    return Dataset.open(options.data), DualEncoder.load(options.model, options.device).eval()


def _finish(result: Result, out: Path) -> int:
    result.save(out)
    print(summary_table([result]))
    print(f"result: {out}")
    return 0


VERBS = {"zero-shot": zero_shot, "retrieval": retrieval, "report": report}
