"""Whether captioning hides the preparation of images behind the model: wall time of the stage over the time of its slowest part alone.

python -m benchmarks.captioning                 # writes benchmarks/results/captioning.json

The engine sleeps instead of computing, as a GPU in another process looks from here, and answers `parallel` requests at once. For all
images it takes what preparing them takes on this machine, times `engine_over_preparing`: neither part is small, so a stage that does
one after the other takes their sum. Then the same again from the store: no request.
"""

import hashlib
import io
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from benchmarks import measure
from rsvl_data.captioning.engine import Answer, BatchThread, Reply, Request, close_engines
from rsvl_data.captioning.prompts import PROMPTS
from rsvl_data.captioning.stage import CaptionOptions, caption_with, prepare_image
from rsvl_data.sample import Sample, TextSource
from rsvl_data.stage import run_stages


@dataclass(frozen=True)
class Options:
    """`gate` is what `wall_over_slowest` must not exceed."""

    out: Path = Path(__file__).parent / "results" / "captioning.json"
    images: int = 500
    image_px: int = 1024
    image_side_px: int = 448
    parallel: int = 16
    engine_over_preparing: float = 1.3
    rounds: int = 5
    seed: int = 0
    gate: float = 1.15


@dataclass(frozen=True)
class SleepingEngine:
    """Answers batches of `num_parallel` requests after `batch_s` for a full one, less for others. Counts what it is asked."""

    num_parallel: int
    batch_s: float
    asked: list[str] = field(default_factory=list, hash=False, compare=False)
    source: TextSource = field(default_factory=lambda: TextSource(engine="sleeping"), hash=False)

    def start(self) -> "RunningSleep":
        return RunningSleep(self)


class RunningSleep:
    def __init__(self, engine: SleepingEngine):
        self._engine = engine
        self._lock = threading.Lock()
        self._thread = BatchThread(self._answer, engine.num_parallel, linger_s=0.01)

    def submit(self, request: Request) -> Future[Reply]:
        return self._thread.submit(request)

    def close(self) -> None:
        self._thread.close()

    def _answer(self, requests: Any) -> list[Reply]:
        time.sleep(self._engine.batch_s * len(requests) / self._engine.num_parallel)
        with self._lock:
            self._engine.asked.extend(hashlib.sha256(request.image).hexdigest() for request in requests)
        return [[Answer("A field with a road and some trees near the water.", "stop")] for _ in requests]


def make_samples(options: Options) -> list[Sample]:
    rng = np.random.default_rng(options.seed)
    samples = []
    for number in range(options.images):
        coarse = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        out = io.BytesIO()
        coarse.resize((options.image_px, options.image_px), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
        content = out.getvalue()
        sample = Sample(
            key=f"image-{number:05d}",
            width=options.image_px,
            height=options.image_px,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        sample.image = content
        samples.append(sample)
    return samples


def preparing_alone_s(samples: list[Sample], side_px: int) -> float:
    """In one thread, which is what it takes where a core is all there is."""
    begun = time.perf_counter()
    for sample in samples:
        prepare_image(sample.image, side_px)
    return time.perf_counter() - begun


def caption_all(samples: list[Sample], engine: SleepingEngine, options: Options, store: Path) -> float:
    stage = caption_with(
        engine,
        PROMPTS["rs-generic-short"],
        CaptionOptions(store=store, image_side_px=options.image_side_px, preparing_threads=1),
    )
    begun = time.perf_counter()
    stream, _ = run_stages(iter(samples), [stage], lambda *_: None)
    captioned = sum(len(sample.captions) for sample in stream)
    seconds = time.perf_counter() - begun
    if captioned != len(samples):
        raise RuntimeError(f"{captioned} captions for {len(samples)} images")
    return seconds


def measure_round(samples: list[Sample], options: Options) -> measure.Measured:
    preparing_s = preparing_alone_s(samples, options.image_side_px)
    engine_s = options.engine_over_preparing * preparing_s
    engine = SleepingEngine(options.parallel, engine_s * options.parallel / len(samples))
    with tempfile.TemporaryDirectory() as folder:
        wall_s = caption_all(samples, engine, options, Path(folder))
        num_asked = len(engine.asked)
        again_s = caption_all(samples, engine, options, Path(folder))
        close_engines()
    return {
        "preparing_s": preparing_s,
        "engine_s": engine_s,
        "wall_s": wall_s,
        "wall_over_slowest": wall_s / max(preparing_s, engine_s),
        "wall_over_sum": wall_s / (preparing_s + engine_s),
        "requests": num_asked,
        "from_the_store_s": again_s,
        "requests_again": len(engine.asked) - num_asked,
    }


def main(options: Options) -> None:
    samples = make_samples(options)
    rounds = measure.alternate({"ours": lambda: measure_round(samples, options)}, options.rounds)
    measured = [found["ours"] for found in rounds]
    ratio = measure.median_and_range([one["wall_over_slowest"] for one in measured])
    result = {
        "versions": measure.versions("pillow", "simplejpeg", "numpy"),
        "settings": {name: value for name, value in vars(options).items() if name != "out"},
        "wall_over_slowest": ratio,
        "wall_over_sum": measure.median_and_range([one["wall_over_sum"] for one in measured]),
        "requests_of_a_restart": max(one["requests_again"] for one in measured),
        "rounds": measured,
        "peak_rss_mib": measure.peak_rss_mib()["process"],
    }
    measure.write_result(options.out, "captioning", result)
    print(f"wall over slowest part: {ratio}; requests of a restart: {result['requests_of_a_restart']}")
    if ratio["median"] > options.gate or result["requests_of_a_restart"]:
        raise SystemExit(f"above the gate of {options.gate}, or asked again")


if __name__ == "__main__":
    main(tyro.cli(Options))
