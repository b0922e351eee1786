"""The level that segmentation has to pass: what masks score that are made without a look at the image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.blind_guess import blind_guess
from evaluation.metrics.segmentation import measures, pixel_confusion

LABELS = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], np.uint8)  # 8 and 2 pixels of two of four classes


def scores(labels, predicted, num_classes=4, classes=None):
    counts = pixel_confusion(labels, predicted, num_classes)
    return {name: float(measure(counts)) for name, measure in measures(classes).items()}


def test_by_hand():
    """All class 0: IoU 0.8 and 0; F1 16/18 and 0; half of the present classes are found."""
    assert blind_guess(np.array([8, 2, 0, 0])) == pytest.approx({"miou": 0.4, "macc": 0.5, "mf1": 8 / 18, "aacc": 0.8})


def test_no_constant_scores_more_and_the_best_scores_this():
    constants = [scores(LABELS, np.full_like(LABELS, index)) for index in range(4)]
    found = blind_guess(np.array([8, 2, 0, 0]))
    assert found == pytest.approx({name: np.nanmax([each[name] for each in constants]) for name in found})


def test_many_equal_classes_are_better_guessed_at_random():
    """F1 of one of n equal classes alone is 2 / (n + 1), over n; of a uniform guess 1 / n each."""
    found = blind_guess(np.full(5, 100))
    assert found["mf1"] == pytest.approx(1 / 5) and found["mf1"] > 2 / 6 / 5
    assert found["miou"] == pytest.approx(1 / 9) and found["miou"] > 1 / 25


def test_a_uniform_guess_is_what_random_masks_score():
    labels = np.arange(5, dtype=np.uint8).repeat(40_000).reshape(200, 1000)
    drawn = np.random.default_rng(0).integers(0, 5, labels.shape).astype(np.uint8)
    found = blind_guess(np.bincount(labels.ravel()))
    assert found == pytest.approx({name: scores(labels, drawn, 5)[name] for name in found}, abs=0.005)


def test_classes_that_the_means_leave_out():
    """Class 0 is left out: naming it everywhere gives 0, naming class 1 everywhere 2 of 10 pixels."""
    found = blind_guess(np.array([8, 2]), classes=[1])
    assert found == pytest.approx({"miou": 2 / 10, "macc": 1, "mf1": 4 / 12, "aacc": 0.8})


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=6).filter(any), st.randoms())
def test_names_of_classes_do_not_matter(labelled, random):
    shuffled = random.sample(labelled, len(labelled))
    assert blind_guess(np.array(shuffled)) == pytest.approx(blind_guess(np.array(labelled)))
