import json
from dataclasses import replace

import numpy as np
import pytest

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
    assert set(found) == {name for name in result.metrics if "recall" in name and "100" not in name}
    assert all(each.value == each.low == each.high == 0 and each.p_value == 1 for each in found.values())


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


def test_seed_and_resamples_change_the_interval(pair):
    (good, _), (bad, _) = pair
    told = {
        (seed, num): compare(good, bad, seed=seed, num_bootstrap=num)[0].difference for seed, num in ((0, 30), (1, 30), (0, 31))
    }
    assert len(set(told.values())) == 3


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
