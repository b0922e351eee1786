"""GeoTIFF scenes: a file, or all .tif and .tiff files below a folder. Large scenes become tiles that know where they lie.

A tile is read by its window, so memory follows the tile and not the scene. Edge tiles move inwards and keep the full size; a scene
smaller than a tile is one tile of its own size. An entry's id is PATH#ROW,COLUMN of its upper left pixel: to keep the tiles of a
scene in one split, group by the part before the last #.

Easy to get wrong: a transform without a CRS says nothing about the Earth; ground control points and RPCs are no transform and are not
used; TIFFTAG_DATETIME is, strictly, when the file was made, so it counts only where no tag says when the picture was taken.
What the file does not say is absent. A GeoTIFF has no caption: one sentence of its known facts is made by rule.
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rsvl_data.errors import OptionError
from rsvl_data.geo import Window, geo_library, raster_facts, season
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.raster_display import Display, Stretch, choose_display
from rsvl_data.sample import Sample
from rsvl_data.sources.base import Entry, make_sample
from rsvl_data.stage import Dropped, Outcome

EXPECTS = "a GeoTIFF (.tif, .tiff) or a folder of them"
_SUFFIXES = (".tif", ".tiff")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PIXELS = 100_000_000_000  # of a scene; a header can claim any size
_MAX_BLOCK_BYTES = 512_000_000  # GDAL holds whole blocks: a file that is one huge strip cannot be read in small windows
_BLOCK_CACHE_MB = 64

# Upper-case names of tags in use: GDAL's IMAGERY domain, Landsat's MTL, SNAP and Sentinel exports, STAC-like writers.
_TIME_TAGS = (
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATETIME",
    "DATATAKE_1_DATATAKE_SENSING_START",
    "SENSING_TIME",
    "PRODUCT_START_TIME",
    "ACQUISITION_DATE",
    "ACQUISITIONDATE",
    "DATE_ACQUIRED",
    "ACQUIRED",
    "TIFFTAG_DATETIME",
)
_SATELLITE_TAGS = ("SATELLITEID", "SATELLITE", "SPACECRAFT_ID", "SPACECRAFT_NAME", "DATATAKE_1_SPACECRAFT_NAME")
_SENSOR_TAGS = ("SENSOR_ID", "SENSOR", "SENSOR_NAME", "INSTRUMENT", "INSTRUMENTS")


def find(path: Path) -> Path | None:
    """The file or the folder itself."""
    if path.is_file():
        return path if path.suffix.lower() in _SUFFIXES else None
    return path if next(_rasters(path), None) else None


def open(path: Path, name: str, image_form: ImageForm, **options: Any) -> "GeoTiffs":
    """`options` are those of GeoTiffs from `tile_px` on."""
    return GeoTiffs(name, path, image_form, **options)


@dataclass(frozen=True)
class GeoTiffs:
    """`path` is a file or a folder.

    min_valid   least share of a tile that is not nodata; tiles with less are dropped as "nodata"
    bands       one or three band numbers from 1 to show; None lets the names of the bands decide
    stretch     auto, minmax, percentile, percentile:LOW-HIGH or divide:VALUE
    """

    name: str
    path: Path
    image_form: ImageForm = DEFAULT_FORM
    tile_px: int = 512
    overlap_px: int = 0
    min_valid: float = 0.5
    bands: tuple[int, ...] | None = None
    stretch: str = "auto"
    note: str | None = None
    mask: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not 16 <= self.tile_px <= 8192 or not 0 <= self.overlap_px < self.tile_px:
            raise OptionError(
                f"tile_px {self.tile_px} with overlap_px {self.overlap_px}; "
                "allowed are tiles of 16 to 8192 pixels and an overlap from 0 to less than a tile"
            )
        if not 0 <= self.min_valid <= 1:
            raise OptionError(f"min_valid {self.min_valid}; allowed is a share from 0 to 1")
        if self.bands is not None and (len(self.bands) not in (1, 3) or min(self.bands) < 1):
            raise OptionError(f"bands {self.bands}; give one or three numbers, the first band being 1")
        Stretch.parse(self.stretch)
        for library in ("rasterio", "pyproj"):
            geo_library(library)

    @property
    def _root(self) -> Path:
        return self.path.parent if self.path.is_file() else self.path

    def entries(self) -> Iterator[Entry]:
        """Headers are read, for the sizes; no pixel is."""
        for path in [self.path] if self.path.is_file() else _rasters(self.path):
            relative = path.relative_to(self._root).as_posix()
            try:
                height, width = _size(self._root, path)
            except (UnreadableRaster, OSError):
                yield Entry(f"{relative}#0,0", facts={"path": relative, "window": [0, 0, 1, 1]})  # read() says why
                continue
            for row, rows in _spans(height, self.tile_px, self.overlap_px):
                for column, columns in _spans(width, self.tile_px, self.overlap_px):
                    yield Entry(
                        f"{relative}#{row},{column}",
                        facts={"path": relative, "window": [row, column, rows, columns]},
                        group=relative,
                    )

    def read(self, entry: Entry) -> Outcome:
        row, column, rows, columns = entry.facts["window"]
        path = self._root / entry.facts["path"]
        rasterio = geo_library("rasterio")
        try:
            with rasterio.Env(GDAL_CACHEMAX=_BLOCK_CACHE_MB):
                _check(self._root, path)
                scene = _open_scene(path, path.stat().st_mtime_ns, os.getpid())
                display = _display(path, path.stat().st_mtime_ns, self.bands, self.stretch)
                window = ((row, row + rows), (column, column + columns))
                pixels = scene.read(display.bands, window=window)  # [C, H, W]
                valid = scene.read_masks(display.bands, window=window).any(axis=0) & np.isfinite(pixels).any(axis=0)  # [H, W]
        except UnreadableRaster as error:
            return Dropped(entry.id, error.reason, f"{entry.id}: {error}")
        except (rasterio.errors.RasterioError, OSError) as error:
            return Dropped(entry.id, "corrupt", f"{entry.id}: {error.__cause__ or error}")
        if pixels.shape[1:] != (rows, columns):
            return Dropped(
                entry.id, "corrupt", f"{entry.id}: the scene is {scene.width} x {scene.height} now and ends before the tile"
            )
        share = float(valid.mean())
        if share < self.min_valid or share == 0:
            return Dropped(entry.id, "nodata", f"{entry.id}: {share:.1%} of the tile is valid", score=share)
        tags = _tags(scene)
        x0, y0, x1, y1 = self.image_form.placement(columns, rows).shown_in_source
        geo = self._geo(scene, tags, display, (row + y0, column + x0, y1 - y0, x1 - x0))
        outcome = make_sample(
            display.to_rgb(pixels, valid),
            entry.id,
            dataset=self.name,
            captions=lambda shown: [
                fact_caption(
                    shown.geo.model_dump(exclude_none=True) if shown.geo else {},
                    from_satellite=_first(tags, _SATELLITE_TAGS) is not None,
                )
            ],
            label=None,
            geo=geo,
            image_form=self.image_form,
        )
        if isinstance(outcome, Sample) and outcome.geo is not None:
            outcome.geo.footprint = geo.get("footprint")  # of the part that is shown, also where it is cropped
        return outcome

    def _geo(self, scene: Any, tags: Mapping[str, str], display: Display, window: Window) -> dict[str, Any]:
        acquired = acquired_from(tags)
        facts: dict[str, Any] = {
            "acquired": acquired,
            "platform": _first(tags, (*_SATELLITE_TAGS, "PLATFORM")),
            "sensor": _first(tags, _SENSOR_TAGS),
            "bands": list(scene.descriptions) if all(scene.descriptions) else None,
            "stretch": display.text,
        }
        if scene.crs and not scene.transform.is_identity:
            facts |= {"crs": scene.crs.to_string(), **raster_facts(scene.crs.to_wkt(), tuple(scene.transform), window)}
        if "lat" in facts:
            facts["season"] = season(facts["lat"], int(acquired[5:7])) if acquired else None
        return {name: value for name, value in facts.items() if value is not None}


def fact_caption(geo: Mapping[str, Any], *, from_satellite: bool) -> dict[str, Any]:
    """One sentence that is true of any picture with these facts; "an overhead image." if there are none."""
    words = "a satellite image" if from_satellite else "an overhead image"
    if "season" in geo:
        words += f" taken in {geo['season']}"
    if "gsd_m" in geo:
        metres = f"{float(format(geo['gsd_m'], '.3g')):.15g}"  # three digits, never with an exponent
        words += f" at {metres} {'metre' if metres == '1' else 'metres'} per pixel"
    return {"text": f"{words}.", "kind": "meta", "source": {"engine": "rsvl geo facts", "revision": "1"}}


def acquired_from(tags: Mapping[str, str]) -> str | None:
    """When the picture was taken, as ISO 8601, of the first tag that holds a time or a date; names are upper case."""
    return next((time for tag in _TIME_TAGS if tag in tags and (time := _iso_time(tags[tag]))), None)


def _iso_time(text: str) -> str | None:
    """A date stays a date. None for anything else than a moment since 1900: files hold 0000:00:00 and other signs for "unknown"."""
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip())  # TIFF writes dates with colons
    try:
        time = date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.isoformat().replace("+00:00", "Z") if time.year >= 1900 else None


def _first(tags: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((tags[name].strip() for name in names if tags.get(name, "").strip()), None)


def _tags(scene: Any) -> dict[str, str]:
    """Upper-case names; the IMAGERY domain, where GDAL puts what a vendor's metadata says, before the file's own."""
    return {name.upper(): value for domain in (None, "IMAGERY") for name, value in scene.tags(ns=domain).items()}


# --- files


class UnreadableRaster(ValueError):
    """`reason` is a short word for counting."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def _rasters(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in _SUFFIXES and not hidden and not path.is_dir():
            yield path


def _spans(size: int, tile_px: int, overlap_px: int) -> list[tuple[int, int]]:
    """Start and length of the tiles along one side; the last one ends at the border."""
    if size <= tile_px:
        return [(0, size)]
    last = size - tile_px
    return [(start, tile_px) for start in (*range(0, last, tile_px - overlap_px), last)]


def _check(root: Path, path: Path) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise UnreadableRaster("path_outside", f"{path} leads out of {root}")
    if not path.is_file():
        raise UnreadableRaster("missing_file", f"{path} does not exist")
    if path.stat().st_size == 0:
        raise UnreadableRaster("empty", "the file holds no bytes")


def _size(root: Path, path: Path) -> tuple[int, int]:
    _check(root, path)
    with _open(path) as scene:
        return scene.height, scene.width


def _open(path: Path) -> Any:
    """Only GDAL's GeoTIFF driver is asked: other drivers follow links to other files and hosts."""
    rasterio = geo_library("rasterio")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            scene = rasterio.open(path, driver="GTiff")
    except rasterio.errors.RasterioError as error:
        with path.open("rb") as file:
            is_tiff = file.read(4) in _TIFF_MAGIC
        raise UnreadableRaster("corrupt" if is_tiff else "not_an_image", str(error)) from error
    rows, columns = scene.block_shapes[0]
    interleaved = scene.count if scene.profile.get("interleave") == "pixel" else 1
    if scene.height * scene.width > _MAX_PIXELS:
        raise UnreadableRaster("too_many_pixels", f"{scene.width} x {scene.height} is above {_MAX_PIXELS} pixels")
    if rows * columns * interleaved * np.dtype(scene.dtypes[0]).itemsize > _MAX_BLOCK_BYTES:
        raise UnreadableRaster(
            "block_too_large",
            f"stored in blocks of {columns} x {rows} pixels; make tiles: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE",
        )
    if not all(np.dtype(dtype).kind in "uif" for dtype in scene.dtypes):
        raise UnreadableRaster("unsupported_dtype", f"bands of {', '.join(sorted(set(scene.dtypes)))}; expected real numbers")
    return scene


# Kept for the process that made them (`process` is its id: a forked worker must not share an open file), and for the file as it was.


@lru_cache(maxsize=8)
def _open_scene(path: Path, changed_ns: int, process: int) -> Any:
    return _open(path)


@lru_cache(maxsize=4096)
def _display(path: Path, changed_ns: int, bands: tuple[int, ...] | None, stretch: str) -> Display:
    scene = _open_scene(path, changed_ns, os.getpid())
    if bands is not None and max(bands) > scene.count:
        raise UnreadableRaster("missing_band", f"has {scene.count} bands; band {max(bands)} was asked for")
    return choose_display(
        scene, Stretch.parse(stretch), bands=bands, platform=_first(_tags(scene), (*_SATELLITE_TAGS, "PLATFORM"))
    )
