"""MGRS-200k, the region corpus of FarSLIP (arXiv:2511.14901; Hub: ZhenShiL/MGRS-200k): `text_info.json` beside `global_imgs/`.

The JSON is a list of {global_filepath, brief_caption, detailed_caption, global_caption?, segment: [{bbox, category, category_id,
cap?}]}. What is easy to get wrong:

  bbox             is an object of six values in insertion order x1, y1, x2, y2, image width, image height, in pixels; keys vary
                   between files and are read only when the order makes no box of this image and they are the release's
  a box            whose width and height are not those of the image is of another scale or order and is refused; one that reaches
                   over the border is cut there; small ones are kept (the 64 x 64 minimum belongs to FarSLIP's sampler)
  global_caption   when present and not blank, stands in place of the two others
  no segments      is a sound record

A bad box does not lose its image: `scores` count `regions_dropped` and `regions_repaired` (cut at the border, read by key, given as
a list or as texts) where they are not nought, as for COCO, VOC and DOTA.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsvl_data.boxes import Box, box_in_image, finite_numbers
from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.json_records import is_list, list_records, read_span
from rsvl_data.sources.base import Entry
from rsvl_data.sources.object_images import upright_size
from rsvl_data.sources.tar_members import Described, MemberSource, Refused, problem
from rsvl_data.stage import Dropped, Outcome

EXPECTS = "text_info.json (a list of global_filepath, brief_caption, detailed_caption, segment) beside global_imgs/ (MGRS-200k)"
_NAMES = ("x1", "y1", "x2", "y2", "W", "H")
log = logging.getLogger(__name__)


def find(path: Path) -> Path | None:
    """The JSON file."""
    if path.is_file():
        return path if path.suffix == ".json" and "text_info" in path.name else None
    return path / "text_info.json" if (path / "text_info.json").is_file() else None


def open(path: Path, name: str, image_form: ImageForm) -> "MgrsSource":
    return MgrsSource(name, path.parent, lambda: list_entries(path), _describe, image_form)


@dataclass(frozen=True)
class MgrsSource(MemberSource):
    """The facts of an entry: `records`, the JSON file, and `span`, where its record lies; `files` with the image."""

    def read(self, entry: Entry) -> Outcome:
        if "problem" in entry.facts:
            return super().read(entry)
        try:
            record = read_span(self.root / entry.facts["records"], entry.facts["span"])
        except (ValueError, OSError) as error:
            return Dropped(entry.id, "changed_file", f"{entry.id}: {error}")
        said = {"captions": _captions(record), "segment": record.get("segment") or []}
        return super().read(replace(entry, facts={**entry.facts, **said}))


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a file that is not of this form."""
    if not is_list(path):
        raise DataError(f"{path} holds no list of records. Expected {EXPECTS}")
    folder = "global_imgs/" if (path.parent / "global_imgs").is_dir() else ""
    for number, (record, span) in enumerate(list_records(path, EXPECTS)):
        name = record.get("global_filepath") if isinstance(record, dict) else None
        if not name or not isinstance(name, str):
            yield problem(f"{path.stem}/{number}", "bad_record", f"{path}: record {number} has no global_filepath")
            continue
        segments = record.get("segment") or []
        if not isinstance(segments, list):
            yield problem(name, "bad_record", f"{path}: record {number} ({name}): segment is no list")
            continue
        yield Entry(name, None, {"files": {"image": folder + name}, "records": path.name, "span": [*span]})


def _captions(record: dict[str, Any]) -> list[dict[str, Any]]:
    source = {"engine": "MGRS-200k"}
    if _is_text(record.get("global_caption")):
        return [{"text": record["global_caption"], "kind": "vlm", "source": source}]
    named = (("brief_caption", "short"), ("detailed_caption", "long"))
    return [{"text": record[field], "kind": kind, "source": source} for field, kind in named if _is_text(record.get(field))]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _describe(entry: Entry, members: dict[str, bytes]) -> Described:
    if not entry.facts["segment"]:
        return Described(members["image"], entry.facts["captions"])
    size = upright_size(members["image"], entry.id)
    if isinstance(size, Dropped):
        raise Refused(size.reason, size.detail)
    regions: list[dict[str, Any]] = []
    bad: list[str] = []
    num_repaired = 0
    for number, segment in enumerate(entry.facts["segment"]):
        try:
            region, repaired = _region(segment, *size)
        except ValueError as error:
            bad.append(f"segment {number}: {error}")
        else:
            regions.append(region)
            num_repaired += repaired
    if bad:
        log.info("%s: %d regions left out: %s", entry.id, len(bad), "; ".join(bad[:5]))
    counts = {"regions_dropped": len(bad), "regions_repaired": num_repaired}
    scores = {name: float(count) for name, count in counts.items() if count}
    return Described(members["image"], entry.facts["captions"], regions=regions, scores=scores)


def _region(segment: Any, width: int, height: int) -> tuple[dict[str, Any], bool]:
    """The region, and whether its box had to be repaired. Raises ValueError that says what is wrong with it."""
    if not isinstance(segment, dict) or not _is_text(segment.get("category")):
        raise ValueError("it has no category")
    box, repaired = _box(segment.get("bbox"), width, height)
    category_id = segment.get("category_id")
    region = {
        "bbox": box,
        "category": segment["category"],
        "category_id": category_id if isinstance(category_id, int) else None,
        "caption": segment["cap"] if _is_text(segment.get("cap")) else None,
    }
    return region, repaired


def _box(given: Any, width: int, height: int) -> tuple[Box, bool]:
    values = list(given.values()) if isinstance(given, dict) else given
    try:
        box, repaired = _box_of_this_image(values, width, height)
        return box, repaired or not isinstance(given, dict)
    except ValueError:
        if isinstance(given, dict) and set(given) == set(_NAMES) and tuple(given) != _NAMES:
            return _box_of_this_image([given[name] for name in _NAMES], width, height)[0], True
        raise


def _box_of_this_image(values: Any, width: int, height: int) -> tuple[Box, bool]:
    numbers, from_text = finite_numbers(values, 6)
    if numbers[4:] != [width, height]:
        stated = f"{numbers[4]:g} x {numbers[5]:g}"
        raise ValueError(f"bbox {numbers} is of an image of {stated}, this one has {width} x {height}")
    box, clipped = box_in_image(numbers[:4], width, height)
    return box, from_text or clipped
