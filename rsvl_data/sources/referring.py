"""Referring segmentation: a phrase and the mask of what it means. One sample a phrase, so an image may come several times.

RRSIS-D (https://github.com/Lsan2401/RMSIN) and its kin: `instances.json` in the form of COCO beside `refs*.json`, a list of {"ref_id",
"ann_id", "file_name", "split", "sentences": [{"sent"}]}; images in images/ or images/JPEGImages/.
RefSegRS (https://github.com/zhu-xlab/rrsis): images/N.tif, masks/N.tif, output_phrase_train.txt, val, test with lines "N phrase".

Easy to get wrong: with the key `categories_id`, as in RRSIS-D, boxes are corners x0, y0, x1, y1, with COCO's `category_id` a
corner and a size; `area` lies, so it is counted in the mask; a mask without a pixel refers to nothing and is dropped as `empty_mask`; an
image of RefSegRS has several phrases with the same mask. The released `refs(unc).p` is a pickle, which can run any code: it is not read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rsvl_data.boxes import BadGeometry, Box, box_in_image, box_of_mask, finite_numbers, segmentation_mask
from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.mask_files import BadMask, raw_pixels
from rsvl_data.resize import place_mask
from rsvl_data.sources.base import Entry, make_sample, read_inside, split_of_name
from rsvl_data.sources.coco import image_folder, read_json, read_json_file
from rsvl_data.sources.object_images import images_of, upright_size
from rsvl_data.stage import Dropped, Outcome

EXPECTS = "instances.json beside refs*.json (RRSIS-D), or images/, masks/ and output_phrase_*.txt (RefSegRS)"
_LEGEND = {"classes": ["background", "referred"], "palette": [[0, 0, 0], [255, 255, 255]], "ignore_index": 255}


def find(path: Path) -> Path | None:
    """The file of phrases, or the folder of RefSegRS."""
    if path.is_file():
        known = path.name.startswith("refs") and path.suffix in (".json", ".p")
        return path if known and (path.parent / "instances.json").is_file() else None
    if (path / "instances.json").is_file():
        return next(iter([*sorted(path.glob("refs*.json")), *sorted(path.glob("refs*.p"))]), None)
    return path if next(path.glob("output_phrase_*.txt"), None) and (path / "masks").is_dir() else None


def open(main: Path, name: str, image_form: ImageForm) -> "ReferringImages":
    """Raises DataError for a pickle."""
    if main.is_dir():
        return ReferringImages(name, main, lambda: _phrases_of_lines(main), image_form)
    if main.suffix == ".p":
        raise DataError(
            f"{main} is a pickle, which can run any code when it is read, so it is not. "
            f"Where you trust it, write its list as JSON to {main.with_suffix('.json')}"
        )
    return ReferringImages(name, main.parent, lambda: _phrases_of_refs(main), image_form)


@dataclass(frozen=True)
class ReferringImages:
    """The facts of an entry: `path`, `sentences` and either `mask`, a file, or `target`, an annotation; or `dropped`: [reason, detail]."""

    name: str
    root: Path
    list_entries: Callable[[], Iterator[Entry]]
    image_form: ImageForm = DEFAULT_FORM
    note: str | None = None
    mask: dict[str, Any] = field(default_factory=lambda: _LEGEND)

    def entries(self) -> Iterator[Entry]:
        seen: set[str] = set()
        for entry in self.list_entries():
            if entry.id in seen:
                entry = Entry(
                    f"{entry.id} again, {len(seen)}", entry.split, {"dropped": ["duplicate_id", f"{entry.id} came before"]}
                )
            seen.add(entry.id)
            yield entry

    def read(self, entry: Entry) -> Outcome:
        if "dropped" in entry.facts:
            return Dropped(entry.id, *entry.facts["dropped"])
        content = read_inside(self.root, entry.facts["path"], entry.id)
        if isinstance(content, Dropped):
            return content
        size = upright_size(content, entry.id)
        if isinstance(size, Dropped):
            return size
        try:
            mask = self._mask(entry, size)
        except (BadMask, BadGeometry) as error:
            return Dropped(entry.id, error.reason, f"{entry.id}: {error}")
        if isinstance(mask, Dropped):
            return mask
        around = box_of_mask(mask)
        shown = place_mask(mask.astype(np.uint8), self.image_form.placement(*size), ignore_index=0)
        if around is None or not shown.any():
            return Dropped(entry.id, "empty_mask", f"{entry.id}: the mask has no pixel, so the phrase refers to nothing")
        sentences = [" ".join(sentence.split()) for sentence in entry.facts["sentences"]]
        regions, repaired = [], False
        if "target" in entry.facts:
            box, repaired = _box(entry.facts["target"], around, size)
            target = entry.facts["target"]
            regions = [
                {"bbox": box, "category": target["category"], "category_id": target["category_id"], "area_px": float(mask.sum())}
            ]
            regions[0]["caption"] = next(filter(None, sentences), None)
        outcome = make_sample(
            content,
            entry.id,
            dataset=self.name,
            captions=sentences,
            label=None,
            regions=regions,
            image_form=self.image_form,
            mask=mask,
            ignore_index=self.mask["ignore_index"],
        )
        if repaired and not isinstance(outcome, Dropped):
            outcome.scores["regions_repaired"] = 1.0
        return outcome

    def _mask(self, entry: Entry, size: tuple[int, int]) -> np.ndarray | Dropped:
        if "target" in entry.facts:
            return segmentation_mask(entry.facts["target"]["segmentation"], *size)
        content = read_inside(self.root, entry.facts["mask"], entry.id)
        if isinstance(content, Dropped):
            return content
        pixels = raw_pixels(content, size)
        return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels > 0)


def _box(target: dict[str, Any], around: Box, size: tuple[int, int]) -> tuple[Box, bool]:
    """The box as written, or the one around the mask where that is none; and whether it differs from the written one."""
    try:
        (x, y, third, fourth), as_text = finite_numbers(target["bbox"], 4)
        box, clipped = box_in_image((x, y, third, fourth) if target["corners"] else (x, y, x + third, y + fourth), *size)
    except BadGeometry:
        return around, True
    return box, as_text or clipped


# --- RRSIS-D


def _phrases_of_refs(path: Path) -> Iterator[Entry]:
    root = path.parent
    refs = read_json_file(path, EXPECTS)
    refs = refs.get("refs") if isinstance(refs, dict) else refs
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise DataError(f"{path} is no list of refs. Expected {EXPECTS}")
    instances = read_json(root / "instances.json", ("images", "annotations", "categories"), EXPECTS)
    annotations = {_key(row.get("id")): row for row in instances["annotations"]}
    categories = {_key(row.get("id")): row.get("name") for row in instances["categories"]}
    folder = image_folder(root, path, [str(ref.get("file_name")) for ref in refs])
    for number, ref in enumerate(refs):
        file_name, split = ref.get("file_name"), ref.get("split")
        entry_id = f"{file_name}#{ref.get('ref_id', number)}"
        split = split_of_name(split) if isinstance(split, str) else None
        try:
            if not all(isinstance(sentence["sent"], str) for sentence in ref["sentences"]):
                raise TypeError("a sentence that is no text")
            row = annotations[_key(ref.get("ann_id"))]
            facts = {
                "path": (folder / file_name).relative_to(root).as_posix(),
                "sentences": [sentence["sent"] for sentence in ref["sentences"]],
                "target": _target(row, categories),
            }
        except (KeyError, TypeError, ValueError) as error:
            facts = {"dropped": ["bad_reference", f"{path.name}, ref {number}: {error!r}"]}
        yield Entry(entry_id, split, facts)


def _target(row: dict[str, Any], categories: dict[str, Any]) -> dict[str, Any]:
    """Raises KeyError for a category that the file does not define."""
    corners = "categories_id" in row
    category_id = row["categories_id" if corners else "category_id"]
    category = categories[_key(category_id)]
    if not isinstance(category, str) or not isinstance(category_id, int):
        raise ValueError(f"category {category_id!r} is called {category!r}")
    return {
        "bbox": row.get("bbox"),
        "corners": corners,
        "segmentation": row.get("segmentation"),
        "category": category,
        "category_id": category_id,
    }


def _key(value: Any) -> str:
    return repr(value)


# --- RefSegRS


def _phrases_of_lines(root: Path) -> Iterator[Entry]:
    images, masks = images_of(root / "images"), images_of(root / "masks")
    for path in sorted(root.glob("output_phrase_*.txt")):
        split = split_of_name(path.stem.rpartition("_")[2])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8: {error}. Expected lines of an image number, a space and a phrase") from error
        for number, line in enumerate(lines, start=1):
            stem, _, sentence = line.strip().partition(" ")
            if not stem:
                continue
            entry_id = f"{stem}#{path.stem}-{number}"
            if stem in images and stem in masks:
                found = {"path": images[stem], "mask": masks[stem]}
                facts: dict[str, Any] = {name: file.relative_to(root).as_posix() for name, file in found.items()}
                yield Entry(entry_id, split, {**facts, "sentences": [sentence]})
            else:
                reason = "no_mask" if stem in images else "missing_file"
                yield Entry(
                    entry_id, split, {"dropped": [reason, f"{path.name}, line {number}: {stem!r} has no image or no mask"]}
                )
