"""How accuracy grows with the number of labelled images a class: linear probes on a few frozen embeddings.

As customary since CoOp (arXiv:2109.01134): 1, 2, 4, 8 and 16 images of each class, several draws, and a val set no larger than 4 a class
to choose the strength of the regularisation by (its `datasets/*.py`: `num_shots=min(num_shots, 4)`).
"""

import time
from collections.abc import Sequence
from typing import Unpack

import numpy as np
from jaxtyping import Bool, Float, Int

from evaluation.benchmarks.features import EmbedOptions, Probe, embedding_origin, probe_features
from evaluation.benchmarks.identity import as_metric
from evaluation.benchmarks.linear_probe import WEIGHT_DECAYS, choose_weight_decay, fit
from evaluation.bootstrap import Statistic, intervals
from evaluation.data import EvalSet
from evaluation.embed import Encoder
from evaluation.result import Result
from rsvl_data.errors import OptionError

SHOTS, MOST_VAL_SHOTS = (1, 2, 4, 8, 16), 4


def few_shot(
    encoder: Encoder,
    train: EvalSet,
    test: EvalSet,
    *,
    val: EvalSet | None = None,
    shots: Sequence[int] = SHOTS,
    num_draws: int = 5,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    seed: int = 0,
    num_bootstrap: int = 1000,
    **embedding: Unpack[EmbedOptions],
) -> Result:
    """`acc1_4_shot` and so on: accuracy on `test` with 4 training images of each class, mean over draws.

    The images of one draw with fewer shots are among those with more. Intervals resample test images and draws together: they hold both
    kinds of luck. A paired comparison of two models resamples images alone, each with its mean over the draws, which with one seed are the
    same for both. Without `val` a fifth of every class of train is held out to choose by. `details["curve"]` has every draw.
    Raises DataError for splits without labels or of other classes, OptionError for more shots than a class has images.
    """
    if num_draws < 1:
        raise OptionError(f"num_draws must be 1 or more; got {num_draws}")
    began = time.perf_counter()
    probe = probe_features(encoder, train, val, test, seed, **embedding)
    labels = probe.test.labels.cpu().numpy()
    orders = [_order_in_class(probe, train.classes, shots, seed + draw) for draw in range(num_draws)]
    found = {k: [_right_with(probe, *order, k, weight_decays) for order in orders] for k in shots}
    right = {k: np.stack([each for each, _ in draws]) for k, draws in found.items()}
    strata = np.repeat([0, 1], [len(labels), num_draws])
    resampled = intervals(
        {f"acc1_{k}_shot": mean_over_draws(right[k]) for k in shots},
        len(strata),
        num_bootstrap=num_bootstrap,
        seed=seed,
        strata=strata,
        num_alike=len(labels),
    )
    curve = [
        {"shots": k, "acc1": right[k].mean(1).tolist(), "weight_decay": [decay for _, decay in draws]}
        for k, draws in found.items()
    ]
    items = {"truth": labels.tolist(), "share_right": {str(k): right[k].mean(0).tolist() for k in shots}}
    return Result(
        task="few_shot",
        protocol="rsvl",
        n=len(labels),
        metrics={name: as_metric(interval, 1 / probe.num_classes) for name, interval in resampled.items()},
        seconds=time.perf_counter() - began,
        seed=seed,
        details={"curve": curve, "items": items},
        **embedding_origin(encoder, test, embedding, **probe.facts, num_draws=num_draws),
    )


def _order_in_class(
    probe: Probe, classes: Sequence[str], shots: Sequence[int], seed: int
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "v"]]:
    """The place of every train and every val image in a random order of its class, from 0."""
    if not shots or min(shots) < 1:
        raise OptionError(f"shots needs numbers of 1 or more; got {tuple(shots)}")
    labels = probe.train.labels.cpu().numpy()
    counts = np.bincount(labels, minlength=probe.num_classes)
    poorest = int(np.where(counts == 0, len(labels) + 1, counts).argmin())  # a class without any is left out
    if counts[poorest] < max(shots):
        raise OptionError(
            f"shots go up to {max(shots)}, but class {classes[poorest]!r} has {counts[poorest]} images to train on; "
            f"give --shots of at most {counts[poorest]}"
        )
    generator = np.random.default_rng(seed)
    return _places(labels, generator), _places(probe.val.labels.cpu().numpy(), generator)


def _places(labels: Int[np.ndarray, "n"], generator: np.random.Generator) -> Int[np.ndarray, "n"]:
    place = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        place[own] = generator.permutation(len(own))
    return place


def _right_with(
    probe: Probe, train_place: Int[np.ndarray, "n"], val_place: Int[np.ndarray, "v"], k: int, weight_decays: Sequence[float]
) -> tuple[Bool[np.ndarray, "t"], float]:
    """Which test images a probe on k images of each class gets right, and the weight decay it chose."""
    train, val = probe.train[train_place < k], probe.val[val_place < min(k, MOST_VAL_SHOTS)]
    chosen, _ = choose_weight_decay(train, val, probe.num_classes, weight_decays)
    logits = fit(train, probe.num_classes, chosen).logits(probe.test.embeds)
    return (logits.argmax(1) == probe.test.labels).cpu().numpy(), chosen


def mean_over_draws(right: Bool[np.ndarray, "s t"]) -> Statistic:
    """Units are the t test images, then the s draws; each kind keeps its number (`strata`)."""
    num_images = right.shape[1]

    def of(drawn: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b"]:
        images, draws = drawn[:, :num_images], drawn[:, num_images:]
        return (images @ right.T * draws).sum(1) / (images.sum(1) * draws.sum(1))

    return of
