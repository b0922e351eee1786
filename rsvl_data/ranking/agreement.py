"""How far people agree with each other, and with a score: pure functions of numbers.

Each statistic comes as a function of draws, `[b, n] -> [b]`: given how often each of n units counts in each of b resamples, its value
in each. That is what `evaluation.bootstrap.intervals` resamples; a single row of ones gives the value of the data as they are.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Level = Literal["nominal", "ordinal", "interval"]
OfDraws = Callable[[Float[np.ndarray, "b n"]], Float[np.ndarray, "b"]]


def krippendorff_alpha(ratings: Float[np.ndarray, "r u"], level: Level) -> float:
    """1: the raters agree in full; 0: as much as chance; below: less. Rows are raters, columns units, NaN is a missing rating.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011. Units with fewer than two ratings say nothing and do not
    count. NaN when no unit is left, or when all ratings left are the same value, which shows no agreement beyond chance.
    """
    return float(alpha_of_draws(ratings, level)(np.ones((1, ratings.shape[1])))[0])


def alpha_of_draws(ratings: Float[np.ndarray, "r u"], level: Level) -> OfDraws:
    """`krippendorff_alpha` when unit u counts draws[:, u] times."""
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == values).sum(0)  # [u, v]: how many raters gave unit u the value v
    coincidences = _coincidences(counts)

    def of(draws: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b"]:
        observed = np.einsum("bu,uvw->bvw", draws, coincidences)
        totals = observed.sum(2)  # [b, v]
        num_pairable = totals.sum(1)
        distance = _squared_distance(values, totals, level)
        disagreement = (observed * distance).sum((1, 2))
        by_chance = (totals[:, :, None] * totals[:, None, :] * distance).sum((1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(by_chance > 0, 1 - (num_pairable - 1) * disagreement / by_chance, np.nan)

    return of


def _coincidences(counts: Int[np.ndarray, "u v"]) -> Float[np.ndarray, "u v v"]:
    """Ordered pairs of values within each unit, over the number of its ratings but one; 0 for a unit with fewer than two."""
    num_ratings = counts.sum(1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1], dtype=int)
    return pairs / np.maximum(num_ratings - 1, 1)[:, None, None]


def _squared_distance(
    values: Float[np.ndarray, "v"], totals: Float[np.ndarray, "b v"], level: Level
) -> Float[np.ndarray, "b v v"]:
    """How different two values are. Ordinal: how many ratings lie between them, with half of those at either end."""
    if level == "nominal":
        return np.broadcast_to(1.0 - np.eye(len(values)), (len(totals), len(values), len(values)))
    place = values[None].repeat(len(totals), 0) if level == "interval" else np.cumsum(totals, 1) - totals / 2
    return (place[:, :, None] - place[:, None, :]) ** 2


def spearman(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> float:
    """Correlation of ranks, -1 to 1; equal values share their mean rank. NaN when one side does not vary or has fewer than 2 values."""
    return float(spearman_of_draws(x, y)(np.ones((1, len(x))))[0])


def spearman_of_draws(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> OfDraws:
    """`spearman` when unit i counts draws[:, i] times."""
    if x.shape != y.shape or np.isnan(x).any() or np.isnan(y).any():
        raise ValueError(f"x {x.shape} and y {y.shape} must be of one length and hold no NaN; leave out what was not measured")

    def of(draws: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b"]:
        total = draws.sum(1, keepdims=True)
        x_ranks, y_ranks = (_centred(_mid_ranks(side, draws), draws, total) for side in (x, y))
        covariance, x_variance, y_variance = ((draws * product).sum(1) for product in (x_ranks * y_ranks, x_ranks**2, y_ranks**2))
        with np.errstate(invalid="ignore", divide="ignore"):
            varies = (x_variance > 0) & (y_variance > 0)
            return np.where(varies, covariance / np.sqrt(x_variance * y_variance), np.nan)

    return of


def _mid_ranks(values: Float[np.ndarray, "n"], draws: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
    """Mean rank of each value's group of equals when values count as often as they were drawn."""
    distinct, group = np.unique(values, return_inverse=True)
    sizes = np.zeros((len(draws), len(distinct)))
    for place in range(len(distinct)):
        sizes[:, place] = draws[:, group == place].sum(1)
    return (np.cumsum(sizes, 1) - sizes / 2 + 0.5)[:, group]


def _centred(
    ranks: Float[np.ndarray, "b n"], draws: Float[np.ndarray, "b n"], total: Float[np.ndarray, "b 1"]
) -> Float[np.ndarray, "b n"]:
    return ranks - (draws * ranks).sum(1, keepdims=True) / total
