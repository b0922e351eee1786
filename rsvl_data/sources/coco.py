"""Objects in COCO's JSON, the form of NWPU VHR-10, iSAID, xView and many more: https://cocodataset.org/#format-data

{"images": [{"id", "file_name", "width", "height", "license"?, "split"?}], "categories": [{"id", "name"}],
"annotations": [{"id", "image_id", "category_id", "bbox": [x, y, width, height], "area", "segmentation", "iscrowd"}]}

Easy to get wrong: the third and fourth number of a box are its size, not a corner; ids are neither dense nor sorted; Python's JSON takes
NaN. RRSIS-D looks the same but has corners (see referring.py) and is refused here. An annotation of an image that the file does not list
is an entry of its own, dropped as `unknown_image`. A polygon is kept when it is the only one of its object.
"""

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rsvl_data.boxes import BadGeometry, box_of_mask, corners, finite_numbers, segmentation_mask
from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.json_records import parse, read_document
from rsvl_data.sources.base import Entry, split_of_name
from rsvl_data.sources.object_images import Annotation, Object, ObjectImages

EXPECTS = "a COCO .json (images, annotations with [x, y, width, height], categories), its images beside it or in images/"


def find(path: Path) -> Path | None:
    """The JSON file, or the folder of several, one a split (`annotations/instances_train.json`)."""
    if path.is_file():
        return path if path.suffix == ".json" and _is_coco(path) else None
    for folder in (path, path / "annotations"):
        files = _coco_files(folder)
        if files:
            return files[0] if len(files) == 1 else folder
    return None


def _coco_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.json")) if _is_coco(file)]


def _is_coco(path: Path) -> bool:
    """Whether the words are there. The file may be larger than memory."""
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(b'"annotations"') >= 0 and text.find(b'"images"') >= 0


def open(main: Path, name: str, image_form: ImageForm) -> ObjectImages:
    folder = main if main.is_dir() else main.parent
    root = folder.parent if folder.name == "annotations" else folder
    files = [main] if main.is_file() else _coco_files(main)
    return ObjectImages(name, root, lambda: list_entries(files, root), annotate, image_form)


def list_entries(files: list[Path], root: Path) -> Iterator[Entry]:
    """Raises DataError for a file that is not of this form."""
    seen: set[str] = set()
    for file in files:
        for entry in _entries_of_file(file, root):
            if entry.id in seen:
                entry = Entry(f"{entry.id} again in {file.name}", entry.split, {"dropped": ["duplicate_image", "listed twice"]})
            seen.add(entry.id)
            yield entry


def read_json(path: Path, names: Iterable[str], expects: str) -> dict[str, list[dict[str, Any]]]:
    """An object that has lists of objects called `names`."""
    content = read_json_file(path, expects)
    for name in names:
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{path} has no list of objects called {name!r}. Expected {expects}")
    return content


def read_json_file(path: Path, expects: str) -> Any:
    """Numbers that are not finite are left as text, so that facts stay JSON. Raises DataError, also for a file too large to hold."""
    try:
        return parse(read_document(path), not_finite=str)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Expected {expects}") from error


def image_folder(root: Path, json_path: Path, file_names: list[str]) -> Path:
    """Where the images lie: the first of the usual folders that has one of them, else the root."""
    split = split_in_name(json_path.stem) or "none"
    candidates = [root / "images", root / "images" / "JPEGImages", root / "JPEGImages", root, root / json_path.stem]
    candidates += [folder for folder in sorted(root.iterdir()) if folder.is_dir() and split_in_name(folder.name) == split]
    plain = [name for name in file_names[:100] if ".." not in Path(name).parts and not Path(name).is_absolute()]
    return next((folder for folder in candidates if any(_is_file(folder / name) for name in plain)), root)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long
        return False


def split_in_name(name: str) -> str | None:
    """ "instances_train2017" -> "train"."""
    return next(filter(None, map(split_of_name, re.split(r"[^a-zA-Z]+", name))), None)


def _entries_of_file(path: Path, root: Path) -> Iterator[Entry]:
    content = read_json(path, ("images", "annotations", "categories"), EXPECTS)
    if any("categories_id" in annotation for annotation in content["annotations"]):
        raise DataError(
            f"{path} has `categories_id`, as RRSIS-D does, whose boxes are corners. Read its folder as referring data"
        )
    categories = {row.get("id"): row.get("name") for row in content["categories"] if isinstance(row.get("id"), int | str)}
    licences = {_hashable(row.get("id")): row.get("name") or row.get("url") for row in _rows(content.get("licenses"))}
    folder = image_folder(root, path, [str(image.get("file_name")) for image in content["images"]])
    of_image: dict[Any, list[dict[str, Any]]] = {}
    for number, row in enumerate(content["annotations"]):
        of_image.setdefault(_hashable(row.get("image_id")), []).append({**row, "number": number})
    split = split_in_name(path.stem)
    for number, image in enumerate(content["images"]):
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            yield Entry(f"{path.name} image {number}", split, {"dropped": ["missing_field", f"no file_name: {str(image)[:200]}"]})
            continue
        licence = licences.get(_hashable(image.get("license")))
        facts = {
            "path": (folder / name).relative_to(root).as_posix() if not Path(name).is_absolute() else name,
            "size": [image.get("width"), image.get("height")],
            "objects": [_facts(row, categories) for row in of_image.pop(_hashable(image.get("id")), [])],
            "provenance": {"licence": licence} if isinstance(licence, str) else {},
        }
        own = image.get("split")
        yield Entry(name, split_of_name(own) if isinstance(own, str) else split, facts)
    for image_id, rows in of_image.items():
        for row in rows:
            detail = f"annotation {row['number']} belongs to image {image_id!r}, which the file does not list"
            yield Entry(f"{path.name} annotation {row['number']}", split, {"dropped": ["unknown_image", detail]})


def _rows(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | str) else repr(value)


def _facts(row: dict[str, Any], categories: dict[Any, Any]) -> dict[str, Any]:
    facts = {name: row.get(name) for name in ("bbox", "area", "segmentation", "iscrowd", "category_id", "number")}
    return {**facts, "category": categories.get(_hashable(row.get("category_id")))}


def annotate(root: Path, entry: Entry) -> Annotation:
    width, height = entry.facts["size"]
    stated = all(isinstance(side, int) and side > 0 for side in (width, height))
    annotation = Annotation(size=(width, height) if stated else None, size_unstated=not stated)
    for facts in entry.facts["objects"]:
        if not isinstance(facts["category"], str) or not facts["category"].strip():
            annotation.bad.append(("unknown_category", f"category {facts['category_id']!r} of annotation {facts['number']}"))
            continue
        try:
            annotation.objects.append(_object(facts, annotation.size))
        except BadGeometry as error:
            annotation.bad.append((error.reason, f"annotation {facts['number']}: {error}"))
        annotation.crowd |= bool(facts["iscrowd"])
    return annotation


def _object(facts: dict[str, Any], size: tuple[int, int] | None) -> Object:
    (x, y, width, height), repaired = finite_numbers(facts["bbox"], 4)
    category_id, area = facts["category_id"], facts["area"]
    found = Object(facts["category"], [x, y, x + width, y + height], repaired=repaired)
    found.category_id = category_id if isinstance(category_id, int) and abs(category_id) < 2**63 else None
    if facts["iscrowd"]:
        found.extra["iscrowd"] = 1
    segmentation = facts["segmentation"]
    try:
        found.area_px = None if area is None else finite_numbers([area], 1)[0][0]
        if isinstance(segmentation, list) and len(segmentation) == 1:
            found.polygon = corners(segmentation[0])
        elif isinstance(segmentation, dict) and size and found.area_px is None:
            mask = segmentation_mask(segmentation, *size)
            found.area_px = float(mask.sum()) if box_of_mask(mask) else None
    except BadGeometry:
        found.repaired = True
    return found
