"""Predictions that lie as files: KEY.png for every key of a set, or one JSON file of COCO run lengths by key."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rsvl_data.boxes import BadGeometry, segmentation_mask
from rsvl_data.errors import DataError
from rsvl_data.mask_files import BadMask, raw_pixels


@dataclass(frozen=True)
class PredictedMasks:
    """`path` is a folder of PNG files, or a JSON file {key: {"size": [height, width], "counts": ...}} for masks of one class."""

    path: Path

    def check(self, keys: Iterable[str]) -> None:
        """Raises DataError if one of the keys has no prediction: a part of a split is another split."""
        keys = list(keys)
        there = {path.stem for path in self.path.glob("*.png")} if self.path.is_dir() else set(self._runs)
        missing = [key for key in keys if key not in there]
        if missing:
            raise DataError(
                f"{self.path} lacks predictions for {len(missing):,} of {len(keys):,} items, such as {', '.join(missing[:3])}. "
                "Expected KEY.png for every key, or a JSON file of run lengths by key"
            )

    def ids(self, key: str, height: int, width: int) -> np.ndarray:
        """Class ids [height, width]. Raises DataError."""
        path = self.path / f"{key}.png"
        try:
            pixels = raw_pixels(path.read_bytes(), (width, height))
        except (BadMask, OSError) as error:
            raise DataError(f"prediction {path}: {error}") from error
        if pixels.ndim == 3 or pixels.dtype.kind == "f":
            raise DataError(f"prediction {path} holds colours or fractions; expected one channel of class ids")
        return pixels.astype(np.int64)

    def binary(self, key: str, height: int, width: int) -> np.ndarray:
        """bool [height, width]. Raises DataError, also for a file of more values than 0 and one other: where to cut is not ours to say."""
        if not self.path.is_dir():
            try:
                return segmentation_mask(self._runs[key], width, height)
            except BadGeometry as error:
                raise DataError(f"{self.path}, {key}: {error}") from error
        ids = self.ids(key, height, width)
        values = np.unique(ids[ids != 0])
        if len(values) > 1:
            raise DataError(
                f"prediction {self.path / key}.png holds {len(values) + 1} values; expected 0 and one other: threshold it"
            )
        return np.asarray(ids != 0)

    def sha256(self, keys: Iterable[str]) -> str:
        """Of the files of these keys in order, or of the JSON file."""
        if not self.path.is_dir():
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        digest = hashlib.sha256()
        for key in keys:
            digest.update(hashlib.sha256((self.path / f"{key}.png").read_bytes()).digest())
        return digest.hexdigest()

    @cached_property
    def _runs(self) -> dict[str, Any]:
        try:
            runs = json.loads(self.path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path} is neither a folder of predictions nor a JSON file of them: {error}") from error
        if not isinstance(runs, dict):
            raise DataError(f"{self.path} holds no run lengths by key")
        return runs
