"""Cells to the numbers that are kept with the code: per arm and world the mean over seeds, each seed, and the difference to CLIP only.

Intervals resample the items of a test set, the same for all seeds and both arms of a difference: they say how far a number would move
with other images, not with other seeds. A difference counts as told apart when its interval leaves out 0, every seed has its sign, and one
of the two is better than guessing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evaluation.bootstrap import Statistic, intervals, mean_of, paired_difference
from evaluation.comparison import measured_items
from evaluation.result import Result

Results = Mapping[str, Result]

BASELINE = "clip"
DECIMALS = 6  # of a fraction, in the files that are kept with the code
SHOWN = {"zero_shot": "acc1", "objects": "acc1", "retrieval": "mean_recall", "open_vocabulary": "miou"}


def summarise(seeds: Sequence[Results], baseline: Sequence[Results]) -> dict[str, Any]:
    """By "task data". `seeds[i]` and `baseline[i]` are of the same seed."""
    return {name: _measured(name, [each[name] for each in seeds], [each[name] for each in baseline]) for name in seeds[0]}


def _measured(name: str, seeds: Sequence[Result], baseline: Sequence[Result]) -> dict[str, Any]:
    metric = SHOWN[name.partition(" ")[0]]
    statistic, num_units = _mean_over_seeds(seeds, metric)
    other, _ = _mean_over_seeds(baseline, metric)
    values, theirs = ([each.metrics[metric].value for each in results] for results in (seeds, baseline))
    return {
        "metric": metric,
        "n": seeds[0].n,
        "chance": seeds[0].metrics[metric].chance,
        "mean": _short(asdict(intervals({"": statistic}, num_units)[""])),
        "per_seed": [_short({name: getattr(each.metrics[metric], name) for name in ("value", "low", "high")}) for each in seeds],
        "difference": _short(asdict(paired_difference(statistic, other, num_units))),
        "difference_per_seed": [round(value - of_other, DECIMALS) for value, of_other in zip(values, theirs)],
    }


def _short(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    """A seed measured on few images has no interval."""
    return {name: None if value is None else round(value, DECIMALS) for name, value in numbers.items()}


def _mean_over_seeds(results: Sequence[Result], metric: str) -> tuple[Statistic, int]:
    items = [measured_items(result)[metric] for result in results]
    return mean_of(*(each.statistic for each in items)), items[0].num_units


def verdict(measured: Mapping[str, Any]) -> int:
    """1 or -1 for a difference that is told apart, else 0. Below what guessing gives there is nothing to tell apart."""
    value, guessing = measured["mean"]["value"], measured["chance"]
    if guessing is not None and max(value, value - measured["difference"]["value"]) <= guessing:
        return 0
    low, high, seeds = measured["difference"]["low"], measured["difference"]["high"], measured["difference_per_seed"]
    if low > 0 and min(seeds) > 0:
        return 1
    return -1 if high < 0 and max(seeds) < 0 else 0
