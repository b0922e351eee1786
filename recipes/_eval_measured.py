"""What every `rsvl eval` that runs a model asks for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from evaluation.contamination import contamination_of, training_data_of
from evaluation.data import EvalSet
from evaluation.embed import EvalPrecision
from evaluation.embedding_cache import EmbeddingCache
from evaluation.result import Result
from evaluation.wording import summary_table
from rsvl_data.transforms import Engine
from rsvl_pretrain.model import DualEncoder


@dataclass(frozen=True, kw_only=True)
class Measured:
    model: str
    """run folder, export folder, hf-hub:org/name, ARCHITECTURE,TAG"""
    out: Path
    """result file to write, .json"""
    batch_size: int = 128
    """images encoded at once; 32 at most on a CPU"""
    workers: int = 2
    """threads that read and decode ahead"""
    precision: EvalPrecision = "fp32"
    """of the towers"""
    engine: Engine = "exact"
    """decoding of images: exact gives open_clip's own pixels, fast is within a grey level or two"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """where the model runs"""
    cache: Path | None = None
    """folder of image embeddings: what is in it is not encoded again, whatever the task; left out, nothing is kept"""
    trained_on: tuple[str, ...] = ()
    """datasets the model was trained on, where its folder does not say; looked up in known overlaps"""
    seed: int = 0
    """of the bootstrap and of the examples shown, and of the weights where --model names an architecture without any"""
    num_bootstrap: int = 1000
    """resamples behind the 95 % intervals"""

    def measure_images(
        self, benchmark: Callable[..., Result], *data: Any, images: EvalSet, dataset: str | None = None, **own: Any
    ) -> int:
        """Run a benchmark on `data` with these options and its `own`, write the result, print it. `images` are those it measures on,
        `dataset` is their name in the catalogue, if they have one."""
        torch.manual_seed(self.seed)
        encoder = DualEncoder.load(self.model, self.device)
        common = {name: getattr(self, name) for name in ("batch_size", "workers", "precision", "engine", "seed", "num_bootstrap")}
        with Progress(transient=True) as bar:
            task = bar.add_task("encoding images", total=None)
            result = benchmark(
                encoder,
                *data,
                **common,
                **own,
                cache=None if self.cache is None else EmbeddingCache(self.cache),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        seen = contamination_of(images, training_data_of(self.model, self.trained_on))
        kept = {"dataset": dataset, **common, "limit": getattr(self, "limit", None), "trained_on": list(self.trained_on)}
        result = replace(result, contamination=seen, options={**kept, **result.options})
        result.save(self.out)
        print(summary_table([result]))
        print(f"result: {self.out}")
        return 0
