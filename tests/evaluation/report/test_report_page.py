import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_pages import (
    CONFUSION,
    DAY,
    EVIL,
    GREYS,
    Element,
    make_dataset,
    make_result,
    make_retrieval,
    make_sample,
    to_image,
    to_text,
    words,
)

from evaluation.report import write_report
from evaluation.result import Metric, Result
from rsvl_data.errors import OptionError
from rsvl_data.shards import Dataset


def test_the_page_loads_nothing(render: Callable[..., Element], dataset: Dataset, run: Path) -> None:
    gallery = [to_image("see http://example.org/x", ("key1", True)), to_text("key2", ("url(http://example.org)", False))]
    results = [make_result(details={"confusion": CONFUSION}), make_retrieval(gallery)]
    page = render(results, dataset=dataset, runs=[run])
    assert not [
        e for tag in ("script", "link", "iframe", "object", "embed", "form", "base", "video", "audio") for e in page.all(tag)
    ]
    loading = [
        value
        for e in page.all()
        for name, value in e.attributes.items()
        if re.fullmatch(r"(xlink:)?href|src.*|data|poster", name)
    ]
    outside = [value for value in loading if not value.startswith("#")]
    assert outside and all(value.startswith("data:image/webp;base64,") for value in outside)
    styles = "".join(e.text for e in page.all("style")) + "".join(e.attributes.get("style") or "" for e in page.all())
    assert "url(" not in styles and "@import" not in styles
    assert not [name for e in page.all() for name in e.attributes if name.startswith("on")]
    [policy] = [e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_hostile_text_stays_text(render: Callable[..., Element], tmp_path: Path, run: Path) -> None:
    samples = [make_sample(key, caption=EVIL, label=EVIL) for key in GREYS]
    stages = [{"name": EVIL, "in": 6, "kept": 5, "dropped": {EVIL: 1}}]
    dataset = make_dataset(tmp_path / "data", samples, name=EVIL, note=EVIL, stages=stages)
    (run / "config.json").write_text(json.dumps({"model": EVIL, EVIL: 1}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, f"loss/{EVIL}": 1.0, f"val/{EVIL}": 0.5}))
    evil = {
        "model": {"name": EVIL, "sha256": EVIL},
        "data": {"note": EVIL, EVIL: EVIL},
        "dataset": EVIL,
        "protocol": EVIL,
        "code": EVIL,
        "prompts": EVIL,
    }
    zero_shot = make_result(
        **evil,
        preprocessing=EVIL,
        contamination={EVIL: EVIL},
        metrics={EVIL: Metric(0.5, 0.4, 0.6)},
        details={"confusion": {"classes": [EVIL, "x"], "counts": [[1, 1], [1, 1]]}},
    )
    retrieval = make_retrieval([to_image(EVIL, (EVIL, True), ("key1", False)), to_text("key0", (EVIL, True))], **evil)
    page = render([zero_shot, retrieval], dataset=dataset, runs=[run], title=EVIL)
    assert not page.all("script")
    assert page.text.count(EVIL) > 30


def test_the_first_line_says_what_the_data_is(render: Callable[..., Element]) -> None:
    note = "procedural scenes rendered by rsvl, not real imagery"
    page = render([make_result(data={"note": note}), make_result(dataset="other")])
    [body] = page.all("body")
    assert words(body.text).startswith(f"Data: toy, test split – {note} Data: other, test split Evaluation report")
    assert "Model tiny Date 2 January 2030 Code rsvl 0.1.0+gabc" in words(body.text)


def test_a_note_of_the_dataset_counts_when_the_results_have_none(render: Callable[..., Element], tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", [make_sample(key) for key in GREYS], note="rendered")
    [line] = render([make_result()], dataset=dataset).all("div", class_="data")
    assert words(line.text) == "Data: toy, test split – rendered"


def test_headline_takes_the_known_metrics_in_their_order(render: Callable[..., Element]) -> None:
    page = render([make_retrieval([]), make_result(), make_result(task="sorting", metrics={"order": Metric(0.5)})])
    titles = [card.all("h2")[0].text for card in page.all("article", class_="card")]
    assert titles == ["Top-1 accuracy", "Text to image, recall@5", "Mean recall", "order"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("result", {"results", "reading", "reproduce"}),
        ("per class", {"results", "classes", "reading", "reproduce"}),
        ("confusion", {"results", "classes", "reading", "reproduce"}),
        ("gallery without dataset", {"results", "reading", "reproduce"}),
        ("empty gallery", {"results", "dataset", "reading", "reproduce"}),
        ("gallery", {"results", "gallery", "dataset", "reading", "reproduce"}),
        ("dataset", {"dataset"}),
        ("run", {"training"}),
        ("empty run", set()),
        ("no values", {"reading", "reproduce", "results"}),
    ],
)
def test_sections_are_left_out(
    render: Callable[..., Element], dataset: Dataset, run: Path, tmp_path: Path, given: str, shown: set[str]
) -> None:
    gallery = [to_image("a harbour", ("key1", True))]
    (tmp_path / "empty").mkdir()
    inputs: dict[str, tuple[list[Result], dict[str, Any]]] = {
        "result": ([make_result()], {}),
        "per class": ([make_result(per_class={"airport": 0.5})], {}),
        "confusion": ([make_result(details={"confusion": CONFUSION})], {}),
        "gallery without dataset": ([make_retrieval(gallery)], {}),
        "empty gallery": ([make_retrieval([])], {"dataset": dataset}),
        "gallery": ([make_retrieval(gallery)], {"dataset": dataset}),
        "dataset": ([], {"dataset": dataset}),
        "run": ([], {"runs": [run]}),
        "empty run": ([], {"runs": [tmp_path / "empty"]}),
        "no values": ([make_result(metrics={})], {}),
    }
    results, options = inputs[given]
    assert {e.attributes["id"] for e in render(results, **options).all("section") if "id" in e.attributes} == shown


def test_commands_that_make_the_numbers_again(render: Callable[..., Element], run: Path) -> None:
    results = [make_result(), make_result(model={"name": "b"}), make_retrieval([], data={"lang": "es"}, split="a b", seed=3)]
    [section] = render(results, runs=[run]).all("section", id="reproduce")
    assert section.all("pre")[0].text.splitlines() == [
        "rsvl run pretrain/clip --config RUN/config.json",
        "rsvl eval zero-shot --model MODEL --data DATASET --split test --protocol rsvl --seed 0 --out zero-shot-toy-rsvl.json",
        "rsvl eval retrieval --model MODEL --data DATASET --split 'a b' --protocol rsvl --lang es --seed 3 --out retrieval-toy-rsvl.json",
    ]


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="give at least one result file, a dataset or a run folder"):
        write_report(tmp_path / "report.html", [])
    assert not (tmp_path / "report.html").exists()


def test_equal_inputs_make_equal_bytes(tmp_path: Path, dataset: Dataset, run: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, [make_result()], dataset=dataset, runs=[run], day=DAY)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_page_explains_its_terms(render: Callable[..., Element]) -> None:
    page = render([make_result(), make_retrieval([], protocol="farslip")])
    [reading] = page.all("section", id="reading")
    terms = [words(e.text) for e in reading.all("dl", class_="glossary")[0].all("dt")]
    assert terms == [
        *("Zero-shot classification", "Image-text retrieval"),
        *("Zero-shot classification, protocol rsvl", "Image-text retrieval, protocol farslip"),
    ]
    links = [(e.attributes["href"] or "").removeprefix("#") for e in page.all("a")]
    ids = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert links and set(links) <= set(ids) and len(set(ids)) == len(ids)
    assert all((e.attributes.get("alt") or "").strip() for e in page.all("img"))
    scrolling = page.all("div", class_="scroll")
    assert all(e.attributes.get("tabindex") == "0" and e.attributes.get("aria-label") for e in scrolling)


def test_the_lead_says_what_was_measured_on_what(render: Callable[..., Element]) -> None:
    page = render([make_result(), make_result(model={"name": "b"}), make_retrieval([])])
    [lead] = page.all("p", class_="lead")
    assert words(lead.text).startswith("2 models measured on 1 dataset: zero-shot classification, image-text retrieval.")
