"""Predicted quality of segmentation results against the true one, from a table of scores."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from evaluation.benchmarks.identity import as_metric
from evaluation.bootstrap import intervals
from evaluation.metrics.quality import CORRELATIONS, RAW_SCORES, quality_scores, recommendation, score_statistic
from evaluation.result import Metric, Result
from rsvl_data.errors import DataError
from rsvl_data.shards import file_sha256
from rsvl_data.table_rows import Fault, column_names, read_rows
from rsvl_data.version import code_version

_LESS_IS_BETTER = ("rmse", "mae", "rmse_fitted", "regret")


@dataclass(frozen=True)
class ScoreTable:
    """Rows of predicted and true quality; `images` and `methods` are empty without the columns."""

    predicted: np.ndarray
    true: np.ndarray
    images: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def truth_sha256(self) -> str:
        """Of all but the predictions: tables of two models over the same rows have the same."""
        return hashlib.sha256(json.dumps([self.true.tolist(), self.images, self.methods]).encode()).hexdigest()

    def grid(self) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
        """[images, methods] of both, and the methods; None unless every image has every method once and there are two methods."""
        images, methods = list(dict.fromkeys(self.images)), list(dict.fromkeys(self.methods))
        cells = set(zip(self.images, self.methods))
        if len(methods) < 2 or not len(cells) == len(self.true) == len(images) * len(methods):
            return None
        order = np.lexsort(([methods.index(name) for name in self.methods], [images.index(name) for name in self.images]))
        shape = (len(images), len(methods))
        return self.predicted[order].reshape(shape), self.true[order].reshape(shape), methods


def read_scores(path: Path) -> ScoreTable:
    """CSV or Parquet with the columns predicted and true, and image and method where there are several. Raises DataError naming a row."""
    names = set(column_names(path))
    if not {"predicted", "true"} <= names:
        raise DataError(
            f"{path} has columns {', '.join(sorted(names))[:200]}; expected predicted and true, and maybe image, method"
        )
    columns: dict[str, list[Any]] = {name: [] for name in ("predicted", "true", "image", "method") if name in names}
    for number, row in read_rows(path, only=set(columns)):
        if isinstance(row, Fault):
            raise DataError(f"{path}: {row.detail}")
        for name, values in columns.items():
            values.append(
                _number(row.get(name), f"{path}, row {number}, {name}") if name in ("predicted", "true") else str(row[name])
            )
    if len(columns["true"]) < 2:
        raise DataError(f"{path} has {len(columns['true'])} rows; a correlation needs at least two")
    predicted, true = np.array(columns["predicted"]), np.array(columns["true"])
    return ScoreTable(predicted, true, tuple(columns.get("image", ())), tuple(columns.get("method", ())))


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"{where}: {value!r} is not a finite number")
    return number


def quality(path: Path, *, dataset: str | None = None, num_bootstrap: int = 1000, seed: int = 0) -> Result:
    """plcc, srocc, krocc, rmse, mae pooled over all rows, plcc and rmse after a logistic fit.

    With the columns image and method also `mean_method_srocc` and `mean_method_plcc`, means over methods (`per_class` holds the srocc
    of each), and what choosing a method by its prediction gives (`recommendation`). Pooled numbers mix the differences between methods in
    and look better. Intervals resample images, or rows without that column, if there are six or more; fitted values have none, since a
    thousand fits are slow.
    `dataset` names what was scored; None is the file's name. Tables of two models with the same images, methods and true values can be
    compared under one such name. A value that does not exist (a constant prediction) is left out and named in `data["undefined"]`.
    Raises DataError.
    """
    began = time.perf_counter()
    table = read_scores(path)
    scores = quality_scores(table.predicted, table.true)
    unit = np.unique(table.images, return_inverse=True)[1] if table.images else np.arange(len(table.true))
    metrics = _raw_metrics(table, [name for name in RAW_SCORES if not np.isnan(scores[name])], unit, num_bootstrap, seed)
    more, per_method = _by_method(table)
    more |= {name: scores[name] for name in ("plcc_fitted", "rmse_fitted")}
    metrics |= {name: Metric(v, higher_is_better=name not in _LESS_IS_BETTER) for name, v in more.items() if not np.isnan(v)}
    undefined = sorted({name for name, value in (scores | more).items() if np.isnan(value)})
    return Result(
        task="quality",
        dataset=dataset or path.stem,
        split="all",
        protocol="rsvl",
        n=len(table.true),
        metrics=metrics,
        model={"name": path.name, "sha256": file_sha256(path)},
        data={"name": dataset or path.stem, "note": None, "sha256": table.truth_sha256(), "undefined": undefined},
        code=code_version(),
        seconds=time.perf_counter() - began,
        per_class=per_method,
        seed=seed,
        details={"items": {"predicted": table.predicted.tolist(), "true": table.true.tolist(), "unit": unit.tolist()}},
    )


def _raw_metrics(
    table: ScoreTable, names: Sequence[str], unit: Int[np.ndarray, "n"], num_bootstrap: int, seed: int
) -> dict[str, Metric]:
    """An error that is the same in every row has no interval: how large others can be is not known."""
    num_units = int(unit.max()) + 1
    metrics = {}
    for name in names:
        bounds = (-1.0, 1.0) if name in CORRELATIONS else None
        statistic = {name: score_statistic(name, table.predicted, table.true, unit)}
        found = intervals(statistic, num_units, num_bootstrap=num_bootstrap, seed=seed, bounds=bounds)[name]
        has_interval = num_units if found.low < found.high else 0
        metrics[name] = as_metric(found, higher_is_better=name not in _LESS_IS_BETTER, num_units=has_interval)
    return metrics


def _by_method(table: ScoreTable) -> tuple[dict[str, float], dict[str, float]]:
    grid = table.grid()
    if grid is None:
        return {}, {}
    predicted, true, methods = grid
    each = (
        {name: quality_scores(predicted[:, index], true[:, index]) for index, name in enumerate(methods)} if len(true) > 1 else {}
    )
    chosen = recommendation(predicted, true) if len(true) > 1 else {}
    chosen.pop("best_single_method", None)
    for kind in ("srocc", "plcc") if each else ():
        chosen[f"mean_method_{kind}"] = float(np.mean([scores[kind] for scores in each.values()]))
    return chosen, {name: scores["srocc"] for name, scores in each.items() if not np.isnan(scores["srocc"])}
