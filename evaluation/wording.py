"""What metrics are called, and how their values are written: words, percent, rounding, plain tables.

Results hold unrounded fractions; they are turned into percent here and nowhere else.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from evaluation.comparison import Comparison
from evaluation.contamination import is_untrained
from evaluation.result import Metric, Result

HEADLINE = (
    ("zero_shot", "acc1"),
    ("retrieval", "image_retrieval_recall@5"),
    ("retrieval", "mean_recall"),
    ("open_vocabulary", "miou"),
    ("localization", "rmi"),
    ("referring", "giou"),
)


@dataclass(frozen=True)
class MetricWords:
    """`percent` is false for what is no share of anything, or is never printed as one: a rank, a correlation. `decimals` None: as many as
    three digits need."""

    name: str
    meaning: str = ""
    percent: bool = True
    decimals: int | None = None


def _ratio(name: str, meaning: str) -> MetricWords:
    """Printed as a number with three decimals, as the papers do."""
    return MetricWords(name, meaning, percent=False, decimals=3)


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
    "miou": MetricWords(
        "Mean IoU", "Overlap of predicted and true area over their union, averaged over classes; a small class counts in full."
    ),
    "macc": MetricWords("Mean pixel accuracy", "Share of a class's pixels that are named right, averaged over classes."),
    "aacc": MetricWords("Pixel accuracy", "Share of all pixels that are named right; large classes decide it."),
    "mf1": MetricWords("Mean F1", "Harmonic mean of a class's precision and recall over pixels, averaged over classes."),
    "mprecision": MetricWords("Mean precision", "Of the pixels that got a class, the share that are it, averaged over classes."),
    "boundary_f1": MetricWords("Boundary F", "How well predicted outlines follow the true ones, within a few pixels."),
    "giou": MetricWords(
        "gIoU",
        "IoU of the mask that a sentence asks for, averaged over sentences; a small object counts in full. Also called mIoU.",
    ),
    "ciou": MetricWords("cIoU", "All overlaps summed over all unions summed; large objects decide it. Also called oIoU."),
    "rsu": _ratio("Rsu", "How much of the heat map lies inside the region that the sentence means; 1 is best."),
    "ras": _ratio("Ras", "How far the peaks of the heat map lie from the centre of the region; 0 is best, 1 worst."),
    "rda": _ratio("Rda", "How closely the peaks lie together: attention that is not scattered; 1 is best."),
    "rmi": _ratio("Rmi", "0.4 Rsu + 0.35 (1 - Ras) + 0.25 Rda: semantic localisation in one number; 1 is best."),
    "plcc": _ratio("Linear correlation", "Pearson correlation of predicted and true quality, from -1 to 1."),
    "srocc": _ratio("Rank correlation", "Spearman correlation: do both put the items in one order? From -1 to 1."),
    "krocc": _ratio("Pair correlation", "Kendall correlation: pairs in the right order less pairs in the wrong one."),
    "rmse": _ratio("RMSE", "Root of the mean squared difference of predicted and true quality; 0 is best."),
    "mae": _ratio("Mean error", "Mean absolute difference of predicted and true quality; 0 is best."),
    "mean_method_srocc": _ratio("Rank correlation, mean of methods", "Of each segmentation method on its own, then averaged."),
    "mean_method_plcc": _ratio("Linear correlation, mean of methods", "Of each segmentation method on its own, then averaged."),
    "top1_hit_rate": MetricWords("Best method taken", "How often the method with the highest prediction is the best one."),
    "top2_hit_rate": MetricWords(
        "Best method among two", "How often one of the two highest predictions is that of the best method."
    ),
    "regret": _ratio("Regret", "Quality lost by taking the predicted method rather than the best of each image; 0 is best."),
    "best_single_hit_rate": MetricWords("One method for all", "How often the one method that is best on average is the best."),
    "gain_over_best_single": _ratio(
        "Gain over one method for all", "Quality won by choosing image by image; below 0 it is lost."
    ),
    "random_hit_rate": MetricWords("Drawn method", "How often a method drawn by chance is the best."),
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
    "localization": "Semantic localisation",
    "open_vocabulary": "Open-vocabulary segmentation",
    "segmentation": "Segmentation",
    "referring": "Referring segmentation",
    "quality": "Segmentation quality assessment",
}
_TASK_MEANINGS = {
    "zero_shot": "The model has not been trained on these classes: it takes the class whose description fits the image best.",
    "retrieval": "A sentence has to find its image among all images of the set, and an image its sentence.",
    "linear_probe": "A linear classifier trained on the frozen image embeddings.",
    "knn": "The class of an image from its nearest training images.",
    "few_shot": "A linear classifier trained on a few images of each class.",
    "localization": "Where in a large scene is what a sentence describes? The model answers with a heat map.",
    "open_vocabulary": "Every pixel gets the class whose name fits it best; no class was trained for.",
    "segmentation": "Every pixel gets a class.",
    "referring": "The mask of the one thing that a sentence describes.",
    "quality": "How good is a mask, told without the true one?",
}
_CLASS_VALUES = {"zero_shot": "Share right, by class", "open_vocabulary": "IoU by class", "segmentation": "IoU by class"}
_PROTOCOLS = {
    ("zero_shot", "rsvl"): "our own sentences around each class name, in plain English",
    ("zero_shot", "skyscript"): "SkyScript's two sentences around each class name",
    ("zero_shot", "farslip"): "as SkyScript: two sentences around each class name; the splits are SkyScript's too",
    ("zero_shot", "georsclip"): "105 sentences around each class name, averaged before they are normalised, as RS5M's code does",
    (
        "zero_shot",
        "clip_benchmark",
    ): "class names and sentences of CLIP_benchmark for this dataset, OpenAI's 80 where it has none",
    ("retrieval", "rsvl"): "every caption is a query; an answer with the same words as a right one is right as well",
    (
        "retrieval",
        "clip_benchmark",
    ): "every caption is a query; only an image's own captions are right, even among equal sentences",
    ("retrieval", "georsclip"): "every caption is a query; only an image's own captions are right, as in RS5M's code",
    (
        "retrieval",
        "skyscript",
    ): "equal captions are merged into one and begin with “a satellite image.”, as SkyScript's code does",
    ("retrieval", "farslip"): "as SkyScript: equal captions are merged into one",
    ("open_vocabulary", "farslip"): "windows of 224 px, 80 sentences, no threshold, as the code of FarSLIP's authors runs",
    (
        "open_vocabulary",
        "segearth_ov",
    ): "SegEarth-OV: the image's own summary is subtracted from its parts; its thresholds by dataset, unless others were given",
    ("open_vocabulary", "rsvl"): "our own: windows of the encoder's size that overlap by half, sentences for pictures from above",
    (
        "localization",
        "semantic_localization_metrics",
    ): "crops of 256, 512 and 768 px, as the code of the measure's authors runs",
    ("localization", "rsvl"): "the authors' crops and indicators, without the slips of their code",
    ("segmentation", "rsvl"): "one confusion matrix of the split; a class that occurs nowhere leaves the means",
    ("segmentation", "mmseg"): "the names and means of mmseg; its F1 leaves out classes that are never hit",
    ("segmentation", "geoseg"): "the last class is clutter and leaves the means, as in GeoSeg",
    ("referring", "rsvl"): "two empty masks agree; P@X counts an overlap of X or more",
    ("referring", "rmsin"): "two empty masks disagree; P@X counts an overlap of X or more, as in RMSIN's code",
    ("referring", "rsrefseg2"): "two empty masks are refused; P@X counts an overlap above X, as in RSRefSeg 2's code",
    ("referring", "lisa"): "two empty masks agree, as in LISA's code; it has no P@X",
}
_ROUNDING = 1e-9  # a share such as 1 / 21, summed class by class, is off by 1e-16
_NAMED_NUMBER = re.compile(r"acc1_(\d+)_shot|precision@(0\.\d+)|([a-z0-9]+)_fitted")


def metric_words(name: str) -> MetricWords:
    """A language in brackets, as in `mean_recall[pt]`, is that of the captions."""
    if name.endswith("]"):
        name, _, lang = name[:-1].partition("[")
        words = metric_words(name)
        return replace(words, name=f"{words.name} ({lang})")
    if named := _NAMED_NUMBER.fullmatch(name):
        return _with_number(name, *named.groups())
    return _METRICS.get(name) or _retrieval_words(name) or MetricWords(name.replace("_", " "))


def _with_number(name: str, shots: str | None, iou: str | None, fitted: str | None) -> MetricWords:
    if shots:
        return MetricWords(f"Top-1 accuracy, {shots}-shot", f"A linear probe trained on {shots} images of each class.")
    if iou:
        return MetricWords(
            f"Precision at IoU {iou}",
            f"How often predicted and true mask overlap with an IoU of {iou} or more; under protocol rsrefseg2, of more than {iou}.",
        )
    words = _METRICS.get(fitted or "") or MetricWords(name.replace("_", " "), percent=False)
    return MetricWords(
        f"{words.name}, fitted", f"{words.meaning} After a logistic fit of predictions to truth.", words.percent, words.decimals
    )


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


def task_meaning(task: str) -> str:
    return _TASK_MEANINGS.get(task, "")


def class_values_words(task: str) -> str:
    """What the values in `Result.per_class` are."""
    return _CLASS_VALUES.get(task, "Value by class")


def protocol_meaning(task: str, protocol: str) -> str:
    """Empty for a protocol that is not listed here."""
    return _PROTOCOLS.get((task, protocol), "")


# --- Numbers as text ---


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def value_text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    words = metric_words(name)
    if words.percent:
        return percent(value)
    if words.decimals is not None:
        return f"{value:.{words.decimals}f}"
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
    """What the interval allows to say; None without an interval or chance. An end that meets chance but for rounding holds it."""
    if metric.chance is None or metric.low is None or metric.high is None:
        return None
    if metric.low - _ROUNDING <= metric.chance <= metric.high + _ROUNDING:
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
    value, low, high = (difference_text(each.metric, value) for value in (told.value, told.low, told.high))
    where = (each.task, f"{each.dataset}/{each.split}", each.protocol, each.metric)
    names = (str(each.first.get("name")), str(each.second.get("name")))
    return (*names, *where, value, f"{low} to {high}", f"{told.p_value:.3f}", each.verdict)


def points_text(difference: float) -> str:
    """Percentage points, signed."""
    return f"{100 * difference:+.1f}"


def difference_text(name: str, difference: float) -> str:
    """Signed: points where the metric is a share, else in its own unit."""
    return points_text(difference) if metric_words(name).percent else f"{difference:+.3f}"


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
    name = str(result.model.get("name") or "unnamed model")
    return f"{name} (untrained)" if is_untrained(result.contamination) else name
