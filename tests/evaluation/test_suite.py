import json
from pathlib import Path
from typing import get_args

import pytest

import evaluation
from evaluation.datasets import catalogue
from evaluation.datasets.air_slt import AIR_SLT
from evaluation.metrics.heat_map_peaks import LocalizationProtocol
from evaluation.metrics.retrieval import RetrievalProtocol
from evaluation.prompts import PromptProtocol
from evaluation.suite import SuiteName, SuiteTask, measurements
from rsvl_segment.protocols import Protocol


@pytest.mark.parametrize("suite", get_args(SuiteName))
def test_every_measurement_can_be_made(suite):
    """A dataset of the catalogue that has the task, one of its published splits, a protocol that the task knows."""
    entries = {entry.name: entry for entry in catalogue()}
    protocols = {
        "zero_shot": get_args(PromptProtocol),
        "retrieval": get_args(RetrievalProtocol),
        "open_vocabulary": get_args(Protocol),
        "localization": get_args(LocalizationProtocol),
    }
    of_catalogue = {"zero_shot": "zero-shot", "retrieval": "retrieval", "open_vocabulary": "segmentation"}
    found = measurements(suite)
    for each in found:
        assert each.protocol in protocols[each.task], each
        if each.task == "localization":
            assert (each.dataset, each.split) == (AIR_SLT, None)
            continue
        entry = entries[each.dataset]
        assert of_catalogue[each.task] in entry.tasks, each
        assert each.split is None or entry.official(each.split), each
    assert len({each.name for each in found}) == len(set(found)) == len(found)


def test_the_sets_of_the_papers():
    def datasets(suite: SuiteName, task: str) -> set[str]:
        return {each.dataset for each in measurements(suite) if each.task == task}

    assert datasets("georsclip", "zero_shot") == {"aid", "resisc45", "eurosat"}
    assert datasets("georsclip", "retrieval") == {"rsicd", "rsitmd"}
    assert datasets("georsclip", "localization") == {AIR_SLT} and len(datasets("farslip", "open_vocabulary")) == 8
    assert {each.task for each in measurements("quick")} == {"zero_shot", "retrieval"}
    assert len(datasets("farslip", "zero_shot")) == 8 and datasets("farslip", "retrieval") == {"rsicd", "rsitmd", "ucm-captions"}


def test_all_is_all():
    everything = set(measurements("all"))
    assert everything >= {each for suite in ("quick", "georsclip", "farslip") for each in measurements(suite)} - {
        each for each in measurements("quick") if each.task == "retrieval"
    } and {each.dataset for each in everything} == {
        AIR_SLT, *(entry.name for entry in catalogue() if {"zero-shot", "retrieval", "segmentation"} & set(entry.tasks))
    }  # fmt: skip
    assert {each.task for each in everything} == set(get_args(SuiteTask))


def test_published_masks_are_measured_where_they_were_published():
    """Rows of papers stand beside ours only where dataset, split and protocol are theirs."""
    ours = {(each.task, each.dataset, each.split) for each in measurements("farslip")}
    table = json.loads((Path(evaluation.__file__).parent / "published" / "farslip.json").read_text())
    columns = [(each["task"], column["dataset"], column["split"]) for each in table["tables"] for column in each["columns"]]
    assert columns and set(columns) <= ours
