"""Datasets to measure on, by name: public ones in the layouts of their authors, our shards, webdatasets of CLIP_benchmark, the Hub.

`catalogue` is what is known by name; docs/datasets.md is made of it. A new dataset is one entry in `scene_sets`, `caption_sets`,
`segmentation.sets` or `referring_sets`.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from evaluation.data import EvalSet, ShardSet
from evaluation.datasets.caption_sets import CAPTION_SETS
from evaluation.datasets.entry import DatasetEntry, OfficialSplit, spelling
from evaluation.datasets.hub import HubSet
from evaluation.datasets.referring_sets import REFERRING_SETS
from evaluation.datasets.scene_sets import SCENE_SETS
from evaluation.datasets.segmentation.sets import SEGMENTATION_SETS
from evaluation.datasets.web_dataset import WebDatasetSet
from rsvl_data.errors import OptionError
from rsvl_data.shards import Dataset

__all__ = ["DatasetEntry", "OfficialSplit", "catalogue", "open_dataset"]


def catalogue() -> Sequence[DatasetEntry]:
    return (*SCENE_SETS, *CAPTION_SETS, *SEGMENTATION_SETS, *REFERRING_SETS)


def open_dataset(name: str, root: Path, split: str | None = None) -> EvalSet:
    """One split, ready to be measured. `name` is one of the catalogue, `wds:PATH`, `hub:org/name`, or the path of a dataset folder of ours.

    A path is seen from `root` first, then as it stands. Without a split: the first of the catalogue (`all` where nobody published one), but
    `test` where a copy brings a splits.csv, and of anything that is not in the catalogue.
    Raises OptionError for a name that nobody knows, DataError for what is not there or not whole.
    """
    kind, _, rest = name.partition(":")
    if kind == "wds" and rest:
        return WebDatasetSet(_below(root, rest), split or "test")
    if kind == "hub" and rest:
        return HubSet(rest, split or "test")
    entry = next((entry for entry in catalogue() if spelling(entry.name) == spelling(name)), None)
    if entry is not None:
        return entry.open(root, split)
    path = _below(root, name)
    if path.is_dir():
        return ShardSet(Dataset.open(path), split or "test")
    names = [entry.name for entry in catalogue()]
    close = get_close_matches(name.lower(), names, n=1)
    raise OptionError(
        f"no dataset is called {name!r}{f'; did you mean {close[0]}?' if close else '.'} Known: {', '.join(names)}; "
        "or the path of a dataset folder, wds:PATH, hub:org/name."
    )


def _below(root: Path, path: str) -> Path:
    return root / path if (root / path).exists() else Path(path)
