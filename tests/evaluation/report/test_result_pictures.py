import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_pages import EVIL, Element, make_result, words

from evaluation.figures import confusion_grid
from evaluation.report_pictures import heat_maps, overlays
from evaluation.result import Metric, Result


def png(width: int = 30, height: int = 20) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 10)).save(encoded, "PNG")
    return encoded.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def localization(*entries: Any) -> Result:
    metrics = {"rmi": Metric(0.7, 0.6, 0.8), "ras": Metric(0.25, higher_is_better=False)}
    return make_result(
        task="localization", protocol="semantic_localization_metrics", metrics=metrics, details={"heat_maps": [*entries]}
    )


def segmentation(*entries: Any) -> Result:
    metrics = {"miou": Metric(0.3, 0.2, 0.4)}
    details = {"overlays": [*entries], "confusion": {"classes": ["water", "road"], "counts": [[30, 10], [0, 60]]}}
    return make_result(task="open_vocabulary", metrics=metrics, per_class={"water": 0.75, "road": 0.86}, details=details)


def test_heat_maps_with_their_query_and_scores(render: Callable[..., Element]) -> None:
    entry = {"query": "a ship at the pier", "image_base64": text(png()), "scores": {"rmi": 0.5, "rsu": 0.25}}
    page = render([localization(entry)])
    [figure] = page.all("section", id="heat-maps")[0].all("figure")
    [image] = figure.all("img")
    assert image.attributes["alt"] == "Heat map for a ship at the pier" and image.attributes["width"] == "30"
    stored = base64.b64decode((image.attributes["src"] or "").split(",", 1)[1])
    assert Image.open(io.BytesIO(stored)).format == "WEBP"
    assert words(figure.text) == "a ship at the pier Rmi 0.500 Rsu 0.250"
    [card] = page.all("article", class_="card")
    assert "Rmi" in card.text and "0.700" in card.text and not card.all("svg"), (
        "a number that is no share has no place on the axis"
    )


def test_overlays_with_a_legend_and_classes_by_iou(render: Callable[..., Element]) -> None:
    entry = {"key": "tile1", "image_base64": text(png()), "legend": [["water", [0, 0, 255]], ["road", "#808080"]]}
    page = render([segmentation(entry)])
    legend = page.all("section", id="overlays")[0].all("ul", class_="legend")[0]
    assert [e.attributes["style"] for e in legend.all("i")] == ["background: #0000ff", "background: #808080"]
    assert [words(e.text) for e in legend.all("li")] == ["water", "road"]
    [classes] = page.all("section", id="classes")
    assert "IoU by class" in classes.text
    assert [words(e.text) for e in classes.all("ul", class_="classes")[0].all("li")] == ["water 75.0%", "road 86.0%"]


def test_the_truth_stands_beside_the_prediction(render: Callable[..., Element]) -> None:
    pictures = {"picture_base64": text(png()), "truth_base64": text(png()), "image_base64": text(png())}
    [section] = render([segmentation({"key": "tile1", **pictures, "legend": [["water", [0, 0, 255]]]})]).all(
        "section", id="overlays"
    )
    [figure] = section.all("figure")
    assert [image.attributes["alt"] for image in figure.all("img")] == [
        "Picture of tile1", "Truth of tile1", "Prediction of tile1"
    ]  # fmt: skip
    assert words(figure.text) == "Picture Truth Prediction tile1 water"
    broken = render([segmentation({"key": "tile1", **pictures, "truth_base64": "!!"})]).all("section", id="overlays")[0]
    assert len(broken.all("img")) == 2 and [words(e.text) for e in broken.all(class_="no-picture")] == ["no picture of tile1"]


@pytest.mark.parametrize(
    ("legend", "shown"),
    [
        ({"water": [1, 2, 3]}, [("water", "#010203")]),
        ([{"name": "water", "color": "#00FF00"}], [("water", "#00FF00")]),
        (["water"], [("water", None)]),
        (
            [["water", "red; background: url(http://x)"], ["b", [0, 0, 999]], ["c", [0, 0]]],
            [("water", None), ("b", None), ("c", None)],
        ),
        ("water", []),
        (None, []),
    ],
)
def test_colours_of_a_legend_are_colours_or_absent(legend: Any, shown: list[tuple[str, str | None]], tmp_path: Path) -> None:
    [found] = overlays(segmentation({"key": "k", "image_base64": text(png()), "legend": legend}), tmp_path)
    assert found.legend == shown


def test_a_path_is_read_below_the_folder_of_the_page_only(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "map.png").write_bytes(png())
    (tmp_path / "private.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "private.png")
    paths = ["map.png", "../private.png", str(tmp_path / "private.png"), "link.png", "absent.png", ""]
    found = [heat_maps(localization({"query": path, "path": path}), folder)[0].panels[0].uri for path in paths]
    assert [uri is not None for uri in found] == [True, False, False, False, False, False]


@pytest.mark.parametrize("content", ["!!", text(b"no picture"), text(png()[:60]), text(png())[:-5] + "====", 7, None])
def test_a_picture_that_cannot_be_had_is_named(
    render: Callable[..., Element], content: Any, caplog: pytest.LogCaptureFixture
) -> None:
    page = render([localization({"query": "a pier", "image_base64": content})])
    [section] = page.all("section", id="heat-maps")
    assert [words(e.text) for e in section.all(class_="no-picture")] == ["no picture of a pier"] and not section.all("img")
    assert "no picture of a pier" in caplog.text


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert heat_maps(localization({"query": "q", "image_base64": text(png(30, 20))}), tmp_path)[0].panels[0].uri is None


def test_large_pictures_are_made_small_and_few(tmp_path: Path) -> None:
    found = heat_maps(localization(*[{"query": "q", "image_base64": text(png(2000, 1000))}] * 20), tmp_path)
    assert len(found) == 6 and (found[0].panels[0].width_px, found[0].panels[0].height_px) == (560, 280)


@pytest.mark.parametrize("details", [{"heat_maps": "x"}, {"heat_maps": [1, "x"]}, {"heat_maps": []}, {}])
def test_what_is_no_list_of_pictures_is_left_out(render: Callable[..., Element], details: dict[str, Any]) -> None:
    assert not render([make_result(details=details)]).all("section", id="heat-maps")


def test_hostile_pictures_stay_text(render: Callable[..., Element]) -> None:
    entry = {"query": EVIL, "image_base64": text(png()), "scores": {EVIL: 0.5}, "legend": [[EVIL, EVIL]]}
    overlay = {**entry, "key": EVIL, "image_base64": EVIL}
    page = render([localization(entry), segmentation(overlay)])
    assert not page.all("script") and page.text.count(EVIL) >= 6


def test_reliability_shows_the_bins_that_hold_items(render: Callable[..., Element]) -> None:
    told = {"logit_scale": 100.0, "items": [0, 4, 0, 6], "confidence": [0, 0.4, 0, 0.9], "accuracy": [0, 0.5, 0, 1.0]}
    [section] = render([make_result(per_class={"a": 1.0}, details={"calibration": told})]).all("section", id="classes")
    [chart] = section.all("svg", class_="reliability")
    dots = chart.all("circle")
    assert [dot.all("title")[0].text for dot in dots] == [
        "4 items: confidence 40%, right 50%",
        "6 items: confidence 90%, right 100%",
    ]
    assert float(dots[0].attributes["r"] or 0) < float(dots[1].attributes["r"] or 0)
    assert float(dots[0].attributes["cy"] or 0) > float(dots[1].attributes["cy"] or 0), "right is up"
    assert [words(row.text) for row in section.all("tbody")[0].all("tr")] == ["25–50% 4 40.0% 50.0%", "75–100% 6 90.0% 100.0%"]


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([[0, 90], [0, 10]], "The model calls 100% of all pixels road, which 10.0% are: it hardly looks at them here."),
        ([[40, 10], [10, 40]], None),  # both classes are said
        ([[5, 5], [0, 90]], None),  # said nearly always, and nearly always there
        ([[0, 0], [0, 0]], None),
    ],
)
def test_a_model_that_says_one_class_is_told(render: Callable[..., Element], counts: list[list[int]], told: str | None) -> None:
    result = make_result(task="open_vocabulary", details={"confusion": {"classes": ["water", "road"], "counts": counts}})
    [section] = render([result]).all("section", id="classes")
    assert ("hardly looks" in section.text) == (told is not None)
    assert told is None or told in words(section.text)


def test_words_beside_a_small_grid_are_not_cut() -> None:
    drawing = str(confusion_grid(["a", "b"], [[1, 0], [0, 1]]))
    width = int(re.search(r'width="(\d+)" height="\d+">', drawing)[1])  # type: ignore[index]
    assert width >= 150
