"""`rsvl eval ...`: numbers of a model on a dataset, and one page of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from evaluation.benchmarks import few_shot as few_shot_benchmark
from evaluation.benchmarks import knn as knn_benchmark
from evaluation.benchmarks import linear_probe as linear_probe_benchmark
from evaluation.benchmarks import retrieval as retrieval_benchmark
from evaluation.benchmarks import zero_shot as zero_shot_benchmark
from evaluation.data import EvalSet, Thinned
from evaluation.datasets import catalogue, open_dataset
from evaluation.datasets.entry import spelling
from evaluation.metrics.retrieval import RetrievalProtocol
from evaluation.prompts import PromptProtocol
from evaluation.result import Result
from recipes._eval_datasets import ls
from recipes._eval_localization import localization
from recipes._eval_masks import MASK_VERBS
from recipes._eval_measured import Measured
from recipes._eval_open_vocabulary import open_vocabulary_verb
from recipes._eval_report import report
from recipes.evaluate import suite
from rsvl_data.shard_cache import ShardCache, default_cache_folder


@dataclass(frozen=True, kw_only=True)
class _Common(Measured):
    data: str
    """dataset folder or its address (hf://datasets/org/name, s3://bucket/path, https://...), a name that `rsvl eval ls` lists, wds:PATH or
    hub:org/name"""
    data_cache: Path = field(default_factory=default_cache_folder)
    """folder where shards of data at an address are kept; all processes of a machine share it"""
    data_cache_gib: float = ShardCache.size_gib
    """the most it may take; what was used longest ago is removed"""
    root: Path = Path()
    """folder that holds the datasets that go by a name"""
    split: str | None = None
    """split to measure on: choose on val, report on test; left out, test, or what the papers measure a public dataset on"""
    limit: int | None = None
    """only so many images, spread over the split; the result says so"""

    def measure(self, benchmark: Callable[..., Result], *before: EvalSet, **own: Any) -> int:
        """`before` are splits the benchmark takes before the one that is measured, `own` its own options."""
        data = self.opened(self.split)
        if self.limit is not None:
            data = Thinned(data, self.limit)
        named = self.data if any(spelling(entry.name) == spelling(self.data) for entry in catalogue()) else None
        return self.measure_images(benchmark, *before, data, images=data, dataset=named, **own)

    def opened(self, split: str | None) -> EvalSet:
        return open_dataset(self.data, self.root, split, ShardCache(self.data_cache, self.data_cache_gib))


@dataclass(frozen=True, kw_only=True)
class ZeroShot(_Common):
    protocol: PromptProtocol = "rsvl"
    """prompts and their averaging"""
    lang: str = "en"
    """language of class names and prompts; only the protocol rsvl has others than English"""


@dataclass(frozen=True, kw_only=True)
class Retrieval(_Common):
    protocol: RetrievalProtocol = "rsvl"
    """what counts as found; numbers under different protocols do not compare"""
    lang: str = "en"
    """language of the captions; `all` measures each that every image has, and their mean"""


@dataclass(frozen=True, kw_only=True)
class Probe(_Common):
    train_split: str = "train"
    """split to learn from"""
    val_split: str | None = None
    """split to choose settings by; left out, a fifth of each class of the training split"""

    def probe(self, benchmark: Callable[..., Result]) -> int:
        val = None if self.val_split is None else self.opened(self.val_split)
        return self.measure(benchmark, self.opened(self.train_split), val=val)


def zero_shot(options: tyro.conf.OmitArgPrefixes[ZeroShot]) -> int:
    """Zero-shot scene classification: acc1, acc5, mean per-class recall."""
    return options.measure(zero_shot_benchmark.zero_shot, protocol=options.protocol, lang=options.lang)


def retrieval(options: tyro.conf.OmitArgPrefixes[Retrieval]) -> int:
    """Image-text retrieval both ways: R@1/5/10, mean recall, median rank."""
    return options.measure(retrieval_benchmark.retrieval, protocol=options.protocol, lang=options.lang)


def linear_probe(options: tyro.conf.OmitArgPrefixes[Probe]) -> int:
    """Logistic regression on frozen image embeddings; its weight decay is chosen on val."""
    return options.probe(linear_probe_benchmark.linear_probe)


def knn(options: tyro.conf.OmitArgPrefixes[Probe]) -> int:
    """Classes of the nearest training images, with DINO's weights; k is chosen on val."""
    return options.probe(knn_benchmark.knn)


def few_shot(options: tyro.conf.OmitArgPrefixes[Probe]) -> int:
    """Linear probes on 1, 2, 4, 8 and 16 training images a class."""
    return options.probe(few_shot_benchmark.few_shot)


def run(options: tyro.conf.OmitArgPrefixes[suite.Options]) -> int:
    """A suite of measurements, of one model or several compared: quick, georsclip, farslip, all."""
    suite.run(options)
    return 0


VERBS = {
    "zero-shot": zero_shot,
    "retrieval": retrieval,
    "linear-probe": linear_probe,
    "knn": knn,
    "few-shot": few_shot,
    "localization": localization,
    "open-vocabulary": open_vocabulary_verb,
    **MASK_VERBS,
    "run": run,
    "report": report,
    "ls": ls,
}
