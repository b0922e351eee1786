"""Results to tables and to one HTML page that can be sent to a colleague: nothing in it is loaded from anywhere.

The wording and order of the page are in `templates/report.html`, its drawings in `figures.py`, the names of metrics and the way numbers
are written in `wording.py`, the training curves in `training_curves.py`.
"""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from evaluation import figures
from evaluation.comparison import Comparison
from evaluation.contamination import shows_overlap
from evaluation.result import Metric, Result
from evaluation.training_curves import read_training
from evaluation.wording import (
    HEADLINE,
    against_chance,
    interval_text,
    metric_words,
    model_name,
    percent,
    points_text,
    task_words,
    times_chance,
    value_text,
)
from rsvl_data.errors import OptionError
from rsvl_data.shards import Dataset, write_atomically

NUM_QUERIES = 6  # a direction and result
NUM_GALLERIES = 4  # of the first results that have one; with NUM_QUERIES this keeps a page below 3 MB
NUM_SHEET = 32


def _bar(name: str, metric: Metric, axis_end: float = 1.0) -> Markup:
    told = [f"{metric_words(name).name}: {value_text(name, metric.value)}"]
    if metric.low is not None:
        told.append(f"95% interval {interval_text(name, metric)}")
    if metric.chance is not None:
        told.append(f"chance {value_text(name, metric.chance)}")
    return figures.interval_bar(metric, axis_end, ", ".join(told))


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
    def contaminations(self) -> list[tuple[str, str, bool]]:
        """Model, what is known of its training data, and whether that is a reason to distrust its numbers."""
        return [
            (column, _contamination_text(result.contamination), shows_overlap(result.contamination))
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


def _contamination_text(contamination: Mapping[str, Any]) -> str:
    told = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in contamination.items()}
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())


def _groups(results: Sequence[Result]) -> list[Group]:
    groups: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        facts = json.dumps({name: value for name, value in result.data.items() if name not in ("name", "note")}, sort_keys=True)
        groups[result.task, result.dataset, result.split, result.protocol, result.prompts, result.n, facts].append(result)
    return [Group(members) for members in groups.values()]


def _headline(groups: Sequence[Group]) -> tuple[list[tuple[Group, str]], float]:
    """Up to four group-and-metric pairs, one for each known metric, then what else there is; and where their common axis ends."""
    cards = []
    for task, name in HEADLINE:
        cards += [(group, name) for group in groups if group.first.task == task and name in group.metric_names][:1]
    for group in groups:
        shares = [name for name in group.metric_names if metric_words(name).percent]
        known = [name for name in shares if (group.first.task, name) in HEADLINE]
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


# --- The page ---


def write_report(
    out: Path,
    results: Sequence[Result],
    *,
    dataset: Dataset | None = None,
    run: Path | None = None,
    comparisons: Sequence[Comparison] = (),
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
    training = read_training(run) if run else None
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
        comparisons=comparisons,
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
        points_text=points_text,
        task_words=task_words,
        times_chance=times_chance,
        value_text=value_text,
    )
    return environment
