from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from report_pages import Element, make_result, words

from evaluation.comparison import compare, compare_all
from evaluation.report_groups import Missing, untested_pairs
from evaluation.result import Metric, Result
from rsvl_data.errors import DataError


def of_model(name: str, right: int, **fields: Any) -> Result:
    """Twenty images of two classes, of which the first `right` are named right; the calibration error has no items."""
    items = {"truth": [0, 1] * 10, "rank": [1] * right + [2] * (20 - right)}
    metrics = {"acc1": Metric(right / 20), "expected_calibration_error": Metric(0.1, higher_is_better=False)}
    return make_result(model={"name": name, "sha256": name}, n=20, metrics=metrics, details={"items": items}, **fields)


def test_a_paired_test_names_the_better_model_and_what_it_could_not_test(render: Callable[..., Element]) -> None:
    results = [of_model("small", 6), of_model("large", 19)]
    [section] = render(results, comparisons=compare_all(results)).all("section", id="comparisons")
    [row] = section.all("tbody")[0].all("tr")
    assert words(row.text).startswith("Top-1 accuracy small large -65.0 -85.0 to -45.0 0.002 large better")
    assert "Without a paired test: Calibration error." in words(section.text)
    equal = [of_model("a", 10), of_model("b", 10)]
    [section] = render(equal, comparisons=compare_all(equal)).all("section", id="comparisons")
    assert "not told apart" in section.text and "Not compared" not in section.text


CHANGES = [
    ({"protocol": "skyscript"}, "protocol rsvl against skyscript"),
    ({"split": "val"}, "split test against val"),
    ({"prompts": "p-2"}, "prompts not recorded against p-2"),
    ({"data": {"sha256": "ee", "note": None}}, "not the same data: their checksums differ"),
    ({"data": {"sha256": "cd" * 32, "lang": "es"}}, "other texts or images took part"),
    ({"details": {}}, "no item-by-item record of b"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_pairs_without_a_test_are_named_with_the_reason(render: Callable[..., Element], change: dict[str, Any], why: str) -> None:
    results = [of_model("a", 10), replace(of_model("b", 12), **change)]
    with pytest.raises(DataError):
        compare(*results)
    assert untested_pairs(results, compare_all(results)) == [("zero_shot", "toy", "a and b", why)]
    [section] = render(results, comparisons=compare_all(results)).all("section", id="comparisons")
    assert f"a and b on toy (zero-shot classification): {why}." in words(section.text)


def test_every_pair_is_tested_or_named() -> None:
    results = [
        of_model("a", 10),
        of_model("b", 12),
        *(replace(of_model(f"c{i}", 9), **change) for i, (change, _) in enumerate(CHANGES)),
    ]
    comparisons = compare_all(results)
    tested = {(str(each.first["name"]), str(each.second["name"])) for each in comparisons}
    named = {tuple(models.split(" and ")) for _, _, models, _ in untested_pairs(results, comparisons)}
    assert tested | named == {(str(one.model["name"]), str(two.model["name"])) for one, two in combinations(results, 2)}
    assert tested == {("a", "b")} and not tested & named


def test_other_datasets_tasks_and_the_same_model_twice_are_no_pairs() -> None:
    one = of_model("a", 10)
    others = [of_model("b", 10, dataset="other"), replace(of_model("c", 10), task="knn"), replace(one, seed=1)]
    assert untested_pairs([one, *others], []) == []


def test_measurements_without_a_result_are_named(render: Callable[..., Element]) -> None:
    missing = [
        Missing("retrieval", "rsicd", "georsclip", "tiny", "absent", "not under data"),
        Missing("zero_shot", "aid", "georsclip", "tiny", "failed", "a file is cut"),
    ]
    page = render([make_result()], missing=missing)
    [panel] = [e for e in page.all("div") if e.attributes.get("id") == "missing"]
    rows = [words(row.text) for row in panel.all("tr")[1:]]
    assert rows == [
        "Image-text retrieval rsicd, protocol georsclip tiny absent: not under data",
        "Zero-shot classification aid, protocol georsclip tiny failed: a file is cut",
    ]
    assert "2 measurements not there" in words(page.text)
    assert "not there" not in words(render([make_result()]).text)


def test_an_overlap_is_marked_beside_the_headline_number(render: Callable[..., Element]) -> None:
    seen = make_result(contamination={"known_overlaps": ["nwpu-captions: all images"]}, model={"name": "seen"})
    page = render([make_result(), seen])
    [card] = page.all("article", class_="card")
    assert [words(e.text) for e in card.all("p", class_="many")] == ["tiny 61.2%", "seen ⚠ overlap 61.2%"]
    unknown = make_result(contamination={"trained_on": "unknown", "known_overlaps": "unknown"})
    text = words(render([unknown]).text)
    assert "⚠" not in text and "Overlap with the training data of tiny: not known" in text
