"""The one record every benchmark answers with and every table, card and page is made from."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError


@dataclass(frozen=True)
class Metric:
    """A fraction, unrounded, with the ends of its 95 % bootstrap interval and what guessing would give."""

    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    higher_is_better: bool = True


@dataclass(frozen=True)
class Result:
    """One task, one model, one split of one dataset, under one protocol.

    `details` holds what a reader looks at but no table sums up:
      confusion  {"classes": [name], "counts": [[int]]}, rows are the truth
      gallery    [{"direction": "text_to_image", "query": text, "query_key": key or null,
                   "right": [key], "found": [{"key": key, "text": text or null, "score": float, "right": bool}]}]
      gallery_pictures  {key: base64 of a small square WebP}, the images that the gallery shows
      items      item by item what the metrics were computed from: what a paired comparison of two models needs
    """

    task: str  # zero_shot, retrieval, ...
    dataset: str
    split: str
    protocol: str
    n: int
    metrics: dict[str, Metric]
    model: dict[str, Any]  # name, sha256
    data: dict[str, Any]  # sha256, note: a sentence that must stand beside every number, or null
    code: str
    seconds: float
    per_class: dict[str, float] = field(default_factory=dict)
    prompts: str | None = None
    preprocessing: str | None = None
    contamination: dict[str, Any] | None = None
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)  # what else changes a number or its interval, where a runner keeps it
    details: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Written aside, then renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".tmp")
        aside.write_text(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Result":
        try:
            fields = json.loads(path.read_text())
            metrics = {name: Metric(**metric) for name, metric in fields.pop("metrics").items()}
            return cls(metrics=metrics, **fields)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise DataError(f"{path} is not a result file: {error}. Results are written by `rsvl eval ...`.") from error
