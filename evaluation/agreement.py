"""Ratings of captions as lines of text: means, agreement between raters, and what goes with a high mark; each with n and interval."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from evaluation.bootstrap import Bounds, Statistic, intervals, share
from rsvl_data.errors import OptionError
from rsvl_data.ranking.agreement import alpha_of_draws, spearman_of_draws
from rsvl_data.rating.ratings import AXES, HIGHEST, LOWEST, Ratings, Unit, by_unit
from rsvl_data.shards import Dataset

_MARKS: Bounds = (LOWEST, HIGHEST)
_AGREEMENT: Bounds = (-1.0, 1.0)  # of Spearman's correlation, and of alpha when two raters always say the opposite
_SCORES = ("first_score", "second_score", "rank", "rotation_variance")


def describe_ratings(raters: Sequence[Ratings], dataset: Dataset | None, num_bootstrap: int, seed: int) -> Iterator[str]:
    """Alpha is Krippendorff's for ordinal ratings, over captions that two raters or more have rated.

    Correlations are Spearman's over captions, each with the mean of its ratings. Intervals resample captions. Raises OptionError
    without a file, without a resample, or when two files have one name.
    """
    names = [ratings.rater for ratings in raters]
    if not raters or num_bootstrap < 1 or len(set(names)) < len(names):
        raise OptionError(
            f"agreement needs rating files of different names and num_bootstrap of 1 or more; got {names}, {num_bootstrap}"
        )
    for ratings in raters:
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(ratings.left_out.items()))
        num_captions = len(set(ratings.units))
        yield f"{ratings.rater}: {num_captions} captions in {len(ratings.units)} rows" + (
            f"; left out: {left_out}" if left_out else ""
        )
    if dataset is not None and dataset.note:
        yield dataset.note
    units, means = mean_ratings(raters)
    for axis in AXES:
        yield _axis_line(raters, axis, num_bootstrap, seed)
    pairs = {f"{one} and {other}": (means[one], means[other]) for one, other in combinations(AXES, 2)}
    words = np.array([len(text.split()) for _, text in units], dtype=float)
    pairs |= {f"words in the caption and {axis}": (words, means[axis]) for axis in AXES}
    for score, column in (_scores_of(dataset, units) if dataset is not None else {}).items():
        pairs |= {f"{score} and {axis}": (column, means[axis]) for axis in AXES}
    for name, (x, y) in pairs.items():
        yield _correlation_line(name, x, y, num_bootstrap, seed)


def mean_ratings(raters: Sequence[Ratings]) -> tuple[list[Unit], dict[str, Float[np.ndarray, "u"]]]:
    """For each rated caption the mean over the raters who marked it, by axis; NaN where none did."""
    units: list[Unit] = []
    means = {}
    for axis in AXES:
        units, table = by_unit(raters, axis)
        given = ~np.isnan(table)
        with np.errstate(invalid="ignore"):
            means[axis] = np.where(given, table, 0).sum(0) / given.sum(0)
    return units, means


def _axis_line(raters: Sequence[Ratings], axis: str, num_bootstrap: int, seed: int) -> str:
    units, table = by_unit(raters, axis)
    place = {unit: index for index, unit in enumerate(units)}
    marks = np.concatenate([ratings.values[:, AXES.index(axis)] for ratings in raters])
    unit = np.array([place[unit] for ratings in raters for unit in ratings.units])[~np.isnan(marks)]
    marks = marks[~np.isnan(marks)]
    marked, unit = np.unique(unit, return_inverse=True)
    mean = _with_interval(share(marks, unit=unit), len(marked), _MARKS, num_bootstrap, seed) if len(marks) else "undefined"
    table = table[:, (~np.isnan(table)).sum(0) >= 2]
    alpha = _with_interval(alpha_of_draws(table, "ordinal"), table.shape[1], _AGREEMENT, num_bootstrap, seed)
    return f"{axis}: mean {mean} (n {len(marks)} marks); alpha {alpha} (n {table.shape[1]} captions rated by two or more)"


def _correlation_line(name: str, x: Float[np.ndarray, "u"], y: Float[np.ndarray, "u"], num_bootstrap: int, seed: int) -> str:
    both = ~np.isnan(x) & ~np.isnan(y)
    rho = _with_interval(spearman_of_draws(x[both], y[both]), int(both.sum()), _AGREEMENT, num_bootstrap, seed)
    return f"{name}: Spearman {rho} (n {both.sum()} captions)"


def _with_interval(statistic: Statistic, num_units: int, bounds: Bounds, num_bootstrap: int, seed: int) -> str:
    """`value [low, high]`. Resamples without variation have no value; an interval needs them all."""
    if num_units == 0:
        return "undefined"
    found = intervals({"": statistic}, num_units, num_bootstrap=num_bootstrap, seed=seed, bounds=bounds)[""]
    if np.isnan(found.value):
        return "undefined"
    return f"{found.value:.3f} " + ("[no interval]" if np.isnan(found.low) else f"[{found.low:.3f}, {found.high:.3f}]")


def _scores_of(dataset: Dataset, units: Sequence[Unit]) -> Mapping[str, Float[np.ndarray, "u"]]:
    """The scores of the candidate a rated text is, found by key and text; NaN where the dataset has none."""
    place = {(path.rpartition(".")[0], text): index for index, (path, text) in enumerate(units)}
    keys = {key for key, _ in place}
    found = {name: np.full(len(units), np.nan) for name in _SCORES}
    for split in dataset.splits:
        for sample in (sample for sample in dataset.samples(split) if sample.key in keys):
            for caption in reversed(sample.captions):  # of equal texts the first one, as ranks ties
                index = place.get((sample.key, caption.text))
                for name in _SCORES if index is not None else ():
                    value = getattr(caption, name)
                    if value is not None:
                        found[name][index] = value
    return found
