"""What a result tells class by class: mix-ups, values, and how far the model's confidence can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evaluation import figures
from evaluation.result import Result


def mix_ups(confusion: Mapping[str, Any], count: int = 8) -> list[tuple[str, str, int, int]]:
    """The most frequent errors: truth, answer, how often, out of how many."""
    classes, counts = confusion["classes"], confusion["counts"]
    errors = [
        (classes[i], classes[j], counts[i][j], sum(counts[i]))
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j and counts[i][j]
    ]
    return sorted(errors, key=lambda error: (-error[2], -error[2] / error[3]))[:count]


def per_class(result: Result) -> list[tuple[str, float, str]]:
    """Class, value, and what the confusion adds: "3 of 5", or over pixels which classes the truth does not have, whose value is 0 because
    they were predicted. From the confusion alone where per-class values are absent."""
    confusion = result.details.get("confusion")
    rows = dict(zip(confusion["classes"], confusion["counts"])) if confusion else {}
    if result.task in _OVER_PIXELS:
        told = {name: "" if sum(row) else "not in the truth" for name, row in rows.items()}
        return [(name, value, told.get(name, "")) for name, value in result.per_class.items()]
    right = {name: (row[i], sum(row)) for i, (name, row) in enumerate(rows.items())}
    values = result.per_class or {name: hits / total for name, (hits, total) in right.items() if total}
    return [(name, value, "{} of {}".format(*right[name]) if name in right else "") for name, value in values.items()]


def usual_answer(result: Result) -> str | None:
    """A sentence on a model that says one class nearly always, which a mean over classes does not show; None for all others."""
    confusion = result.details.get("confusion")
    if not confusion or not sum(map(sum, confusion["counts"])):
        return None
    answered = [sum(column) for column in zip(*confusion["counts"])]
    total, most = sum(answered), max(range(len(answered)), key=answered.__getitem__)
    share, true_share = answered[most] / total, sum(confusion["counts"][most]) / total
    if share < USUAL_SHARE or true_share >= share / 2:
        return None
    name, what = confusion["classes"][most].replace("_", " "), "pixels" if result.task in _OVER_PIXELS else "images"
    return f"The model calls {share:.0%} of all {what} {name}, which {true_share:.1%} are: it hardly looks at them here."


USUAL_SHARE = 0.8
_OVER_PIXELS = ("open_vocabulary", "segmentation")  # "3 of 5" is no IoU


@dataclass(frozen=True)
class Calibration:
    """Bins that hold items: lower and upper confidence, items, mean confidence, share right."""

    drawing: Markup
    bins: list[tuple[float, float, int, float, float]]


def calibration(result: Result) -> Calibration | None:
    """From `details["calibration"]`; None where the result has none."""
    told = result.details.get("calibration")
    if not told or not sum(told["items"]):
        return None
    items, confidence, accuracy = told["items"], told["confidence"], told["accuracy"]
    num_bins = len(items)
    bins = [(b / num_bins, (b + 1) / num_bins, items[b], confidence[b], accuracy[b]) for b in range(num_bins) if items[b]]
    return Calibration(figures.reliability_chart(accuracy, confidence, items), bins)
