import base64
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation import figures
from evaluation.report import write_report
from evaluation.result import Metric, Result
from evaluation.wording import against_chance, markdown_table, metric_words, summary_table, times_chance
from rsvl_data.errors import DataError, OptionError
from rsvl_data.sample import Caption, Sample
from rsvl_data.shards import Dataset, write_shard

DAY = date(2030, 1, 2)
CONFIG = {"recipe": "pretrain/clip", "options": {"model": "ViT-B-32", "optim": {"lr": 5e-4}, "resume": None, "lang": None}}
EVIL = """<script>alert("1")</script>'&"""
VOID = {"meta", "img", "br", "link", "input"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, tag: str = "", **wanted: str) -> list["Element"]:
        """Elements inside this one by tag and by words among their attributes (`class_` for class)."""
        inside = [found for child in self.children for found in (child, *child.all())]
        pairs = [(name.rstrip("_"), value) for name, value in wanted.items()]
        return [
            e
            for e in inside
            if tag in ("", e.tag) and all(value in (e.attributes.get(name) or "").split() for name, value in pairs)
        ]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_data(" ")  # neighbours are words of their own
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def parse(page: str) -> Element:
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert [element.tag for element in parser.open] == ["document"], "tags are left open"
    return parser.open[0]


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def render(tmp_path: Path) -> Callable[..., Element]:
    def render(results: list[Result], **options: Any) -> Element:
        write_report(tmp_path / "report.html", results, **{"day": DAY, **options})
        return parse((tmp_path / "report.html").read_text())

    return render


GREYS = {f"key{i}": 40 * i + 20 for i in range(6)}  # the brightness of every sample's picture tells which it is
LABELS = {key: "harbour" if i % 2 else "airport" for i, key in enumerate(GREYS)}


def make_sample(key: str, *, caption: str = "", image: bytes | None = None, label: str | None = None) -> Sample:
    if image is None:
        encoded = io.BytesIO()
        Image.new("RGB", (48, 32), (GREYS[key],) * 3).save(encoded, "JPEG", quality=95)
        image = encoded.getvalue()
    captions = [Caption(text=caption or f"a picture of {key}")]
    sha256 = hashlib.sha256(image).hexdigest()
    return Sample(key=key, width=48, height=32, sha256=sha256, label=label or LABELS[key], captions=captions, image=image)


def make_dataset(root: Path, samples: list[Sample], **manifest: Any) -> Dataset:
    """Two shards of the split test."""
    half = len(samples) // 2
    lines = [
        {**write_shard(root / "data", f"test-{i:05d}", iter(part)), "split": "test"}
        for i, part in enumerate((samples[:half], samples[half:]))
    ]
    content = {"format_version": 1, "name": "toy", "note": None, "splits": {"test": len(samples)}, "shards": lines, "stages": []}
    (root / "manifest.json").write_text(json.dumps({**content, **manifest}))
    return Dataset.open(root)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    stages = [
        {"name": "read", "in": 9, "kept": 8, "dropped": {"truncated": 1}},
        {"name": "size", "in": 8, "kept": 6, "dropped": {"too_small": 2}},
    ]
    return make_dataset(tmp_path / "data", [make_sample(key) for key in GREYS], stages=stages)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    lines = [
        {"step": i, "loss/contrastive": 3 / i, "loss/total": 3 / i, "lr": 1e-4 * i, "samples_seen": 8 * i, "data_wait_s": 0.002}
        for i in range(1, 101)
    ]
    lines += [{"step": 50, "val/acc1": 0.25}, {"step": 100, "val/acc1": 0.5}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def make_result(**fields: Any) -> Result:
    metrics = {"acc1": Metric(0.61234, 0.5211, 0.7049, 0.0476), "acc5": Metric(0.91251)}
    defaults = {
        "task": "zero_shot",
        "dataset": "toy",
        "split": "test",
        "protocol": "rsvl",
        "n": 105,
        "metrics": metrics,
        "seconds": 3.21,
    }
    origin = {"model": {"name": "tiny", "sha256": "ab" * 32}, "data": {"sha256": "cd" * 32, "note": None}, "code": "0.1.0+gabc"}
    return Result(**{**defaults, **origin, **fields})


def make_retrieval(gallery: list[dict[str, Any]], **fields: Any) -> Result:
    metrics = {"image_retrieval_recall@5": Metric(0.4, 0.3, 0.5, 0.1), "mean_recall": Metric(0.3, 0.2, 0.4, 0.1)}
    return make_result(**{"task": "retrieval", "metrics": metrics, "details": {"gallery": gallery}, **fields})


def to_image(query: str, *found: tuple[str, bool]) -> dict[str, Any]:
    items = [{"key": key, "text": None, "score": 0.5 - 0.1 * i, "right": right} for i, (key, right) in enumerate(found)]
    return {"direction": "text_to_image", "query": query, "query_key": None, "right": ["key1"], "found": items}


def to_text(key: str, *found: tuple[str, bool]) -> dict[str, Any]:
    items = [{"key": "key0", "text": text, "score": 0.5 - 0.1 * i, "right": right} for i, (text, right) in enumerate(found)]
    return {"direction": "image_to_text", "query": "its caption", "query_key": key, "right": [key], "found": items}


CONFUSION = {"classes": ["airport", "harbour", "river"], "counts": [[3, 1, 0], [0, 4, 0], [2, 0, 0]]}


def brightness(image: Element) -> int:
    kind, content = (image.attributes["src"] or "").split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content))).convert("L").getpixel((80, 80))


def test_the_page_loads_nothing(render: Callable[..., Element], dataset: Dataset, run: Path) -> None:
    gallery = [to_image("see http://example.org/x", ("key1", True)), to_text("key2", ("url(http://example.org)", False))]
    results = [make_result(details={"confusion": CONFUSION}), make_retrieval(gallery)]
    page = render(results, dataset=dataset, run=run)
    assert not [
        e for tag in ("script", "link", "iframe", "object", "embed", "form", "base", "video", "audio") for e in page.all(tag)
    ]
    loading = [
        value
        for e in page.all()
        for name, value in e.attributes.items()
        if re.fullmatch(r"(xlink:)?href|src.*|data|poster", name)
    ]
    assert loading and all(value.startswith("data:image/webp;base64,") for value in loading)
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
    page = render([zero_shot, retrieval], dataset=dataset, run=run, title=EVIL)
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


def cells(row: Element) -> list[str]:
    return [words(e.text) for e in row.children if e.tag == "td"]


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


def test_headline_takes_the_known_metrics_in_their_order(render: Callable[..., Element]) -> None:
    page = render([make_retrieval([]), make_result(), make_result(task="sorting", metrics={"order": Metric(0.5)})])
    titles = [card.all("h2")[0].text for card in page.all("article", class_="card")]
    assert titles == ["Top-1 accuracy", "Text to image, recall@5", "Mean recall", "order"]


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
    ],
)
def test_against_chance(metric: Metric, told: str | None, ratio: str | None) -> None:
    assert (against_chance(metric), times_chance(metric)) == (told, ratio)


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


def test_forty_five_classes_are_drawn_without_numbers_in_the_cells() -> None:
    classes = [f"class {i}" for i in range(45)]
    drawing = parse(str(figures.confusion_grid(classes, [[int(i == j) for j in range(45)] for i in range(45)])))
    assert len(drawing.all("rect", class_="right")) == 45 and not drawing.all("text", class_="number")


def test_gallery_marks_the_right_ones(render: Callable[..., Element], dataset: Dataset) -> None:
    gallery = [
        to_image("a harbour", ("key4", False), ("key1", True), ("key0", False)),
        to_image("an airport", ("key5", False)),
        to_text("key3", ("boats", True), ("planes", False)),
    ]
    [section] = render([make_retrieval(gallery)], dataset=dataset).all("section", id="gallery")
    first, second, third = section.all("article")
    items = first.all("li")
    assert [brightness(item.all("img")[0]) for item in items] == pytest.approx(
        [GREYS[key] for key in ("key4", "key1", "key0")], abs=4
    )
    assert next(item.all("img")[0].attributes["alt"] for item in items) == "a picture of key4"
    assert [words(item.text) for item in items] == ["rank 1, score 0.500", "rank 2, score 0.400 ✓ right", "rank 3, score 0.300"]
    assert [item.attributes.get("class") for item in items] == [None, "is-right", None]
    assert "No right one among the first 1." in second.text and "No right one" not in first.text + third.text
    assert brightness(third.all("img")[0]) == pytest.approx(GREYS["key3"], abs=4)
    assert [words(item.text) for item in third.all("li")] == ["1 boats ✓ right 0.500", "2 planes 0.400"]


def test_missing_and_broken_pictures_are_named(
    render: Callable[..., Element], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make_sample("key1", image=b"no image at all")
    dataset = make_dataset(tmp_path / "data", [make_sample("key0"), broken])
    gallery = [to_image("a query", ("key0", True), ("key1", False), ("absent", False))]
    with caplog.at_level(logging.WARNING):
        [section] = render([make_retrieval(gallery)], dataset=dataset).all("section", id="gallery")
    assert [words(e.text) for e in section.all(class_="no-picture")] == ["no picture of key1", "no picture of absent"]
    assert len(section.all("img")) == 1
    assert "no such sample in split test" in caplog.text and "no thumbnail of key1" in caplog.text
    elsewhere = render([make_retrieval(gallery, split="val")], dataset=dataset).all("section", id="gallery")[0]
    assert len(elsewhere.all(class_="no-picture")) == 3 and "has no split 'val'" in caplog.text


def test_dataset_section(render: Callable[..., Element], dataset: Dataset) -> None:
    [section] = render([], dataset=dataset).all("section", id="dataset")
    pictures = section.all("ul", class_="sheet")[0].all("li")
    assert [words(e.text) for e in pictures] == [
        f"{LABELS[key]} a picture of {key}" for key in ("key0", "key2", "key4", "key1", "key3", "key5")
    ]
    splits, stages = section.all("table")
    assert [words(row.text) for row in splits.all("tr")] == ["Split Samples", "test 6"]
    assert [cells(row) for row in stages.all("tr")[1:]] == [
        ["9", "8", "88.9%", "1 truncated 1"],
        ["8", "6", "75.0%", "2 too small 2"],
        ["9", "6", "66.7%", "3"],
    ]


def test_contact_sheet_is_balanced_over_labels(tmp_path: Path) -> None:
    samples = [make_sample(f"s{i}", image=b"x", label="rare" if i in (3, 17) else "common") for i in range(20)]
    labels = [picture.label for picture in figures.Pictures(make_dataset(tmp_path, samples)).sheet(6)]
    assert labels == ["common"] * 3 + ["rare"] * 2


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
        "run": ([], {"run": run}),
        "empty run": ([], {"run": tmp_path / "empty"}),
        "no values": ([make_result(metrics={})], {}),
    }
    results, options = inputs[given]
    assert {e.attributes["id"] for e in render(results, **options).all("section") if "id" in e.attributes} == shown


def test_training_curves_and_settings(render: Callable[..., Element], run: Path) -> None:
    [section] = render([], run=run).all("section", id="training")
    charts = {e.all("h3")[0].text: e for e in section.all("figure")}
    assert list(charts) == ["Loss", "On held-out data, during training", "Learning rate"]
    assert "Top-1 accuracy, at the end 50.0%" in words(charts["On held-out data, during training"].text)
    assert "smoothed over about 4 steps" in charts["Loss"].text and "smoothed" not in charts["Learning rate"].text
    assert len(charts["Loss"].all("polyline")) == 2
    assert "steps 100" in words(section.text) and "image-text pairs seen 800" in words(section.text)
    [settings] = section.all("dl", class_="settings")
    assert [words(e.text) for e in settings.all("div")] == ["recipe pretrain/clip", "model ViT-B-32", "optim.lr 0.0005"]
    assert json.loads(section.all("pre")[0].text) == CONFIG


def test_several_losses_are_drawn_with_their_sum(render: Callable[..., Element], run: Path) -> None:
    line = {"step": 1, "loss/contrastive": 1.5, "loss/distill": 0.5, "loss/total": 2.0}
    (run / "metrics.jsonl").write_text(json.dumps(line))
    [legend] = render([], run=run).all("ul", class_="legend")
    assert [words(e.text) for e in legend.all("li")] == ["contrastive 1.5", "distill 0.5", "total 2"]


def test_commands_that_make_the_numbers_again(render: Callable[..., Element], run: Path) -> None:
    results = [make_result(), make_result(model={"name": "b"}), make_retrieval([], data={"lang": "es"}, split="a b", seed=3)]
    [section] = render(results, run=run).all("section", id="reproduce")
    assert section.all("pre")[0].text.splitlines() == [
        "rsvl run pretrain/clip --config RUN/config.json",
        "rsvl eval zero-shot --model MODEL --data DATASET --split test --protocol rsvl --seed 0 --out zero-shot.json",
        "rsvl eval retrieval --model MODEL --data DATASET --split 'a b' --protocol rsvl --lang es --seed 3 --out retrieval.json",
    ]


def test_metrics_of_a_killed_and_resumed_run(render: Callable[..., Element], run: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        '{"step": 1, "lr": 1}',
        '{"step": 2, "lr": 9}',
        '{"step": 2, "lr": 2}',
        '{"step": 3, "lr": NaN}',
        "7",
        '{"step": 4, "l',
    ]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    [section] = render([], run=run).all("section", id="training")
    assert "at the end 2 " in words(section.text)
    assert [record.args[1] for record in caplog.records] == [5, 6]


def test_a_broken_config_is_an_error_that_names_it(tmp_path: Path, run: Path) -> None:
    (run / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"run/config\.json cannot be read"):
        write_report(tmp_path / "report.html", [], run=run)


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="give at least one result file, a dataset or a run folder"):
        write_report(tmp_path / "report.html", [])
    assert not (tmp_path / "report.html").exists()


def test_equal_inputs_make_equal_bytes(tmp_path: Path, dataset: Dataset, run: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, [make_result()], dataset=dataset, run=run, day=DAY)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


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


def test_interval_bar_places_value_interval_and_chance() -> None:
    bar = parse(str(figures.interval_bar(Metric(0.25, 0.2, 0.6, 0.05), 0.5, "told")))
    [band] = bar.all("rect", class_="band")
    assert (band.attributes["x"], band.attributes["width"]) == ("40.0%", "60.0%")  # what lies beyond the axis ends with it
    assert bar.all("circle")[0].attributes["cx"] == "50.0%" and bar.all("line")[0].attributes["x1"] == "10.0%"
    assert bar.all("svg")[0].attributes["aria-label"] == "told"


def test_smoothing_keeps_a_constant_and_weighs_the_last_points() -> None:
    assert figures.smoothed([(i, 3.0) for i in range(20)], 5) == [(i, pytest.approx(3.0)) for i in range(20)]
    assert figures.smoothed([(0, 0.0), (1, 4.0)], 3) == [(0, 0.0), (1, pytest.approx((0.25 * 0 + 0.5 * 4) / 0.75))]
    assert figures.smoothed([(0, 1.0), (1, 7.0)], 1) == [(0, 1.0), (1, 7.0)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.5, 1]), (1, 800, [200, 400, 600, 800]), (3, 3, [3]), (-0.4, 0.4, [-0.4, -0.2, 0, 0.2, 0.4])],
)
def test_nice_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert figures.nice_ticks(low, high) == pytest.approx(ticks)


def test_ticks_close_together_have_different_names(render: Callable[..., Element], run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"step": 1, "logit_scale": 14.28}\n{"step": 2, "logit_scale": 14.12}')
    [chart] = render([], run=run).all("svg", class_="chart")
    assert [e.text for e in chart.all("text", class_="end")][:3] == ["14.15", "14.2", "14.25"]


def test_a_chart_of_one_point_or_of_very_many() -> None:
    one = parse(str(figures.line_chart([figures.Series("a", [(1, 2.0)])], "label", str)))
    assert len(one.all("circle")) == 1 and "nan" not in str(one)
    many = str(figures.line_chart([figures.Series("a", [(i, float(i % 7)) for i in range(100_000)])], "label", str))
    assert len(many) < 10_000 and not parse(many).all("circle")
