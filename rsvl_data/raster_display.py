"""Rasters of any depth and number of bands as 8-bit RGB, by a stated rule that is written down with the picture.

Bands: red, green and blue where the file says which they are, by colour interpretation or by band name; one or two bands give the
first one as grey; else the first three. Stretch: 8-bit values stay as stored; all others go linearly from the 2nd to the 98th
percentile of each band. The percentiles are those of a bounded sample of the whole scene, so its tiles share them and fit together.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rsvl_data.errors import OptionError

_SAMPLE_WINDOWS, _SAMPLE_WINDOW_PX = 16, 64  # per axis: scenes up to 1024 x 1024 are seen whole, larger ones by 256 windows
_COLOURS = ("red", "green", "blue")
_RGB_NUMBERS = (4, 3, 2)  # Sentinel-2, Landsat 8 and 9
_RGB_NUMBERS_OLD_LANDSAT = (3, 2, 1)  # Landsat 4 to 7


@dataclass(frozen=True)
class Stretch:
    """How values become 0 to 255. `low` and `high` are percentiles, `divisor` is the value that becomes white."""

    kind: Literal["auto", "percentile", "minmax", "divide"] = "auto"
    low: float = 2
    high: float = 98
    divisor: float = 0

    @classmethod
    def parse(cls, text: str) -> "Stretch":
        """auto, minmax, percentile, percentile:LOW-HIGH or divide:VALUE; anything else is an OptionError."""
        number = r"(\d+(?:\.\d+)?)"
        if text in ("auto", "minmax", "percentile"):
            return cls(text)  # type: ignore[arg-type]
        if (match := re.fullmatch(f"percentile:{number}-{number}", text)) and float(match[1]) < float(match[2]) <= 100:
            return cls("percentile", float(match[1]), float(match[2]))
        if (match := re.fullmatch(f"divide:{number}", text)) and float(match[1]) > 0:
            return cls("divide", divisor=float(match[1]))
        raise OptionError(f"stretch {text!r}; allowed are auto, minmax, percentile, percentile:LOW-HIGH (0 to 100), divide:VALUE")


@dataclass(frozen=True)
class Display:
    """The rule for one scene. `bands` counts from 1: three, or one for grey. `limits` holds low and high for each band, None for
    values kept as stored; `palette` [n, 3] replaces them in a raster of colour indices. `text` says it for the record, None where
    the picture is what was stored."""

    bands: tuple[int, ...]
    limits: tuple[tuple[float, float], ...] | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    text: str | None = None

    def to_rgb(self, pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """[bands, H, W] of any real type and [H, W] bool to uint8 [H, W, 3]; pixels that are not valid become black."""
        if self.palette is not None:
            colours = np.array([*self.palette, (0, 0, 0)], np.uint8)  # an index without a colour is black
            rgb = colours[np.minimum(pixels[0], len(colours) - 1)]  # [H, W, 3]
        else:
            shown = pixels if self.limits is None else np.stack([_stretched(*pair) for pair in zip(pixels, self.limits)])
            rgb = np.moveaxis(np.broadcast_to(shown, (3, *shown.shape[1:])), 0, -1)
        return np.where(valid[..., None], rgb, 0).astype(np.uint8)


def _stretched(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    share = np.clip((np.nan_to_num(values.astype(np.float64), posinf=high, neginf=low) - low) / (high - low), 0, 1)
    return np.rint(share * 255).astype(np.uint8)


def choose_display(
    scene: Any, stretch: Stretch | None = None, *, bands: Sequence[int] | None = None, platform: str | None = None
) -> Display:
    """`scene` is an open rasterio dataset. `bands`, three or one counted from 1, overrules the choice by name.

    Raises OptionError for a band the scene does not have.
    """
    stretch = stretch or Stretch()
    colours = [colour.name for colour in scene.colorinterp]
    if bands is None and colours[0] == "palette" and np.dtype(scene.dtypes[0]).kind == "u":
        table = scene.colormap(1)
        return Display(
            (1,), palette=tuple(table.get(i, (0, 0, 0))[:3] for i in range(max(table) + 1)), text="band 1 by its palette"
        )
    if bands is None:
        bands, why = pick_bands(colours, scene.descriptions, platform)
    elif len(bands) not in (1, 3) or not all(1 <= band <= scene.count for band in bands):
        raise OptionError(f"bands {tuple(bands)} of {scene.name}: give one or three numbers from 1 to {scene.count}")
    else:
        why = "as asked"
    bands = tuple(bands)
    as_stored = stretch.kind == "auto" and all(scene.dtypes[band - 1] == "uint8" for band in bands)
    limits = None if as_stored else _limits(scene, bands, stretch)
    if as_stored and (bands == (1, 2, 3) or (bands == (1,) and scene.count == 1)) and scene.count - colours.count("alpha") <= 3:
        return Display(bands)
    return Display(bands, limits, text=f"{_describe_bands(bands, scene.descriptions, why)}; {_describe(stretch, limits)}")


def pick_bands(colours: Sequence[str], names: Sequence[str | None], platform: str | None = None) -> tuple[tuple[int, ...], str]:
    """Band numbers from 1, three or one, and the reason in words. `colours` are GDAL's colour interpretations, `names` the bands' own."""
    if all(colour in colours for colour in _COLOURS):
        return tuple(colours.index(colour) + 1 for colour in _COLOURS), "by colour interpretation"
    plain = [(name or "").strip().lower() for name in names]
    if all(colour in plain for colour in _COLOURS):
        return tuple(plain.index(colour) + 1 for colour in _COLOURS), "by band name"
    numbers = [int(match[1]) if (match := re.fullmatch(r"(?:sr_)?b(?:and)?[ _]?0?(\d+)", name)) else None for name in plain]
    old_landsat = re.search(r"landsat[\s_-]*[4-7]|\bl[et]0?[4-7]\b", (platform or "").lower()) is not None
    wanted = _RGB_NUMBERS_OLD_LANDSAT if old_landsat else _RGB_NUMBERS
    if all(number in numbers for number in wanted):
        return tuple(numbers.index(number) + 1 for number in wanted), "by band name"
    pictures = [index for index, colour in enumerate(colours, start=1) if colour != "alpha"] or [1]
    return (tuple(pictures[:3]), "the first three") if len(pictures) >= 3 else ((pictures[0],), "the first as grey")


def _limits(scene: Any, bands: tuple[int, ...], stretch: Stretch) -> tuple[tuple[float, float], ...]:
    if stretch.kind == "divide":
        return tuple((0.0, stretch.divisor) for _ in bands)
    return tuple(limits_of(values, stretch) for values in _sample(scene, bands))


def limits_of(values: np.ndarray, stretch: Stretch) -> tuple[float, float]:
    """Of the valid values of one band; (0, 0) if there are none. Percentiles that coincide give way to the extremes."""
    if values.size == 0:
        return 0.0, 0.0
    low, high = (0.0, 100.0) if stretch.kind == "minmax" else (stretch.low, stretch.high)
    cut = np.percentile(values, [low, high])
    if cut[0] == cut[1]:
        cut = np.percentile(values, [0, 100])
    return float(cut[0]), float(cut[1])


def _sample(scene: Any, bands: tuple[int, ...]) -> list[np.ndarray]:
    """Valid values of each band in windows spread evenly over the scene: at most 1024 x 1024, however large it is."""
    found: list[list[np.ndarray]] = [[] for _ in bands]
    for row in _starts(scene.height):
        for column in _starts(scene.width):
            rows, columns = (
                (row, min(row + _SAMPLE_WINDOW_PX, scene.height)),
                (column, min(column + _SAMPLE_WINDOW_PX, scene.width)),
            )
            pixels = scene.read(bands, window=(rows, columns))
            masks = scene.read_masks(bands, window=(rows, columns))
            for values, mask, kept in zip(pixels, masks, found):
                kept.append(values[(mask > 0) & np.isfinite(values)])
    return [np.concatenate(kept) for kept in found]


def _starts(size: int) -> list[int]:
    last = size - _SAMPLE_WINDOW_PX
    if size <= _SAMPLE_WINDOWS * _SAMPLE_WINDOW_PX:
        return list(range(0, size, _SAMPLE_WINDOW_PX))
    return [last * index // (_SAMPLE_WINDOWS - 1) for index in range(_SAMPLE_WINDOWS)]


def _describe_bands(bands: tuple[int, ...], names: Sequence[str | None], why: str) -> str:
    numbers = ", ".join(map(str, bands))
    named = [name for band in bands if (name := names[band - 1])]
    meaning = f" ({', '.join(named)})" if len(named) == len(bands) else ""
    return f"{'bands' if len(bands) > 1 else 'band'} {numbers}{meaning} {why}"


def _describe(stretch: Stretch, limits: tuple[tuple[float, float], ...] | None) -> str:
    if limits is None:
        return "as stored"
    if stretch.kind == "divide":
        return f"divided by {stretch.divisor:g}"
    kind = "minimum to maximum" if stretch.kind == "minmax" else f"percentiles {stretch.low:g} to {stretch.high:g}"
    return f"{kind}: " + ", ".join(f"{low:g} to {high:g}" for low, high in limits)
