"""Sets of images with masks of classes: `open_segmentation` opens one by name; a new set is one entry in `sets`."""

from pathlib import Path

from evaluation.datasets.entry import spelling
from evaluation.datasets.segmentation.masked_files import MaskedFiles, SegmentationSet
from evaluation.datasets.segmentation.sets import SEGMENTATION_SETS
from rsvl_data.errors import OptionError

__all__ = ["SEGMENTATION_SETS", "SegmentationSet", "open_segmentation"]


def open_segmentation(name: str, root: Path, split: str | None = None) -> SegmentationSet:
    """One split with its masks; without a split the first of the catalogue that is there.

    Raises OptionError for a name that is no segmentation set, DataError for what is not there or not whole.
    """
    entry = next((entry for entry in SEGMENTATION_SETS if spelling(entry.name) == spelling(name)), None)
    if entry is None:
        raise OptionError(
            f"no segmentation set is called {name!r}; known: {', '.join(entry.name for entry in SEGMENTATION_SETS)}"
        )
    data = entry.open(root, split)
    assert isinstance(data, MaskedFiles)
    return data
