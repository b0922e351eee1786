"""What the report shows besides words: small SVG drawings, and thumbnails of a dataset's samples.

Drawings carry classes and no colours: the page's style sheet colours them, so they follow light and dark. Names from data are
escaped in the markup that is returned.
"""

import base64
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from evaluation.result import Metric
from evaluation.thumbnails import thumbnail
from rsvl_data.errors import DataError
from rsvl_data.shards import Dataset, Shard

logger = logging.getLogger(__name__)

Point = tuple[float, float]

NUM_LINE_STYLES = 6  # .line-0 to .line-5 in the style sheet differ in dash as well as in colour
_MAX_POINTS = 300  # more than the pixels they would share
_CHART_WIDTH, _CHART_HEIGHT = 340, 200
_RIGHT, _TOP, _BOTTOM = 8, 8, 22

_FACTS = ["key", "label", "caption"]
_T = TypeVar("_T")


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def interval_bar(metric: Metric, axis_end: float, label: str) -> Markup:
    """A dot for the value, a band for its interval and a dashed line for chance, on an axis from 0 to `axis_end`.

    Positions are percentages, so the bar takes the width it is given. What lies beyond the axis is drawn at its end.
    """

    def at(value: float) -> float:
        return round(100 * min(max(value / axis_end, 0.0), 1.0), 2)

    parts = [Markup('<rect class="track" y="8" width="100%" height="6" rx="3"/>')]
    if metric.low is not None and metric.high is not None:
        x, width = at(metric.low), at(metric.high) - at(metric.low)
        parts.append(Markup('<rect class="band" x="{}%" y="6" width="{}%" height="10" rx="3"/>').format(x, round(width, 2)))
    if metric.chance is not None:
        x = at(metric.chance)
        parts.append(Markup('<line class="chance" x1="{}%" x2="{}%" y1="0" y2="22"/>').format(x, x))
    parts.append(Markup('<circle class="dot" cx="{}%" cy="11" r="5"/>').format(at(metric.value)))
    return Markup('<svg class="interval" role="img" aria-label="{}" width="100%" height="22">{}</svg>').format(label, join(parts))


_AXIS_WORDS_PX = 150  # "what the model answered"


def confusion_grid(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """A heat grid in the order given: rows are the truth, colours shares of the row. Up to 25 classes the cells carry percent.

    Drawn at a fixed size, because 45 class names squeezed into a phone cannot be read; the page lets it scroll.
    """
    num_classes = len(classes)
    cell = 34 if num_classes <= 12 else 25 if num_classes <= 25 else 16
    names = [_shortened(name, 24) for name in classes]
    longest = max(map(len, names), default=0)
    left, top, right = round(6.9 * longest) + 30, round(5.4 * longest) + 34, round(3.8 * longest) + 8
    side = cell * num_classes
    parts = [Markup('<rect class="field" x="{}" y="{}" width="{}" height="{}"/>').format(left, top, side, side)]
    parts += [
        Markup('<rect class="diagonal" x="{0}" y="{1}" width="{2}" height="{2}"/>').format(left + i * cell, top + i * cell, cell)
        for i in range(num_classes)
    ]
    parts += [
        Markup('<line class="rule" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*ends)
        for i in range(1, num_classes)
        for ends in (
            (left, top + i * cell, left + side, top + i * cell),
            (left + i * cell, top, left + i * cell, top + side),
        )
    ]
    for i, name in enumerate(names):
        middle = round((i + 0.5) * cell, 1)
        parts.append(Markup('<text class="end" x="{}" y="{}">{}</text>').format(left - 6, round(top + middle + 4, 1), name))
        x, y = round(left + middle + 3, 1), top - 6
        parts.append(Markup('<text x="{}" y="{}" transform="rotate(-55 {} {})">{}</text>').format(x, y, x, y, name))
    for i, row in enumerate(counts):
        total = sum(row)
        for j, count in enumerate(row):
            if count:
                parts.append(_confusion_cell(left + j * cell, top + i * cell, cell, count, total, classes[i], classes[j]))
    parts.append(Markup('<text class="axis" x="{}" y="14">what the model answered</text>').format(left))
    middle = top + side / 2
    parts.append(
        Markup('<text class="axis middle" x="12" y="{0}" transform="rotate(-90 12 {0})">what it is</text>').format(middle)
    )
    width = max(left + side + right, left + _AXIS_WORDS_PX)
    height = max(top + side + 4, _AXIS_WORDS_PX // 2)
    label = (
        f"Confusion matrix of {num_classes} classes. Its most frequent mix-ups and the share right by class are listed as text."
    )
    return Markup('<svg class="confusion" role="img" aria-label="{}" width="{}" height="{}">{}</svg>').format(
        label, width, height, join(parts)
    )


def _confusion_cell(x: float, y: float, cell: int, count: int, total: int, truth: str, answer: str) -> Markup:
    share = count / total
    right = truth == answer
    told = f"{truth}: right in {count} of {total}" if right else f"{truth} taken for {answer}: {count} of {total}"
    square = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"><title>{}</title></rect>').format(
        "right" if right else "wrong", x, y, cell, cell, round(0.12 + 0.88 * share, 2), told
    )
    if cell < 20:
        return square
    number = Markup('<text class="middle number" x="{}" y="{}">{:.0f}</text>')
    return square + number.format(x + cell / 2, y + cell / 2 + 4, 100 * share)


def reliability_chart(accuracy: Sequence[float], confidence: Sequence[float], items: Sequence[int]) -> Markup:
    """Accuracy of answers by their confidence, both as shares; perfect is the diagonal. A dot's area grows with its number of items."""
    side, left, top, bottom = 240, 46, 10, 40
    width, height = left + side + 12, top + side + bottom
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + tick * side, top + (1 - tick) * side
        ends = Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts += [ends.format(x, x, top, top + side), ends.format(left, left + side, y, y)]
        parts.append(Markup('<text class="end" x="{}" y="{}">{:.0f}%</text>').format(left - 6, y + 4, 100 * tick))
        parts.append(Markup('<text class="middle" x="{}" y="{}">{:.0f}%</text>').format(x, top + side + 16, 100 * tick))
    parts.append(Markup('<line class="chance" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, left + side, top + side, top))
    total = max(sum(items), 1)
    for hits, sure, count in zip(accuracy, confidence, items):
        if count:
            told = f"{count} items: confidence {100 * sure:.0f}%, right {100 * hits:.0f}%"
            x, y, radius = left + sure * side, top + (1 - hits) * side, 3 + 13 * math.sqrt(count / total)
            dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
            parts.append(dot.format(x, y, radius, told))
    middle = left + side / 2
    parts.append(Markup('<text class="axis middle" x="{}" y="{}">how sure the model is</text>').format(middle, height - 6))
    label = (
        "Reliability diagram: how often answers are right, by how sure the model is. The same numbers are in the table beside it."
    )
    return Markup('<svg class="reliability" role="img" aria-label="{}" width="{}" height="{}">{}</svg>').format(
        label, width, height, join(parts)
    )


@dataclass(frozen=True)
class Series:
    """Points with a finite value, in ascending x. `faint` points are drawn thinly behind: the raw values of a smoothed line."""

    name: str
    points: Sequence[Point]
    faint: Sequence[Point] = ()


def smoothed(points: Sequence[Point], span: int) -> list[Point]:
    """Exponential moving average that weighs about the last `span` points; early values are not pulled towards zero."""
    decay = 1 - 2 / (max(span, 1) + 1)
    average, weight, result = 0.0, 0.0, []
    for x, y in points:
        average, weight = decay * average + (1 - decay) * y, decay * weight + (1 - decay)
        result.append((x, average / weight))
    return result


def line_chart(series: Sequence[Series], label: str, y_text: Callable[[float], str], *, from_zero: bool = False) -> Markup:
    """Lines over training steps. Dots mark the points of short series, so a single one is seen as well."""
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in (*one.points, *one.faint)] + [0.0] * from_zero
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    (x_low, x_high), (y_low, y_high) = _padded(min(xs), max(xs)), _padded(min(ys), max(ys))

    left = 12 + 7 * max(len(y_text(tick)) for tick in y_ticks)

    def place(point: Point) -> Point:
        x = left + (point[0] - x_low) / (x_high - x_low) * (_CHART_WIDTH - left - _RIGHT)
        y = _TOP + (y_high - point[1]) / (y_high - y_low) * (_CHART_HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    parts = []
    for tick in y_ticks:
        _, y = place((x_low, tick))
        parts.append(Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, _CHART_WIDTH - _RIGHT, y, y))
        parts.append(Markup('<text class="end" x="{}" y="{}">{}</text>').format(left - 6, y + 4, y_text(tick)))
    for tick in x_ticks:
        x, _ = place((tick, y_low))
        anchor = "end" if x > _CHART_WIDTH - 30 else "middle"
        parts.append(Markup('<text class="{}" x="{}" y="{}">{}</text>').format(anchor, x, _CHART_HEIGHT - 6, f"{tick:,.6g}"))
    for i, one in enumerate(series):
        style = i % NUM_LINE_STYLES
        for points, kind in ((one.faint, "faint"), (one.points, "line")):
            if points:
                path = " ".join(f"{x},{y}" for x, y in map(place, _thinned(points)))
                parts.append(Markup('<polyline class="{} line-{}" points="{}"/>').format(kind, style, path))
        if len(one.points) <= 30:
            dots = map(place, one.points)
            parts += [Markup('<circle class="line-{}" cx="{}" cy="{}" r="2.5"/>').format(style, x, y) for x, y in dots]
    return Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        label, _CHART_WIDTH, _CHART_HEIGHT, join(parts)
    )


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that lie in [low, high]; the value itself where the two are equal."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    stride = math.ceil(len(points) / _MAX_POINTS)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True)
class Picture:
    """A thumbnail. `uri` is None for one that could not be had; the page then shows the key."""

    key: str
    uri: str | None = None
    label: str | None = None
    caption: str | None = None

    @property
    def alt(self) -> str:
        return self.caption or self.label or f"image {self.key}"


class Pictures:
    """Samples of a dataset as thumbnails. What is missing or broken is logged and stands in for itself by its key."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.find = cache(self._find)
        self._split = cache(self._open_split)

    def _open_split(self, split: str) -> tuple[list[Shard], pa.Table]:
        return self.dataset.shards(split), self.dataset.table(split, _FACTS)

    def _find(self, split: str, key: str) -> Picture:
        try:
            shards, table = self._split(split)
        except (DataError, OSError) as error:
            logger.warning("no thumbnail of %s: %s", key, error)
            return Picture(key)
        row = pc.index(table["key"], key).as_py()
        if row < 0:
            logger.warning("no thumbnail of %s: %s has no such sample in split %s", key, self.dataset.root, split)
            return Picture(key)
        facts = table.slice(row, 1).to_pylist()[0]
        for shard in shards:
            if row < len(shard):
                return _read(shard, row, facts)
            row -= len(shard)
        logger.warning("no thumbnail of %s: the shards of split %s in %s end before its row", key, split, self.dataset.root)
        return Picture(key)

    def sheet(self, count: int, max_rows: int = 20_000) -> list[Picture]:
        """From the largest split, as even over labels as they go, sorted by label. Looks at about `max_rows` rows only."""
        split = max(self.dataset.splits, key=lambda name: self.dataset.splits[name])
        places: dict[str, list[tuple[Shard, int, dict[str, Any]]]] = defaultdict(list)
        num_rows = 0
        for shard in self.dataset.shards(split):
            rows = shard.table(_FACTS).to_pylist()
            for row, facts in enumerate(rows):
                places[facts["label"] or ""].append((shard, row, facts))
            num_rows += len(rows)
            if num_rows >= max_rows:
                break
        chosen: list[tuple[Shard, int, dict[str, Any]]] = []
        labels = _evenly(sorted(places), count)
        for i, label in enumerate(labels):
            chosen += _evenly(places[label], count // len(labels) + (i < count % len(labels)))
        return [_read(*place) for place in chosen]


def _read(shard: Shard, row: int, facts: Mapping[str, Any]) -> Picture:
    try:
        content = shard.image(row)
        uri = _data_uri(content)
    except (DataError, OSError, ValueError) as error:  # pillow raises the last two for what it cannot read
        logger.warning("no thumbnail of %s from %s: %s", facts["key"], shard, error)
        uri = None
    return Picture(facts["key"], uri, facts["label"], facts["caption"])


def _data_uri(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(thumbnail(content)).decode()


def _evenly(items: Sequence[_T], count: int) -> list[_T]:
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)
