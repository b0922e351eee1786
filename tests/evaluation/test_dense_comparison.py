"""Two models on the same masks, phrases, queries or scores: what is compared is what the results say."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.benchmarks.quality import quality
from evaluation.benchmarks.segmentation import segmentation_metrics
from evaluation.comparison import compare, compare_all
from evaluation.dense_items import mask_items, of_masks
from evaluation.metrics.boundary import boundary_counts
from evaluation.metrics.segmentation import SegmentationCounts, measures, over_images
from evaluation.report_groups import untested_pairs
from evaluation.result import Metric, Result
from rsvl_data.errors import DataError

NUM_CLASSES = 5
EACH_ONCE = np.ones((1, 6))


def scored(seed, *, quality_of=0.7, leave_out=()):
    """Six images of four classes of five: the last is neither labelled nor predicted."""
    generator = np.random.default_rng(0)
    wrong = np.random.default_rng(seed)
    counts, edges = SegmentationCounts(NUM_CLASSES), []
    for _ in range(6):
        truth = generator.integers(0, NUM_CLASSES - 1, (12, 15)).astype(np.uint8)
        noise = wrong.integers(0, NUM_CLASSES - 1, truth.shape).astype(np.uint8)
        predicted = np.where(wrong.random(truth.shape) < quality_of, truth, noise)
        truth[0, :3] = 255
        counts.add(truth, predicted)
        edges.append(boundary_counts(truth, predicted, NUM_CLASSES, 1))
    kept = [index for index in range(NUM_CLASSES) if index not in leave_out]
    return counts, kept, np.stack(edges)


def result(task, name, metrics, items, **fields):
    told = {"dataset": "toy", "split": "test", "protocol": "rsvl", "n": 6, "code": "0", "seconds": 0.0} | fields
    return Result(
        task=task,
        metrics=metrics,
        model={"name": name, "sha256": name},
        data={"sha256": "d"},
        details={"items": items},
        **told,
    )


def segmented(name, seed, keys="abcdef", **options):
    counts, kept, edges = scored(seed, **options)
    metrics = segmentation_metrics(counts, "rsvl", kept, edges, 5, 0)
    return result("open_vocabulary", name, metrics, mask_items(list(keys), counts, kept, edges))


@pytest.mark.parametrize("leave_out", [(), (0,), (1, 4)])
def test_margins_tell_what_whole_matrices_tell(leave_out):
    counts, kept, edges = scored(1, leave_out=leave_out)
    found, num_units = of_masks(mask_items("abcdef", counts, kept, edges))
    whole = {name: over_images(measure, counts.stacked()) for name, measure in measures(kept).items()}
    assert num_units == 6 and set(found) == {*whole, "boundary_f1"}
    for drawn in (EACH_ONCE, np.array([[3, 0, 0, 2, 1, 0]], float)):
        for name, statistic in whole.items():
            np.testing.assert_allclose(found[name](drawn), statistic(drawn), atol=1e-12)


def test_masks_are_compared_in_every_metric():
    good, bad = segmented("good", 1), segmented("bad", 2, quality_of=0.3)
    found = compare(good, bad, num_bootstrap=200)
    assert {each.metric for each in found} == set(good.metrics) == {"miou", "macc", "mf1", "mprecision", "aacc", "boundary_f1"}
    for each in found:
        assert each.difference.value == pytest.approx(good.metrics[each.metric].value - bad.metrics[each.metric].value)
        assert each.verdict == "first better"


@pytest.mark.parametrize("other", [{"keys": "abcdeg"}, {"leave_out": (0,)}], ids=["another image", "means over other classes"])
def test_other_images_or_classes_are_no_pair(other):
    one, two = segmented("one", 1), segmented("two", 2, **other)
    assert compare_all([one, two]) == []
    with pytest.raises(DataError, match="cannot be paired"):
        compare(one, two)


@pytest.mark.usefixtures("few_items_will_do")
def test_phrases_of_one_image_are_drawn_together():
    items = {"intersection": [9, 8, 1], "union": [10, 10, 10], "image": [0, 0, 1]}
    metrics = {name: Metric(value) for name, value in {"ciou": 0.6, "giou": 0.6, "precision@0.5": 2 / 3}.items()}
    one = result("referring", "one", metrics, items)
    found = compare(one, result("referring", "two", metrics, items | {"intersection": [5, 5, 1]}), num_bootstrap=300)
    by_metric = {each.metric: each.difference for each in found}
    assert by_metric["ciou"].value == pytest.approx(7 / 30) and by_metric["precision@0.5"].value == 0
    assert (by_metric["giou"].low, by_metric["giou"].high) == (0, pytest.approx(0.35))  # only the second image; only the first


def test_less_attention_beside_the_target_is_better():
    def located(name, ras):
        half = [0.5] * 12
        scenes = [f"{number // 2}.png" for number in range(12)]
        items = {
            "query": list(range(12)),
            "scene": scenes,
            "rsu": half,
            "ras": [value + place / 100 for value in ras for place in range(6)],
            "rda": half,
            "rmi": half,
        }
        metrics = {key: Metric(0.5, higher_is_better=key != "ras") for key in ("rsu", "ras", "rda", "rmi")}
        return result("localization", name, metrics, items)

    near, far = located("near", [0.1, 0.2]), located("far", [0.4, 0.6])
    found = {each.metric: each for each in compare(near, far, num_bootstrap=500)}
    assert found["ras"].difference.p_value == 2 / 2**6  # of six scenes, not of twelve queries
    assert found["ras"].difference.value == pytest.approx(-0.35) and found["ras"].verdict == "first better"
    assert found["rsu"].verdict == "not told apart"


def test_two_predictors_of_the_same_quality_are_a_pair(tmp_path):
    generator = np.random.default_rng(0)
    true = generator.random(40)

    def table(name, noise, truth=true):
        predicted = true + noise * generator.standard_normal(40)
        lines = ["image,predicted,true", *(f"i{i // 2},{p},{t}" for i, (p, t) in enumerate(zip(predicted, truth)))]
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(lines))
        return quality(path, dataset="toy", num_bootstrap=5)

    one, two = table("one", 0.02), table("two", 0.5)
    found = {each.metric: each for each in compare(one, two, num_bootstrap=100)}
    assert set(found) == {"plcc", "srocc", "krocc", "rmse", "mae"}
    assert all(each.verdict == "first better" for each in found.values()) and found["rmse"].difference.value < 0
    assert compare_all([one, table("other", 0.02, truth=true + 1)]) == []
    assert compare_all([one, replace(two, dataset="another")]) == []


def test_one_image_has_no_interval():
    counts, kept, edges = scored(1)
    one = SegmentationCounts(NUM_CLASSES, per_image=counts.per_image[:1])
    found = segmentation_metrics(one, "rsvl", kept, edges[:1], 5, 0)
    assert found and all(metric.low is None and metric.high is None for metric in found.values())


def test_items_of_another_version_are_told_not_paired():
    new, other = segmented("a", 1), segmented("b", 2)
    items = {name: value for name, value in new.details["items"].items() if name != "labelled"}
    old = replace(new, details={"items": items})
    assert compare_all([old, other]) == [] and compare_all([new, other])
    told = "the item-by-item record of a is of another version: measure again"
    assert untested_pairs([old, other], []) == [("open_vocabulary", "toy", "a and b", told)]
    with pytest.raises(
        DataError, match=r"a on toy/test \(open_vocabulary, rsvl\): .*not of this version.*'labelled'.*Measure it again"
    ):
        compare(old, other)


@pytest.mark.parametrize("num_images", [1, 2, 5])
def test_few_images_tell_no_two_models_apart(num_images):
    """Of five images all favour one of two equal models once in sixteen times."""

    def head(whole):
        items = {name: value if name == "mean_over" else value[:num_images] for name, value in whole.details["items"].items()}
        return replace(whole, n=num_images, details={"items": items})

    one, other = head(segmented("a", 1)), head(segmented("b", 2))
    assert compare_all([one, other]) == []
    told = "too few items: less than 6 cannot tell two models apart"
    assert untested_pairs([one, other], []) == [("open_vocabulary", "toy", "a and b", told)]
