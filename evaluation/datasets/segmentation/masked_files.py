"""Images with masks of classes, as the files of a public dataset hold them, ready to be measured: ids 0 to K - 1 and one ignored id."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from PIL import Image

from evaluation.data import EvalItem, EvalSet, FileSet, file_sha256, split_sha256
from evaluation.datasets.segmentation.tiles import Window, cut
from rsvl_data.errors import DataError
from rsvl_data.images import READABLE_FORMATS
from rsvl_data.mask_files import BadMask, Legend, read_mask

IGNORED = 255


class SegmentationSet(EvalSet, Protocol):
    """An EvalSet whose images have masks. `classes[i]` is what id i means.

    synonyms       phrases for each class, one at least: what an open-vocabulary protocol asks for; the class names where none is published
    ignore_index   id of the pixels that no metric counts
    """

    @property
    def synonyms(self) -> tuple[tuple[str, ...], ...]: ...
    @property
    def ignore_index(self) -> int: ...

    def mask(self, index: int) -> np.ndarray:
        """uint8 [h, w], of the size of `image(index)`. Raises DataError naming a file that cannot be used."""


@dataclass(frozen=True)
class Labels:
    """How the ids of stored masks become classes. A stored class that is no class here is another one's (`merged`) or ignored."""

    legend: Legend
    classes: tuple[str, ...]
    merged: tuple[tuple[str, str], ...] = ()  # stored class -> class
    ignored: tuple[str, ...] = ()  # stored classes that are not counted

    def table(self) -> np.ndarray:
        """uint8 [256]: id in the file -> id of the class. Raises DataError for a stored class that nothing is said about."""
        table = np.full(256, IGNORED, np.uint8)
        merged = dict(self.merged)
        for index, name in enumerate(self.legend.classes):
            name = merged.get(name, name)
            if name in self.classes:
                table[index] = self.classes.index(name)
            elif name not in self.ignored and index != self.legend.ignore_index:
                raise DataError(f"the masks hold {name!r}, which is no class of {', '.join(self.classes)}")
        return table


@dataclass(frozen=True)
class Pair:
    """An image and its mask, relative to the root; the whole of it or one window."""

    key: str
    image: Path
    mask: Path
    window: Window | None = None


@dataclass(frozen=True)
class MaskedFiles:
    """A SegmentationSet of files. Tiles are cut in memory and handed out as PNG."""

    name: str
    split: str
    labels: Labels
    synonyms: tuple[tuple[str, ...], ...]
    root: Path
    pairs: Sequence[Pair]
    note: str | None = None
    ignore_index: int = IGNORED

    def __post_init__(self) -> None:
        self._files  # noqa: B018  # checks keys
        self._table  # noqa: B018  # checks classes

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.classes

    @cached_property
    def items(self) -> Sequence[EvalItem]:
        return [EvalItem(pair.key) for pair in self.pairs]

    @cached_property
    def _files(self) -> FileSet:
        return FileSet(self.name, self.split, self.classes, self.items, self.root, [pair.image for pair in self.pairs], self.note)

    @cached_property
    def _table(self) -> np.ndarray:
        return self.labels.table()

    def image(self, index: int) -> bytes:
        pair = self.pairs[index]
        if pair.window is None:
            return self._files.image(index)
        out = io.BytesIO()
        Image.fromarray(cut(self._pixels(index), pair.window, fill=0)).save(out, "PNG", compress_level=1)
        return out.getvalue()

    def mask(self, index: int) -> np.ndarray:
        pair = self.pairs[index]
        ids = self._opened("mask", index)
        return ids if pair.window is None else cut(ids, pair.window, fill=IGNORED)

    def image_sha256(self, index: int) -> str:
        """Of a tile: of the whole image's and the window, so that no tile is coded to be named."""
        whole, window = self._files.image_sha256(index), self.pairs[index].window
        return whole if window is None else f"{whole}-{'-'.join(map(str, window))}"

    def sha256(self) -> str:
        """Of keys, classes, images and masks."""
        return split_sha256(self, (f"{self.image_sha256(i)} {self._mask_sha256(pair.mask)}" for i, pair in enumerate(self.pairs)))

    def _mask_sha256(self, path: Path) -> str:
        try:
            return file_sha256(self.root / path)
        except OSError as error:
            raise DataError(f"{self.name}: {path} cannot be read: {error}") from error

    @cached_property
    def _last(self) -> dict[str, tuple[Path, np.ndarray]]:
        return {}

    @cached_property
    def _lock(self) -> Lock:
        return Lock()

    def _pixels(self, index: int) -> np.ndarray:
        return self._opened("image", index)

    def _opened(self, kind: str, index: int) -> np.ndarray:
        """The whole image or mask. The last one is kept while its tiles are asked for."""
        pair = self.pairs[index]
        path = pair.image if kind == "image" else pair.mask
        if pair.window is None:
            return self._read_mask(index)
        with self._lock:
            if kind not in self._last or self._last[kind][0] != path:
                self._last[kind] = (path, self._decode(index) if kind == "image" else self._read_mask(index))
            return self._last[kind][1]

    def _decode(self, index: int) -> np.ndarray:
        with open_image(self._files.image(index), str(self.pairs[index].image)) as image:
            return np.asarray(image.convert("RGB"))

    def _read_mask(self, index: int) -> np.ndarray:
        pair = self.pairs[index]
        with open_image(self._files.image(index), str(pair.image)) as image:
            size = image.size
        try:
            return self._table[read_mask((self.root / pair.mask).read_bytes(), self.labels.legend, size)]
        except (BadMask, OSError) as error:
            raise DataError(f"{self.name}: mask {self.root / pair.mask} of image {pair.key}: {error}") from error


def open_image(content: bytes, where: str) -> Image.Image:
    """Decodes nothing yet. Raises DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata; sizes above Pillow's limit are errors
            return Image.open(io.BytesIO(content), formats=READABLE_FORMATS)
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        raise DataError(f"{where} is no image that can be read: {error}") from error
