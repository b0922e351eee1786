"""A split of our shards with its masks, as a segmentation benchmark reads it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.data import EvalItem, ShardSet, Thinned
from evaluation.datasets.segmentation.masked_files import SegmentationSet
from rsvl_data.errors import DataError
from rsvl_data.mask_files import BadMask, Legend, read_mask
from rsvl_data.shards import Dataset


class ShardMasks:
    """A SegmentationSet: classes and ignored id are those of the manifest. Raises DataError for a dataset without masks."""

    def __init__(self, dataset: Dataset, split: str):
        legend = dataset.manifest.get("mask")
        if not legend:
            raise DataError(f"{dataset.root} has no masks; build it from a source with masks, such as `rsvl run data/scenes`")
        self._images, self._shards = ShardSet(dataset, split), dataset.shards(split)
        self._places = [(number, index) for number, shard in enumerate(self._shards) for index in range(len(shard))]
        self._legend = Legend(tuple(legend["classes"]), ignore_index=legend["ignore_index"])
        self.name, self.split, self.note = dataset.name, split, dataset.note
        self.classes = self._legend.classes
        self.synonyms = tuple((name.replace("_", " "),) for name in self.classes)
        self.ignore_index: int = legend["ignore_index"]
        self.items: Sequence[EvalItem] = [EvalItem(item.key) for item in self._images.items]

    def image(self, index: int) -> bytes:
        return self._images.image(index)

    def image_sha256(self, index: int) -> str:
        return self._images.image_sha256(index)

    def sha256(self) -> str:
        """Of the shards' checksums, masks among them, and the classes."""
        facts = [self._images.dataset.sha256(self.split), self.classes, self.ignore_index]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def mask(self, index: int) -> np.ndarray:
        """uint8 [h, w]. Raises DataError for a sample without a mask, or one that does not fit."""
        number, place = self._places[index]
        sample = self._shards[number].sample(place)
        if sample.mask is None:
            raise DataError(f"{self.name}: sample {sample.key} has no mask")
        try:
            return read_mask(sample.mask, self._legend, (sample.width, sample.height))
        except BadMask as error:
            raise DataError(f"{self.name}: the mask of sample {sample.key}: {error}") from error


@dataclass(frozen=True)
class ThinnedMasks(Thinned):
    """At most `limit` items of a SegmentationSet, spread over it."""

    whole: SegmentationSet

    @property
    def synonyms(self) -> tuple[tuple[str, ...], ...]:
        return self.whole.synonyms

    @property
    def ignore_index(self) -> int:
        return self.whole.ignore_index

    def mask(self, index: int) -> np.ndarray:
        return self.whole.mask(self.places[index])
