import json
from itertools import combinations

import numpy as np
import pytest

from evaluation.bootstrap import exchange_p_value
from evaluation.metrics.quality import RAW_SCORES, fit_logistic, quality_scores, recommendation, score_statistic

FITTED = ("continuous", "ties_in_predictions", "ties_in_both", "negative_relation", "other_scale")
NAMES = {"PLCC": "plcc", "SROCC": "srocc", "KROCC_tau_b": "krocc", "RMSE": "rmse", "MAE": "mae"}


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "fixtures/evaluation/quality_correlation.json").read_text())


def floats(values):
    return np.array(values, float)


@pytest.mark.parametrize("name", [*FITTED, "small_sample", "constant_prediction"])
def test_raw_golden(golden, name):
    case = golden["cases"][name]
    ours = quality_scores(floats(case["prediction"]), floats(case["target"]))
    for theirs, key in NAMES.items():
        assert ours[key] == pytest.approx(float(case["raw"][theirs]), abs=1e-9, nan_ok=True), key


@pytest.mark.parametrize("name", FITTED)
def test_fitted_golden(golden, name):
    case = golden["cases"][name]
    predicted, true = floats(case["prediction"]), floats(case["target"])
    ours = quality_scores(predicted, true)
    assert ours["plcc_fitted"] == pytest.approx(case["logistic_4"]["PLCC"], abs=1e-4)
    assert ours["rmse_fitted"] == pytest.approx(case["logistic_4"]["RMSE"], abs=1e-4)
    assert fit_logistic(predicted, true) == pytest.approx(floats(case["logistic_4"]["fitted"]), abs=1e-3)


def test_recommendation_golden(golden):
    case = golden["method_recommendation"]
    ours = recommendation(floats(case["prediction"]), floats(case["oa"]))
    theirs = {
        **{name: case[name] for name in ("top1_hit_rate", "top2_hit_rate", "regret", "best_single_method")},
        "best_single_hit_rate": case["hit_rate_of_best_single_method"],
        "gain_over_best_single": case["gain_over_best_single_method"],
        "random_hit_rate": case["random_hit_rate_expected"],
    }
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_kendall_equals_counting_pairs():
    x, y = floats([1, 2, 2, 4, 5, 3]), floats([1, 3, 2, 3, 6, 6])
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in combinations(range(6), 2)]
    tau_b = sum(a * b for a, b in signs) / np.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs))
    assert quality_scores(x, y)["krocc"] == pytest.approx(tau_b)


def test_ranks_do_not_see_the_scale():
    generator = np.random.default_rng(3)
    x, y = generator.random(30), generator.random(30)
    once, again = quality_scores(x, y), quality_scores(np.exp(3 * x), y)
    assert again["srocc"] == pytest.approx(once["srocc"]) and again["krocc"] == pytest.approx(once["krocc"])
    assert abs(again["plcc"] - once["plcc"]) > 1e-3
    assert quality_scores(y, y) == pytest.approx(
        {"plcc": 1, "srocc": 1, "krocc": 1, "rmse": 0, "mae": 0} | {"plcc_fitted": 1, "rmse_fitted": 0}, abs=0.02
    )


def test_nothing_to_fit():
    few = quality_scores(floats([1, 2, 3, 4]), floats([1, 3, 2, 4]))
    assert np.isnan(few["plcc_fitted"]) and np.isnan(few["rmse_fitted"]) and few["plcc"] == pytest.approx(0.8)
    assert fit_logistic(np.ones(9), np.arange(9.0)) is None
    assert np.isnan(quality_scores(np.arange(9.0), np.ones(9))["srocc"])


@pytest.mark.parametrize(
    ("predicted", "true", "text"),
    [([1.0], [1.0], "at least two samples; got 1"), ([1, np.nan, 2], [1, 2, np.inf], "2 of 3 scores are NaN or infinite")],
)
def test_refused(predicted, true, text):
    with pytest.raises(ValueError, match=text):
        quality_scores(floats(predicted), floats(true))


def test_recommendation_by_hand():
    true = floats([[0.9, 0.5, 0.9], [0.2, 0.8, 0.6], [0.5, 0.1, 0.5]])
    ours = recommendation(floats([[1, 2, 3], [1, 3, 2], [1, 3, 2]]), true)
    assert ours["top1_hit_rate"] == pytest.approx(2 / 3)
    assert ours["top2_hit_rate"] == 1
    assert ours["regret"] == pytest.approx(0.4 / 3)
    assert (ours["best_single_method"], ours["best_single_hit_rate"]) == (2, pytest.approx(2 / 3))
    assert ours["gain_over_best_single"] == pytest.approx((0.0 + 0.2 - 0.4) / 3)
    assert ours["random_hit_rate"] == pytest.approx(5 / 9)
    with pytest.raises(ValueError, match="at least two methods; got 1"):
        recommendation(true[:, :1], true[:, :1])


def test_every_score_of_the_rows_drawn():
    generator, unit = np.random.default_rng(0), np.repeat(np.arange(6), 3)
    predicted, true = generator.random((2, 18))
    drawn = np.array([[1, 1, 1, 1, 1, 1], [3, 0, 0, 2, 1, 0], [0, 6, 0, 0, 0, 0]], float)
    for name, of in RAW_SCORES.items():
        rows = [np.repeat(np.arange(18), counts[unit].astype(int)) for counts in drawn]
        expected = [of(predicted[each], true[each]) for each in rows]
        assert score_statistic(name, predicted, true, unit)(drawn) == pytest.approx(expected), name


def test_errors_of_two_predictors_are_exchanged_by_image():
    """Better by the same on each of six images: 2 of 64 ways to exchange them are as far apart."""
    true, unit = np.linspace(0, 1, 12), np.repeat(np.arange(6), 2)
    for name in ("rmse", "mae"):
        near, far = (score_statistic(name, true + error, true, unit) for error in (0.1, 0.3))
        assert exchange_p_value(near, far) == 2 / 2**6
