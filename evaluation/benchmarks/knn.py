"""The class of an image from the labels of its nearest training images, weighted by how near they are.

As in DINO (arXiv:2104.14294, https://github.com/facebookresearch/dino/blob/main/eval_knn.py): a neighbour at cosine s votes for its class
with weight exp(s / 0.07), k is one of 10, 20, 100, 200. DINO reports all; here k is chosen on val.
"""

import time
from collections.abc import Sequence
from typing import Unpack

import numpy as np
from jaxtyping import Float
from torch import Tensor

from evaluation.benchmarks.classified import classified
from evaluation.benchmarks.features import EmbedOptions, Features, embedding_origin, probe_features
from evaluation.data import EvalSet
from evaluation.embed import Encoder
from evaluation.metrics.classification import predicted_classes
from evaluation.metrics.nearest import nearest
from evaluation.result import Result
from rsvl_data.errors import OptionError

KS, TEMPERATURE = (10, 20, 100, 200), 0.07


def knn(
    encoder: Encoder,
    train: EvalSet,
    test: EvalSet,
    *,
    val: EvalSet | None = None,
    ks: Sequence[int] | None = None,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    num_bootstrap: int = 1000,
    **embedding: Unpack[EmbedOptions],
) -> Result:
    """acc1, acc5 and mean_per_class_recall on `test`; neighbours are of train alone. `details["val_acc1"]` is what k was chosen by.

    `ks` are those to choose from; None means DINO's, as far as train has so many images. Without `val` a fifth of every class of
    train is held out to choose, and only then. Among classes with equal votes the first is taken, among equally near images at the
    k-th place any. Raises DataError for splits without labels or of other classes, OptionError for a k larger than train.
    """
    if temperature <= 0:
        raise OptionError(f"temperature must be above 0; got {temperature}")
    began = time.perf_counter()
    probe = probe_features(encoder, train, val, test, seed, **embedding)
    ks = _allowed(ks, len(probe.train))
    on_val = votes(probe.val.embeds, probe.train, probe.num_classes, ks, temperature)
    val_labels, labels = probe.val.labels.cpu().numpy(), probe.test.labels.cpu().numpy()
    val_acc1 = {k: float((predicted_classes(on_val[k]) == val_labels).mean()) for k in ks}
    k = max(ks, key=lambda k: (val_acc1[k], -k))
    gallery = probe.train if val is not None else probe.train.joined(probe.val)
    fields = classified(
        votes(probe.test.embeds, gallery, probe.num_classes, [k], temperature)[k], labels, test.classes, num_bootstrap, seed
    )
    fields["details"] |= {"k": k, "temperature": temperature, "val_acc1": {str(k): acc1 for k, acc1 in val_acc1.items()}}
    return Result(
        task="knn",
        protocol="dino",
        seconds=time.perf_counter() - began,
        **fields,
        **embedding_origin(encoder, test, embedding, **probe.facts),
    )


def _allowed(ks: Sequence[int] | None, num_train: int) -> Sequence[int]:
    if ks is None:
        return [k for k in KS if k <= num_train] or [num_train]
    if not ks or not all(1 <= k <= num_train for k in ks):
        raise OptionError(f"ks must lie between 1 and the {num_train} training images; got {tuple(ks)}")
    return ks


def votes(
    query: Float[Tensor, "q d"], train: Features, num_classes: int, ks: Sequence[int], temperature: float
) -> dict[int, Float[np.ndarray, "q c"]]:
    """For each k the votes of the k nearest training images, by class."""
    scores, index = nearest(query, train.embeds, max(ks))
    weights, labels = (scores / temperature).exp(), train.labels[index]
    empty = weights.new_zeros(len(query), num_classes)
    return {k: empty.scatter_add(1, labels[:, :k], weights[:, :k]).cpu().numpy() for k in ks}
