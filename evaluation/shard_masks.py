"""A split of our shards with its masks, as a segmentation benchmark reads it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation.data import Head, ShardSet
from evaluation.datasets.segmentation.masked_files import SegmentationSet
from rsvl_data.errors import DataError
from rsvl_data.mask_files import BadMask, Legend, read_mask
from rsvl_data.shards import Dataset


class ShardMasks(ShardSet):
    """A SegmentationSet: classes and ignored id are those of the manifest. Raises DataError for a dataset without masks."""

    synonyms: tuple[tuple[str, ...], ...]

    def __init__(self, dataset: Dataset, split: str):
        legend = dataset.manifest.get("mask")
        if not legend:
            raise DataError(f"{dataset.root} has no masks; build it from a source with masks, such as `rsvl run data/scenes`")
        self.ignore_index: int = legend["ignore_index"]
        self._legend = Legend(tuple(legend["classes"]), ignore_index=self.ignore_index)
        super().__init__(dataset, split)
        self.synonyms = tuple((name.replace("_", " "),) for name in self.classes)

    @cached_property
    def classes(self) -> tuple[str, ...]:  # of pixels; those of whole images are not needed here
        return self._legend.classes

    def mask(self, index: int) -> np.ndarray:
        """uint8 [h, w]. Raises DataError for a sample without a mask, or one that does not fit."""
        key = self.items[index].key
        with self._lock:
            number, place = self._places[index]
            sample = self._shards[number].sample(place)
        if sample.mask is None:
            raise DataError(f"{self.dataset.root}: sample {key} has no mask")
        try:
            return read_mask(sample.mask, self._legend, (sample.width, sample.height))
        except BadMask as error:
            raise DataError(f"{self.dataset.root}: the mask of sample {key}: {error}") from error


@dataclass(frozen=True)
class HeadOfMasks(Head):
    """The first `limit` items of a SegmentationSet."""

    whole: SegmentationSet

    @property
    def synonyms(self) -> tuple[tuple[str, ...], ...]:
        return self.whole.synonyms

    @property
    def ignore_index(self) -> int:
        return self.whole.ignore_index

    def mask(self, index: int) -> np.ndarray:
        return self.whole.mask(index)
