"""`rsvl eval ...`: numbers of a model on a dataset, and one page of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.progress import Progress

from evaluation.benchmarks import retrieval as retrieval_benchmark
from evaluation.benchmarks import zero_shot as zero_shot_benchmark
from evaluation.contamination import contamination_of, training_data_of
from evaluation.data import EvalSet, Head, ShardSet
from evaluation.embed import EvalPrecision
from evaluation.embedding_cache import EmbeddingCache
from evaluation.metrics.retrieval import RetrievalProtocol
from evaluation.prompts import PromptProtocol
from evaluation.result import Result
from evaluation.wording import summary_table
from recipes._eval_datasets import ls
from recipes._eval_report import report
from recipes.evaluate import suite
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Engine
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
    """threads that read and decode ahead"""
    precision: EvalPrecision = "fp32"
    """of the towers"""
    engine: Engine = "exact"
    """decoding of images: exact gives open_clip's own pixels, fast is within a grey level or two"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """where the model runs"""
    limit: int | None = None
    """only the first images of the split"""
    cache: Path | None = None
    """folder of image embeddings: what is in it is not encoded again, whatever the task; left out, nothing is kept"""
    trained_on: tuple[str, ...] = ()
    """datasets the model was trained on, where its folder does not say; looked up in known overlaps"""
    seed: int = 0
    """of the bootstrap and of the examples shown"""
    num_bootstrap: int = 1000
    """resamples behind the 95 % intervals"""

    def measure(self, benchmark: Callable[..., Result], **own: str) -> int:
        """Run a benchmark with these options and its `own`, write the result, print it."""
        data: EvalSet = ShardSet(Dataset.open(self.data), self.split)
        if self.limit is not None:
            data = Head(data, self.limit)
        encoder = DualEncoder.load(self.model, self.device)
        common = {name: getattr(self, name) for name in ("batch_size", "workers", "precision", "engine", "seed", "num_bootstrap")}
        with Progress(transient=True) as bar:
            task = bar.add_task("encoding images", total=None)
            result = benchmark(
                encoder,
                data,
                **common,
                **own,
                cache=None if self.cache is None else EmbeddingCache(self.cache),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        seen = contamination_of(data, training_data_of(self.model, self.trained_on))
        result = replace(result, contamination=seen)
        result.save(self.out)
        print(summary_table([result]))
        print(f"result: {self.out}")
        return 0


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
    return options.measure(zero_shot_benchmark.zero_shot, protocol=options.protocol)


def retrieval(options: tyro.conf.OmitArgPrefixes[Retrieval]) -> int:
    """Image-text retrieval both ways: R@1/5/10, mean recall, median rank."""
    return options.measure(retrieval_benchmark.retrieval, protocol=options.protocol, lang=options.lang)


def run(options: tyro.conf.OmitArgPrefixes[suite.Options]) -> int:
    """A suite of measurements, of one model or several compared: quick, georsclip, farslip, all."""
    suite.run(options)
    return 0


VERBS = {"zero-shot": zero_shot, "retrieval": retrieval, "run": run, "report": report, "ls": ls}
