from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from report_pages import (
    CONFUSION,
    Element,
    cells,
    make_result,
    words,
)

from evaluation.result import Metric


def test_numbers_are_those_of_the_result(render: Callable[..., Element]) -> None:
    rank = Metric(12.5, 9, 120.4, 53, higher_is_better=False)
    result = make_result()
    page = render([replace(result, metrics={**result.metrics, "image_retrieval_median_rank": rank})])
    [section] = page.all("section", id="results")
    _head, first, second, third = section.all("tr")
    assert words(first.text).startswith(
        "Top-1 accuracy How often the class the model ranks first is the right one. acc1 · higher is better"
    )
    assert cells(first) == ["61.2%", "52.1–70.5%", "", "4.8%", "12.9 ×"]
    assert cells(second) == ["91.3%", "–", "", "–", "–"]
    assert cells(third) == ["12.5", "9–120", "", "53", "–"] and "lower is better" in third.text
    assert [len(row.all("svg")) for row in (first, second, third)] == [1, 1, 0]
    assert "toy, test split · n = 105 test items · protocol rsvl" in words(section.text)
    [card] = page.all("article", class_="card")
    assert words(card.text) == (
        "Zero-shot classification · toy, test split Top-1 accuracy How often the class the model ranks first is the right one. "
        "61.2% 95% interval 52.1–70.5% 0 100% Chance 4.8% · 12.9 × chance Better than guessing"
    )


def test_models_stand_side_by_side(render: Callable[..., Element]) -> None:
    better = {"acc1": Metric(0.7, 0.6, 0.8, 0.05), "error": Metric(0.2, 0.1, 0.3, higher_is_better=False)}
    worse = {"acc1": Metric(0.5, 0.4, 0.6, 0.05), "error": Metric(0.4, 0.3, 0.5, higher_is_better=False)}
    page = render([make_result(metrics=worse, model={"name": "small"}), make_result(metrics=better, model={"name": "large"})])
    [section] = page.all("section", id="results")
    head, first, second = section.all("tr")
    assert [words(e.text) for e in head.all("th")] == ["Metric", "Chance", "small", "large"]
    assert cells(first) == ["5.0%", "50.0% 40.0–60.0%", "best 70.0% 60.0–80.0%"]
    assert cells(second) == ["–", "40.0% 30.0–50.0%", "best 20.0% 10.0–30.0%"]
    [card, *_] = page.all("article", class_="card")
    assert [words(e.text) for e in card.all("p", class_="many")] == ["small 50.0%", "large 70.0%"]
    assert "guessing" not in card.text
    guess = make_result(metrics={"acc1": Metric(0.06, 0.02, 0.1, 0.05)}, model={"name": "guess"})
    [card, *_] = render([make_result(metrics=better), guess]).all("article", class_="card")
    assert "95% interval 2.0–10.0% 1.2 × chance not told apart from guessing" in words(card.text)


def test_equal_values_have_no_best_and_an_absent_one_no_number(render: Callable[..., Element]) -> None:
    one = make_result(model={"name": "a"}, metrics={"acc1": Metric(0.5), "acc5": Metric(0.6)})
    page = render([one, make_result(model={"name": "b"}, metrics={"acc1": Metric(0.5)})])
    _, first, second = page.all("section", id="results")[0].all("tr")
    assert cells(first) == ["–", "50.0% –", "50.0% –"] and cells(second) == ["–", "60.0% –", "–"]


@pytest.mark.parametrize(
    "other",
    [
        {"n": 104},
        {"protocol": "skyscript"},
        {"split": "val"},
        {"data": {"sha256": "ee"}},
        {"prompts": "p-2"},
        {"task": "retrieval"},
    ],
)
def test_what_does_not_compare_does_not_share_a_table(render: Callable[..., Element], other: dict[str, Any]) -> None:
    [section] = render([make_result(), make_result(**other)]).all("section", id="results")
    assert len(section.all("table")) == 2


def test_models_of_one_name_are_told_apart(render: Callable[..., Element]) -> None:
    twice = make_result(model={"name": "tiny", "sha256": "ef" * 32})
    [section] = render([make_result(), twice, twice]).all("section", id="results")
    assert [words(e.text) for e in section.all("tr")[0].all("th")][2:] == [
        "tiny abababab",
        "tiny efefefef #2",
        "tiny efefefef #3",
    ]


def test_train_test_overlap_is_marked_or_said_to_be_unknown(render: Callable[..., Element]) -> None:
    marked = render([make_result(contamination={"near_duplicates": 3})])
    assert "Train-test overlap recorded for tiny: near duplicates 3" in words(marked.text)
    assert "Overlap between training and test images is not recorded" not in words(marked.text)
    assert "Overlap between training and test images is not recorded for toy" in words(render([make_result()]).text)


def test_untrained_weights_are_called_so(render: Callable[..., Element]) -> None:
    nothing = {"trained_on": "nothing", "exact_images": 0, "same_phash_images": 0, "known_overlaps": "none"}
    page = render([make_result(contamination=nothing)])
    assert "tiny (untrained)" in words(page.all("header")[0].text) and "⚠ overlap" not in page.text
    assert "Overlap with the training data of tiny (untrained): none, its weights are untrained" in words(page.text)


def test_confusion_and_classes(render: Callable[..., Element]) -> None:
    per_class = {"airport": 0.75, "harbour": 1.0, "river": 0.0}
    [section] = render([make_result(details={"confusion": CONFUSION}, per_class=per_class)]).all("section", id="classes")
    titles = [e.text for e in section.all("title")]
    assert titles == [
        "airport: right in 3 of 4",
        "airport taken for harbour: 1 of 4",
        "harbour: right in 4 of 4",
        "river taken for airport: 2 of 2",
    ]
    assert [e.text for e in section.all("text", class_="number")] == ["75", "25", "100", "100"]
    [mix_ups] = section.all("ol", class_="mix-ups")
    assert [words(e.text) for e in mix_ups.all("li")] == ["river taken for airport 2 of 2", "airport taken for harbour 1 of 4"]
    bars = [words(e.text) for e in section.all("ul", class_="classes")[0].all("li")]
    assert bars == ["airport 75.0% 3 of 4", "harbour 100.0% 4 of 4", "river 0.0% 0 of 2"]


def test_classes_that_the_truth_does_not_have_are_named(render: Callable[..., Element]) -> None:
    """Over pixels, a class that is predicted and occurs nowhere has IoU 0, and it counts in the mean."""
    confusion = {"classes": ["water", "road", "car"], "counts": [[6, 2, 1], [1, 9, 0], [0, 0, 0]]}
    result = make_result(
        task="open_vocabulary",
        metrics={"miou": Metric(0.45)},
        per_class={"water": 0.6, "road": 0.75, "car": 0.0},
        details={"confusion": confusion},
    )
    [section] = render([result]).all("section", id="classes")
    bars = [words(e.text) for e in section.all("ul", class_="classes")[0].all("li")]
    assert bars == ["water 60.0%", "road 75.0%", "car 0.0% not in the truth"]


def test_a_caption_tells_facts_and_no_checksums(render: Callable[..., Element]) -> None:
    data = {"sha256": "cd" * 32, "note": None, "train": "train", "train_sha256": "ef" * 32, "num_draws": 5}
    [section] = render([make_result(data=data)]).all("section", id="results")
    assert "train train · num draws 5" in words(section.text) and "ef" * 32 not in section.text
