"""Class maps to files, band after band: a GeoTIFF that lies where its scene lies, or a PNG with a palette."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rsvl_data.errors import OptionError
from rsvl_data.geo import geo_library
from rsvl_segment.classes import Classes
from rsvl_segment.postprocess import NO_CLASS

MASK_SUFFIXES = (".tif", ".tiff", ".png")
_TILE_PX = 256


class MaskWriter(Protocol):
    def write(self, row: int, ids: UInt8[np.ndarray, "n w"]) -> None: ...


@contextmanager
def open_mask(
    path: Path, size: tuple[int, int], classes: Classes, *, place: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[MaskWriter]:
    """Write rows from above; the file takes its name when the block ends without an error, and else there is none.

    `size` is height, width. Ids have the classes' palette; 255 is no class, and nodata in a GeoTIFF. `place` is that of a
    `rsvl_segment.scenes.GeoTiff`; class names are in the tag CLASSES, a JSON list. Raises OptionError for another suffix.
    """
    check_mask_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    make = _png if path.suffix.lower() == ".png" else _geotiff
    try:
        with make(aside, size, classes, place, {**tags, "CLASSES": json.dumps(classes.names)}) as writer:
            yield writer
        aside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


def check_mask_path(path: Path) -> None:
    if path.suffix.lower() not in MASK_SUFFIXES:
        raise OptionError(f"a mask is written as {', '.join(MASK_SUFFIXES)}; got {path.name}")


@contextmanager
def _geotiff(
    path: Path, size: tuple[int, int], classes: Classes, place: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[MaskWriter]:
    rasterio = geo_library("rasterio")
    profile = {
        "driver": "GTiff", "height": size[0], "width": size[1], "count": 1, "dtype": "uint8", "nodata": NO_CLASS,
        "tiled": True, "blockxsize": _TILE_PX, "blockysize": _TILE_PX, "compress": "lzw", "bigtiff": "if_safer",
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, **place) as file:
            file.write_colormap(1, {index: (*colour, 255) for index, colour in enumerate(classes.palette())})
            file.update_tags(**tags)
            writer = _TileRows(file, size[1])
            yield writer
            writer.flush()


class _TileRows:
    """Rows are kept until a row of tiles is full: a tile that is written twice is compressed twice, and lies in the file twice."""

    def __init__(self, file: Any, width: int):
        self._file, self._rows, self._top = file, np.empty((0, width), np.uint8), 0

    def write(self, row: int, ids: UInt8[np.ndarray, "n w"]) -> None:
        self._rows = np.concatenate([self._rows, ids])
        self._put(len(self._rows) // _TILE_PX * _TILE_PX)

    def flush(self) -> None:
        self._put(len(self._rows))

    def _put(self, count: int) -> None:
        if count:
            window = ((self._top, self._top + count), (0, self._rows.shape[1]))
            self._file.write(self._rows[:count], 1, window=window)
            self._rows, self._top = self._rows[count:], self._top + count


@contextmanager
def _png(
    path: Path, size: tuple[int, int], classes: Classes, place: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[MaskWriter]:
    """Held in memory, a byte a pixel, and written at the end."""
    whole = _WholeMask(np.full(size, NO_CLASS, np.uint8))
    yield whole
    image = Image.fromarray(whole.ids)
    colours = [value for colour in classes.palette() for value in colour]
    image.putpalette(
        colours + [0] * (768 - len(colours))
    )  # all 256: with fewer Pillow stores fewer bits, and 255 becomes a class
    info = PngInfo()
    for name, text in tags.items():
        info.add_itxt(name, text)
    image.save(path, "PNG", pnginfo=info)


class _WholeMask:
    def __init__(self, ids: UInt8[np.ndarray, "h w"]):
        self.ids = ids

    def write(self, row: int, ids: UInt8[np.ndarray, "n w"]) -> None:
        self.ids[row : row + len(ids)] = ids
