import pytest
from report_pages import (
    parse,
)

from evaluation import figures
from evaluation.result import Metric


def test_forty_five_classes_are_drawn_without_numbers_in_the_cells() -> None:
    classes = [f"class {i}" for i in range(45)]
    drawing = parse(str(figures.confusion_grid(classes, [[int(i == j) for j in range(45)] for i in range(45)])))
    assert len(drawing.all("rect", class_="right")) == 45 and not drawing.all("text", class_="number")


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


def test_a_chart_of_one_point_or_of_very_many() -> None:
    one = parse(str(figures.line_chart([figures.Series("a", [(1, 2.0)])], "label", str)))
    assert len(one.all("circle")) == 1 and "nan" not in str(one)
    many = str(figures.line_chart([figures.Series("a", [(i, float(i % 7)) for i in range(100_000)])], "label", str))
    assert len(many) < 10_000 and not parse(many).all("circle")
