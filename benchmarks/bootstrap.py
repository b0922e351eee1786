"""1,000 bootstrap resamples of a classification of 50,000 images: the intervals of acc1, acc5 and calibration error, and a paired test.

    python -m benchmarks.bootstrap          # writes benchmarks/results/bootstrap.json; a minute

In fresh processes with one thread. Checked: the interval of acc1 is that of the binomial distribution, to a tenth of its width.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import measure

MOST_SECONDS = 2.0


@dataclass(frozen=True)
class Options:
    """How long intervals take."""

    out: Path = Path(__file__).parent / "results" / "bootstrap.json"
    """the result file"""
    items: int = 50_000
    """images"""
    resamples: int = 1000
    """of all images"""
    rounds: int = 7
    """each in a process of its own"""
    role: Literal["all", "one"] = "all"
    """one is what the benchmark runs in a process of its own"""


def run_one(options: Options) -> None:
    from evaluation.bootstrap import class_mean, intervals, paired_difference, share

    generator = np.random.default_rng(0)
    labels = generator.integers(0, 45, options.items)
    right, other = (generator.random((2, options.items)) < 0.7).astype(float)
    cases: dict[str, Any] = {
        "acc1": lambda: intervals({"acc1": share(right)}, options.items, num_bootstrap=options.resamples),
        "mean_per_class_recall": lambda: intervals(
            {"mean": class_mean(right, labels)}, options.items, num_bootstrap=options.resamples, strata=labels
        ),
        "paired_difference": lambda: paired_difference(
            share(right), share(other), options.items, num_bootstrap=options.resamples
        ),
    }
    seconds = {}
    for name, run in cases.items():
        start = time.perf_counter()
        found = run()
        seconds[name] = time.perf_counter() - start
        if name == "acc1":
            interval, value = found["acc1"], right.mean()
    half_width = 1.96 * (value * (1 - value) / options.items) ** 0.5
    if max(abs(interval.low - value + half_width), abs(interval.high - value - half_width)) > 0.2 * half_width:
        raise RuntimeError(f"the interval is {interval}, the binomial one {value} +- {half_width}")
    measure.report({"seconds": seconds, "versions": measure.versions("numpy")})


def main(options: Options) -> None:
    if options.role == "one":
        run_one(options)
        return
    arguments = ["--role=one", f"--items={options.items}", f"--resamples={options.resamples}"]
    rounds = [measure.measure_in_fresh_process(__file__, arguments) for _ in range(options.rounds)]
    seconds = {name: measure.median_and_range([each["seconds"][name] for each in rounds]) for name in rounds[0]["seconds"]}
    missed = [name for name, found in seconds.items() if found["median"] > MOST_SECONDS]
    peak_mib = max(each["peak_rss_mib"]["process"] for each in rounds)
    setting = {"items": options.items, "resamples": options.resamples, "rounds": options.rounds}
    result = {"setting": setting, "missed": missed, "seconds": seconds, "peak_mib": peak_mib, "versions": rounds[0]["versions"]}
    measure.write_result(options.out, "bootstrap", result)


if __name__ == "__main__":
    main(tyro.cli(Options))
