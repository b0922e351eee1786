"""Results to one document that can be sent to a colleague: an HTML page that loads nothing, Markdown, or LaTeX tables.

The wording and order of the page are in `templates/report*.html`. What it shows comes from the files beside this one: `report_groups` (what
stands side by side, paired tests), `report_classes`, `report_pictures`, `report_commands`, `training_curves`, `published` (what papers
print), `figures` (drawings and thumbnails), `wording` (names, and how numbers are written). `report_documents` writes Markdown and LaTeX.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from evaluation import figures, wording
from evaluation.comparison import Comparison
from evaluation.published import published_by_source
from evaluation.report_classes import calibration, mix_ups, per_class, usual_answer
from evaluation.report_commands import command
from evaluation.report_documents import latex_report, markdown_report
from evaluation.report_groups import Missing, grouped, headline, tested, untested_pairs
from evaluation.report_pictures import NUM_GALLERIES, galleries, heat_maps, overlays
from evaluation.result import Metric, Result
from evaluation.training_curves import compare_training, read_training
from evaluation.wording import model_name
from rsvl_data.errors import OptionError
from rsvl_data.shards import Dataset, write_atomically

NUM_SHEET = 32
_TEXT_WRITERS = {".md": markdown_report, ".tex": latex_report}


def write_report(
    out: Path,
    results: Sequence[Result],
    *,
    dataset: Dataset | None = None,
    runs: Sequence[Path] = (),
    comparisons: Sequence[Comparison] = (),
    missing: Sequence[Missing] = (),
    title: str = "Evaluation report",
    day: date | None = None,
) -> None:
    """The ending of `out` decides: .html, .md (tables and notes), .tex (booktabs tables). A section for which nothing is given is left out.

    `dataset` has a section of its own, and gives galleries the pictures that their results lack; `missing` is what was asked for and not
    measured; `day` is the date, None is today.
    Raises OptionError when there is nothing to report, or for another ending.
    """
    if not results and dataset is None and not runs:
        raise OptionError("there is nothing to report: give at least one result file, a dataset or a run folder")
    day, notes = day or datetime.now(UTC).date(), _data_notes(results, dataset)
    ending = out.suffix.lower()
    if ending in (".html", ".htm"):
        page = _page(results, dataset, runs, comparisons, title=title, day=day, notes=notes, missing=missing, folder=out.parent)
    elif ending in _TEXT_WRITERS:
        page = _TEXT_WRITERS[ending](grouped(results), notes, comparisons, missing, title=title, day=day)
    else:
        raise OptionError(f"--out {out.name}: a report is written as .html, .md or .tex")
    write_atomically(out, page.encode())


# --- The page ---


def _page(
    results: Sequence[Result],
    dataset: Dataset | None,
    runs: Sequence[Path],
    comparisons: Sequence[Comparison],
    *,
    folder: Path,
    **told: Any,
) -> str:
    """`told` goes to the template as it is."""
    groups = grouped(results)
    pictures = figures.Pictures(dataset) if dataset else None
    cards, axis_end = headline(groups)
    found = galleries(results, pictures)
    one_run = read_training(runs[0]) if len(runs) == 1 else None
    return (
        _environment()
        .get_template("report.html")
        .render(
            **told,
            models=list(dict.fromkeys(map(model_name, results))),
            codes=list(dict.fromkeys(result.code for result in results)),
            tasks=list(dict.fromkeys(result.task for result in results)),
            protocols=list(dict.fromkeys((result.task, result.protocol) for result in results)),
            results=results,
            commands=list(dict.fromkeys(map(command, results))),
            groups=groups,
            tested=tested(comparisons, results),
            untested_pairs=untested_pairs(results, comparisons),
            cards=cards,
            axis_end=axis_end,
            class_results=[result for result in results if result.details.get("confusion") or result.per_class],
            has_confusion=any(result.details.get("confusion") for result in results),
            heat_maps=[(result, shown) for result in results if (shown := heat_maps(result, folder))],
            overlays=[(result, shown) for result in results if (shown := overlays(result, folder))],
            galleries=found[:NUM_GALLERIES],
            num_galleries=len(found),
            dataset=dataset,
            sheet=pictures.sheet(NUM_SHEET) if pictures else [],
            attrition=_attrition(dataset.manifest.get("stages") or []) if dataset else [],
            training=one_run if one_run and (one_run.charts or one_run.config) else None,
            trainings=compare_training(runs) if len(runs) > 1 else None,
        )
    )


_WORDS = (
    *("against_chance", "class_values_words", "difference_text", "interval_text", "metric_words", "model_name", "percent"),
    *("protocol_meaning", "task_meaning", "task_words", "times_chance", "value_text"),
)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["zip"] = zip
    environment.globals.update(
        bar=_bar,
        calibration=calibration,
        confusion_grid=figures.confusion_grid,
        mix_ups=mix_ups,
        per_class=per_class,
        usual_answer=usual_answer,
        published_by_source=published_by_source,
        **{name: getattr(wording, name) for name in _WORDS},
    )
    return environment


def _bar(name: str, metric: Metric, axis_end: float = 1.0) -> Markup:
    told = [f"{wording.metric_words(name).name}: {wording.value_text(name, metric.value)}"]
    if metric.low is not None:
        told.append(f"95% interval {wording.interval_text(name, metric)}")
    if metric.chance is not None:
        told.append(f"chance {wording.value_text(name, metric.chance)}")
    return figures.interval_bar(metric, axis_end, ", ".join(told))


# --- The data ---


def _data_notes(results: Sequence[Result], dataset: Dataset | None) -> list[tuple[str, str | None]]:
    """Every dataset the page speaks of, each with every different note about it."""
    pairs = [(result.dataset, result.data.get("note")) for result in results]
    if dataset:
        pairs.append((dataset.name, dataset.note))
    noted = {name for name, note in pairs if note}
    return list(dict.fromkeys((name, note or None) for name, note in pairs if note or name not in noted))


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
