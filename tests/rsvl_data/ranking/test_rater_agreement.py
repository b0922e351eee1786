import itertools

import numpy as np
import pytest

from evaluation.bootstrap import intervals
from rsvl_data.ranking.agreement import alpha_of_draws, krippendorff_alpha, spearman, spearman_of_draws

NAN = float("nan")
# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, example C: four observers, twelve units, missing values.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


def some_ratings(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 6, 12)
    ratings = np.clip(truth + rng.integers(-1, 2, (3, 12)), 1, 5).astype(float)
    ratings[rng.random(ratings.shape) < 0.2] = NAN
    return ratings


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_published_example(level, alpha):
    assert krippendorff_alpha(PUBLISHED, level) == pytest.approx(alpha, abs=5e-4)


def plain_alpha(ratings: np.ndarray, level: str) -> float:
    """Pair by pair, as the words of the definition go."""
    units = [[value for value in column if not np.isnan(value)] for column in ratings.T]
    units = [unit for unit in units if len(unit) > 1]
    pooled = [value for unit in units for value in unit]

    def distance(a: float, b: float) -> float:
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return (a - b) ** 2
        low, high = min(a, b), max(a, b)
        between = sum(low <= value <= high for value in pooled)
        return (between - (pooled.count(low) + pooled.count(high)) / 2) ** 2 if a != b else 0.0

    observed = sum(sum(distance(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(
        pooled
    )
    expected = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (len(pooled) * (len(pooled) - 1))
    return 1 - observed / expected


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(4))
def test_alpha_against_a_plain_version(level, seed):
    ratings = some_ratings(seed)
    assert krippendorff_alpha(ratings, level) == pytest.approx(plain_alpha(ratings, level))


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_laws_of_alpha(level):
    ratings = some_ratings(9)
    alpha = krippendorff_alpha(ratings, level)
    assert krippendorff_alpha(ratings[::-1, ::-1], level) == pytest.approx(alpha)
    assert krippendorff_alpha(np.tile([1.0, 2, 2, 5], (3, 1)), level) == 1
    lone = np.full((3, 1), NAN)
    lone[0] = 4
    assert krippendorff_alpha(np.hstack([ratings, lone]), level) == pytest.approx(alpha)  # one rating says nothing
    if level != "ordinal":
        assert krippendorff_alpha(3 * ratings + 7, level) == pytest.approx(alpha)
    else:
        assert krippendorff_alpha(np.exp(ratings), level) == pytest.approx(alpha)  # order is all that counts
    opposed = np.array([[1.0, 2, 1, 2], [2, 1, 2, 1]])
    assert krippendorff_alpha(opposed, level) < 0


@pytest.mark.parametrize(
    "ratings",
    [np.array([[5.0, 5, 5], [5, 5, 5]]), np.array([[1.0, 2, NAN], [NAN, NAN, 3]]), np.full((2, 3), NAN), np.empty((2, 0))],
)
def test_alpha_of_what_shows_nothing(ratings):
    assert np.isnan(krippendorff_alpha(ratings, "ordinal"))


def test_draws_are_repetitions():
    rng = np.random.default_rng(2)
    draws = rng.integers(0, 3, (5, 12)).astype(float)
    ratings, x, y = some_ratings(3), rng.integers(1, 6, 12).astype(float), rng.random(12)
    alphas, correlations = alpha_of_draws(ratings, "ordinal")(draws), spearman_of_draws(x, y)(draws)
    for row, alpha, correlation in zip(draws, alphas, correlations, strict=True):
        often = np.repeat(np.arange(12), row.astype(int))
        assert alpha == pytest.approx(krippendorff_alpha(ratings[:, often], "ordinal"))
        assert correlation == pytest.approx(spearman(x[often], y[often]))


def test_alpha_with_its_interval():
    interval = intervals({"alpha": alpha_of_draws(some_ratings(1), "ordinal")}, 12, num_bootstrap=200)["alpha"]
    assert interval.low < interval.value < interval.high <= 1
    assert interval.value == krippendorff_alpha(some_ratings(1), "ordinal")


def test_spearman_by_hand_and_its_laws():
    x, y = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5])
    assert spearman(x, y) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert spearman(x, np.exp(y)) == spearman(x, y) == pytest.approx(spearman(y, x))
    assert spearman(x, -x) == pytest.approx(-1)
    assert np.isnan(spearman(x, np.ones(5))) and np.isnan(spearman(x[:1], y[:1]))
    tied = spearman(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 2, 3]))
    assert tied == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2.5, 2.5, 4])[0, 1])


def test_spearman_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 6, 300).astype(float), rng.random(300)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_wrong_input():
    with pytest.raises(ValueError, match="no NaN"):
        spearman(np.array([1.0, NAN]), np.array([1.0, 2]))
