from typing import get_args

import pytest
from report_pages import (
    make_result,
)

from evaluation.benchmarks.segmentation import SegmentationProtocol
from evaluation.metrics.heat_map_peaks import LocalizationProtocol
from evaluation.metrics.referring import ReferringProtocol
from evaluation.metrics.retrieval import RetrievalProtocol
from evaluation.prompts import PromptProtocol
from evaluation.result import Metric
from evaluation.wording import (
    against_chance,
    difference_text,
    markdown_table,
    metric_words,
    protocol_meaning,
    summary_table,
    task_meaning,
    times_chance,
    value_text,
)
from rsvl_segment.protocols import Protocol as SegmentProtocol


@pytest.mark.parametrize(
    ("metric", "told", "ratio"),
    [
        (Metric(0.5, 0.4, 0.6, 0.1), "better than guessing", "5.0 × chance"),
        (Metric(0.05, 0.01, 0.09, 0.1), "worse than guessing", "0.5 × chance"),
        (Metric(0.15, 0.1, 0.2, 0.1), "not told apart from guessing", "1.5 × chance"),
        (Metric(3, 2, 4, 50, higher_is_better=False), "better than guessing", None),
        (Metric(60, 55, 65, 50, higher_is_better=False), "worse than guessing", None),
        (Metric(0.5, None, None, 0.1), None, "5.0 × chance"),
        (Metric(0.5, 0.4, 0.6, 0.0), "better than guessing", None),
        (Metric(0.5, 0.4, 0.6), None, None),
        (Metric(0.5, 0.4, 0.6, 0.0001), "better than guessing", "5,000 × chance"),
        (Metric(0.1, 0.1, 0.2, 0.1 - 1e-16), "not told apart from guessing", "1.0 × chance"),
    ],
)
def test_against_chance(metric: Metric, told: str | None, ratio: str | None) -> None:
    assert (against_chance(metric), times_chance(metric)) == (told, ratio)


def test_summary_table() -> None:
    error = Metric(0.25, 0.2, 0.3, higher_is_better=False)
    assert summary_table([make_result(n=1050), make_result(model={"name": "b"}, metrics={"error": error})]).splitlines() == [
        "model  task       dataset   protocol  metric                   value  95% interval  chance      n",
        "-----  ---------  --------  --------  -----------------------  -----  ------------  ------  -----",
        "tiny   zero_shot  toy/test  rsvl      acc1                     61.2%    52.1–70.5%    4.8%  1,050",
        "tiny   zero_shot  toy/test  rsvl      acc5                     91.3%             –       –  1,050",
        "b      zero_shot  toy/test  rsvl      error (lower is better)  25.0%    20.0–30.0%       –    105",
    ]


def test_markdown_table() -> None:
    assert markdown_table([make_result(model={"name": "a|b\n<i>"}, metrics={"acc1": Metric(0.5)})]).splitlines() == [
        "| model | task | dataset | protocol | metric | value | 95% interval | chance | n |",
        "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
        "| a\\|b &lt;i> | zero_shot | toy/test | rsvl | acc1 | 50.0% | – | – | 105 |",
    ]


def test_tables_of_no_results_are_heads() -> None:
    assert len(summary_table([]).splitlines()) == len(markdown_table([]).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "shown", "percent"),
    [
        ("text_retrieval_recall@1", "Image to text, recall@1", True),
        ("image_retrieval_recall@100", "Text to image, recall@100", True),
        ("image_retrieval_mean_recall", "Text to image, mean recall", True),
        ("text_retrieval_median_rank", "Image to text, median rank", False),
        ("text_retrieval_surprise", "text retrieval surprise", True),
    ],
)
def test_metric_words(name: str, shown: str, percent: bool) -> None:
    found = metric_words(name)
    assert (found.name, found.percent) == (shown, percent)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "acc1",
            "acc5",
            "acc1_16_shot",
            "mean_per_class_recall",
            "expected_calibration_error",
            "mean_recall",
            "mean_recall[pt]",
        ),
        *(
            f"{side}_retrieval_{what}"
            for side in ("image", "text")
            for what in ("recall@1", "recall@100", "mean_recall", "median_rank")
        ),
        *("miou", "macc", "mf1", "boundary_f1", "rsu", "ras", "rda", "rmi", "giou", "ciou", "precision@0.5"),
        *("plcc", "plcc_fitted", "srocc", "krocc", "rmse", "rmse_fitted"),
    ],
)
def test_every_metric_is_explained_in_a_sentence(name: str) -> None:
    found = metric_words(name)
    assert found.name not in (name, name.replace("_", " ")) or name in ("mean_recall",)
    assert found.meaning.endswith((".", "?")) and len(found.meaning) < 150


def test_every_protocol_and_task_is_explained() -> None:
    of_tasks = {
        "zero_shot": PromptProtocol,
        "retrieval": RetrievalProtocol,
        "localization": LocalizationProtocol,
        "open_vocabulary": SegmentProtocol,
        "segmentation": SegmentationProtocol,
        "referring": ReferringProtocol,
    }
    for task, protocols in of_tasks.items():
        assert all(protocol_meaning(task, protocol) for protocol in get_args(protocols)) and task_meaning(task)
    assert protocol_meaning("zero_shot", "of_nobody") == task_meaning("of_nobody") == ""


@pytest.mark.parametrize(
    ("name", "value", "told", "difference"),
    [
        ("acc1", 0.5, "50.0%", "+50.0"),
        ("rmi", 0.7, "0.700", "+0.700"),
        ("rmi[pt]", 0.7, "0.700", "+0.700"),
        ("plcc_fitted", 0.25, "0.250", "+0.250"),
        ("image_retrieval_median_rank", 12.5, "12.5", "+12.500"),
        ("image_retrieval_median_rank", 1234, "1,234", "+1234.000"),
    ],
)
def test_values_are_shares_or_numbers(name: str, value: float, told: str, difference: str) -> None:
    assert (value_text(name, value), difference_text(name, value)) == (told, difference)
