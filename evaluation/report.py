"""Results to tables and to one HTML page that can be sent to a colleague: nothing in it is loaded from anywhere.

Results hold unrounded fractions; percent and rounding happen here and nowhere else. The wording and order of the page are in
`templates/report.html`, its drawings in `figures.py`.
"""

import json
import logging
import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
from markupsafe import Markup

from evaluation import figures
from evaluation.figures import Series
from evaluation.result import Metric, Result
from rsvl_data.errors import DataError, OptionError
from rsvl_data.shards import Dataset, write_atomically

logger = logging.getLogger(__name__)

NUM_QUERIES = 6  # a direction and result
NUM_GALLERIES = 4  # of the first results that have one; with NUM_QUERIES this keeps a page below 3 MB
NUM_SHEET = 32


# --- Words for metrics and tasks ---


@dataclass(frozen=True)
class MetricWords:
    """`percent` is false for what is no share of anything: a rank, a correlation."""

    name: str
    meaning: str = ""
    percent: bool = True


# A new benchmark adds its names here. A name that is not listed is shown as it is, as a share.
_METRICS = {
    "acc1": MetricWords("Top-1 accuracy", "How often the class the model ranks first is the right one."),
    "acc5": MetricWords("Top-5 accuracy", "How often the right class is among the five ranked first."),
    "mean_per_class_recall": MetricWords(
        "Mean per-class accuracy", "Average of the classes' accuracies; a rare class counts in full."
    ),
    "mean_recall": MetricWords("Mean recall", "Average of recall@1, @5 and @10 in both directions."),
}
_RETRIEVAL_SIDES = {
    "image_retrieval_": ("Text to image", "image", "a caption"),
    "text_retrieval_": ("Image to text", "caption", "an image"),
}
_TASKS = {"zero_shot": "Zero-shot classification", "retrieval": "Image-text retrieval"}
_HEADLINE = (("zero_shot", "acc1"), ("retrieval", "image_retrieval_recall@5"), ("retrieval", "mean_recall"))


def metric_words(name: str) -> MetricWords:
    return _METRICS.get(name) or _retrieval_words(name) or MetricWords(name.replace("_", " "))


def _retrieval_words(name: str) -> MetricWords | None:
    side = next((side for side in _RETRIEVAL_SIDES if name.startswith(side)), None)
    if side is None:
        return None
    direction, answer, query = _RETRIEVAL_SIDES[side]
    measure, _, k = name.removeprefix(side).partition("@")
    if measure == "recall" and k == "1":
        return MetricWords(f"{direction}, recall@1", f"How often the first {answer} found for {query} is a right one.")
    if measure == "recall":
        return MetricWords(f"{direction}, recall@{k}", f"How often a right {answer} is among the first {k} found for {query}.")
    if measure == "mean_recall":
        return MetricWords(f"{direction}, mean recall", "Average of recall@1, @5 and @10 in this direction.")
    if measure == "median_rank":
        meaning = f"Half of the queries find their first right {answer} at this place or before; 1 is best."
        return MetricWords(f"{direction}, median rank", meaning, percent=False)
    return None


def task_words(task: str) -> str:
    return _TASKS.get(task) or task.replace("_", " ").capitalize()


# --- Numbers as text ---


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def value_text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if metric_words(name).percent:
        return percent(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def interval_text(name: str, metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return "–"
    return f"{value_text(name, metric.low).removesuffix('%')}–{value_text(name, metric.high)}"


def times_chance(metric: Metric) -> str | None:
    """How many times better than guessing; None where the ratio means nothing."""
    if not metric.chance or not metric.higher_is_better:
        return None
    ratio = metric.value / metric.chance
    return f"{ratio:.1f} × chance" if ratio < 100 else f"{ratio:,.0f} × chance"


def against_chance(metric: Metric) -> str | None:
    """What the interval allows to say; None without an interval or chance."""
    if metric.chance is None or metric.low is None or metric.high is None:
        return None
    if metric.low <= metric.chance <= metric.high:
        return "not told apart from guessing"
    return "better than guessing" if (metric.low > metric.chance) == metric.higher_is_better else "worse than guessing"


def _bar(name: str, metric: Metric, axis_end: float = 1.0) -> Markup:
    told = [f"{metric_words(name).name}: {value_text(name, metric.value)}"]
    if metric.low is not None:
        told.append(f"95% interval {interval_text(name, metric)}")
    if metric.chance is not None:
        told.append(f"chance {value_text(name, metric.chance)}")
    return figures.interval_bar(metric, axis_end, ", ".join(told))


# --- Tables ---

_COLUMNS = ("model", "task", "dataset", "protocol", "metric", "value", "95% interval", "chance", "n")
_NUM_WORD_COLUMNS = 5


def summary_table(results: Sequence[Result]) -> str:
    """Plain text for a terminal, one line a metric."""
    rows = [_COLUMNS, *_rows(results)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < _NUM_WORD_COLUMNS else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def markdown_table(results: Sequence[Result]) -> str:
    """The same rows as `summary_table`, for a README or a model card."""
    alignment = ("---",) * _NUM_WORD_COLUMNS + ("---:",) * (len(_COLUMNS) - _NUM_WORD_COLUMNS)
    cells = [_COLUMNS, alignment, *(tuple(map(_markdown_cell, row)) for row in _rows(results))]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _markdown_cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    for result in results:
        where = (model_name(result), result.task, f"{result.dataset}/{result.split}", result.protocol)
        for name, metric in result.metrics.items():
            numbers = (
                value_text(name, metric.value),
                interval_text(name, metric),
                value_text(name, metric.chance),
                f"{result.n:,}",
            )
            mark = "" if metric.higher_is_better else " (lower is better)"
            yield (*where, name + mark, *numbers)


def model_name(result: Result) -> str:
    return str(result.model.get("name") or "unnamed model")


@dataclass(frozen=True)
class Group:
    """Results that may stand side by side: the same items under the same rules, by different models."""

    results: list[Result]

    @property
    def first(self) -> Result:
        return self.results[0]

    @property
    def data_facts(self) -> list[str]:
        """What the benchmark says about the data that took part, such as the captions' language."""
        facts = {name: value for name, value in self.first.data.items() if name not in ("name", "note", "sha256")}
        return [f"{name.replace('_', ' ')} {value}" for name, value in facts.items() if value]

    @property
    def metric_names(self) -> list[str]:
        return list(dict.fromkeys(name for result in self.results for name in result.metrics))

    @property
    def columns(self) -> list[str]:
        """Model names, told apart by weights or else by number where two are equal."""
        names = [model_name(result) for result in self.results]
        sha256s = [str(result.model.get("sha256") or "")[:8] for result in self.results]
        told = [f"{name} {sha256}".strip() if names.count(name) > 1 else name for name, sha256 in zip(names, sha256s)]
        return [f"{name} #{i}" if told.count(name) > 1 else name for i, name in enumerate(told, 1)]

    @property
    def contaminations(self) -> list[tuple[str, str]]:
        return [
            (column, ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result.contamination.items()))
            for column, result in zip(self.columns, self.results)
            if result.contamination
        ]

    def metric(self, name: str) -> list[tuple[str, Metric | None]]:
        return [(column, result.metrics.get(name)) for column, result in zip(self.columns, self.results)]

    def best(self, name: str) -> float | None:
        """The best of several different values."""
        values = {metric.value for _, metric in self.metric(name) if metric}
        if len(values) < 2:
            return None
        return max(values) if self.higher_is_better(name) else min(values)

    def higher_is_better(self, name: str) -> bool:
        return next(metric.higher_is_better for _, metric in self.metric(name) if metric)

    def chance(self, name: str) -> float | None:
        return next((metric.chance for _, metric in self.metric(name) if metric and metric.chance is not None), None)


def _groups(results: Sequence[Result]) -> list[Group]:
    groups: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        facts = json.dumps({name: value for name, value in result.data.items() if name not in ("name", "note")}, sort_keys=True)
        groups[result.task, result.dataset, result.split, result.protocol, result.prompts, result.n, facts].append(result)
    return [Group(members) for members in groups.values()]


def _headline(groups: Sequence[Group]) -> tuple[list[tuple[Group, str]], float]:
    """Up to four group-and-metric pairs, one for each known metric, then what else there is; and where their common axis ends."""
    cards = []
    for task, name in _HEADLINE:
        cards += [(group, name) for group in groups if group.first.task == task and name in group.metric_names][:1]
    for group in groups:
        shares = [name for name in group.metric_names if metric_words(name).percent]
        known = [name for name in shares if (group.first.task, name) in _HEADLINE]
        cards += [(group, name) for name in (known or shares)[:1] if (group, name) not in cards]
    cards = cards[:4]
    metrics = [metric for group, name in cards for _, metric in group.metric(name) if metric]
    reach = max((value for m in metrics for value in (m.value, m.high, m.chance) if value is not None), default=1.0)
    return cards, next((end for end in (0.1, 0.2, 0.5) if reach <= end), 1.0)


# --- Single results: confusion and gallery ---


def _mix_ups(confusion: Mapping[str, Any], count: int = 8) -> list[tuple[str, str, int, int]]:
    """The most frequent errors: truth, answer, how often, out of how many."""
    classes, counts = confusion["classes"], confusion["counts"]
    errors = [
        (classes[i], classes[j], counts[i][j], sum(counts[i]))
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j and counts[i][j]
    ]
    return sorted(errors, key=lambda error: (-error[2], -error[2] / error[3]))[:count]


def _per_class(result: Result) -> list[tuple[str, float, str]]:
    """Class, value and "3 of 5" where the confusion tells it; from the confusion alone where per-class values are absent."""
    confusion = result.details.get("confusion")
    rows = dict(zip(confusion["classes"], confusion["counts"])) if confusion else {}
    right = {name: (row[i], sum(row)) for i, (name, row) in enumerate(rows.items())}
    values = result.per_class or {name: hits / total for name, (hits, total) in right.items() if total}
    return [(name, value, "{} of {}".format(*right[name]) if name in right else "") for name, value in values.items()]


@dataclass(frozen=True)
class Gallery:
    result: Result
    directions: list[tuple[str, list[dict[str, Any]]]]


def _galleries(results: Sequence[Result]) -> list[Gallery]:
    galleries = []
    for result in results:
        entries = result.details.get("gallery") or []
        by_direction = [
            (direction, [entry for entry in entries if entry["direction"] == direction][:NUM_QUERIES])
            for direction in ("text_to_image", "image_to_text")
        ]
        if any(entries for _, entries in by_direction):
            galleries.append(Gallery(result, [(direction, entries) for direction, entries in by_direction if entries]))
    return galleries


# --- Dataset and run ---


def _attrition(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stages of a manifest and a line for all of them, with the share that was kept."""
    if not stages:
        return []
    dropped: Counter[str] = Counter()
    for stage in stages:
        dropped.update(stage["dropped"])
    total = {"name": "all stages", "in": stages[0]["in"], "kept": stages[-1]["kept"], "dropped": dict(dropped)}
    rows = [*stages, total] if len(stages) > 1 else [*stages]
    return [
        {
            **row,
            "num_dropped": sum(row["dropped"].values()),
            "share": row["kept"] / row["in"] if row["in"] else None,
            "reasons": sorted(row["dropped"].items(), key=lambda item: -item[1]),
        }
        for row in rows
    ]


_MAIN_SETTINGS = frozenset(
    {"recipe", "code", "model", "data", "augment", "lang", "duplicates_are_negatives", "batch_size", "accum_freq", "seed"}
    | {"lr", "lr_scheduler", "warmup", "wd", "steps", "precision"}
)
_HELD_OUT = "On held-out data, during training"
_NOISY = ("Loss", "Gradient norm", "Images per second")


@dataclass(frozen=True)
class Chart:
    title: str
    drawing: Markup
    legend: list[tuple[str, str]]  # series and its last value
    hint: str = ""


@dataclass(frozen=True)
class Training:
    charts: list[Chart]
    facts: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    recipe: str | None
    config: str | None


def _training(run: Path) -> Training:
    lines = _metric_lines(run / "metrics.jsonl")
    try:
        config = json.loads((run / "config.json").read_text())
    except FileNotFoundError:
        config = None
    except ValueError as error:
        raise DataError(f"{run / 'config.json'} cannot be read: {error}") from error
    settings = list(_flattened(config or {}))
    main = [(name, value) for name, value in settings if name.rsplit(".", 1)[-1] in _MAIN_SETTINGS and value != "–"]
    return Training(
        charts=_charts(lines),
        facts=_run_facts(lines),
        settings=main or settings[:12],
        recipe=config.get("recipe") if config else None,
        config=json.dumps(config, indent=2, ensure_ascii=False) if config else None,
    )


def _metric_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # a killed run can leave its last line cut
            line = None
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
        else:
            logger.warning("%s: line %d is no JSON object with a step and is left out", path, number)
    return lines


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[figures.Point]:
    """By step; the last word counts where a resumed run wrote a step again."""
    values = {line["step"]: line[name] for line in lines if isinstance(line.get(name), int | float)}
    return sorted((step, float(value)) for step, value in values.items() if math.isfinite(value))


def _charts(lines: Sequence[Mapping[str, Any]]) -> list[Chart]:
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if _points(lines, name)]
    losses = [name for name in names if name.split("/")[0] == "loss" or (name.startswith("val/") and "loss" in name)]
    if len(losses) == 2 and "loss/total" in losses:
        losses.remove("loss/total")  # the other one again
    vals = [name for name in names if name.startswith("val/") and name not in losses]
    first = [name for _, name in _HEADLINE]
    shares = sorted((name for name in vals if metric_words(_last(name)).percent), key=lambda name: _last(name) not in first)
    wanted = [("Loss", losses), (_HELD_OUT, shares)]
    wanted += [(metric_words(_last(name)).name, [name]) for name in vals if name not in shares]
    wanted += [("Learning rate", ["lr"]), ("Logit scale", ["logit_scale"]), ("Gradient norm", ["grad_norm"])]
    wanted += [("Images per second", ["samples_per_s"])]
    shown = [(title, [name for name in group if name in names]) for title, group in wanted]
    return [_chart(title, [(name, _points(lines, name)) for name in group]) for title, group in shown if group]


def _chart(title: str, curves: Sequence[tuple[str, list[figures.Point]]]) -> Chart:
    """Noisy curves (one value a step) are smoothed, with their raw values behind; evaluations and schedules stay as they are."""
    as_percent = title == _HELD_OUT
    text = percent if as_percent else "{:.3g}".format
    series, legend, span = [], [], 0
    for name, points in curves[: figures.NUM_LINE_STYLES]:
        smooth = title in _NOISY and len(points) > 50 and not name.startswith("val/")
        span = max(span, len(points) // 25) if smooth else span
        line = figures.smoothed(points, len(points) // 25) if smooth else points
        shown = metric_words(_last(name)).name if as_percent else name.removeprefix("loss/") if title == "Loss" else title
        series.append(Series(shown, line, points if smooth else ()))
        legend.append((shown, text(line[-1][1])))
    hints = [f"Line: smoothed over about {span} steps; faint: every step."] if span else []
    if len(curves) > len(series):
        hints.append(f"The first {len(series)} of {len(curves)} curves.")
    label = f"{title} over training steps. " + ", ".join(f"{name} ends at {value}" for name, value in legend)
    tick_text = (lambda value: f"{100 * value:.6g}%") if as_percent else "{:.6g}".format
    return Chart(title, figures.line_chart(series, label, tick_text, from_zero=as_percent), legend, " ".join(hints))


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _run_facts(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    ends = {name: _points(lines, name) for name in ("step", "samples_seen", "samples_per_s", "data_wait_s")}
    facts = []
    if ends["step"]:
        facts.append(("steps", f"{ends['step'][-1][0]:,.0f}"))
    if ends["samples_seen"]:
        facts.append(("image-text pairs seen", f"{ends['samples_seen'][-1][1]:,.0f}"))
    if ends["samples_per_s"]:
        facts.append(("median speed", f"{median(y for _, y in ends['samples_per_s']):,.0f} images/s"))
    if ends["data_wait_s"]:
        facts.append(("median wait for data", f"{1000 * median(y for _, y in ends['data_wait_s']):,.0f} ms a step"))
    return facts


def _flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as the command line spells them: `optim.lr`. A recipe keeps its own below "options"."""
    for name, value in config.items():
        if name == "options" and not prefix:
            yield from _flattened(value)
        elif isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        elif value is None:
            yield prefix + name, "–"
        elif isinstance(value, float):
            yield prefix + name, f"{value:g}"
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- The page ---


def write_report(
    out: Path,
    results: Sequence[Result],
    *,
    dataset: Dataset | None = None,
    run: Path | None = None,
    title: str = "Evaluation report",
    day: date | None = None,
) -> None:
    """One self-contained HTML page. A section for which nothing is given is left out; the gallery needs `dataset` for pictures.

    `run` is a training run's folder (metrics.jsonl, config.json), `day` what the page is dated; None is today.
    Raises OptionError when there is nothing to report.
    """
    if not results and dataset is None and run is None:
        raise OptionError("there is nothing to report: give at least one result file, a dataset or a run folder")
    pictures = figures.Pictures(dataset) if dataset else None
    groups = _groups(results)
    cards, axis_end = _headline(groups)
    galleries = _galleries(results) if pictures else []
    training = _training(run) if run else None
    template = _environment().get_template("report.html")
    page = template.render(
        title=title,
        day=day or datetime.now(UTC).date(),
        notes=_data_notes(results, dataset),
        models=list(dict.fromkeys(map(model_name, results))),
        codes=list(dict.fromkeys(result.code for result in results)),
        results=results,
        commands=list(dict.fromkeys(map(_command, results))),
        groups=groups,
        cards=cards,
        axis_end=axis_end,
        class_results=[result for result in results if result.details.get("confusion") or result.per_class],
        has_confusion=any(result.details.get("confusion") for result in results),
        galleries=galleries[:NUM_GALLERIES],
        num_galleries=len(galleries),
        pictures=pictures,
        dataset=dataset,
        sheet=pictures.sheet(NUM_SHEET) if pictures else [],
        attrition=_attrition(dataset.manifest.get("stages") or []) if dataset else [],
        training=training if training and (training.charts or training.config) else None,
    )
    write_atomically(out, page.encode())


def _command(result: Result) -> str:
    """MODEL and DATASET stand for folders: a result knows their checksums, not where they lie."""
    options = {"split": result.split, "protocol": result.protocol, "lang": result.data.get("lang"), "seed": result.seed}
    given = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    task = shlex.quote(result.task.replace("_", "-"))
    return f"rsvl eval {task} --model MODEL --data DATASET {' '.join(given)} --out {task}.json"


def _data_notes(results: Sequence[Result], dataset: Dataset | None) -> list[tuple[str, str | None]]:
    """Every dataset the page speaks of, each with every different note about it."""
    pairs = [(result.dataset, result.data.get("note")) for result in results]
    if dataset:
        pairs.append((dataset.name, dataset.note))
    noted = {name for name, note in pairs if note}
    return list(dict.fromkeys((name, note or None) for name, note in pairs if note or name not in noted))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        bar=_bar,
        confusion_grid=figures.confusion_grid,
        against_chance=against_chance,
        interval_text=interval_text,
        metric_words=metric_words,
        mix_ups=_mix_ups,
        model_name=model_name,
        per_class=_per_class,
        percent=percent,
        task_words=task_words,
        times_chance=times_chance,
        value_text=value_text,
    )
    return environment
