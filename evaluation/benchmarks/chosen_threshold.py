"""The threshold below which a pixel is background: chosen on one split, reported on another, under one and the same setting."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evaluation.datasets.segmentation.masked_files import SegmentationSet
from rsvl_data.errors import DataError, OptionError
from rsvl_data.shards import write_atomically


def may_choose_on(split: str) -> bool:
    """val and train, by whatever ending: `validation`, `train2017`. Not test, and not `all`, which may hold it."""
    name = split.lower()
    return name.startswith(("val", "train")) and "test" not in name


def image_mark(key: str, image: bytes) -> str:
    """Key and bytes together: val and test of a set may use one key twice, and both may hold an image without anything on it."""
    return hashlib.sha256(key.encode() + b"\0" + image).hexdigest()[:16]


@dataclass(frozen=True)
class ChosenThreshold:
    """A threshold, what it was chosen on and for: read by the run that is reported.

    made_for   all that the best threshold depends on: weights, dataset, protocol, prompts, phrases, and the options of the segmenter
    images     the `image_mark` of each image it was chosen on
    miou       by threshold, on those images
    """

    threshold: float
    background: str
    split: str
    data_sha256: str
    made_for: dict[str, Any]
    images: Sequence[str]
    miou: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        write_atomically(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "ChosenThreshold":
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"{path} holds no chosen threshold: {error}. Make one with --choose-threshold on val.") from error

    def check(self, data: SegmentationSet, measured_with: Mapping[str, Any]) -> None:
        """Raises OptionError for a split that was chosen on, or may hold it, and for another setting than it was made for."""
        if data.split in (self.split, "all") or data.sha256() == self.data_sha256:
            raise OptionError(
                f"the threshold was chosen on split {self.split!r} of {self.made_for.get('dataset')}, which is in what is measured here "
                f"({data.split!r}). Choose on val, report on test."
            )
        names = dict.fromkeys([*self.made_for, *measured_with])
        pairs = {name: (self.made_for.get(name), measured_with.get(name)) for name in names}
        if what := ", ".join(f"{name}: {theirs} and {ours}" for name, (theirs, ours) in pairs.items() if theirs != ours):
            raise OptionError(f"the threshold was chosen for something else ({what}). Choose it again with --choose-threshold.")

    def check_image(self, key: str, mark: str) -> None:
        """Raises OptionError for an image that the threshold was chosen on, whatever its split is called."""
        if mark in self.images:
            raise OptionError(
                f"the threshold was chosen on {len(self.images):,} images, and image {key} of what is measured is one of them. "
                "Choose on other images than those reported."
            )
