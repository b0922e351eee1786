"""What classification works on: the embeddings of a split's labelled images, and the numbers of their classes."""

from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from evaluation.benchmarks.identity import origin
from evaluation.data import EvalSet
from evaluation.embed import Encoder, EvalPrecision, Progress, embed_images
from evaluation.embedding_cache import EmbeddingCache
from rsvl_data.errors import DataError
from rsvl_data.transforms import Engine


class EmbedOptions(TypedDict, total=False):
    """What every benchmark hands to `embed_images` as it is, with its defaults."""

    batch_size: int
    workers: int
    precision: EvalPrecision
    engine: Engine
    progress: Progress
    cache: EmbeddingCache | None


@dataclass(frozen=True)
class Labelled:
    """`rows` are the items of a split that have a label, `labels` the numbers of their classes."""

    rows: np.ndarray
    labels: np.ndarray
    num_without: int


def labelled(data: EvalSet) -> Labelled:
    """Raises DataError when no item has a label, or when labels are no class of the dataset."""
    rows = [i for i, item in enumerate(data.items) if item.label is not None]
    if not rows:
        raise DataError(
            f"{data.name}: no sample of split {data.split!r} has a label, so there is nothing to classify. "
            "Use a dataset of class folders, or `rsvl eval retrieval` for one with captions."
        )
    number = {name: index for index, name in enumerate(data.classes)}
    raw = [str(data.items[i].label) for i in rows]
    if unknown := sorted(set(raw) - set(number)):
        raise DataError(
            f"{data.name}: labels of split {data.split!r} are no class of the dataset: {', '.join(unknown[:5])}. "
            f"Its classes: {', '.join(data.classes[:60])}."
        )
    return Labelled(np.array(rows), np.array([number[label] for label in raw]), len(data.items) - len(rows))


@dataclass(frozen=True)
class Features:
    """`embeds` are unit vectors [n, d] on the encoder's device; they are used as they are, not standardised."""

    embeds: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> "Features":
        rows = torch.as_tensor(rows, device=self.labels.device)
        return Features(self.embeds[rows], self.labels[rows])

    def joined(self, other: "Features") -> "Features":
        return Features(torch.cat([self.embeds, other.embeds]), torch.cat([self.labels, other.labels]))


def features(encoder: Encoder, data: EvalSet, **embedding: Unpack[EmbedOptions]) -> Features:
    """Raises DataError as `labelled` and `embed_images` do."""
    found = labelled(data)
    embeds = embed_images(encoder, data, **embedding)[torch.from_numpy(found.rows)]
    return Features(embeds.to(encoder.device), torch.from_numpy(found.labels).to(encoder.device))


@dataclass(frozen=True)
class Probe:
    """Train, val and test of one dataset as an encoder sees them; `facts` about them go into a Result."""

    train: Features
    val: Features
    test: Features
    num_classes: int
    facts: dict[str, Any]


def probe_features(
    encoder: Encoder, train: EvalSet, val: EvalSet | None, test: EvalSet, seed: int, **embedding: Unpack[EmbedOptions]
) -> Probe:
    """Without `val` a fifth of every class of train, drawn by `seed`, takes its place. Raises DataError for splits whose classes
    differ, and when nothing is left to train on or to choose by."""
    for split in (train, val):
        if split is not None and split.classes != test.classes:
            raise DataError(
                f"{split.name}: the classes of split {split.split!r} are not those of {test.split!r}: "
                f"{', '.join(sorted(set(split.classes) ^ set(test.classes))[:5]) or 'another order'}. Use splits of one dataset."
            )
    train_found = features(encoder, train, **embedding)
    facts: dict[str, Any] = {"train": train.split, "train_sha256": train.sha256()}
    if val is None:
        held_out = held_out_fifth(train_found.labels.cpu().numpy(), seed)
        train_found, val_found = train_found[~held_out], train_found[held_out]
        facts["val"] = f"a fifth of {train.split}"
    else:
        val_found = features(encoder, val, **embedding)
        facts |= {"val": val.split, "val_sha256": val.sha256()}
    if not len(train_found) or not len(val_found):
        raise DataError(f"{train.name}: split {train.split!r} has too few labelled images to hold some out; give a val split")
    return Probe(train_found, val_found, features(encoder, test, **embedding), len(test.classes), facts)


def held_out_fifth(labels: np.ndarray, seed: int) -> np.ndarray:
    """True for every fifth of the items of a class, in an order drawn by `seed`; classes of fewer than five keep theirs."""
    generator, held_out = np.random.default_rng(seed), np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = generator.permutation(np.flatnonzero(labels == label))
        held_out[own[: len(own) // 5]] = True
    return held_out


def embedding_origin(encoder: Encoder, data: EvalSet, embedding: EmbedOptions, **facts: Any) -> dict[str, Any]:
    """`origin` of a Result whose images were embedded with these options."""
    return origin(encoder, data, embedding.get("engine", "exact"), embedding.get("precision", "fp32"), **facts)
