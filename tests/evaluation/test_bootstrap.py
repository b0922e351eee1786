from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from evaluation.bootstrap import (
    class_mean,
    class_strata,
    exchange_p_value,
    intervals,
    mean_of,
    median,
    paired_difference,
    share,
)


def interval(statistic, n, **options):
    return intervals({"it": statistic}, n, **options)["it"]


def coin(n, p, seed=0):
    return (np.random.default_rng(seed).random(n) < p).astype(float)


@pytest.mark.parametrize("n", [1, 6, 30, 120])
def test_all_right_or_all_wrong_is_clopper_and_pearsons(n):
    for num_right in (0, n):
        found = interval(share(np.full(n, float(num_right > 0))), n)
        exact = binomtest(num_right, n).proportion_ci(method="exact")
        assert (found.value, found.low, found.high) == pytest.approx((num_right / n, exact.low, exact.high))


def covers(n, p, num_right):
    found = interval(share((np.arange(n) < num_right).astype(float)), n)
    return found.low <= p <= found.high


@pytest.mark.parametrize(("n", "p"), [(6, 0.1), (6, 0.5), (20, 0.98), (50, 0.02), (120, 0.01)])
def test_few_items_and_rare_answers_are_covered(n, p):
    """Exactly: over all numbers of right answers with their probability. Without a rule for 0 of n it is 45 % to 72 %."""
    assert sum(binom.pmf(k, n, p) for k in range(n + 1) if covers(n, p, k)) > 0.9


@pytest.mark.parametrize("means", [(1.0, 0.0), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0)])
def test_classes_that_are_all_right_or_all_wrong(means):
    """The lowest mean under which ten items a class come up like this once in forty times, found on a grid of shares right."""
    labels, in_class = np.repeat(np.arange(len(means)), 10), 10
    found = interval(class_mean(np.array(means)[labels], labels), len(labels), strata=class_strata(labels))
    shares = np.stack(np.meshgrid(*[np.linspace(0, 1, 101)] * len(means)), axis=-1).reshape(-1, len(means))
    likelihood = np.where(means, shares, 1 - shares).prod(1) ** in_class
    possible = shares[likelihood >= 0.025].mean(1)
    assert (found.low, found.high) == pytest.approx((possible.min(), possible.max()), abs=0.01)


def test_without_bounds_an_interval_of_one_point_stays():
    found = interval(median(np.ones(9), np.arange(9)), 9, bounds=None)
    assert (found.value, found.low, found.high) == (1, 1, 1)
    wide, narrow = (interval(share(np.full(9, 4.0)), 9, bounds=bounds) for bounds in ((0, 9), (3, 5)))
    assert 0 < wide.low < narrow.low < 4 < narrow.high < wide.high < 9


def test_strata_of_another_kind_do_not_count():
    statistic, strata = share(np.ones(24)), np.repeat([0, 1], [20, 4])
    assert interval(statistic, 24, strata=strata).low < interval(statistic, 24, strata=strata, num_alike=20).low


def test_equals_a_slow_bootstrap():
    right = coin(200, 0.7)
    generator = np.random.default_rng(9)
    slow = [right[generator.integers(0, 200, 200)].mean() for _ in range(4000)]
    found = interval(share(right), 200, num_bootstrap=4000)
    assert found.value == right.mean()
    assert (found.low, found.high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.01)
    inner = interval(share(right), 200, num_bootstrap=4000, level=0.5)
    assert (inner.low, inner.high) == pytest.approx(np.quantile(slow, [0.25, 0.75]), abs=0.01)


def test_covers_the_truth_about_as_often_as_it_says():
    found = [interval(share(coin(100, 0.6, seed)), 100, num_bootstrap=300) for seed in range(200)]
    assert 0.89 < np.mean([f.low <= 0.6 <= f.high for f in found]) < 0.99


def test_more_items_are_narrower():
    widths = [(f := interval(share(coin(n, 0.5)), n)).high - f.low for n in (50, 500, 5000)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_the_seed_decides():
    right = coin(80, 0.5)
    assert interval(share(right), 80, seed=1) == interval(share(right), 80, seed=1)
    assert interval(share(right), 80, seed=1) != interval(share(right), 80, seed=2)


def test_many_units_are_drawn_in_chunks(monkeypatch):
    right = coin(80, 0.5)
    whole = interval(share(right), 80)
    monkeypatch.setattr("evaluation.bootstrap._CHUNK_DRAWS", 80 * 7)
    assert interval(share(right), 80) == whole


def test_one_unit_tells_next_to_nothing():
    found = interval(share(np.array([1.0, 0.0]), unit=np.array([0, 0])), 1)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.0125, 0.9875))


def test_values_of_one_unit_come_and_go_together():
    # two captions an image, always right or wrong together: as uncertain as the images alone, not as twice as many captions
    image = coin(100, 0.5)
    together = interval(share(image.repeat(2), unit=np.arange(100).repeat(2)), 100)
    assert together == interval(share(image), 100)
    apart = interval(share(image.repeat(2)), 200)
    assert apart.high - apart.low < 0.85 * (together.high - together.low)


def test_units_of_different_size_count_by_their_values():
    values, unit = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1])
    found = interval(share(values, unit=unit), 2)
    assert (found.value, found.low, found.high) == (0.75, 0.0, 1.0)


def test_a_unit_without_a_value_is_refused():
    for statistic in (lambda unit: share(np.ones(2), unit=unit), lambda unit: median(np.ones(2), unit)):
        with pytest.raises(ValueError, match="none belongs to unit 1 "):
            statistic(np.array([0, 2]))


@pytest.mark.parametrize("in_class", [1, 2, 5, 12])
def test_small_classes_are_covered(in_class):
    """Drawn within classes, 21 of one item would be the same in every resample, and those of two are covered in 81 of 100 cases."""
    shares, labels = np.random.default_rng(5).beta(2, 2, 21), np.repeat(np.arange(21), in_class)
    assert (class_strata(labels) is None) == (in_class < 10)
    right = (np.random.default_rng(0).random((150, len(labels))) < shares[labels]).astype(float)
    options = {"num_bootstrap": 200, "strata": class_strata(labels)}
    found = [interval(class_mean(each, labels), len(labels), **options) for each in right]
    assert np.mean([f.low <= shares.mean() <= f.high for f in found]) > 0.88


def test_class_mean_keeps_the_size_of_every_class():
    labels = np.array([0] * 50 + [1])  # one item of class 1: left to chance, it would be missing from a third of the resamples
    values = np.concatenate([coin(50, 0.5), [1.0]])
    found = interval(class_mean(values, labels), 51, strata=labels)
    assert found.value == pytest.approx((values[:50].mean() + 1) / 2)
    assert found.low > 0.5  # class 1 is right in every resample
    assert interval(class_mean(values, labels), 51).low < 0.45


def test_strata_do_not_depend_on_the_order_of_the_labels():
    labels = np.array([2, 0, 1, 0, 2, 2, 1, 0])
    everything_of_2 = interval(share((labels == 2).astype(float)), 8, strata=labels, bounds=None)
    assert (everything_of_2.low, everything_of_2.high) == (3 / 8, 3 / 8)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_median_of_resamples(n):
    generator = np.random.default_rng(n)
    values, unit = generator.integers(1, 9, n).astype(float), np.arange(n) % 4
    drawn = generator.integers(0, 3, (20, 4)).astype(float) + 1
    slow = [np.median(np.repeat(values, row[unit].astype(int))) for row in drawn]
    assert median(values, unit)(drawn).tolist() == slow


def test_a_mean_of_statistics_sees_one_set_of_draws():
    right = coin(40, 0.5)
    found = intervals({"one": share(right), "both": mean_of(share(right), share(1 - right))}, 40, bounds=None)
    assert found["both"].low == pytest.approx(0.5) and found["both"].high == pytest.approx(0.5)
    assert found["one"].low < 0.5


def test_a_difference_on_the_same_items_is_sharper_than_two_intervals():
    first = coin(300, 0.6)
    second = first.copy()
    second[np.flatnonzero(first)[:12]] = 0  # wrong on 12 items more, the same elsewhere
    found = paired_difference(share(first), share(second), 300)
    assert found.value == pytest.approx(12 / 300)
    assert found.low > 0 and found.p_value < 0.01
    assert interval(share(first), 300).low < interval(share(second), 300).high  # each alone cannot tell


def test_difference_laws():
    first, second = coin(60, 0.5, 1), coin(60, 0.5, 2)
    there, back = (paired_difference(share(a), share(b), 60) for a, b in ((first, second), (second, first)))
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.p_value == back.p_value
    same = paired_difference(share(first), share(first), 60)
    assert (same.value, same.p_value) == (0, 1) and -0.07 < same.low == -same.high < -0.05  # sixty alike do not speak for all


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (5, 0), (6, 0), (6, 1), (5, 4), (13, 4), (30, 14)])
def test_right_and_wrong_are_tested_as_by_mcnemar(better, worse):
    first, second = np.zeros(100), np.zeros(100)
    first[:better] = second[better : better + worse] = 1
    found = exchange_p_value(share(first), share(second), num_exchanges=4000)
    exact = binomtest(better, better + worse).pvalue if better else 1.0
    assert found == pytest.approx(exact, abs=1e-12 if better + worse < 12 else 0.01)


def test_exchanging_by_a_slow_count():
    """Answers of unequal worth, several to a unit, as a mean of two shares."""
    generator, unit = np.random.default_rng(3), np.array([0, 0, 1, 2, 2, 2, 3, 4])
    one, other = generator.random((2, 2, 8))
    first, second = (mean_of(*(share(values, unit=unit) for values in each)) for each in (one, other))
    differences = [
        abs(np.mean(np.where(np.array(flips)[unit], other, one)) - np.mean(np.where(np.array(flips)[unit], one, other)))
        for flips in product((False, True), repeat=5)
    ]
    expected = np.mean(np.array(differences) >= differences[0] - 1e-12)
    assert exchange_p_value(first, second) == pytest.approx(expected)


def test_many_exchanges_are_drawn_in_chunks(monkeypatch):
    first, second = share(coin(60, 0.6, 1)), share(coin(60, 0.4, 2))
    whole = exchange_p_value(first, second)
    monkeypatch.setattr("evaluation.bootstrap._CHUNK_DRAWS", 200)
    assert exchange_p_value(first, second) == whole != exchange_p_value(first, second, seed=1)


@pytest.mark.parametrize("n", [6, 8, 20])
def test_equal_models_on_few_items_are_rarely_told_apart(n):
    """Exactly, of models that are both right in half of the items; the sign flips of a bootstrap say so in 5 to 11 of 100 cases."""
    told = 0.0
    for num_better in range(n + 1):
        for num_worse in range(n + 1 - num_better):
            first, second = np.zeros(n), np.zeros(n)
            first[:num_better] = second[num_better : num_better + num_worse] = 1
            found = paired_difference(share(first), share(second), n, num_bootstrap=300)
            chance = binom.pmf(num_better, n, 0.25) * binom.pmf(num_worse, n - num_better, 1 / 3)
            told += chance * (found.p_value < 0.05 and found.low * found.high > 0)
    assert told < 0.05


def test_chance_differences_are_rarely_significant():
    found = [
        paired_difference(share(coin(80, 0.5, s)), share(coin(80, 0.5, s + 999)), 80, num_bootstrap=200).p_value
        for s in range(100)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.15


@pytest.mark.parametrize(("units", "resamples"), [(0, 10), (10, 0)])
def test_nothing_to_draw(units, resamples):
    with pytest.raises(ValueError, match=f"got {units} units and num_bootstrap={resamples}"):
        interval(share(np.ones(units)), units, num_bootstrap=resamples)
