"""Windows of one large scene, as images to embed.

A TIFF is read by bands of rows through rasterio, so it need not fit in memory; a JPEG or PNG is decoded whole. Bands and stretch of a
raster are chosen as by `rsvl_data.raster_display`: windows of a scene share one rule.
"""

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from evaluation.data import EvalItem, split_sha256
from evaluation.localization_map import Window
from evaluation.metrics.heat_map_peaks import LocalizationProtocol
from rsvl_data.errors import DataError
from rsvl_data.geo import geo_library
from rsvl_data.raster_display import Display, choose_display

_RASTERS = (".tif", ".tiff")
_MAX_RASTER_PIXELS = 100_000_000_000  # a header can claim any size
_BLOCK_CACHE_MB = 64
AUTHORS_CROP_PX = 256
_KEPT_BANDS = 2  # of rows: threads are at most about one band apart


class Scene(Protocol):
    """`crs` and `transform` are rasterio's; None where the file says nothing about the Earth."""

    height: int
    width: int
    crs: Any
    transform: Any

    def rows(self, top: int, bottom: int) -> UInt8[np.ndarray, "r w 3"]: ...

    def overview(self, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """The whole scene in this many pixels."""


@contextmanager
def open_scene(path: Path) -> Iterator[Scene]:
    """Raises DataError for a file that is no readable image, RsvlError that names the extra for a TIFF without rasterio."""
    if path.suffix.lower() not in _RASTERS:
        yield _Picture(path)
        return
    rasterio = geo_library("rasterio")
    try:
        with rasterio.Env(GDAL_CACHEMAX=_BLOCK_CACHE_MB), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = rasterio.open(path, driver="GTiff")  # other drivers follow links to other files and hosts
    except (rasterio.errors.RasterioError, OSError) as error:
        raise DataError(f"the scene {path} is not readable: {error}") from error
    with dataset:
        yield _Raster(path, dataset)


class _Picture:
    def __init__(self, path: Path):
        self.crs = self.transform = None
        try:
            with warnings.catch_warnings():
                # Above 89 million pixels Pillow warns, above twice as many it refuses: scenes are large, bombs larger.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                self._image = Image.open(path).convert("RGB")
        except Exception as error:  # Pillow's readers raise a dozen types for broken bytes
            raise DataError(f"the scene {path} is not readable: {error}") from error
        self._pixels = np.asarray(self._image)
        self.height, self.width = self._pixels.shape[:2]

    def rows(self, top: int, bottom: int) -> UInt8[np.ndarray, "r w 3"]:
        return self._pixels[top:bottom]

    def overview(self, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        return np.asarray(self._image.resize((width, height), Image.Resampling.BOX, reducing_gap=2))


class _Raster:
    def __init__(self, path: Path, dataset: Any):
        if dataset.width * dataset.height > _MAX_RASTER_PIXELS or np.dtype(dataset.dtypes[0]).kind not in "uif":
            raise DataError(
                f"the scene {path} is {dataset.width} x {dataset.height} of {dataset.dtypes[0]}; "
                f"allowed are real numbers and {_MAX_RASTER_PIXELS:,} pixels"
            )
        self._path, self._dataset = path, dataset
        self.height, self.width = dataset.height, dataset.width
        self.crs = dataset.crs
        self.transform = None if dataset.transform.is_identity else dataset.transform
        self._display = self._tried(lambda: choose_display(dataset))

    def rows(self, top: int, bottom: int) -> UInt8[np.ndarray, "r w 3"]:
        return self._read(window=((top, bottom), (0, self.width)))

    def overview(self, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        return self._read(out_shape=(height, width))

    def _read(self, **how: Any) -> UInt8[np.ndarray, "r w 3"]:
        display: Display = self._display

        def read() -> UInt8[np.ndarray, "r w 3"]:
            shape = {"out_shape": (len(display.bands), *how["out_shape"])} if "out_shape" in how else how
            pixels = self._dataset.read(display.bands, **shape)  # [C, r, w]
            valid = self._dataset.read_masks(display.bands, **shape).any(axis=0) & np.isfinite(pixels).any(axis=0)
            return display.to_rgb(pixels, valid)

        return self._tried(read)

    def _tried(self, work: Any) -> Any:
        rasterio = geo_library("rasterio")
        try:
            with rasterio.Env(GDAL_CACHEMAX=_BLOCK_CACHE_MB):
                return work()
        except (rasterio.errors.RasterioError, OSError) as error:
            raise DataError(f"the scene {self._path} cannot be decoded: {error.__cause__ or error}") from error


class WindowSet:
    """Windows of a scene in the form that `embed_images` takes; they lie in the scene. In the order of rows, each band is read once.

    Crops that are not square are squeezed into a square, so that nothing at their ends is cut off. Under the authors' protocol each crop
    comes by 256 x 256 pixels, enlarged or reduced without smoothing (OpenCV's INTER_CUBIC), whatever the encoder takes; the authors also
    store it as JPEG, which is left out.
    """

    def __init__(self, scene: Scene, name: str, windows: Sequence[Window], protocol: LocalizationProtocol = "rsvl"):
        self.name, self.split, self.note, self.classes = name, "test", None, ()
        self.scene, self.windows, self.protocol = scene, windows, protocol
        self.items = [EvalItem(f"{name}#{'_'.join(map(str, window))}") for window in windows]
        self._bands: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._lock = Lock()  # a raster is one open file

    def image(self, index: int) -> bytes:
        """Uncompressed PPM: encoding costs a copy."""
        window = self.windows[index]
        crop = self._rows(window.top, window.bottom)[:, window.left : window.right]
        if self.protocol != "rsvl":
            crop = cubic_without_smoothing(crop, AUTHORS_CROP_PX)
        elif crop.shape[0] != crop.shape[1]:
            side = max(crop.shape[:2])
            crop = np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize((side, side), Image.Resampling.BICUBIC))
        return b"P6 %d %d 255\n" % (crop.shape[1], crop.shape[0]) + np.ascontiguousarray(crop).tobytes()

    def _rows(self, top: int, bottom: int) -> UInt8[np.ndarray, "r w 3"]:
        with self._lock:
            if (top, bottom) not in self._bands:
                self._bands[top, bottom] = self.scene.rows(top, bottom)
            self._bands.move_to_end((top, bottom))
            while len(self._bands) > _KEPT_BANDS:
                self._bands.popitem(last=False)
            return self._bands[top, bottom]

    def image_sha256(self, index: int) -> str:
        return hashlib.sha256(self.image(index)).hexdigest()

    def sha256(self) -> str:
        return split_sha256(self, map(self.image_sha256, range(len(self.windows))))


def cubic_without_smoothing(crop: UInt8[np.ndarray, "h w 3"], size_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """OpenCV's INTER_CUBIC within a grey level: the same kernel (a = -0.75) in floats."""
    levels = _spread(_spread(crop, size_px, 0), size_px, 1)
    if levels.dtype == np.uint8:
        return levels
    return np.clip(np.rint(levels, out=levels), 0, 255, out=levels).astype(np.uint8)


def _spread(levels: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Rows (axis 0) or columns (1) at even distances: means of the four nearest by Keys' kernel; beyond the border is its outermost.

    A whole, a third and every odd part fall on pixels that are there: a view of these.
    """
    size = levels.shape[axis]
    step, rest = divmod(size, length)
    if step % 2 and not rest:
        return levels[(slice(None),) * axis + (slice(step // 2, None, step),)]
    centres = (np.arange(length) + 0.5) * (size / length) - 0.5
    before = np.floor(centres).astype(int)
    total: np.ndarray | float = 0.0
    for tap in (-1, 0, 1, 2):
        weights = _cubic(centres - before - tap).astype(np.float32)
        part = levels.take(np.clip(before + tap, 0, size - 1), axis).astype(np.float32, copy=False)
        total += np.multiply(part, np.repeat(weights, 3).reshape(-1, 3) if axis else weights[:, None, None], out=part)
    return np.asarray(total)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75 (10.1109/TASSP.1981.1163711, equation 15), within two pixels."""
    x = np.abs(x)
    return np.where(x <= 1, (1.25 * x - 2.25) * x * x + 1, ((-0.75 * x + 3.75) * x - 6) * x + 3)
