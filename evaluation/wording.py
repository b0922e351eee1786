"""What metrics are called, and how their values are written: words, percent, rounding, plain tables.

Results hold unrounded fractions; they are turned into percent here and nowhere else.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.comparison import Comparison
from evaluation.result import Metric, Result

HEADLINE = (("zero_shot", "acc1"), ("retrieval", "image_retrieval_recall@5"), ("retrieval", "mean_recall"))


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
    "expected_calibration_error": MetricWords(
        "Calibration error", "How far the model's confidence is from how often it is right, on average; 0 is best."
    ),
    "miou": MetricWords("Mean IoU", "Average over classes of the pixels in both masks over the pixels in either."),
    "oiou": MetricWords("Overall IoU", "All pixels in both masks over all in either; large objects count more."),
    "plcc": MetricWords("Pearson correlation", "Of predicted and true quality.", percent=False),
    "srocc": MetricWords("Spearman correlation", "Of the ranks of predicted and true quality.", percent=False),
    "krocc": MetricWords("Kendall correlation", "Tau-b of predicted and true quality.", percent=False),
    "plcc_fitted": MetricWords("Pearson correlation, fitted", "After a logistic curve of four parameters.", percent=False),
}
_RETRIEVAL_SIDES = {
    "image_retrieval_": ("Text to image", "image", "a caption"),
    "text_retrieval_": ("Image to text", "caption", "an image"),
}
_TASKS = {
    "zero_shot": "Zero-shot classification",
    "retrieval": "Image-text retrieval",
    "linear_probe": "Linear probe",
    "knn": "Nearest neighbours",
    "few_shot": "Few-shot classification",
    "segmentation": "Semantic segmentation",
    "referring": "Referring segmentation",
    "quality": "Predicted quality of segmentation",
}
_FEW_SHOT = re.compile(r"acc1_(\d+)_shot")


def metric_words(name: str) -> MetricWords:
    """A language in brackets, as in `mean_recall[pt]`, is that of the captions."""
    if name.endswith("]"):
        name, _, lang = name[:-1].partition("[")
        words = metric_words(name)
        return MetricWords(f"{words.name} ({lang})", words.meaning, words.percent)
    if few := _FEW_SHOT.fullmatch(name):
        return MetricWords(f"Top-1 accuracy, {few[1]}-shot", f"A linear probe trained on {few[1]} images of each class.")
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


# --- Tables ---

_COLUMNS = ("model", "task", "dataset", "protocol", "metric", "value", "95% interval", "chance", "n")
_NUM_WORD_COLUMNS = 5


def summary_table(results: Sequence[Result]) -> str:
    """Plain text for a terminal, one line a metric."""
    return _plain_table([_COLUMNS, *_rows(results)], _NUM_WORD_COLUMNS)


def _plain_table(rows: list[tuple[str, ...]], num_word_columns: int) -> str:
    """The first row is the heading; columns after those of words are set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < num_word_columns else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Plain text for a terminal: first model minus second."""
    columns = ("first", "second", "task", "dataset", "protocol", "metric", "difference", "95% interval", "p", "")
    return _plain_table([columns, *map(_comparison_row, comparisons)], num_word_columns=6)


def _comparison_row(each: Comparison) -> tuple[str, ...]:
    told = each.difference
    low, high = (points_text(value) for value in (told.low, told.high))
    where = (each.task, f"{each.dataset}/{each.split}", each.protocol, each.metric)
    names = (str(each.first.get("name")), str(each.second.get("name")))
    return (*names, *where, points_text(told.value), f"{low} to {high}", f"{told.p_value:.3f}", each.verdict)


def points_text(difference: float) -> str:
    """Percentage points, signed."""
    return f"{100 * difference:+.1f}"


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
