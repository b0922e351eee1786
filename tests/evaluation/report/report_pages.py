"""A page read back as elements, and results, samples and datasets small enough to know by heart."""

import hashlib
import io
import json
from dataclasses import dataclass, field
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.result import Metric, Result
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


def cells(row: Element) -> list[str]:
    return [words(e.text) for e in row.children if e.tag == "td"]


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
