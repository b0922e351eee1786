import base64
import io
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from report_pages import (
    GREYS,
    LABELS,
    Element,
    cells,
    make_dataset,
    make_retrieval,
    make_sample,
    to_image,
    to_text,
    words,
)

from evaluation import figures
from rsvl_data.shards import Dataset


def brightness(image: Element) -> int:
    kind, content = (image.attributes["src"] or "").split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content))).convert("L").getpixel((80, 80))


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


def test_a_gallery_shows_what_its_result_brings_along(
    render: Callable[..., Element], dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a dataset; what is there and no picture is named, and what is not there is looked up where a dataset is given."""
    stored = {"key0": grey(90), "key1": "no base64", "key2": base64.b64encode(b"no picture").decode()}
    gallery = [to_image("a harbour", *((key, False) for key in ("key0", "key1", "key2", "key3")))]
    result = make_retrieval(gallery)
    with_pictures = replace(result, details={**result.details, "gallery_pictures": stored})
    [section] = render([with_pictures]).all("section", id="gallery")
    assert [brightness(image) for image in section.all("img")] == pytest.approx([90], abs=4)
    assert [words(e.text) for e in section.all(class_="no-picture")] == [f"no picture of key{i}" for i in (1, 2, 3)]
    assert "no picture of key1: its image_base64 is no base64" in caplog.text
    [section] = render([with_pictures], dataset=dataset).all("section", id="gallery")
    assert [brightness(image) for image in section.all("img")] == pytest.approx([90, GREYS["key3"]], abs=4)
    assert not render([result]).all("section", id="gallery")


def grey(level: int) -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (400, 300), (level,) * 3).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


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
