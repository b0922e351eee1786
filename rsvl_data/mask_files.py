"""Masks as files hold them -- ids, palettes, colours, black and white -- become ids that a legend explains.

A pixel that the legend does not know is an error that names it: never class 0, never the nearest class.
"""

import csv
import io
import json
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rsvl_data.errors import DataError

Colour = tuple[int, int, int]
LEGEND_FILES = ("legend.json", "classes.json", "semantic_classes.json", "legend.csv")
_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG")
# Classes that stand for "nobody said what is here"; a legend that has one of them ignores it.
_IGNORED_NAMES = re.compile(r"no.?data|boundary|ignored?|unknown|unlabell?ed|void|boundary/ignore")


class BadMask(ValueError):
    """`reason` is a short word for counting: unknown_id, unknown_colour, size_mismatch, lossy_mask, ..."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Legend:
    """The class of id i is `classes[i]`.

    palette         colours in the same order; None when the masks hold ids only
    ignore_index    an id that no metric counts: a class, or 255 when pixels outside all classes occur
    ignore_colour   what a colour mask has at those pixels, when the ignored id is no class
    binary          masks are black and white: class 1 where the value is above 127, since edges may be soft
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...] | None = None
    ignore_index: int | None = None
    ignore_colour: Colour | None = None
    binary: bool = False

    def __post_init__(self) -> None:
        colours = [*(self.palette or ()), *([self.ignore_colour] if self.ignore_colour else [])]
        repeated = {what for what in [*self.classes, *colours] if [*self.classes, *colours].count(what) > 1}
        named = all(name.isprintable() and re.search(r"[^\s_/-]", name) for name in self.classes)
        if not 1 <= len(self.classes) <= 255 or not named or repeated:
            raise DataError(
                f"A legend has 1 to 255 classes with different names and colours; {self.classes}, repeated: {repeated}"
            )
        if self.palette is not None and len(self.palette) != len(self.classes):
            raise DataError(f"A legend has one colour a class; got {len(self.palette)} for {len(self.classes)} classes")
        if not all(len(colour) == 3 and all(0 <= value <= 255 for value in colour) for colour in colours):
            raise DataError(f"Colours are three numbers of 0 to 255 (red, green, blue); got {colours}")

    def to_manifest(self) -> dict[str, Any]:
        """Without colours of its own a legend gets grey levels; without an ignored id it gets 255, which then does not occur."""
        palette = self.palette or tuple(
            (level, level, level) for level in np.linspace(0, 255, len(self.classes)).astype(int).tolist()
        )
        ignore = 255 if self.ignore_index is None else self.ignore_index
        return {"classes": list(self.classes), "palette": [list(colour) for colour in palette], "ignore_index": ignore}


# Colours and ignore rules of the public sets, as their own or the most used code has them.
KNOWN_LEGENDS = {
    # https://github.com/Junjue-Wang/LoveDA/blob/3f4ba90a87513174aadf25c4b46ec08cedaf2611/Semantic_Segmentation/data/loveda.py
    # Ids of the stored masks; the official loader subtracts 1 and ignores -1.
    "LoveDA": Legend(
        ("no-data", "background", "building", "road", "water", "barren", "forest", "agricultural"),
        ((0, 0, 0), (255, 255, 255), (255, 0, 0), (255, 255, 0), (0, 0, 255), (159, 129, 183), (0, 255, 0), (255, 195, 128)),
        ignore_index=0,
    ),
    # Potsdam and Vaihingen: https://github.com/WangLibo1995/GeoSeg/blob/9453fe48209c4626b29e35e61bab93b61212c4b1/tools/potsdam_patch_split.py
    "ISPRS": Legend(
        ("impervious surface", "building", "low vegetation", "tree", "car", "clutter", "boundary"),
        ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)),
        ignore_index=6,
    ),
    # https://github.com/bao18/open_earth_map/blob/ad645629af37369dfbe481be40515a587c7cd4af/open_earth_map/utils.py
    "OpenEarthMap": Legend(
        ("unknown", "bareland", "rangeland", "developed space", "road", "tree", "water", "agriculture land", "building"),
        (
            *((0, 0, 0), (128, 0, 0), (0, 255, 36), (148, 148, 148), (255, 255, 255)),
            *((34, 97, 38), (0, 69, 255), (75, 181, 73), (222, 31, 7)),
        ),
        ignore_index=0,
    ),
    # https://github.com/open-mmlab/mmsegmentation/blob/v1.2.2/mmseg/datasets/isaid.py; background is an ordinary class there.
    "iSAID": Legend(
        (
            *("background", "ship", "store tank", "baseball diamond", "tennis court", "basketball court", "ground track field"),
            *("bridge", "large vehicle", "small vehicle", "helicopter", "swimming pool", "roundabout", "soccer ball field"),
            *("plane", "harbor"),
        ),
        (
            *((0, 0, 0), (0, 0, 63), (0, 63, 63), (0, 63, 0), (0, 63, 127), (0, 63, 191), (0, 63, 255), (0, 127, 63)),
            *((0, 127, 127), (0, 0, 127), (0, 0, 191), (0, 0, 255), (0, 191, 127), (0, 127, 191), (0, 127, 255), (0, 100, 155)),
        ),
    ),
    # https://github.com/WangLibo1995/GeoSeg/blob/9453fe48209c4626b29e35e61bab93b61212c4b1/tools/uavid_patch_split.py
    # White is padding; black is clutter, so nothing may be padded with black.
    "UAVid": Legend(
        ("building", "road", "tree", "low vegetation", "moving car", "static car", "human", "clutter"),
        ((128, 0, 0), (128, 64, 128), (0, 128, 0), (128, 128, 0), (64, 0, 128), (192, 0, 192), (64, 64, 0), (0, 0, 0)),
        ignore_index=255,
        ignore_colour=(255, 255, 255),
    ),
}


def read_legend(path: Path) -> Legend:
    """In JSON: {"0": "name"}, {"name": [r, g, b]}, {"0": {"name", "rgb"}}, {"binary": "name"}, or the name of a known legend as a
    string. In CSV: name, r, g, b. Raises DataError that says what is wrong."""
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as lines:
                rows = list(csv.DictReader(lines))
            return _legend([row["name"] for row in rows], [[int(row[channel]) for channel in "rgb"] for row in rows])
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, str):
            return KNOWN_LEGENDS[content]
        if set(content) == {"binary"} and isinstance(content["binary"], str):
            return Legend(("background", content["binary"]), ((0, 0, 0), (255, 255, 255)), binary=True)
        if all(isinstance(value, list) for value in content.values()):
            return _legend(list(content), list(content.values()))
        return _legend_by_id(content)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        OSError,
        csv.Error,
        DataError,
    ) as error:
        known = ", ".join(map(json.dumps, KNOWN_LEGENDS))
        raise DataError(
            f"{path} is no legend of masks ({str(error)[:300]}). Give {{id: name}}, {{name: [r, g, b]}}, {{id: {{name, rgb}}}}, "
            f'{{"binary": name}} or one of {known}; ids run from 0 without a gap'
        ) from error


def _legend_by_id(content: dict[str, Any]) -> Legend:
    """255 may stand beyond the gap, under a name such as "ignore"."""
    by_id = {int(key): value for key, value in content.items()}
    ignored = by_id.pop(255, None) if len(by_id) < 256 else None
    if sorted(by_id) != list(range(len(content) - (ignored is not None))):
        raise ValueError(f"the ids are {', '.join(content)}")
    values = [by_id[index] for index in range(len(by_id))]
    if all(isinstance(value, str) for value in values):
        legend = _legend(values, None)
    else:
        legend = _legend([value["name"] for value in values], [value["rgb"] for value in values])
    if ignored is None:
        return legend
    name, colour = (ignored, None) if isinstance(ignored, str) else (ignored["name"], _colour(ignored["rgb"]))
    if not _is_ignored(name) or legend.ignore_index is not None:
        raise ValueError(f"id 255 is called {name!r}; it can only be the one ignored id, called for example 'ignore'")
    return replace(legend, ignore_index=255, ignore_colour=colour)


def _legend(names: list[str], colours: list[list[int]] | None) -> Legend:
    palette = None if colours is None else tuple(map(_colour, colours))
    ignored = [index for index, name in enumerate(names) if _is_ignored(name)]
    return Legend(tuple(names), palette, ignored[0] if ignored else None)


def _is_ignored(name: str) -> bool:
    return _IGNORED_NAMES.fullmatch(name.strip().lower()) is not None


def _colour(values: list[int]) -> Colour:
    red, green, blue = map(int, values)
    return red, green, blue


def read_mask(content: bytes, legend: Legend, size: tuple[int, int], *, max_pixels: int = 100_000_000) -> np.ndarray:
    """Ids [height, width] of 8 bits, one for every pixel of a picture of `size` (width, height). Raises BadMask.

    The form is the file's: of a palette PNG the index counts and not its colours, of RGBA the colour and not the alpha.
    """
    pixels = raw_pixels(content, size, lossless=not legend.binary, max_pixels=max_pixels)
    if legend.binary:
        return _black_and_white(pixels)
    return _ids_of_colours(pixels, legend) if pixels.ndim == 3 else _checked_ids(pixels, legend)


def raw_pixels(content: bytes, size: tuple[int, int], *, lossless: bool = True, max_pixels: int = 100_000_000) -> np.ndarray:
    """[height, width] for ids of any depth, [height, width, 3] for colours. Raises BadMask."""
    if not content:
        raise BadMask("empty", "the mask file holds no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns about bombs and broken metadata
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.size != size:
                    raise BadMask(
                        "size_mismatch", f"the mask is {image.width} x {image.height}, its picture {size[0]} x {size[1]}"
                    )
                if image.width * image.height > max_pixels:
                    raise BadMask("too_many_pixels", f"the mask of {image.width} x {image.height} is above {max_pixels} pixels")
                if lossless and image.format == "JPEG":
                    raise BadMask("lossy_mask", "a mask stored as JPEG has other values than the ones that were drawn")
                if image.mode not in ("1", "L", "LA", "P", "I", "F", "RGB", "RGBA") and not image.mode.startswith("I;16"):
                    raise BadMask("unsupported_format", f"a mask of mode {image.mode}; expected ids, a palette, grey or RGB")
                return np.asarray(image.convert(image.mode[:-1]) if image.mode in ("LA", "RGBA") else image)
    except (BadMask, MemoryError):
        raise
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        raise BadMask("truncated" if "truncated" in str(error) else "not_an_image", f"the mask: {error}") from error


def encode_mask(ids: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(ids.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def pack_colours(pixels: np.ndarray) -> np.ndarray:
    """One number a pixel, 65536 red + 256 green + blue: colours compare at once."""
    wide = pixels.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _black_and_white(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if pixels.ndim == 3 or pixels.dtype != np.uint8:
        raise BadMask("unsupported_format", "a mask of black and white has one channel of 8 bits or of 1 bit")
    if pixels.max() == 1:
        raise BadMask("unknown_id", 'the values are 0 and 1, not black and white: the legend has to be {"0": name, "1": name}')
    return (pixels > 127).astype(np.uint8)


def _checked_ids(pixels: np.ndarray, legend: Legend) -> np.ndarray:
    known = (pixels >= 0) & (pixels < len(legend.classes))
    if legend.ignore_index is not None:
        known |= pixels == legend.ignore_index
    if pixels.dtype.kind == "f":
        known &= pixels == np.floor(pixels)
    if not known.all():
        raise BadMask("unknown_id", f"ids outside the legend: {_counted(pixels[~known], str)}")
    return pixels.astype(np.uint8)


def _ids_of_colours(pixels: np.ndarray, legend: Legend) -> np.ndarray:
    if legend.palette is None:
        raise BadMask("no_palette", "the mask holds colours, its legend only ids: give the colour of each class")
    colours = {colour: index for index, colour in enumerate(legend.palette)}
    if legend.ignore_colour is not None:
        colours[legend.ignore_colour] = 255 if legend.ignore_index is None else legend.ignore_index
    codes = pack_colours(np.array(list(colours), np.uint8))
    order = np.argsort(codes)
    packed = pack_colours(pixels)
    place = order[np.searchsorted(codes, packed, sorter=order).clip(max=len(codes) - 1)]
    unknown = codes[place] != packed
    if unknown.any():

        def colour(code: Any) -> str:
            return str((int(code) >> 16, int(code) >> 8 & 255, int(code) & 255))

        raise BadMask("unknown_colour", f"colours outside the legend: {_counted(packed[unknown], colour)}")
    return np.array(list(colours.values()), np.uint8)[place]


def _counted(values: np.ndarray, name: Any) -> str:
    """The most frequent of them with their counts."""
    found, counts = np.unique(values, return_counts=True)
    first = np.argsort(-counts, kind="stable")[:5]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(f"{name(found[index])} ({counts[index]} px)" for index in first) + more
