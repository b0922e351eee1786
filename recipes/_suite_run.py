"""Running a suite: what is finished is kept, what fails is named and costs nothing else, several processes share the encoding of images."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from rich.progress import Progress

from evaluation.benchmarks.localization import localization
from evaluation.benchmarks.open_vocabulary import Setting, open_vocabulary
from evaluation.benchmarks.retrieval import retrieval
from evaluation.benchmarks.zero_shot import zero_shot
from evaluation.contamination import contamination_of, training_data_of
from evaluation.embed import EvalPrecision, cache_images
from evaluation.embedding_cache import EmbeddingCache
from evaluation.result import Result
from evaluation.suite import Measurement
from recipes._suite_data import SuiteData, images_of, open_measured, where_to_get
from rsvl_data.errors import DataError, RsvlError
from rsvl_data.transforms import Engine
from rsvl_pretrain.model import DualEncoder

log = logging.getLogger(__name__)


def _open_vocabulary(encoder: DualEncoder, data: Any, *, protocol: str, batch_size: int, **rules: Any) -> Result:
    """Windows are no images that another task encodes, too: nothing is kept of them."""
    used = {name: value for name, value in rules.items() if name not in ("workers", "cache", "engine")}
    return open_vocabulary(encoder, data, Setting.of(protocol, data), batch_size=batch_size, **used)


_BENCHMARKS: dict[str, Callable[..., Result]] = {
    "zero_shot": zero_shot,
    "retrieval": retrieval,
    "open_vocabulary": _open_vocabulary,
    "localization": localization,
}
_OF_WHOLE_IMAGES = ("zero_shot", "retrieval")


@dataclass(frozen=True)
class Rules:
    """What changes a number or its interval, beside model and data. A result measured under others is measured again."""

    batch_size: int
    precision: EvalPrecision
    engine: Engine
    limit: int | None
    seed: int
    num_bootstrap: int


@dataclass(frozen=True)
class Outcome:
    """What became of one measurement of one model. `kept` is a result of an earlier run."""

    measurement: Measurement
    model: str
    state: Literal["measured", "kept", "absent", "failed"]
    reason: str | None = None
    result: Result | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Ranks:
    """The processes that torchrun or `accelerate launch` started; one process is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["Ranks"]:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield cls()
            return
        dist.init_process_group(
            "gloo", timeout=timedelta(days=1)
        )  # it carries no tensor: ranks wait for each other, and may wait long
        try:
            yield cls(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
        finally:
            dist.destroy_process_group()

    def wait(self) -> None:
        if self.world_size > 1:
            dist.barrier()


@dataclass(frozen=True)
class SuiteRun:
    """`cache` None: every measurement encodes its images. Several ranks meet in the cache and need one."""

    measurements: Sequence[Measurement]
    root: Path
    out: Path
    rules: Rules
    cache: EmbeddingCache | None = None
    ranks: Ranks = Ranks()
    workers: int = 2
    device: str = "cpu"
    trained_on: tuple[str, ...] = ()

    def of_model(self, model: str) -> list[Outcome]:
        """In the order of the measurements. Ranks other than the first encode their share, and answer nothing."""
        try:
            encoder = self._load(model)
        except RsvlError as error:
            return [Outcome(each, model, "failed", str(error)) for each in self.measurements]
        if self.ranks.world_size > 1:
            self._encode_share(encoder)
            self.ranks.wait()
        return [self._outcome(encoder, each) for each in self.measurements] if self.ranks.rank == 0 else []

    def _load(self, model: str) -> DualEncoder:
        device = f"cuda:{self.ranks.local_rank}" if self.device == "cuda" and self.ranks.world_size > 1 else self.device
        with torch.random.fork_rng():
            torch.manual_seed(self.rules.seed)  # fresh weights are the same in every process, and when the run goes on
            return DualEncoder.load(model, device)

    def _encode_share(self, encoder: DualEncoder) -> None:
        """What fails here fails again, and is named, when the first rank measures. Windows are left to the first rank."""
        assert self.cache is not None
        for each in (each for each in self.measurements if each.task in _OF_WHOLE_IMAGES):
            try:
                data = self._open(each)
                if data is not None and self._finished(encoder, each, data) is None:
                    cache_images(
                        encoder,
                        images_of(data),
                        self.cache,
                        rank=self.ranks.rank,
                        world_size=self.ranks.world_size,
                        batch_size=self.rules.batch_size,
                        workers=self.workers,
                        precision=self.rules.precision,
                        engine=self.rules.engine,
                    )
            except Exception as error:
                log.info("rank %d: %s: %s", self.ranks.rank, each.name, error)

    def _outcome(self, encoder: DualEncoder, measurement: Measurement) -> Outcome:
        """One dataset's fault, a bug included, must not cost the others."""
        try:
            data = self._open(measurement)
            if data is None:
                return Outcome(
                    measurement, encoder.name, "absent", f"not under {self.root}; get it at {where_to_get(measurement)}"
                )
            kept = self._finished(encoder, measurement, data)
            if kept is not None:
                return Outcome(measurement, encoder.name, "kept", result=kept)
            result = self._measure(encoder, measurement, data)
            result.save(self._path(encoder, measurement))
            return Outcome(measurement, encoder.name, "measured", result=result)
        except (RsvlError, OSError) as error:
            return Outcome(measurement, encoder.name, "failed", str(error))
        except Exception as error:
            log.exception("%s of %s", measurement.name, encoder.name)
            return Outcome(measurement, encoder.name, "failed", f"{type(error).__name__}: {error}")

    def _open(self, measurement: Measurement) -> SuiteData | None:
        return open_measured(measurement, self.root, self.rules.limit)

    def _measure(self, encoder: DualEncoder, measurement: Measurement, data: SuiteData) -> Result:
        rules = {name: value for name, value in asdict(self.rules).items() if name != "limit"}
        with Progress(transient=True) as bar:
            task = bar.add_task(measurement.name, total=None)

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            result = _BENCHMARKS[measurement.task](
                encoder,
                data,
                protocol=measurement.protocol,
                workers=self.workers,
                cache=self.cache,
                progress=progress,
                **rules,
            )
        seen = contamination_of(images_of(data), training_data_of(encoder.name, self.trained_on))
        return replace(
            result, contamination=seen, options={"dataset": measurement.dataset, **result.options, **self._options(encoder)}
        )

    def _options(self, encoder: DualEncoder) -> dict[str, Any]:
        """The rules, and what is made of the weights: the same ones under another activation are another model."""
        architecture = sha256(json.dumps(encoder.config, sort_keys=True).encode()).hexdigest()
        return {**asdict(self.rules), "architecture_sha256": architecture, "trained_on": list(self.trained_on)}

    def _finished(self, encoder: DualEncoder, measurement: Measurement, data: SuiteData) -> Result | None:
        """The result of an earlier run, if it would come out again: same weights, data, protocol, rules. A file that cannot be read is
        measured again."""
        path = self._path(encoder, measurement)
        try:
            result = Result.load(path) if path.exists() else None
        except DataError as error:
            log.info("%s; it is measured again", error)
            return None
        if result is None:
            return None
        rules = self._options(encoder)
        recorded = {
            name: value for name, value in result.options.items() if name in rules
        }  # beside them what the protocol prescribes
        there = (result.task, result.protocol, result.model["sha256"], result.data["sha256"], recorded)
        now = (measurement.task, measurement.protocol, encoder.weights_sha256(), data.sha256(), rules)
        return result if there == now else None

    def _path(self, encoder: DualEncoder, measurement: Measurement) -> Path:
        """A folder a model; the end of its name tells those apart whose names differ in signs alone."""
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", encoder.name).strip("_.")[-60:]
        return self.out / "results" / f"{readable}-{sha256(encoder.name.encode()).hexdigest()[:6]}" / f"{measurement.name}.json"


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """A line for each reason why measurements have no result, then how many of each kind there were."""
    without: dict[tuple[str, str, str | None], list[str]] = {}
    for each in outcomes:
        if each.result is None:
            without.setdefault((each.state, each.model, each.reason), []).append(each.measurement.name)
    lines = [f"{state}: {', '.join(names)} of {model}: {reason}" for (state, model, reason), names in without.items()]
    counts = {state: sum(each.state == state for each in outcomes) for state in ("measured", "kept", "absent", "failed")}
    return "\n".join([*lines, ", ".join(f"{count} {state}" for state, count in counts.items() if count)])
