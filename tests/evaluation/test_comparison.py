import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from evaluation.benchmarks.few_shot import few_shot
from evaluation.benchmarks.retrieval import retrieval
from evaluation.benchmarks.zero_shot import zero_shot
from evaluation.comparison import compare, compare_all, save_comparisons
from evaluation.data import ShardSet
from evaluation.wording import comparison_table
from rsvl_data.errors import DataError

pytestmark = pytest.mark.usefixtures("few_items_will_do")


@pytest.fixture
def pair(encoder, colours):
    """One result of each task, and the same of a model that takes red for blue."""
    data = ShardSet(colours, "test")
    good = [zero_shot(encoder, data, num_bootstrap=5), retrieval(encoder, data, num_bootstrap=5)]
    encode = encoder.encode_image
    encoder.encode_image = lambda images: encode(images).flip(1)
    encoder.name, encoder.weights_sha256 = "turned", lambda: "1" * 64
    return good, [zero_shot(encoder, data, num_bootstrap=5), retrieval(encoder, data, num_bootstrap=5)]


def test_the_difference_is_that_of_the_results(pair):
    for good, bad in zip(*pair):
        found = compare(good, bad, num_bootstrap=200)
        assert {each.metric for each in found} >= ({"acc1", "acc5"} if good.task == "zero_shot" else {"mean_recall"})
        for each in found:
            expected = good.metrics[each.metric].value - bad.metrics[each.metric].value
            assert each.difference.value == pytest.approx(expected)
            assert each.difference.low <= each.difference.value <= each.difference.high
            assert (each.first["name"], each.second["name"], each.n) == ("colour", "turned", good.n)


@pytest.mark.parametrize("protocol", ["rsvl", "clip_benchmark", "skyscript"])
def test_every_recall_is_compared(encoder, colours, protocol):
    result = retrieval(encoder, ShardSet(colours, "test"), protocol=protocol, num_bootstrap=5)
    other = replace(result, model={"name": "other", "sha256": "2" * 64})
    found = {each.metric: each.difference for each in compare(result, other, num_bootstrap=20)}
    assert set(found) == {name for name in result.metrics if "recall" in name}
    assert all(each.value == 0 and each.low == -each.high and each.p_value == 1 for each in found.values())


def test_swapped_models_give_the_opposite(pair):
    (good, _), (bad, _) = pair
    for one, other in zip(compare(good, bad, num_bootstrap=100), compare(bad, good, num_bootstrap=100)):
        assert one.difference.value == -other.difference.value
        assert one.difference.low == pytest.approx(-other.difference.high) and one.difference.p_value == other.difference.p_value
        assert {one.verdict, other.verdict} in ({"first better", "second better"}, {"not told apart"})


def test_pairing_sees_what_two_intervals_do_not(pair):
    """Two models that fail on the same hard images: the better one is better in every resample."""
    (good, _), _ = pair
    rank = np.where(np.arange(200) % 2, 1, 9)
    items = {"truth": [0] * 200, "rank": rank.tolist()}
    worse = {"truth": [0] * 200, "rank": np.where(np.arange(200) < 20, 9, rank).tolist()}
    one = replace(good, n=200, details={"items": items})
    other = replace(one, model={"name": "worse"}, details={"items": worse})
    (acc1, *_) = compare(one, other, num_bootstrap=500)
    assert acc1.difference.value == pytest.approx(0.05) and acc1.difference.low > 0 and acc1.verdict == "first better"
    apart = compare(one, replace(other, details={"items": {**worse, "rank": rank[::-1].tolist()}}), num_bootstrap=500)
    assert apart[0].verdict == "not told apart"


def classified_as(result, *right):
    """`result` with these answers, and the same of another model: of one class, 1 is right."""
    return [
        replace(result, n=len(each), model={"name": name}, details={"items": {"truth": [0] * len(each), "rank": rank}})
        for name, each in zip(("one", "other"), right)
        for rank in [[1 if one else 9 for one in each]]
    ]


def test_seed_and_resamples_change_the_interval(pair):
    (good, _), _ = pair
    one, other = classified_as(good, np.arange(200) < 120, np.arange(200) % 2)
    told = {compare(one, other, seed=seed, num_bootstrap=num)[0].difference for seed, num in ((0, 30), (1, 30), (0, 31))}
    assert len(told) == 3


@pytest.mark.parametrize(
    ("n", "better", "worse", "verdict"),
    [
        (6, 5, 0, "not told apart"),
        (6, 6, 0, "first better"),
        (100, 4, 0, "not told apart"),
        (100, 7, 1, "not told apart"),
        (100, 9, 1, "first better"),
        (100, 1, 9, "second better"),
    ],
)
def test_few_items_that_differ_decide_as_by_mcnemar(pair, n, better, worse, verdict):
    """However many items there are. The interval alone would call 4 to 0 of 100 a difference."""
    (good, _), _ = pair
    first, second = np.zeros(n), np.zeros(n)
    first[:better], second[better : better + worse] = 1, 1
    (acc1, *_) = compare(*classified_as(good, first, second))
    assert acc1.verdict == verdict
    assert acc1.difference.p_value == pytest.approx(binomtest(better, better + worse).pvalue, abs=0.01)


def test_classes_of_one_item_are_no_strata(pair):
    """Seven classes, one of them of two items: within classes only that one could move."""
    (good, _), _ = pair
    items = {"truth": [0, 0, 1, 2, 3, 4, 5, 6], "rank": [1, 1, 1, 9, 9, 9, 9, 9]}
    other = {**items, "rank": [9, 1, 9, 9, 9, 9, 9, 9]}
    one = replace(good, n=8, details={"items": items})
    found = compare(one, replace(one, model={"name": "other"}, details={"items": other}))
    mean = next(each for each in found if each.metric == "mean_per_class_recall")
    assert mean.difference.value == pytest.approx(1.5 / 7) and mean.difference.low < 0.1 < 0.4 < mean.difference.high


def test_few_shot_curves_are_compared(encoder, reddish):
    splits = [ShardSet(reddish, name) for name in ("train", "test")]
    options = {"shots": [1, 4], "num_draws": 2, "weight_decays": [1e-2], "num_bootstrap": 20}
    good = few_shot(encoder, *splits, **options)
    encode = encoder.encode_image
    encoder.encode_image = lambda images: 0 * encode(images) + 1
    encoder.name, encoder.weights_sha256 = "blind", lambda: "1" * 64
    bad = few_shot(encoder, *splits, **options)
    found = {each.metric: each for each in compare(good, bad, num_bootstrap=200)}
    assert set(found) == {"acc1_1_shot", "acc1_4_shot"}
    for name, each in found.items():
        assert each.difference.value == pytest.approx(good.metrics[name].value - bad.metrics[name].value)
    assert found["acc1_4_shot"].verdict == "first better"


def test_all_languages_are_compared(encoder, two_languages):
    """Each, and their mean: the second model takes red for blue."""
    data = ShardSet(two_languages, "test")
    good = retrieval(encoder, data, lang="all", num_bootstrap=5)
    encode = encoder.encode_image
    encoder.encode_image = lambda images: encode(images).flip(1)
    encoder.name, encoder.weights_sha256 = "turned", lambda: "1" * 64
    bad = retrieval(encoder, data, lang="all", num_bootstrap=5)
    found = {each.metric: each.difference for each in compare(good, bad, num_bootstrap=50)}
    assert set(found) == {name for name in good.metrics if "recall" in name}
    for name, difference in found.items():
        assert difference.value == pytest.approx(good.metrics[name].value - bad.metrics[name].value)
    assert found["mean_recall"].value == pytest.approx((found["mean_recall[en]"].value + found["mean_recall[pt]"].value) / 2)


def test_only_the_same_items_are_paired(pair):
    (good, good_retrieval), (bad, bad_retrieval) = pair
    found = compare_all([good, good_retrieval, bad, bad_retrieval], num_bootstrap=20)
    assert {(each.task, each.first["name"], each.second["name"]) for each in found} == {
        ("zero_shot", "colour", "turned"),
        ("retrieval", "colour", "turned"),
    }
    changes = (
        {"protocol": "georsclip"},
        {"prompts": "other"},
        {"split": "val"},
        {"data": {**bad.data, "sha256": "f"}},
        {"model": good.model},
        {"details": {}},
    )
    for change in changes:
        assert compare_all([good, replace(bad, **change)], num_bootstrap=20) == []
        with pytest.raises(DataError, match="cannot be paired"):
            compare(good, replace(bad, **change))


def test_what_is_stored_and_printed(pair, tmp_path):
    (good, _), (bad, _) = pair
    found = compare(good, bad, num_bootstrap=20)
    save_comparisons(tmp_path / "comparisons.json", found)
    first = json.loads((tmp_path / "comparisons.json").read_text())[0]
    assert first["metric"] == "acc1" and first["difference"]["value"] == found[0].difference.value
    line = comparison_table(found).splitlines()[2]
    assert (
        line.startswith("colour  turned  zero_shot  tiny/test  rsvl      acc1")
        and f"{100 * first['difference']['value']:+.1f}" in line
    )
