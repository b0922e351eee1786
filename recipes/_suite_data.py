"""The data of a suite's measurements, below one root: where they lie, and how many of them are taken."""

from pathlib import Path

from evaluation.data import EvalSet, Thinned
from evaluation.datasets import catalogue, open_dataset
from evaluation.datasets.air_slt import AIR_SLT, HOME, LocalizationSet, find_air_slt, open_air_slt
from evaluation.datasets.segmentation import open_segmentation
from evaluation.shard_masks import ThinnedMasks
from evaluation.suite import Measurement

SuiteData = EvalSet | LocalizationSet


def open_measured(measurement: Measurement, root: Path, limit: int | None) -> SuiteData | None:
    """None when the dataset is not below `root`. `limit` takes so many images, spread over the split; of semantic localisation, queries.

    Raises DataError for a dataset that is there and not whole.
    """
    if measurement.task == "localization":
        folder = find_air_slt(root)
        found = None if folder is None else open_air_slt(folder)
        return found if found is None or limit is None else found.thinned(limit)
    entry = next((entry for entry in catalogue() if entry.name == measurement.dataset), None)
    if entry is not None and entry.find(root) is None:
        return None
    if measurement.task == "open_vocabulary":
        masked = open_segmentation(measurement.dataset, root, measurement.split)
        return masked if limit is None else ThinnedMasks(masked, limit)
    data = open_dataset(measurement.dataset, root, measurement.split)
    return data if limit is None else Thinned(data, limit)


def images_of(data: SuiteData) -> EvalSet:
    return data.scenes if isinstance(data, LocalizationSet) else data


def where_to_get(measurement: Measurement) -> str:
    homes = {AIR_SLT: HOME, **{entry.name: entry.home for entry in catalogue()}}
    return homes[measurement.dataset]
