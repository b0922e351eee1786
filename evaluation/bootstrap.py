"""How far a number would move with other data: percentile intervals from seeded resampling, for one model or for a pair.

What is resampled is a unit: an image of a classification set, an image with all its captions of a retrieval set. A statistic is
told how often each unit was drawn, so every statistic of one call, and both models of a pair, see the same draws.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

# Given how often each of the n units was drawn in each of b resamples (every row sums to n), the value in each resample.
Statistic = Callable[[Float[np.ndarray, "b n"]], Float[np.ndarray, "b"]]

_CHUNK_DRAWS = 2**20  # units drawn at once: 8 MiB as float64


@dataclass(frozen=True)
class Interval:
    """`value` is the statistic of the data as they are, not the middle of the resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """First model minus second. `p_value` is two-sided: how often the sign flips, from 2 / (resamples + 1) to 1."""

    p_value: float


def share(
    values: Float[np.ndarray, "q"], sizes: Float[np.ndarray, "q"] | None = None, unit: Int[np.ndarray, "q"] | None = None
) -> Statistic:
    """Sum of `values` over sum of `sizes` (1 each unless given): accuracy when `values` are 0 and 1.

    `unit[j]` is the unit that value j comes and goes with; without it, value j is unit j. Every unit needs a value: ValueError.
    """
    sizes = np.ones(len(values)) if sizes is None else sizes
    if unit is not None:
        _refuse_units_without_values(unit)
        values, sizes = np.bincount(unit, weights=values), np.bincount(unit, weights=sizes)
    return lambda drawn: (drawn @ values) / (drawn @ sizes)


def class_mean(values: Float[np.ndarray, "n"], labels: Int[np.ndarray, "n"]) -> Statistic:
    """Mean over classes of the mean of `values` in a class. Draw with `strata=labels`, which keeps the size of every class:
    otherwise a small class is missing from some resamples and the mean is one of other classes."""
    weights = 1 / np.bincount(labels)[labels]
    return share(values * weights, weights)


def median(values: Float[np.ndarray, "q"], unit: Int[np.ndarray, "q"]) -> Statistic:
    """Median of the values of all units drawn, between the two middle ones when their number is even."""
    _refuse_units_without_values(unit)
    order = np.argsort(values, kind="stable")
    ordered, unit_in_order = values[order], unit[order]

    def of(drawn: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b"]:
        up_to = drawn[:, unit_in_order].cumsum(1)  # how many values come no later than this one
        total = up_to[:, -1:]
        lower = (up_to <= (total - 1) // 2).sum(1)
        upper = (up_to <= total // 2).sum(1)
        return (ordered[lower] + ordered[upper]) / 2

    return of


def _refuse_units_without_values(unit: Int[np.ndarray, "q"]) -> None:
    """A resample of such units only would be a statistic of nothing."""
    missing = np.flatnonzero(np.bincount(unit) == 0)
    if len(missing):
        raise ValueError(f"each unit needs a value, but none belongs to unit {missing[0]} ({len(missing)} such units)")


def mean_of(*statistics: Statistic) -> Statistic:
    return lambda drawn: np.mean([statistic(drawn) for statistic in statistics], axis=0)


def intervals(
    statistics: Mapping[str, Statistic],
    num_units: int,
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    strata: Int[np.ndarray, "n"] | None = None,
) -> dict[str, Interval]:
    """Percentile interval of every statistic; `strata` keeps the number of units drawn from each stratum as it is in the data."""
    resampled = _resample(statistics, num_units, num_bootstrap, seed, strata)
    once = np.ones((1, num_units))
    return {name: Interval(float(of(once)[0]), *_middle(resampled[name], level)) for name, of in statistics.items()}


def paired_difference(
    first: Statistic,
    second: Statistic,
    num_units: int,
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    strata: Int[np.ndarray, "n"] | None = None,
) -> Difference:
    """Two models on the same units: each resample draws the same units for both, so what is hard for both cancels out."""

    def difference(drawn: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b"]:
        return first(drawn) - second(drawn)

    resampled = _resample({"": difference}, num_units, num_bootstrap, seed, strata)[""]
    sign_flips = 1 + min((resampled <= 0).sum(), (resampled >= 0).sum())  # the data themselves are one resample: never 0
    p_value = min(1.0, float(2 * sign_flips / (num_bootstrap + 1)))
    return Difference(float(difference(np.ones((1, num_units)))[0]), *_middle(resampled, level), p_value)


def _middle(resampled: Float[np.ndarray, "r"], level: float) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resample(
    statistics: Mapping[str, Statistic], num_units: int, num_bootstrap: int, seed: int, strata: np.ndarray | None
) -> dict[str, Float[np.ndarray, "r"]]:
    if num_units < 1 or num_bootstrap < 1:
        raise ValueError(f"a bootstrap needs units and resamples; got {num_units} units and num_bootstrap={num_bootstrap}")
    strata = np.zeros(num_units, dtype=int) if strata is None else strata
    parts = [{name: statistic(drawn) for name, statistic in statistics.items()} for drawn in _draws(strata, num_bootstrap, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in statistics}


def _draws(strata: Int[np.ndarray, "n"], num_bootstrap: int, seed: int) -> Iterator[Float[np.ndarray, "b n"]]:
    """How often each unit is drawn when every stratum is drawn from with replacement as often as it has units."""
    generator, n = np.random.default_rng(seed), len(strata)
    by_stratum = np.argsort(strata, kind="stable")
    _, stratum, sizes = np.unique(strata[by_stratum], return_inverse=True, return_counts=True)
    low = (np.cumsum(sizes) - sizes)[stratum]
    high = low + sizes[stratum]
    chunk = max(1, _CHUNK_DRAWS // n)
    for start in range(0, num_bootstrap, chunk):
        rows = min(chunk, num_bootstrap - start)
        drawn = by_stratum[generator.integers(low, high, size=(rows, n))]
        flat = (drawn + n * np.arange(rows)[:, None]).ravel()
        yield np.bincount(flat, minlength=rows * n).reshape(rows, n).astype(np.float64)
