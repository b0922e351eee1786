from typing import get_args

import pytest

from evaluation.datasets import catalogue
from evaluation.metrics.retrieval import RetrievalProtocol
from evaluation.prompts import PromptProtocol
from evaluation.suite import SuiteName, measurements


@pytest.mark.parametrize("suite", get_args(SuiteName))
def test_every_measurement_can_be_made(suite):
    """A dataset of the catalogue that has the task, one of its published splits, a protocol that the task knows."""
    entries = {entry.name: entry for entry in catalogue()}
    protocols = {"zero_shot": get_args(PromptProtocol), "retrieval": get_args(RetrievalProtocol)}
    found = measurements(suite)
    for each in found:
        entry = entries[each.dataset]
        assert each.task.replace("_", "-") in entry.tasks and each.protocol in protocols[each.task], each
        assert each.split is None or entry.official(each.split), each
    assert len({each.name for each in found}) == len(set(found)) == len(found)


def test_the_sets_of_the_papers():
    def datasets(suite: SuiteName, task: str) -> set[str]:
        return {each.dataset for each in measurements(suite) if each.task == task}

    assert datasets("georsclip", "zero_shot") == {"aid", "resisc45", "eurosat"}
    assert datasets("georsclip", "retrieval") == {"rsicd", "rsitmd"}
    assert len(datasets("farslip", "zero_shot")) == 8 and datasets("farslip", "retrieval") == {"rsicd", "rsitmd", "ucm-captions"}


def test_all_is_all():
    everything = set(measurements("all"))
    assert everything >= {each for suite in ("quick", "georsclip", "farslip") for each in measurements(suite)} - {
        each for each in measurements("quick") if each.task == "retrieval"
    } and {each.dataset for each in everything} == {
        entry.name for entry in catalogue() if {"zero-shot", "retrieval"} & set(entry.tasks)
    }
