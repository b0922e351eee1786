"""Pictures that results bring along: galleries of retrieval, heat maps of localisation, overlays of segmentation.

A picture in a result file is somebody's bytes: it is decoded here and stored anew as WebP, so the page holds no bytes but our own. What
cannot be decoded stands in by its name.
"""

import base64
import binascii
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.figures import Picture, Pictures
from evaluation.result import Result
from evaluation.thumbnails import THUMBNAIL_PX

logger = logging.getLogger(__name__)

NUM_QUERIES = 6  # a direction and result
NUM_GALLERIES = 4  # of the first results that have one; with NUM_QUERIES this keeps a page below 3 MB
NUM_PICTURES = 6  # heat maps or overlays a result
LONGEST_SIDE_PX = 560  # twice what a phone shows of it
_BESIDE = {"picture_base64": "Picture", "truth_base64": "Truth"}
_HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Gallery:
    """Queries of one result and what was found, by direction."""

    result: Result
    directions: list[tuple[str, list[dict[str, Any]]]]
    dataset: Pictures | None

    def picture(self, key: str) -> Picture:
        """From the result itself, else from the dataset."""
        stored = self.result.details.get("gallery_pictures")
        if isinstance(stored, Mapping) and key in stored:
            return Picture(key, _panel({"image_base64": stored[key]}, "", key, Path(), THUMBNAIL_PX).uri)
        return self.dataset.find(self.result.split, key) if self.dataset else Picture(key)


def galleries(results: Sequence[Result], dataset: Pictures | None) -> list[Gallery]:
    """Of the results that bring their pictures along, or of all where there is a dataset to look them up in."""
    found = []
    for result in results:
        entries = result.details.get("gallery") or []
        if not dataset and not result.details.get("gallery_pictures"):
            continue
        by_direction = [
            (direction, [entry for entry in entries if entry["direction"] == direction][:NUM_QUERIES])
            for direction in ("text_to_image", "image_to_text")
        ]
        if any(entries for _, entries in by_direction):
            found.append(Gallery(result, [(direction, entries) for direction, entries in by_direction if entries], dataset))
    return found


@dataclass(frozen=True)
class Panel:
    """`uri` None: it could not be had. `label` is empty where it stands alone."""

    label: str
    uri: str | None
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Shown:
    """What a result shows of one item. `colour` of a legend entry is None where the result names none."""

    name: str
    panels: list[Panel]
    scores: list[tuple[str, float]]
    legend: list[tuple[str, str | None]]


def heat_maps(result: Result, folder: Path) -> list[Shown]:
    """`details["heat_maps"]`: where the model sees what a sentence asks for."""
    return [_shown(entry, str(entry.get("query", "")), folder) for entry in _entries(result, "heat_maps")]


def overlays(result: Result, folder: Path) -> list[Shown]:
    """`details["overlays"]`: predicted classes in colour over the image, and beside it the bare image and the true classes."""
    return [_shown(entry, str(entry.get("key", "")), folder) for entry in _entries(result, "overlays")]


def _entries(result: Result, name: str) -> list[Mapping[str, Any]]:
    """What is no list of objects is no picture."""
    entries = result.details.get(name)
    return [each for each in entries if isinstance(each, Mapping)][:NUM_PICTURES] if isinstance(entries, list) else []


def _shown(entry: Mapping[str, Any], name: str, folder: Path) -> Shown:
    beside = [(label, {"image_base64": entry[field]}) for field, label in _BESIDE.items() if field in entry]
    labelled = [*beside, ("Prediction" if beside else "", entry)]
    panels = [_panel(each, label, name, folder) for label, each in labelled]
    return Shown(name, panels, list(_scores(entry.get("scores"))), list(_legend(entry.get("legend"))))


def _panel(entry: Mapping[str, Any], label: str, name: str, folder: Path, longest_px: int = LONGEST_SIDE_PX) -> Panel:
    try:
        return Panel(label, *_stored_anew(_content(entry, folder), longest_px))
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        logger.warning("no picture of %s: %s", name, error)
        return Panel(label, None, 0, 0)


def _content(entry: Mapping[str, Any], folder: Path) -> bytes:
    """From the result itself, or from a file below the page's folder: a result must not bring other files of ours into a page."""
    if isinstance(text := entry.get("image_base64"), str):
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"its image_base64 is no base64: {error}") from error
    path = (folder / str(entry.get("path") or "")).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError("the result holds no image_base64, and no path of a file below the folder of the page")
    return path.read_bytes()


def _stored_anew(content: bytes, longest_px: int) -> tuple[str, int, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
            small = image.convert("RGB")
    small.thumbnail((longest_px, longest_px))
    encoded = io.BytesIO()
    small.save(encoded, "WEBP", quality=72, method=4)
    return "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode(), *small.size


def _scores(given: Any) -> Iterator[tuple[str, float]]:
    if isinstance(given, Mapping):
        yield from ((str(name), float(value)) for name, value in given.items() if isinstance(value, int | float))


def _legend(given: Any) -> Iterator[tuple[str, str | None]]:
    """A mapping from class to colour, or a list of pairs or of {"name", "color"}."""
    entries = given.items() if isinstance(given, Mapping) else given if isinstance(given, list) else ()
    for entry in entries:
        if isinstance(entry, Mapping):
            yield str(entry.get("name", "")), _colour(entry.get("color", entry.get("colour")))
        elif isinstance(entry, list | tuple) and len(entry) == 2:
            yield str(entry[0]), _colour(entry[1])
        else:
            yield str(entry), None


def _colour(given: Any) -> str | None:
    """As #rrggbb, from that or from three bytes. Nothing else reaches a style."""
    if isinstance(given, str):
        return given if _HEX_COLOUR.fullmatch(given) else None
    if isinstance(given, list | tuple) and len(given) == 3 and all(isinstance(each, int) and 0 <= each < 256 for each in given):
        return "#{:02x}{:02x}{:02x}".format(*given)
    return None
