"""Is one model better than another on the same items? Paired bootstrap of two Results, from what each keeps item by item.

Each resample draws the same images for both models, so what is hard for both cancels out: two intervals that overlap say less. The
p-value exchanges the models' answers to an image (`evaluation.bootstrap.exchange_p_value`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Int

from evaluation import dense_items
from evaluation.bootstrap import (
    LEAST_UNITS,
    Bounds,
    Difference,
    Statistic,
    class_mean,
    class_strata,
    mean_of,
    paired_difference,
    share,
)
from evaluation.metrics.quality import CORRELATIONS
from evaluation.metrics.referring import ReferringProtocol
from evaluation.result import Result
from rsvl_data.errors import DataError
from rsvl_data.shards import write_atomically

KS = (1, 5, 10)  # of the mean recall of the remote-sensing papers
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """First model minus second, in the metric's unit; `difference` has a 95 % interval and a two-sided p-value.

    No correction for many comparisons is made: of twenty metrics on which two models are equal, one falls below 0.05.
    """

    task: str
    dataset: str
    split: str
    protocol: str
    metric: str
    n: int
    first: dict[str, Any]  # name, sha256
    second: dict[str, Any]
    difference: Difference

    higher_is_better: bool = True

    @property
    def verdict(self) -> str:
        """One is better if the interval leaves out 0 and p is below 0.05: of few items, an interval alone is too sure."""
        low, high = self.difference.low, self.difference.high
        if self.difference.p_value >= LEVEL:
            return "not told apart"
        if not self.higher_is_better:
            low, high = -high, -low
        return "first better" if low > 0 else "second better" if high < 0 else "not told apart"


_DENSE: dict[str, Callable[[Result], tuple[dense_items.Statistics, int]]] = {
    "segmentation": lambda result: dense_items.of_masks(result.details["items"]),
    "open_vocabulary": lambda result: dense_items.of_masks(result.details["items"]),
    "referring": lambda result: dense_items.of_phrases(result.details["items"], cast(ReferringProtocol, result.protocol)),
    "localization": lambda result: dense_items.of_queries(result.details["items"]),
    "quality": lambda result: dense_items.of_scores(result.details["items"]),
}


class MeasuredItems(NamedTuple):
    """A metric as a statistic of the units that are resampled, within `strata` where there are any."""

    statistic: Statistic
    num_units: int
    strata: np.ndarray | None = None
    bounds: Bounds | None = (0.0, 1.0)

    @property
    def can_be_resampled(self) -> bool:
        return self.num_units >= LEAST_UNITS

    def minus(self, other: "MeasuredItems", num_bootstrap: int, seed: int) -> Difference:
        """Both are of the same units."""
        bounds = None if self.bounds is None else (self.bounds[0] - self.bounds[1], self.bounds[1] - self.bounds[0])
        return paired_difference(
            self.statistic,
            other.statistic,
            self.num_units,
            num_bootstrap=num_bootstrap,
            seed=seed,
            strata=self.strata,
            bounds=bounds,
        )


def compare_all(results: Sequence[Result], *, num_bootstrap: int = 1000, seed: int = 0) -> list[Comparison]:
    """Every pair of models that were measured on the same items under the same rules; what keeps no items that can be read is left out."""
    readable = [result for result in results if keeps_items(result)]
    pairs = [(one, other) for one, other in combinations(readable, 2) if _same_items(one, other)]
    return [found for pair in pairs for found in compare(*pair, num_bootstrap=num_bootstrap, seed=seed)]


def compare(first: Result, second: Result, *, num_bootstrap: int = 1000, seed: int = 0) -> list[Comparison]:
    """One comparison a metric that both have items enough for.

    Raises DataError for results that are not of the same items, or keep them in another version's form.
    """
    if not _same_items(first, second):
        raise DataError(
            f"{_told(first)} and {_told(second)} cannot be paired: they must be of one task, split, protocol, prompt set and data sha256, "
            "with their items kept. Measure both models with the same command."
        )
    ours, theirs = measured_items(first), measured_items(second)
    return [
        Comparison(
            first.task,
            first.dataset,
            first.split,
            first.protocol,
            metric,
            first.n,
            first.model,
            second.model,
            one.minus(theirs[metric], num_bootstrap, seed),
            first.metrics[metric].higher_is_better,
        )
        for metric, one in ours.items()
        if metric in theirs and one.can_be_resampled
    ]


def save_comparisons(path: Path, comparisons: Sequence[Comparison]) -> None:
    write_atomically(path, (json.dumps([asdict(each) for each in comparisons], indent=1, allow_nan=False) + "\n").encode())


def _told(result: Result) -> str:
    return f"{result.model.get('name')} on {result.dataset}/{result.split} ({result.task}, {result.protocol})"


def _same_items(one: Result, other: Result) -> bool:
    """The same model twice, as in two runs with other seeds, is no pair."""

    def items(result: Result) -> tuple[Any, ...]:
        facts = {name: value for name, value in result.data.items() if name not in ("name", "note")}
        return (
            result.task,
            result.dataset,
            result.split,
            result.protocol,
            result.prompts,
            result.n,
            json.dumps(facts, sort_keys=True),
        )

    if items(one) != items(other) or one.model == other.model or not ("items" in one.details and "items" in other.details):
        return False
    return _names_of_items(one) == _names_of_items(other)


def _names_of_items(result: Result) -> list[Any]:
    """Which images or queries were scored, and over which classes their means are, where a result says so."""
    items = result.details["items"]
    return [items.get(name) for name in ("key", "query", "mean_over")] if isinstance(items, dict) else []


def keeps_items(result: Result) -> bool:
    """Whether a result has items, in the form of this version."""
    try:
        return "items" in result.details and measured_items(result) is not None
    except DataError:
        return False


def measured_items(result: Result) -> dict[str, MeasuredItems]:
    """The metrics of the result that its items tell. Raises DataError for items in the form of another version."""
    try:
        return _measured_items(result)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{_told(result)}: its item-by-item record is not of this version ({error!r}), so it cannot be paired. Measure it again."
        ) from error


def _measured_items(result: Result) -> dict[str, MeasuredItems]:
    items = result.details["items"]
    if (of_task := _DENSE.get(result.task)) is not None:
        statistics, num_units = of_task(result)
        told = {name: MeasuredItems(of, num_units, bounds=_bounds(result.task, name)) for name, of in statistics.items()}
    elif "share_right" in items:
        right = {f"acc1_{shots}_shot": np.array(shares) for shots, shares in items["share_right"].items()}
        told = {name: MeasuredItems(share(shares), len(shares)) for name, shares in right.items()}
    elif "truth" in items:
        told = _of_classes(np.array(items["rank"]), np.array(items["truth"]))
    elif "by_lang" in items:
        told = _of_languages({lang: _of_retrieval(each) for lang, each in items["by_lang"].items()})
    else:
        told = _of_retrieval(items) if "text_query_ranks" in items else {}
    return {name: measured for name, measured in told.items() if name in result.metrics}


def _bounds(task: str, name: str) -> Bounds | None:
    """Of the metrics that a dense task keeps items for."""
    if task != "quality":
        return 0.0, 1.0
    return (-1.0, 1.0) if name in CORRELATIONS else None


def _of_classes(ranks: Int[np.ndarray, "n"], truth: Int[np.ndarray, "n"]) -> dict[str, MeasuredItems]:
    right = (ranks == 1).astype(float)
    return {
        "acc1": MeasuredItems(share(right), len(ranks)),
        "acc5": MeasuredItems(share((ranks <= 5).astype(float)), len(ranks)),
        "mean_per_class_recall": MeasuredItems(class_mean(right, truth), len(ranks), class_strata(truth)),
    }


def _of_retrieval(items: Mapping[str, Any]) -> dict[str, MeasuredItems]:
    """A mean of both directions only where text queries come and go with images: not where equal sentences are merged."""
    by_unit, image_ranks = items["text_query_ranks"], np.array(items["image_query_rank"])
    unit = np.repeat(np.arange(len(by_unit)), [len(ranks) for ranks in by_unit])
    text_ranks = np.concatenate([np.array(ranks) for ranks in by_unit])
    sides = {
        "image_retrieval": (text_ranks, unit, len(by_unit)),
        "text_retrieval": (image_ranks, np.arange(len(image_ranks)), len(image_ranks)),
    }
    measured: dict[str, MeasuredItems] = {}
    means = []
    for name, (ranks, of, num_units) in sides.items():
        recalls = {k: share((ranks <= k).astype(float), unit=of) for k in (*KS, 100)}
        means.append(mean_of(*(recalls[k] for k in KS)))
        measured |= {f"{name}_recall@{k}": MeasuredItems(recall, num_units) for k, recall in recalls.items()}
        measured[f"{name}_mean_recall"] = MeasuredItems(means[-1], num_units)
    if len(by_unit) == len(image_ranks):
        measured["mean_recall"] = MeasuredItems(mean_of(*means), len(image_ranks))
    return measured


def _of_languages(by_lang: Mapping[str, Mapping[str, MeasuredItems]]) -> dict[str, MeasuredItems]:
    """Each language, and the mean over languages: the images are the same in all."""
    names = next(iter(by_lang.values()))
    means = {
        name: MeasuredItems(mean_of(*(each[name].statistic for each in by_lang.values())), names[name].num_units)
        for name in names
    }
    return means | {f"{name}[{lang}]": measured for lang, each in by_lang.items() for name, measured in each.items()}
