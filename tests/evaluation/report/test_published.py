import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_pages import Element, make_result, words

from evaluation.datasets import catalogue
from evaluation.published import published_beside, published_by_source, published_tables
from evaluation.result import Metric
from evaluation.wording import protocol_meaning

EUROSAT = make_result(dataset="eurosat", split="all", protocol="georsclip", n=27_000, metrics={"acc1": Metric(0.6)})
SIX = [f"{side}_retrieval_recall@{k}" for side in ("text", "image") for k in (1, 5, 10)]


def table(task: str, source: str) -> Any:
    return next(each for each in published_tables() if each.task == task and source in each.source)


def close(value: float, printed: float, decimals: int = 2) -> bool:
    """Both as fractions; the printed one is percent, rounded, and so are the values it is the mean of."""
    return abs(100 * value - 100 * printed) <= 0.5 * 10**-decimals + 1e-9


def test_printed_means_are_means_of_the_printed_values() -> None:
    rows = [row for each in published_tables() for row in each.rows if row.mean is not None]
    assert len(rows) == 11 + 17
    assert all(close(sum(row.values) / len(row.values), row.mean) for row in rows)


def test_printed_mean_recalls_are_means_of_the_six_recalls() -> None:
    count = 0
    for each in published_tables():
        for row in each.rows:
            for dataset in {column.dataset for column in each.columns if column.metric == "mean_recall"}:
                told = {c.metric: value for c, value in zip(each.columns, row.values) if c.dataset == dataset}
                assert told["mean_recall"] == pytest.approx(sum(told[name] for name in SIX) / 6, abs=0.0002), row.name
                count += 1
    assert count == 2 * (10 + 2)


def test_printed_rmi_is_the_sum_of_its_parts() -> None:
    for each in (each for each in published_tables() if each.task == "localization"):
        for row in each.rows:
            rsu, rda, ras, rmi = row.values
            assert 0.4 * rsu + 0.35 * (1 - ras) + 0.25 * rda == pytest.approx(rmi, abs=2e-4), row.name


def test_rows_are_those_of_the_fixture(shared: Path) -> None:
    golden = json.loads((shared / "fixtures/evaluation/published_means.json").read_text())
    backbones = {"B/32": "ViT-B-32", "B/16": "ViT-B-16"}
    names = {"CLIP": "CLIP (OpenAI)", "FarSLIP-s1": "FarSLIP1", "FarSLIP-s2": "FarSLIP2"}
    for name, task in (("farslip_ovss_miou", "open_vocabulary"), ("farslip_zero_shot_top1", "zero_shot")):
        rows = {(row.model, row.backbone): row for row in table(task, "FarSLIP").rows}
        for row in golden[name]["rows"]:
            ours = rows[names.get(row["method"], row["method"]), backbones[row["backbone"]]]
            assert [100 * value for value in ours.values] == pytest.approx(row["values"])
            assert 100 * sum(ours.values) / len(ours.values) == pytest.approx(row["mean_printed"], abs=0.005 + 1e-9)
    tuned = next(row for row in golden["georsclip_readme_retrieval"]["rows"] if row["tuned_on"] == "RS5M + RET-2")
    ours = next(row for row in table("retrieval", "table II").rows if row.model.endswith("RET-2"))
    assert [100 * value for value in ours.values[7:13]] == pytest.approx(tuned["recalls"])
    selo = next(row for row in table("localization", "README").rows if row.backbone == "ViT-B-32")
    assert selo.values == pytest.approx([golden["georsclip_selo"][0][name] for name in ("Rsu", "Rda", "Ras", "Rmi")])


def test_rows_of_the_same_protocol_split_and_size_compare() -> None:
    rows = published_beside(EUROSAT)
    comparable = [each for each in rows if each.compares]
    assert {each.table.protocol for each in comparable} == {"georsclip"} and rows[: len(comparable)] == comparable
    released = next(each for each in comparable if each.row.name == "GeoRSCLIP, released weights, ViT-B-32")
    assert released.values == {"acc1": pytest.approx(0.614)} and "README" in released.table.source
    assert released.agrees == "same protocol and split, 27,000 items in both"
    others = [each for each in rows if not each.compares]
    assert {each.table.protocol for each in others} == {"farslip"}
    assert others[0].differs == ("protocol farslip, ours georsclip", "split skyscript_test, ours all", "2,700 items, ours 27,000")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"protocol": "rsvl"}, "protocol georsclip, ours rsvl"),
        ({"split": "test"}, "the whole set, ours test"),
        ({"n": 300}, "27,000 items, ours 300"),
        ({"data": {"lang": "es", "note": None}}, "English texts, ours es"),
        ({"data": {"note": "half of the images"}}, "our data carry a note"),
    ],
)
def test_what_differs_is_said(change: dict[str, Any], told: str) -> None:
    rows = [each for each in published_beside(replace(EUROSAT, **change)) if each.table.protocol == "georsclip"]
    assert rows and all(each.differs == (told,) for each in rows)


def test_a_limit_counts_where_the_paper_prints_no_size() -> None:
    fmow = make_result(dataset="fmow", split="val", protocol="farslip", n=50, metrics={"acc1": Metric(0.2)})
    assert all(each.compares and "not known" in each.agrees for each in published_beside(fmow))
    limited = published_beside(replace(fmow, options={"limit": 50}))
    assert {each.differs for each in limited} == {("the whole split, ours its first 50",)}


def test_a_threshold_of_ours_is_no_published_protocol() -> None:
    metrics = {"miou": Metric(0.3)}
    loveda = make_result(task="open_vocabulary", dataset="loveda", split="val", protocol="farslip", metrics=metrics)
    assert all(each.compares for each in published_beside(loveda))
    own = published_beside(replace(loveda, options={"own_threshold": True, "threshold": 0.9}))
    assert {each.differs for each in own} == {("the threshold of the protocol, ours 0.9",)}


def test_only_rows_about_the_task_the_dataset_and_a_metric_of_ours() -> None:
    assert published_beside(replace(EUROSAT, dataset="toy")) == []
    assert published_beside(replace(EUROSAT, task="knn")) == []
    assert published_beside(replace(EUROSAT, metrics={"acc5": Metric(0.9)})) == []
    potsdam = make_result(task="open_vocabulary", dataset="ISPRS-Potsdam", metrics={"miou": Metric(0.3)})
    assert len(published_beside(potsdam)) == 17
    rsicd = make_result(
        task="retrieval", dataset="rsicd", metrics={"mean_recall": Metric(0.2), "image_retrieval_mean_recall": Metric(0.2)}
    )
    beside = published_by_source(rsicd)
    assert beside.metrics == ["mean_recall", "image_retrieval_mean_recall"] and beside.num_rows == 10 + 2 + 11
    assert [rows[0].values.keys() for _, rows in beside.tables] == [
        {"image_retrieval_mean_recall"},
        {"mean_recall"},
        {"mean_recall"},
    ]
    assert beside.num_comparable == 0


def test_a_file_of_its_own(tmp_path: Path) -> None:
    columns = [{"dataset": "toy", "split": "test", "n": None, "metric": "acc1"}]
    row = {"model": "m", "backbone": None, "values": [50.0]}
    content = {"task": "zero_shot", "protocol": "rsvl", "source": "a paper", "url": "https://example.org", "unit": "percent"}
    (tmp_path / "one.json").write_text(json.dumps({"tables": [{**content, "columns": columns, "rows": [row]}]}))
    [found] = published_beside(make_result(), published_tables(tmp_path))
    assert (found.row.name, found.values, found.compares) == ("m", {"acc1": 0.5}, True)
    (tmp_path / "two.json").write_text(
        json.dumps({"tables": [{**content, "columns": columns, "rows": [{**row, "values": [1, 2]}]}]})
    )
    published_tables.cache_clear()
    with pytest.raises(ValueError, match="a paper: 1 columns, but another number of values in the row of m"):
        published_tables(tmp_path)


def test_the_page_greys_what_does_not_compare_and_says_why(render: Callable[..., Element]) -> None:
    page = render([EUROSAT, replace(EUROSAT, model={"name": "other"})])
    [table] = page.all("table", class_="papers")
    ours, *theirs = table.all("tbody")
    assert [words(row.text) for row in ours.all("tr")] == ["tiny this report 60.0%", "other this report 60.0%"]
    assert ["differs" in (body.attributes.get("class") or "") for body in theirs] == [False, False, True]
    assert "table I – same protocol and split, 27,000 items in both" in words(theirs[0].text)
    assert "GeoRSCLIP, ViT-H-14 67.5%" in words(theirs[0].text)
    assert "does not compare: protocol farslip, ours georsclip; split skyscript_test, ours all" in words(theirs[2].text)
    [opened] = [e for e in page.all("details") if e.all("table", class_="papers")]
    assert "open" in opened.attributes and "20 rows, 9 under this protocol on this split" in words(opened.text)
    [closed] = [e for e in render([replace(EUROSAT, n=5)]).all("details") if e.all("table", class_="papers")]
    assert "open" not in closed.attributes and "none under this protocol" in words(closed.text)
    rsicd = make_result(task="retrieval", dataset="rsicd", metrics={"image_retrieval_mean_recall": Metric(0.2)})
    assert "RemoteCLIP, ViT-B-32 trained on the train split 28.1%" in words(render([rsicd]).text)
    assert not render([make_result()]).all("table", class_="papers")


def test_published_rows_name_sets_and_protocols_of_ours() -> None:
    """Under another name they would never stand beside a result."""
    known = {entry.name for entry in catalogue()} | {"air-slt"}
    for each in published_tables():
        assert protocol_meaning(each.task, each.protocol), (each.source, each.protocol)
        assert {column.dataset for column in each.columns} <= known, each.source
