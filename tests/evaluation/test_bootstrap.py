import numpy as np
import pytest

from evaluation.bootstrap import class_mean, intervals, mean_of, median, paired_difference, share


def interval(statistic, n, **options):
    return intervals({"it": statistic}, n, **options)["it"]


def coin(n, p, seed=0):
    return (np.random.default_rng(seed).random(n) < p).astype(float)


def test_all_right_leaves_no_doubt():
    found = interval(share(np.ones(30)), 30)
    assert (found.value, found.low, found.high) == (1, 1, 1)


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


def test_one_unit():
    found = interval(share(np.array([1.0, 0.0]), unit=np.array([0, 0])), 1)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


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


def test_class_mean_keeps_the_size_of_every_class():
    labels = np.array([0] * 50 + [1])  # one item of class 1: left to chance, it would be missing from a third of the resamples
    values = np.concatenate([coin(50, 0.5), [1.0]])
    found = interval(class_mean(values, labels), 51, strata=labels)
    assert found.value == pytest.approx((values[:50].mean() + 1) / 2)
    assert found.low > 0.5  # class 1 is right in every resample
    assert interval(class_mean(values, labels), 51).low < 0.45


def test_strata_do_not_depend_on_the_order_of_the_labels():
    labels = np.array([2, 0, 1, 0, 2, 2, 1, 0])
    everything_of_2 = interval(share((labels == 2).astype(float)), 8, strata=labels)
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
    found = intervals({"one": share(right), "both": mean_of(share(right), share(1 - right))}, 40)
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
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


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
