"""How far a number would move with other data: percentile intervals from seeded resampling, for one model or for a pair.

What is resampled is a unit: an image of a classification set, an image with all its captions of a retrieval set. A statistic is
told how often each unit was drawn, so every statistic of one call, and both models of a pair, see the same draws.

Where all units are alike (all right, all wrong) no resample differs and a percentile interval would claim to be certain: `_unmoved`
takes its place. The p-value of a pair comes from exchanging units between the models (`exchange_p_value`), which stays true for few units.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

# Given how often each of the n units was drawn in each of b resamples (every row sums to n), the value in each resample.
Statistic = Callable[[Float[np.ndarray, "b n"]], Float[np.ndarray, "b"]]
Bounds = tuple[float, float]  # the least and the greatest value that a statistic can have

LEAST_UNITS = 6  # of fewer, all favour one model by chance in more than 1 of 20 cases: 2 ** (1 - 5) = 0.06
LEAST_OF_CLASS = 10  # drawn within a class of m, variance comes out (m - 1) / m times too small
_CHUNK_DRAWS = 2**20  # units drawn at once: 8 MiB as float64
_SAME = 1e-12  # values this near are equal but for rounding


@dataclass(frozen=True)
class Interval:
    """`value` is the statistic of the data as they are, not the middle of the resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """First model minus second. `p_value` is two-sided, for the hypothesis that the models are equally good."""

    p_value: float


@dataclass(frozen=True)
class OfSums:
    """A statistic that is the `measure` of what the units drawn count together; row i of `counts` is what unit i counts.

    `undrawn` is the weight of a unit that a resample leaves out. Just above 0, a class of which no image is drawn keeps its value in the
    whole set; with 0 it would leave the mean over classes, and resamples would be means of other classes.
    """

    counts: Float[np.ndarray, "n *k"]
    measure: Callable[[np.ndarray], np.ndarray]  # [b, *k] -> [b]
    undrawn: float = 0.0

    def __call__(self, drawn: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b"]:
        weights = np.maximum(drawn, self.undrawn) if self.undrawn else drawn
        return self.of_flat(weights @ self.flat)

    @property
    def flat(self) -> Float[np.ndarray, "n k"]:
        return self.counts.reshape(len(self.counts), -1)

    def of_flat(self, sums: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b"]:
        return self.measure(sums.reshape(len(sums), *self.counts.shape[1:]))


def share(
    values: Float[np.ndarray, "q"], sizes: Float[np.ndarray, "q"] | None = None, unit: Int[np.ndarray, "q"] | None = None
) -> OfSums:
    """Sum of `values` over sum of `sizes` (1 each unless given): accuracy when `values` are 0 and 1.

    `unit[j]` is the unit that value j comes and goes with; without it, value j is unit j. Every unit needs a value: ValueError.
    """
    sizes = np.ones(len(values)) if sizes is None else sizes
    if unit is not None:
        _refuse_units_without_values(unit)
        values, sizes = np.bincount(unit, weights=values), np.bincount(unit, weights=sizes)
    return OfSums(np.stack([values, sizes], axis=1).astype(np.float64), lambda sums: sums[:, 0] / sums[:, 1])


def class_mean(values: Float[np.ndarray, "n"], labels: Int[np.ndarray, "n"]) -> OfSums:
    """Mean over classes of the mean of `values` in a class. Draw with `strata=class_strata(labels)`."""
    weights = 1 / np.bincount(labels)[labels]
    return share(values * weights, weights)


def class_strata(labels: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"] | None:
    """Classes as strata, which keeps the size of each; None if one that occurs has fewer than LEAST_OF_CLASS items.

    A class of one item would be the same in every resample, and 21 classes of one a mean without doubt. Drawn from all classes at once,
    small ones are missing from some resamples: the interval is then rather too wide than too narrow.
    """
    sizes = np.bincount(labels)
    return labels if sizes[sizes > 0].min() >= LEAST_OF_CLASS else None


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
    sums = [statistic for statistic in statistics if isinstance(statistic, OfSums)]
    if len(sums) == len(statistics) and len({(len(each.counts), each.undrawn) for each in sums}) == 1:
        return _mean_of_sums(sums)
    return lambda drawn: np.mean([statistic(drawn) for statistic in statistics], axis=0)


def _mean_of_sums(statistics: Sequence[OfSums]) -> OfSums:
    together = np.concatenate([each.flat for each in statistics], axis=1)
    ends = np.cumsum([each.flat.shape[1] for each in statistics])[:-1]

    def mean(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.mean([each.of_flat(part) for each, part in zip(statistics, np.split(sums, ends, axis=1))], axis=0))

    return OfSums(together, mean, statistics[0].undrawn)


def intervals(
    statistics: Mapping[str, Statistic],
    num_units: int,
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    strata: Int[np.ndarray, "n"] | None = None,
    bounds: Bounds | None = (0.0, 1.0),
    num_alike: int | None = None,
) -> dict[str, Interval]:
    """Percentile interval of every statistic; `strata` keeps the number of units drawn from each stratum as it is in the data.

    A statistic that no resample moves gets the interval of `_unmoved` within `bounds`, as the mean of `num_alike` units (all of them
    unless given; not all where strata are units of another kind). Without bounds it keeps an interval of one point, which is right for
    a median of LEAST_UNITS or more.
    """
    resampled = _resample(statistics, num_units, num_bootstrap, seed, strata)
    once = np.ones((1, num_units))
    sizes = _sizes(num_units, strata) if num_alike is None else np.array([num_alike])
    values = {name: float(of(once)[0]) for name, of in statistics.items()}
    return {name: Interval(value, *_ends(value, resampled[name], level, bounds, sizes)) for name, value in values.items()}


def paired_difference(
    first: Statistic,
    second: Statistic,
    num_units: int,
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    strata: Int[np.ndarray, "n"] | None = None,
    bounds: Bounds | None = (-1.0, 1.0),
) -> Difference:
    """Two models on the same units: each resample draws the same units for both, so what is hard for both cancels out.

    `bounds` are those of the difference. The p-value is that of `exchange_p_value`; for statistics that are not of sums, twice the share
    of resamples in which the sign flips, from 2 / (num_bootstrap + 1) to 1.
    """

    def difference(drawn: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b"]:
        return first(drawn) - second(drawn)

    resampled = _resample({"": difference}, num_units, num_bootstrap, seed, strata)[""]
    value = float(difference(np.ones((1, num_units)))[0])
    if isinstance(first, OfSums) and isinstance(second, OfSums):
        p_value = exchange_p_value(first, second, num_exchanges=num_bootstrap, seed=seed)
    else:
        sign_flips = 1 + min((resampled <= 0).sum(), (resampled >= 0).sum())  # the data themselves are one resample: never 0
        p_value = min(1.0, float(2 * sign_flips / (num_bootstrap + 1)))
    return Difference(value, *_ends(value, resampled, level, bounds, _sizes(num_units, strata)), p_value)


def exchange_p_value(first: OfSums, second: OfSums, *, num_exchanges: int = 1000, seed: int = 0) -> float:
    """If two models are equally good, each unit could as well have gone the other way round: how often is the difference then as large?

    Fisher's randomisation test for pairs (The Design of Experiments, 1935, section 21), two-sided; of answers that are right or wrong
    it is the exact test of McNemar. Only units on which the models differ matter: with k of them p is 2 ** (1 - k) or more, whatever
    the number of units. Where there are at most `num_exchanges` ways to exchange them, all are counted; otherwise that many are drawn.
    """
    change = second.flat - first.flat
    change = change[(change != 0).any(axis=1)]
    moved = np.concatenate([exchanged @ change for exchanged in _exchanges(len(change), num_exchanges, seed)])
    differences = np.abs(first.of_flat(first.flat.sum(0) + moved) - second.of_flat(second.flat.sum(0) - moved))
    return float(1 - (differences < differences[0] - _SAME).mean())


def _exchanges(num_differing: int, num_exchanges: int, seed: int) -> Iterator[Float[np.ndarray, "b k"]]:
    """Rows of 0 (stays) and 1 (changes hands). The first is all 0: the data themselves are one way, so p is never 0."""
    if 2**num_differing <= num_exchanges:
        yield (np.arange(2**num_differing)[:, None] >> np.arange(num_differing) & 1).astype(np.float64)
        return
    generator, chunk = np.random.default_rng(seed), max(1, _CHUNK_DRAWS // num_differing)
    yield np.zeros((1, num_differing))
    for start in range(0, num_exchanges, chunk):
        yield generator.integers(0, 2, (min(chunk, num_exchanges - start), num_differing)).astype(np.float64)


def _ends(
    value: float, resampled: Float[np.ndarray, "r"], level: float, bounds: Bounds | None, sizes: Int[np.ndarray, "s"]
) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    if bounds is not None and high - low <= _SAME:
        return _unmoved(value, level, bounds, sizes)
    return float(low), float(high)


def _unmoved(value: float, level: float, bounds: Bounds, sizes: Int[np.ndarray, "s"]) -> tuple[float, float]:
    """Interval of a mean that no resample moves: the means under which units as alike as these still come up with probability
    (1 - level) / 2. `sizes` are the numbers of units of each stratum, of which all count like the smallest.

    Without strata it is the interval of Clopper and Pearson (Biometrika 26, 1934) for 0 or n of n units: if a share u of all units were
    others, n draws would show none of them with probability (1 - u) ** n. With strata the worst case is that only those differ which
    are at the other end of `bounds`: `reach` times their number, but at least one. Above all for means over few units; for a ratio of
    sums, such as IoU, it is an approximation.
    """
    low, high = bounds
    num_like = len(sizes) * int(sizes.min())

    def others(reach: float) -> float:
        return reach * float(1 - ((1 - level) / 2) ** (1 / (num_like * max(reach, 1 / len(sizes)))))

    at = min(1.0, max(0.0, (value - low) / (high - low)))
    return value - (high - low) * others(at), value + (high - low) * others(1 - at)


def _sizes(num_units: int, strata: Int[np.ndarray, "n"] | None) -> Int[np.ndarray, "s"]:
    return np.array([num_units]) if strata is None else np.unique(strata, return_counts=True)[1]


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
