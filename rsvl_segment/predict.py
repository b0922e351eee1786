"""One picture of any size to a mask file, and to a picture of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rsvl_data.shards import write_atomically
from rsvl_segment.mask_writer import open_mask
from rsvl_segment.overlay import OVERLAY_PX, overlay_png
from rsvl_segment.postprocess import NO_CLASS
from rsvl_segment.resample import resized_rows
from rsvl_segment.scenes import GeoTiff, Pixels
from rsvl_segment.segmenter import Segmenter

Progress = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True)
class Predicted:
    """`shares` are the fractions of pixels by class name, those without a class left out; they add up to 1 - `without_class`."""

    height: int
    width: int
    shares: dict[str, float]
    without_class: float


def predict(
    segmenter: Segmenter,
    picture: Pixels | GeoTiff,
    out: Path,
    *,
    overlay: Path | None = None,
    tags: dict[str, str] | None = None,
    progress: Progress = lambda done, total: None,
) -> Predicted:
    """Segment band after band and write each as it comes. Pixels where the scene has no data get no class (255)."""
    height, width = picture.height, picture.width
    counts = np.zeros(256, np.int64)
    step = -(-max(height, width) // OVERLAY_PX)
    small = np.full((-(-height // step), -(-width // step)), NO_CLASS, np.uint8)
    with open_mask(out, (height, width), segmenter.classes, place=picture.place, tags=tags or {}) as mask:
        for band in segmenter.bands([picture]):
            end = band.row + len(band.classes)
            ids = np.where(picture.valid(band.row, end), band.classes.numpy(), np.uint8(NO_CLASS))
            mask.write(band.row, ids)
            counts += np.bincount(ids.ravel(), minlength=256)
            small[-(-band.row // step) : -(-end // step)] = ids[-band.row % step :: step, ::step]
            progress(end, height)
    shares = {name: float(counts[index] / counts.sum()) for index, name in enumerate(segmenter.classes.names)}
    if overlay is not None:
        write_atomically(overlay, overlay_png(_thumbnail(picture, small.shape), small, segmenter.classes, shares))
    return Predicted(height, width, shares, float(counts[NO_CLASS] / counts.sum()))


def _thumbnail(picture: Pixels | GeoTiff, size: tuple[int, ...]) -> np.ndarray:
    own, (height, width) = (picture.height, picture.width), size
    parts = resized_rows(picture.rows, own, (height, width), (0, height), antialias=True)
    rows = torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts], 1)
    return rows.permute(1, 2, 0).numpy()
