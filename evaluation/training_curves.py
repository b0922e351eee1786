"""Run folders as the report shows them: curves, settings, speed. Several runs share charts; settings are listed where they differ."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from evaluation import figures
from evaluation.figures import Series
from evaluation.wording import HEADLINE, metric_words, percent
from rsvl_data.errors import DataError

logger = logging.getLogger(__name__)

_MAIN_SETTINGS = frozenset(
    {"recipe", "code", "model", "data", "augment", "lang", "duplicates", "batch_size", "accum_freq", "seed"}
    | {"lr", "lr_scheduler", "warmup", "wd", "steps", "precision"}
)
_HELD_OUT = "On held-out data, during training"
_NUM_HELD_OUT = 4  # charts of runs compared
_NOISY = ("Loss", "Gradient norm", "Images per second")


@dataclass(frozen=True)
class Chart:
    title: str
    drawing: Markup
    legend: list[tuple[str, str]]  # series and its last value
    hint: str = ""


@dataclass(frozen=True)
class Training:
    """One run."""

    charts: list[Chart]
    facts: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    all_settings: list[tuple[str, str]]
    recipe: str | None
    config: str | None


def read_training(run: Path) -> Training:
    """From metrics.jsonl and config.json; what is absent is left out. Raises DataError for a config.json that is no JSON."""
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
        all_settings=settings,
        recipe=config.get("recipe") if config else None,
        config=json.dumps(config, indent=2, ensure_ascii=False) if config else None,
    )


@dataclass(frozen=True)
class TrainingCompared:
    """Several runs. Rows of `facts` and of `differing` settings have one value a run, "–" where it has none."""

    runs: list[str]
    charts: list[Chart]
    facts: list[tuple[str, list[str]]]
    differing: list[tuple[str, list[str]]]


def compare_training(runs: Sequence[Path]) -> TrainingCompared:
    """Raises DataError as `read_training`."""
    lines = [_metric_lines(run / "metrics.jsonl") for run in runs]
    read = [read_training(run) for run in runs]
    settings = [dict(each.all_settings) for each in read]
    names = list(dict.fromkeys(name for each in settings for name in each))
    rows = [(name, [each.get(name, "–") for each in settings]) for name in names]
    facts = [dict(each.facts) for each in read]
    return TrainingCompared(
        _run_names(runs),
        _charts_compared(_run_names(runs), lines),
        [(name, [each.get(name, "–") for each in facts]) for name in dict.fromkeys(name for each in facts for name in each)],
        [(name, values) for name, values in rows if len(set(values)) > 1],
    )


def _run_names(runs: Sequence[Path]) -> list[str]:
    """The folder's name; with the folder above it where that tells nothing apart."""
    names = [run.resolve().name for run in runs]
    return [f"{run.resolve().parent.name}/{name}" if names.count(name) > 1 else name for run, name in zip(runs, names)]


def _charts_compared(runs: Sequence[str], lines: Sequence[Sequence[Mapping[str, Any]]]) -> list[Chart]:
    """One chart a metric that at least one run has, a line a run."""
    names = list(dict.fromkeys(name for each in lines for line in each for name in line))
    first = [name for _, name in HEADLINE]
    vals = sorted((name for name in names if name.startswith("val/")), key=lambda name: _last(name) not in first)
    wanted = [("Loss", "loss/total")] if "loss/total" in names else [("Loss", name) for name in names if name.startswith("loss/")]
    wanted += [(f"{metric_words(_last(name)).name}, held out", name) for name in vals[:_NUM_HELD_OUT]]
    wanted += [("Learning rate", "lr"), ("Gradient norm", "grad_norm"), ("Images per second", "samples_per_s")]
    charts = []
    for title, name in wanted:
        curves = [(run, points) for run, each in zip(runs, lines) if (points := _points(each, name))]
        if curves:
            as_percent = name.startswith("val/") and "loss" not in name and metric_words(_last(name)).percent
            charts.append(_chart(title, curves, as_percent=as_percent, noisy=title in _NOISY, names=dict(zip(runs, runs))))
    return charts


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
    first = [name for _, name in HEADLINE]
    shares = sorted((name for name in vals if metric_words(_last(name)).percent), key=lambda name: _last(name) not in first)
    wanted = [("Loss", losses), (_HELD_OUT, shares)]
    wanted += [(metric_words(_last(name)).name, [name]) for name in vals if name not in shares]
    wanted += [("Learning rate", ["lr"]), ("Logit scale", ["logit_scale"]), ("Gradient norm", ["grad_norm"])]
    wanted += [("Images per second", ["samples_per_s"])]
    shown = [(title, [name for name in group if name in names]) for title, group in wanted]
    return [_chart_of_run(title, [(name, _points(lines, name)) for name in group]) for title, group in shown if group]


def _chart_of_run(title: str, curves: Sequence[tuple[str, list[figures.Point]]]) -> Chart:
    as_percent = title == _HELD_OUT
    names = {
        name: metric_words(_last(name)).name if as_percent else name.removeprefix("loss/") if title == "Loss" else title
        for name, _ in curves
    }
    return _chart(title, curves, as_percent=as_percent, noisy=title in _NOISY, names=names)


def _chart(
    title: str,
    curves: Sequence[tuple[str, list[figures.Point]]],
    *,
    as_percent: bool,
    noisy: bool,
    names: Mapping[str, str],
) -> Chart:
    """Noisy curves (one value a step) are smoothed, with their raw values behind; evaluations and schedules stay as they are."""
    text = percent if as_percent else "{:.3g}".format
    series, legend, span = [], [], 0
    for name, points in curves[: figures.NUM_LINE_STYLES]:
        smooth = noisy and len(points) > 50 and not name.startswith("val/")
        span = max(span, len(points) // 25) if smooth else span
        line = figures.smoothed(points, len(points) // 25) if smooth else points
        series.append(Series(names[name], line, points if smooth else ()))
        legend.append((names[name], text(line[-1][1])))
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
