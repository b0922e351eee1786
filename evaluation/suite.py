"""Which numbers belong together: the sets of datasets and protocols that papers report, as lists to read.

A suite is a list of measurements. What a model gets in one of them is a Result, wherever it is run; nothing here runs anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from evaluation.datasets import catalogue
from evaluation.datasets.air_slt import AIR_SLT

SuiteName = Literal["quick", "georsclip", "farslip", "all"]
SuiteTask = Literal["zero_shot", "retrieval", "open_vocabulary", "localization"]


@dataclass(frozen=True)
class Measurement:
    """One table cell. `dataset` is a name of the catalogue, or air-slt; `split` None is the one that is opened where none is asked for."""

    task: SuiteTask
    dataset: str
    protocol: str
    split: str | None = None

    @property
    def name(self) -> str:
        """What its result file is called, without ending."""
        return "-".join(filter(None, (self.task, self.dataset, self.split, self.protocol)))


def _with_splits(task: SuiteTask, protocol: str, **splits: str | None) -> tuple[Measurement, ...]:
    """Keywords are datasets, with underscores for hyphens, and their splits."""
    return tuple(Measurement(task, name.replace("_", "-"), protocol, split) for name, split in splits.items())


def _retrieval(protocol: str, *datasets: str) -> tuple[Measurement, ...]:
    return tuple(Measurement("retrieval", name, protocol, "test") for name in datasets)


# Seconds to minutes with the small copies of EuroSAT and UCM; their own splits, our own prompts.
QUICK = (*_with_splits("zero_shot", "rsvl", eurosat=None, ucm=None), Measurement("retrieval", "ucm-captions", "rsvl"))

# RS5M and GeoRSCLIP, arXiv:2306.11300, tables I and II: whole sets for classification, test splits for retrieval, and semantic
# localisation by the code of the measure's authors.
GEORSCLIP = (
    *_with_splits("zero_shot", "georsclip", aid="all", resisc45="all", eurosat="all"),
    *_retrieval("georsclip", "rsicd", "rsitmd"),
    Measurement("localization", AIR_SLT, "semantic_localization_metrics"),
)

# FarSLIP, https://github.com/NJU-LHRS/FarSLIP/tree/d32ef2c, assets/classification.png, retrieval.png and ovss.png: the eight sets of
# SkyScript's benchmark (its tables call the whole set of NWPU, PatternNet, Million-AID and RSI-CB256 "train"), three retrieval sets,
# eight sets with masks (mmseg's folders call the test images of Potsdam and Vaihingen "val").
FARSLIP = (
    *_with_splits(
        "zero_shot",
        "farslip",
        skyscript_cls="val",
        aid="skyscript_test",
        eurosat="skyscript_test",
        fmow="val",
        millionaid="train",
        patternnet="all",
        resisc45="all",
        rsicb256="all",
    ),
    *_retrieval("farslip", "rsicd", "rsitmd", "ucm-captions"),
    *_with_splits(
        "open_vocabulary",
        "farslip",
        openearthmap_9="val",
        loveda="val",
        potsdam="test",
        vaihingen="test",
        udd5="val",
        vdd="test",
        uavid_7="test",
        isaid="val",
    ),
)


def measurements(suite: SuiteName) -> tuple[Measurement, ...]:
    """`all`: every measurement of the other suites, and every dataset under our own protocol."""
    suites: Mapping[str, tuple[Measurement, ...]] = {"quick": QUICK, "georsclip": GEORSCLIP, "farslip": FARSLIP}
    return suites[suite] if suite in suites else tuple(dict.fromkeys(chain(*suites.values(), _own())))


def _own() -> tuple[Measurement, ...]:
    tasks: dict[str, SuiteTask] = {"zero-shot": "zero_shot", "retrieval": "retrieval", "segmentation": "open_vocabulary"}
    of_catalogue = (
        Measurement(tasks[task], entry.name, "rsvl") for entry in catalogue() for task in entry.tasks if task in tasks
    )
    return (*of_catalogue, Measurement("localization", AIR_SLT, "rsvl"))
