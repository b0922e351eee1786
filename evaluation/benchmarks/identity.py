"""Which model was measured on which data, and how the images came to it: the parts of a Result that let a reader repeat it."""

from typing import Any

from evaluation.bootstrap import LEAST_UNITS, Interval
from evaluation.data import EvalSet
from evaluation.embed import Encoder, EvalPrecision
from evaluation.result import Metric
from rsvl_data.transforms import Engine, Preprocess
from rsvl_data.version import code_version


def origin(encoder: Encoder, data: EvalSet, engine: Engine, precision: EvalPrecision, **facts: Any) -> dict[str, Any]:
    """The fields of a Result that say where it comes from; `facts` about the data that took part are added to `data`."""
    return {
        "dataset": data.name,
        "split": data.split,
        "model": {"name": encoder.name, "sha256": encoder.weights_sha256()},
        "data": {"name": data.name, "note": data.note, "sha256": data.sha256(), **facts},
        "preprocessing": preprocessing_text(encoder.preprocess, engine, precision),
        "code": code_version(),
    }


def preprocessing_text(preprocess: Preprocess, engine: Engine, precision: EvalPrecision) -> str:
    """All that changes a pixel or its rounding: `224 px, shortest, bicubic, mean 0.5 0.5 0.5, std ..., decoded exact, fp32`."""
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (preprocess.mean, preprocess.std))
    view = f"{preprocess.size} px, {preprocess.resize_mode}, {preprocess.interpolation}"
    return f"{view}, mean {mean}, std {std}, decoded {engine}, {precision}"


def as_metric(
    interval: Interval, chance: float | None = None, *, higher_is_better: bool = True, num_units: int | None = None
) -> Metric:
    """`num_units` is given for what is no plain share: of fewer than LEAST_UNITS a bootstrap knows too little, so there is no interval.

    What guessing always gets right, such as five guesses at four classes, is certain, however few the items.
    """
    if num_units is not None and num_units < LEAST_UNITS:
        return Metric(interval.value, chance=chance, higher_is_better=higher_is_better)
    if chance == interval.value == 1 and higher_is_better:
        return Metric(1.0, 1.0, 1.0, chance)
    return Metric(interval.value, interval.low, interval.high, chance, higher_is_better)
