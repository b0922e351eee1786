"""Images with annotated objects: what the readers of COCO, VOC and DOTA share once they know the objects of an image.

A bad object does not lose its image. What happened to objects stands in the sample's `scores`, where it is not nought:
    regions_dropped     objects left out: inverted, outside the image, not a number, of an unknown category
    regions_repaired    objects taken but changed: clipped to the image, numbers given as text, a polygon refused, a flag made up
    size_unstated       1 when the annotation should give the size of the image, and gives none to check against
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from rsvl_data.boxes import (
    BadGeometry,
    Point,
    box_area,
    box_in_image,
    box_of_points,
    clip_polygon,
    finite_numbers,
    is_bow_tie,
    polygon_area,
)
from rsvl_data.captions.objects import caption_of_objects
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.images import READABLE_FORMATS, READABLE_SUFFIXES, UnreadableImage, to_stored
from rsvl_data.sources.base import Entry, make_sample, read_inside
from rsvl_data.stage import Dropped, Outcome
from rsvl_data.words import words_of_label

log = logging.getLogger(__name__)


@dataclass
class Object:
    """One annotation as its file gives it. `box` is x0, y0, x1, y1, unchecked; None when the polygon gives it.

    `area_px` as written, taken when it can be true; `extra` are further fields of the region; `repaired` says that reading it took
    a guess already.
    """

    category: str
    box: Any = None
    polygon: list[Point] | None = None
    category_id: int | None = None
    area_px: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    repaired: bool = False


@dataclass
class Annotation:
    """All of one image. `bad` holds (reason, detail) of the objects that could not be read; `size` is width, height as written.

    `image_path` stands for the `path` of the entry where only the annotation names the image.
    """

    objects: list[Object] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    size: tuple[int, int] | None = None
    size_unstated: bool = False
    image_path: str | None = None
    geo: dict[str, Any] = field(default_factory=dict)
    crowd: bool = False


class BadAnnotation(ValueError):
    """The annotation of an image as a whole. `reason` is a short word for counting."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class ObjectImages:
    """`annotate` reads the objects of an entry, and may raise BadAnnotation.

    The facts of an entry: `path` of the image relative to root, or `dropped`: [reason, detail]; `provenance`; what `annotate` needs.
    """

    name: str
    root: Path
    list_entries: Callable[[], Iterator[Entry]]
    annotate: Callable[[Path, Entry], Annotation]
    image_form: ImageForm = DEFAULT_FORM
    note: str | None = None
    mask: dict[str, Any] | None = None

    def entries(self) -> Iterator[Entry]:
        return self.list_entries()

    def read(self, entry: Entry) -> Outcome:
        if "dropped" in entry.facts:
            return Dropped(entry.id, *entry.facts["dropped"])
        try:
            annotation = self.annotate(self.root, entry)
        except BadAnnotation as error:
            return Dropped(entry.id, error.reason, str(error))
        content = read_inside(self.root, annotation.image_path or entry.facts["path"], entry.id)
        if isinstance(content, Dropped):
            return content
        size = upright_size(content, entry.id)
        if isinstance(size, Dropped):
            return size
        if annotation.size is not None and annotation.size != size:
            return Dropped(entry.id, "size_mismatch", f"{entry.id} is {size[0]} x {size[1]}, annotated as {annotation.size}")
        regions, num_repaired, bad = checked_regions(annotation.objects, *size)
        bad = [*annotation.bad, *bad]
        if bad:
            log.info(
                "%s: %d objects left out: %s", entry.id, len(bad), "; ".join(f"{reason}: {text}" for reason, text in bad[:5])
            )
        complete = not bad and not annotation.crowd
        outcome = make_sample(
            content,
            entry.id,
            dataset=self.name,
            captions=lambda shown: [
                caption_of_objects([region.category for region in shown.regions], complete=complete).model_dump()
            ],
            label=None,
            regions=regions,
            geo=annotation.geo,
            provenance=entry.facts.get("provenance"),
            image_form=self.image_form,
        )
        if not isinstance(outcome, Dropped):
            counts = {"regions_dropped": len(bad), "regions_repaired": num_repaired, "size_unstated": annotation.size_unstated}
            outcome.scores.update({name: float(count) for name, count in counts.items() if count})
        return outcome


def checked_regions(objects: list[Object], width: int, height: int) -> tuple[list[dict[str, Any]], int, list[tuple[str, str]]]:
    """The regions of the record, how many of them were repaired, and (reason, detail) of the objects left out."""
    regions, num_repaired, bad = [], 0, []
    for item in objects:
        try:
            region, repaired = _region(item, width, height)
        except BadGeometry as error:
            bad.append((error.reason, f"{item.category}: {error}"))
        else:
            regions.append(region)
            num_repaired += repaired
    return regions, num_repaired, bad


def _region(item: Object, width: int, height: int) -> tuple[dict[str, Any], bool]:
    if not item.category.isprintable():
        raise BadGeometry("unknown_category", f"the category {item.category!r} holds control characters")
    try:
        words_of_label(item.category)
    except ValueError as error:
        raise BadGeometry("unknown_category", str(error)) from error
    if item.box is None and item.polygon:
        box, repaired = list(box_of_points(item.polygon)), item.repaired
    else:
        box, as_text = finite_numbers(item.box, 4)
        repaired = item.repaired or as_text
    clipped, was_clipped = box_in_image(box, width, height)
    repaired |= was_clipped
    polygon = item.polygon
    if polygon and (not clip_polygon(polygon, width, height) or (len(polygon) == 4 and is_bow_tie(polygon))):
        polygon, repaired = None, True
    area = item.area_px
    if area is None or was_clipped or not 0 < area <= box_area(clipped):
        repaired |= area is not None
        area = polygon_area(clip_polygon(polygon, width, height)) if polygon else box_area(clipped)
    region = {
        "bbox": clipped,
        "category": item.category,
        "category_id": item.category_id,
        "polygon": polygon,
        "area_px": area,
        **item.extra,
    }
    return region, repaired


def upright_size(content: bytes, entry_id: str) -> tuple[int, int] | Dropped:
    """Width and height from the header. An image that EXIF turns is refused: tools differ on which side up it was annotated."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata and sizes; to_stored judges both
            with Image.open(io.BytesIO(content), formats=READABLE_FORMATS) as image:
                turned = image.getexif().get(0x0112, 1) in range(2, 9)
                size = image.size
    except MemoryError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        return _unreadable(content, entry_id, error)
    if turned:
        return Dropped(entry_id, "turned_by_exif", f"{entry_id}: EXIF turns the image; its annotation may mean either side up")
    return size


def _unreadable(content: bytes, entry_id: str, error: Exception) -> Dropped:
    """In the words of to_stored, where it refuses the image as well."""
    try:
        to_stored(content)
    except UnreadableImage as refusal:
        return Dropped(entry_id, refusal.reason, f"{entry_id}: {refusal}")
    return Dropped(entry_id, "corrupt", f"{entry_id}: {error}")


def images_of(folder: Path) -> dict[str, Path]:
    """Stem to path, sorted. Of two images with one stem the first in the alphabet counts."""
    if not folder.is_dir():
        return {}
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in READABLE_SUFFIXES and not path.name.startswith(".") and path.is_file():
            images.setdefault(path.stem, path)
    return images
