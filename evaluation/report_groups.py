"""Which results may stand side by side, which pairs were tested and why others were not, and which numbers a page begins with."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from evaluation.comparison import LEAST_UNITS, Comparison, keeps_items, measured_items
from evaluation.contamination import is_untrained, shows_overlap
from evaluation.result import Metric, Result
from evaluation.wording import HEADLINE, metric_words, model_name
from rsvl_data.errors import DataError
from rsvl_data.shards import write_atomically

NUM_CARDS = 4
MISSING_FILE = "missing.json"


@dataclass(frozen=True)
class Missing:
    """A measurement that was asked for and has no result: a dataset that is not there, a run that failed."""

    task: str
    dataset: str
    protocol: str
    model: str
    state: str  # absent, failed
    reason: str


def save_missing(folder: Path, missing: Sequence[Missing]) -> None:
    """Beside the results of a suite, where `load_missing` finds it."""
    write_atomically(folder / MISSING_FILE, (json.dumps([asdict(each) for each in missing], indent=1) + "\n").encode())


def load_missing(folder: Path) -> list[Missing]:
    """Raises DataError for a file that cannot be read."""
    path = folder / MISSING_FILE
    try:
        return [Missing(**{name: str(value) for name, value in each.items()}) for each in json.loads(path.read_text())]
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no list of missing measurements: {error}. Run `rsvl eval run` again, or remove the file."
        ) from error


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
        facts = {name: value for name, value in self.first.data.items() if name not in ("name", "note") and "sha256" not in name}
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
            (column, contamination_text(result.contamination), shows_overlap(result.contamination))
            for column, result in zip(self.columns, self.results)
            if result.contamination
        ]

    @property
    def overlapping(self) -> list[str]:
        """Models with a known overlap between training and test data."""
        return [column for column, _, found in self.contaminations if found]

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


def contamination_text(contamination: Mapping[str, Any]) -> str:
    if is_untrained(contamination):
        return "none, its weights are untrained"
    if all(value == "unknown" for value in contamination.values()):
        return "not known"
    told = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in contamination.items()}
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())


def grouped(results: Sequence[Result]) -> list[Group]:
    groups: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        key = (result.task, result.dataset, result.split, result.protocol, result.prompts, result.n, _data_facts(result))
        groups[key].append(result)
    return [Group(members) for members in groups.values()]


def _data_facts(result: Result) -> str:
    return json.dumps({name: value for name, value in result.data.items() if name not in ("name", "note")}, sort_keys=True)


def headline(groups: Sequence[Group]) -> tuple[list[tuple[Group, str]], float]:
    """Up to four group-and-metric pairs, one for each known metric, then what else there is; and where their common axis ends."""
    cards = []
    for task, name in HEADLINE:
        cards += [(group, name) for group in groups if group.first.task == task and name in group.metric_names][:1]
    for group in groups:
        shares = [name for name in group.metric_names if metric_words(name).percent]
        known = [name for name in shares if (group.first.task, name) in HEADLINE]
        cards += [(group, name) for name in (known or shares)[:1] if (group, name) not in cards]
    cards = cards[:NUM_CARDS]
    metrics = [metric for group, name in cards for _, metric in group.metric(name) if metric]
    reach = max((value for m in metrics for value in (m.value, m.high, m.chance) if value is not None), default=1.0)
    return cards, next((end for end in (0.1, 0.2, 0.5) if reach <= end), 1.0)


# --- Paired tests ---


@dataclass(frozen=True)
class Tested:
    """The paired tests on one set of items, and the metrics that both models have but whose items tell nothing."""

    comparisons: list[Comparison]
    untested: list[str]

    @property
    def first(self) -> Comparison:
        return self.comparisons[0]


def tested(comparisons: Sequence[Comparison], results: Sequence[Result]) -> list[Tested]:
    """Comparisons by what they were measured on."""
    by_items: dict[tuple[str, ...], list[Comparison]] = defaultdict(list)
    for each in comparisons:
        by_items[each.task, each.dataset, each.split, each.protocol].append(each)
    return [Tested(members, _untested(key, members, results)) for key, members in by_items.items()]


def _untested(key: tuple[str, ...], comparisons: Sequence[Comparison], results: Sequence[Result]) -> list[str]:
    there = [result for result in results if (result.task, result.dataset, result.split, result.protocol) == key]
    names = dict.fromkeys(name for result in there for name in result.metrics)
    return [name for name in names if name not in {each.metric for each in comparisons}]


def untested_pairs(results: Sequence[Result], comparisons: Sequence[Comparison]) -> list[tuple[str, str, str, str]]:
    """Pairs of models on one task and dataset for which there is no test: task, dataset, both models, and why."""
    paired = {_pair_id(each.task, each.dataset, each.first, each.second) for each in comparisons}
    told = []
    for one, other in combinations(results, 2):
        same = (one.task, one.dataset) == (other.task, other.dataset) and one.model != other.model
        if same and _pair_id(one.task, one.dataset, one.model, other.model) not in paired:
            reason = "; ".join(_why_not_paired(one, other))
            told.append((one.task, one.dataset, f"{model_name(one)} and {model_name(other)}", reason))
    return list(dict.fromkeys(told))


def _pair_id(task: str, dataset: str, *models: Mapping[str, Any]) -> tuple[Any, ...]:
    return task, dataset, frozenset(json.dumps(model, sort_keys=True) for model in models)


def _why_not_paired(one: Result, other: Result) -> Iterator[str]:
    for name in ("split", "protocol", "prompts", "n"):
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours != theirs:
            yield f"{name} {ours or 'not recorded'} against {theirs or 'not recorded'}"
    if one.data.get("sha256") != other.data.get("sha256"):
        yield "not the same data: their checksums differ"
    elif _data_facts(one) != _data_facts(other):
        yield "other texts or images took part"
    if without := [model_name(result) for result in (one, other) if "items" not in result.details]:
        yield f"no item-by-item record of {' and '.join(without)}"
    elif old := [model_name(result) for result in (one, other) if not keeps_items(result)]:
        yield f"the item-by-item record of {' and '.join(old)} is of another version: measure again"
    elif not any(each.can_be_resampled for each in measured_items(one).values()):
        yield f"too few items: less than {LEAST_UNITS} cannot tell two models apart"
