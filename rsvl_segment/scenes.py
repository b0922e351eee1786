"""Pictures that rows are read from: an image in memory, or a GeoTIFF of any size, with what its mask must take over."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from rsvl_data.errors import DataError
from rsvl_data.geo import geo_library
from rsvl_data.raster_display import Display, choose_display

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BLOCK_CACHE_MB = 256  # two bands of windows of a scene of 10,000 columns; GDAL would take 5 % of the memory


@dataclass(frozen=True)
class Pixels:
    """An image in memory."""

    pixels: UInt8[np.ndarray, "h w 3"]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def rows(self, start: int, stop: int) -> UInt8[Tensor, "3 n w"]:
        return torch.from_numpy(np.ascontiguousarray(self.pixels[start:stop].transpose(2, 0, 1)))

    def valid(self, start: int, stop: int) -> Bool[np.ndarray, "n w"]:
        return np.ones((stop - start, self.width), bool)

    @property
    def place(self) -> dict[str, Any]:
        return {}

    @classmethod
    def decode(cls, content: bytes, name: str) -> "Pixels":
        """As stored: alpha is dropped, palettes become colours, EXIF orientation is ignored, so that a mask fits the file.

        Raises DataError for bytes that are no image.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(content)) as image:
                    return cls(np.asarray(image.convert("RGB")))
        except Exception as error:  # a decoder fed with damaged bytes may raise anything
            raise DataError(f"{name} is not a readable image: {error}. Give a GeoTIFF, PNG, JPEG or WebP file.") from error


@dataclass(frozen=True)
class GeoTiff:
    """An open scene. Bands and stretch as everywhere (rsvl_data/raster_display.py)."""

    scene: Any
    display: Display
    path: Path

    @property
    def height(self) -> int:
        return self.scene.height

    @property
    def width(self) -> int:
        return self.scene.width

    def rows(self, start: int, stop: int) -> UInt8[Tensor, "3 n w"]:
        """Raises DataError for a file whose blocks are damaged."""
        pixels = self._read(self.scene.read, start, stop)
        rgb = self.display.to_rgb(pixels, self.valid(start, stop))
        return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))

    def valid(self, start: int, stop: int) -> Bool[np.ndarray, "n w"]:
        """Where the scene says that it has data."""
        return np.any(self._read(self.scene.read_masks, start, stop), axis=0)

    def _read(self, read: Any, start: int, stop: int) -> np.ndarray:
        try:
            return read(self.display.bands, window=((start, stop), (0, self.scene.width)))
        except geo_library("rasterio").errors.RasterioError as error:
            raise DataError(f"{self.path}: rows {start} to {stop} cannot be read: {error.__cause__ or error}") from error

    @property
    def place(self) -> dict[str, Any]:
        """`crs` and `transform`, or `gcps` with the crs they are in; nothing for a scene without a place on the map."""
        points, crs_of_points = self.scene.gcps
        if points:
            return {"gcps": points, "crs": crs_of_points}
        found = {"crs": self.scene.crs} if self.scene.crs is not None else {}
        return found if self.scene.transform.is_identity else {**found, "transform": self.scene.transform}


@contextmanager
def open_picture(path: Path) -> Iterator[Pixels | GeoTiff]:
    """Raises DataError for a file that is absent or no image, RsvlError naming the extra for a TIFF without rasterio."""
    try:
        with path.open("rb") as file:
            is_tiff = file.read(4) in _TIFF_MAGIC
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not is_tiff:
        yield Pixels.decode(path.read_bytes(), str(path))
        return
    rasterio = geo_library("rasterio")
    with rasterio.Env(GDAL_CACHEMAX=_BLOCK_CACHE_MB), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            scene = rasterio.open(path, driver="GTiff")  # other drivers follow links to other files and hosts
            display = choose_display(scene)
        except (rasterio.errors.RasterioError, ValueError) as error:
            raise DataError(f"{path} is not a readable GeoTIFF: {error}") from error
        with scene:
            yield GeoTiff(scene, display, path)
