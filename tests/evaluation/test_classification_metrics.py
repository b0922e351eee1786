import numpy as np
import pytest
import torch

from evaluation.metrics.classification import (
    average_precision,
    calibration_bins,
    chance_top_k,
    class_scores,
    class_weights,
    confidences,
    confusion_counts,
    expected_calibration_error,
    mean_per_class_recall,
    per_class_recall,
    predicted_classes,
    ranks_of_truth,
    top_k_accuracy,
)

CASES = ("main", "georsclip_105", "two_templates", "four_classes")
TWO_WAYS = {
    "clip_benchmark": "normalize_then_average",
    "farslip": "normalize_then_average",
    "georsclip": "average_then_normalize",
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("official", TWO_WAYS)
def test_class_weights_are_the_published_ones(golden, case, official):
    _, arrays = golden("zero_shot")
    weights = class_weights(torch.from_numpy(arrays[f"{case}_template_embedding"]), TWO_WAYS[official])
    assert np.abs(weights.numpy().T - arrays[f"{case}_weights_{official}"]).max() < 1e-6


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("average", "key"),
    [("normalize_then_average", "clip_benchmark"), ("average_then_normalize", "georsclip_weights_with_clip_benchmark_metrics")],
)
def test_accuracies_are_the_published_ones(golden, case, average, key):
    parameters, arrays = golden("zero_shot")
    labels = arrays[f"{case}_label"]
    weights = class_weights(torch.from_numpy(arrays[f"{case}_template_embedding"]), average)
    ranks = ranks_of_truth(class_scores(torch.from_numpy(arrays[f"{case}_image_embedding"]), weights), labels)
    expected = parameters["cases"][case][key]
    assert top_k_accuracy(ranks, 1) == pytest.approx(expected["acc1"], abs=1e-6)
    assert mean_per_class_recall(ranks == 1, labels) == pytest.approx(expected["mean_per_class_recall"], abs=1e-6)
    if expected["acc5"] == "nan":
        assert top_k_accuracy(ranks, 5) == 1  # four classes: official gives up, ours clamps
    else:
        assert top_k_accuracy(ranks, 5) == pytest.approx(expected["acc5"], abs=1e-6)


def test_georsclip_and_farslip_percentages(golden):
    parameters, arrays = golden("zero_shot")
    for case in CASES:
        templates, images = (torch.from_numpy(arrays[f"{case}_{kind}_embedding"]) for kind in ("template", "image"))
        labels = arrays[f"{case}_label"]
        georsclip = ranks_of_truth(class_scores(images, class_weights(templates, "average_then_normalize")), labels)
        expected = parameters["cases"][case]
        assert round(100 * top_k_accuracy(georsclip, 1), 2) == expected["georsclip"]["top1_percent_rounded"]
        if "raises" not in expected["farslip"]:
            farslip = ranks_of_truth(class_scores(images, class_weights(templates, "normalize_then_average")), labels)
            assert round(100 * top_k_accuracy(farslip, 1), 2) == expected["farslip"]["toy-top1"]
            assert round(100 * top_k_accuracy(farslip, 5), 2) == expected["farslip"]["toy-top5"]


def test_average_precision_is_the_published_one(golden):
    parameters, arrays = golden("zero_shot")
    ours = average_precision(arrays["multilabel_score"], arrays["multilabel_target"])
    assert np.isnan(ours[-1]) and arrays["multilabel_ap"][-1] == 0  # no positive: official counts it as 0
    assert ours[:-1] == pytest.approx(arrays["multilabel_ap"][:-1], abs=1e-6)
    official = parameters["multilabel"]["mean_average_precision"]
    assert np.nan_to_num(ours).mean() == pytest.approx(official, abs=1e-6)
    assert np.nanmean(ours) == pytest.approx(official * 6 / 5, abs=1e-6)


def test_average_precision_by_hand():
    scores = np.array([[0.9], [0.8], [0.7], [0.7]], dtype=np.float32)
    targets = np.array([[1], [0], [1], [0]])
    assert average_precision(scores, targets) == pytest.approx([(1 / 1 + 2 / 3) / 2])
    order = [1, 0, 2, 3]
    assert (average_precision(scores[order], targets[order]) == average_precision(scores, targets)).all()


@pytest.mark.parametrize("table", ["farslip_zero_shot_top1", "farslip_ovss_miou"])
def test_printed_means_over_datasets_are_plain_means(golden, table):
    for row in golden("published_means")[0][table]["rows"]:
        assert np.mean(row["values"]) == pytest.approx(row["mean_printed"], abs=0.005 + 1e-9), row["method"]


def slow_calibration_error(confidence, right, num_bins):
    total = 0.0
    for b in range(num_bins):
        inside = [i for i, c in enumerate(confidence) if b / num_bins < c <= (b + 1) / num_bins]
        if inside:
            total += abs(np.mean(confidence[inside]) - np.mean(right[inside])) * len(inside) / len(confidence)
    return total


def test_calibration_error():
    generator = np.random.default_rng(0)
    confidence, right = generator.uniform(0.01, 1, 500), generator.random(500) < 0.6
    for num_bins in (1, 7, 15):
        assert expected_calibration_error(confidence, right, num_bins) == pytest.approx(
            slow_calibration_error(confidence, right, num_bins)
        )
    # as sure as it is right, in each of two bins; sure and always wrong
    assert expected_calibration_error(np.array([0.5, 0.5, 1.0]), np.array([True, False, True])) == 0
    assert expected_calibration_error(np.ones(4), np.zeros(4, dtype=bool)) == 1
    items, confident, hits = calibration_bins(np.array([0.2, 0.21, 1.0]), np.array([True, False, True]), 5)
    assert items.tolist() == [1, 1, 0, 0, 1] and hits.tolist() == [1, 0, 0, 0, 1] and confident.sum() == pytest.approx(1.41)


def test_a_true_probability_is_calibrated():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.2, 1, 200_000)
    assert expected_calibration_error(confidence, generator.random(200_000) < confidence) < 0.01


def test_confidence_is_a_softmax():
    scores = np.array([[0.2, 0.1, -0.3], [5.0, 5.0, -9.0]], dtype=np.float32)
    slow = torch.softmax(100 * torch.from_numpy(scores).double(), 1).amax(1).numpy()
    assert confidences(scores, 100) == pytest.approx(slow)
    assert confidences(scores, 1)[0] < confidences(scores, 10)[0]
    assert confidences(1e4 * scores, 1e4).tolist() == [1.0, 0.5]  # no overflow


def random_case(seed=0, n=60, c=7):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 4, (n, c)).astype(np.float32), generator.integers(0, c, n)


def test_ranks_equal_a_slow_sort_with_the_lowest_index_first():
    scores, labels = random_case()
    slow = [sorted(range(7), key=lambda c: (-row[c], c)).index(label) + 1 for row, label in zip(scores, labels)]
    assert ranks_of_truth(scores, labels).tolist() == slow
    assert ((ranks_of_truth(scores, labels) == 1) == (predicted_classes(scores) == labels)).all()


def test_hand_computed():
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.1, 0.2, 0.7], [0.6, 0.5, 0.4]], dtype=np.float32)
    labels = np.array([0, 1, 2, 1])
    ranks = ranks_of_truth(scores, labels)
    assert ranks.tolist() == [1, 2, 1, 2]
    assert (top_k_accuracy(ranks, 1), top_k_accuracy(ranks, 2)) == (0.5, 1.0)
    assert mean_per_class_recall(ranks == 1, labels) == pytest.approx(2 / 3)
    assert per_class_recall(ranks == 1, labels, 3).tolist() == [1.0, 0.0, 1.0]
    assert confusion_counts(labels, predicted_classes(scores), 3).tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 1]]


def test_laws():
    scores, labels = random_case()
    ranks = ranks_of_truth(scores, labels)
    order = np.random.default_rng(1).permutation(len(labels))
    assert (ranks_of_truth(scores[order], labels[order]) == ranks[order]).all()
    assert (np.concatenate([ranks_of_truth(scores[:17], labels[:17]), ranks_of_truth(scores[17:], labels[17:])]) == ranks).all()
    perfect = ranks_of_truth(np.eye(7, dtype=np.float32)[labels], labels)
    assert top_k_accuracy(perfect, 1) == mean_per_class_recall(perfect == 1, labels) == 1
    confusion = confusion_counts(labels, predicted_classes(scores), 7)
    assert confusion.sum() == len(labels)
    assert np.trace(confusion) / len(labels) == top_k_accuracy(ranks, 1)
    assert ranks_of_truth(scores[:1], labels[:1]).shape == (1,)


def test_a_class_without_items_is_left_out_of_the_mean():
    labels, right = np.array([0, 0, 2]), np.array([True, False, True])
    recalls = per_class_recall(right, labels, 4)
    assert recalls[[0, 2]].tolist() == [0.5, 1.0]
    assert np.isnan(recalls[[1, 3]]).all()
    assert mean_per_class_recall(right, labels) == 0.75


def test_an_encoder_that_cannot_tell_gets_class_0_only():
    ranks = ranks_of_truth(np.zeros((3, 3), dtype=np.float32), np.array([0, 1, 2]))
    assert ranks.tolist() == [1, 2, 3]


def test_the_two_averages_differ_by_the_length_of_the_embeddings():
    embeds = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    assert torch.allclose(class_weights(embeds, "normalize_then_average"), torch.tensor([[0.5, 0.5]]).sqrt())
    assert torch.allclose(class_weights(embeds, "average_then_normalize"), torch.tensor([[3.0, 1.0]]) / 10**0.5)


def test_chance_is_what_random_scores_give():
    generator = np.random.default_rng(0)
    ranks = ranks_of_truth(generator.random((20_000, 8)), generator.integers(0, 8, 20_000))
    for k in (1, 5, 9):
        assert top_k_accuracy(ranks, k) == pytest.approx(chance_top_k(8, k), abs=0.01)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "no items"),
        (np.array([[0.0, np.nan]]), np.array([0]), "1 of 1 items have scores that are NaN or infinite"),
        (np.zeros((2, 3)), np.array([0, 3]), "labels run from 0 to 3; with 3 classes 0 to 2 is allowed"),
    ],
)
def test_what_has_no_rank_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        ranks_of_truth(scores.astype(np.float32), labels)


def test_metrics_of_nothing_are_refused():
    with pytest.raises(ValueError, match="no items"):
        top_k_accuracy(np.zeros(0, dtype=int), 1)
    with pytest.raises(ValueError, match="no items"):
        mean_per_class_recall(np.zeros(0, dtype=bool), np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match="at least one prompt"):
        class_weights(torch.zeros(2, 0, 4), "normalize_then_average")
