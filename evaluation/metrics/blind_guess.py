"""What a mask made without a look at its image scores: the level that segmentation has to pass."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from evaluation.metrics.segmentation import measures


def blind_guess(labelled: Num[np.ndarray, "c"], classes: Sequence[int] | None = None) -> dict[str, float]:
    """The best value of each of `measures(classes)` without looking: one class for every pixel, or all classes equally often.

    `labelled` is how many pixels of the set each class has. One class wins where it covers much (mIoU, accuracy), or where few classes
    occur at all (mean accuracy: 1 over their number). Mean precision has no such level: the classes that are never named leave it, so
    one large class alone would pass for better than good masks.
    """
    compared = {name: measure for name, measure in measures(classes).items() if name != "mprecision"}
    found = {name: measure(_blind_confusions(labelled)) for name, measure in compared.items()}
    return {name: float(np.nanmax(values)) for name, values in found.items() if not np.isnan(values).all()}


def _blind_confusions(labelled: Num[np.ndarray, "c"]) -> Float[np.ndarray, "guesses c c"]:
    """A confusion matrix for each guess: every class alone, then all of them, whose pixels are the expected ones."""
    num_classes = len(labelled)
    shares = np.concatenate([np.eye(num_classes), np.full((1, num_classes), 1 / num_classes)])
    return labelled[:, None] * shares[:, None, :]
