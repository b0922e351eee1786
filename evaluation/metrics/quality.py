"""How well predicted quality follows true quality: correlations, errors, and what is lost by choosing a method by its prediction.

PLCC Pearson, SROCC Spearman with average ranks, KROCC Kendall's tau-b. Image quality assessment customarily fits a curve of four
parameters from prediction to truth before PLCC and RMSE (values named `_fitted`), on the very data that are scored. A prediction
that is constant has no correlation: nan, never 0.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr, spearmanr

from evaluation.bootstrap import OfSums, Statistic, share

CORRELATIONS = ("plcc", "srocc", "krocc")  # from -1 to 1; what else there is are errors without a greatest value
MIN_SAMPLES_TO_FIT = 5  # one more than the curve has parameters
SAME_SCORE = 1e-4  # a method this close to the best is as good


def quality_scores(predicted: Float[np.ndarray, "n"], true: Float[np.ndarray, "n"]) -> dict[str, float]:
    """Raises ValueError for fewer than two samples and for scores that are not finite.

    The fitted values are nan where nothing can be fitted: fewer than five samples, a constant prediction, no convergence.
    """
    _refuse_unusable(predicted, true)
    fitted = fit_logistic(predicted, true)
    return {name: of(predicted, true) for name, of in RAW_SCORES.items()} | {
        "plcc_fitted": np.nan if fitted is None else RAW_SCORES["plcc"](fitted, true),
        "rmse_fitted": np.nan if fitted is None else _rmse(fitted, true),
    }


def _refuse_unusable(predicted: np.ndarray, true: np.ndarray) -> None:
    if len(predicted) < 2:
        raise ValueError(f"a correlation needs at least two samples; got {len(predicted)}")
    unusable = ~(np.isfinite(predicted) & np.isfinite(true))
    if unusable.any():
        raise ValueError(f"{unusable.sum()} of {unusable.size} scores are NaN or infinite")


def _correlation(of: Callable[..., Any], predicted: np.ndarray, true: np.ndarray) -> float:
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return float("nan")
    return float(of(predicted, true)[0])


def _rmse(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


RAW_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "plcc": partial(_correlation, pearsonr),
    "srocc": partial(_correlation, spearmanr),
    "krocc": partial(_correlation, kendalltau),
    "rmse": _rmse,
    "mae": lambda predicted, true: float(np.abs(predicted - true).mean()),
}


def score_statistic(
    name: str, predicted: Float[np.ndarray, "n"], true: Float[np.ndarray, "n"], unit: Int[np.ndarray, "n"]
) -> Statistic:
    """One of RAW_SCORES, resampled over units: `unit[j]` is the image of row j. A resample in which every row is the same has no
    correlation; it counts as 0, the worst there is to say of it."""
    if name == "mae":
        return share(np.abs(predicted - true), unit=unit)
    if name == "rmse":
        mean_square = share((predicted - true) ** 2, unit=unit)
        return OfSums(mean_square.counts, lambda sums: np.sqrt(mean_square.measure(sums)))
    of = RAW_SCORES[name]

    def value(counts: np.ndarray) -> float:
        rows = np.repeat(np.arange(len(unit)), counts[unit].astype(int))
        return of(predicted[rows], true[rows])

    return lambda drawn: np.nan_to_num(np.array([value(counts) for counts in drawn]))


def fit_logistic(predicted: Float[np.ndarray, "n"], true: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"] | None:
    """`predicted` through the curve q(x) = (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2 that comes nearest to `true`, by least squares.

    Start and curve as pyiqa 0.1.16 (`correlation_coefficient.py`). Levenberg-Marquardt; None when there is nothing to fit.
    """
    if len(predicted) < MIN_SAMPLES_TO_FIT or np.ptp(predicted) == 0:
        return None

    def curve(b: np.ndarray) -> np.ndarray:
        return (b[0] - b[1]) * expit((predicted - b[2]) / b[3]) + b[1]

    start = np.array([true.max(), true.min(), predicted.mean(), predicted.std() / 4])
    found = least_squares(lambda b: curve(b) - true, start, method="lm", max_nfev=20_000)
    return curve(found.x) if found.success else None


def recommendation(predicted: Float[np.ndarray, "n m"], true: Float[np.ndarray, "n m"]) -> dict[str, float]:
    """What is gained by taking, for each of n images, the method with the highest prediction of m. `true` is the accuracy of each.

    top1_hit_rate     share of images where the method taken is the best, or within 1e-4 of it; top2: one of the first two
    regret            mean accuracy lost against the best method of each image
    best_single_*     the same for the one method that is best on average over these images, and what is gained over it
    random_hit_rate   of a method drawn by chance

    Of methods with the same prediction the first is taken. Raises ValueError as `quality_scores`, and for a single method.
    """
    if predicted.shape[1] < 2:
        raise ValueError(f"a choice needs at least two methods; got {predicted.shape[1]}")
    _refuse_unusable(predicted, true)
    order = np.argsort(-predicted, axis=1, kind="stable")
    best = true.max(1)
    is_best = true >= best[:, None] - SAME_SCORE
    in_order = np.take_along_axis(is_best, order, 1)
    taken = np.take_along_axis(true, order[:, :1], 1)[:, 0]
    single = int(true.mean(0).argmax())
    return {
        "top1_hit_rate": float(in_order[:, 0].mean()),
        "top2_hit_rate": float(in_order[:, :2].any(1).mean()),
        "regret": float((best - taken).mean()),
        "best_single_method": float(single),
        "best_single_hit_rate": float(is_best[:, single].mean()),
        "gain_over_best_single": float((taken - true[:, single]).mean()),
        "random_hit_rate": float(is_best.mean()),
    }
