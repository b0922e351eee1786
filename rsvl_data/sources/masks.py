"""Images with a mask of classes beside them: LoveDA, ISPRS Potsdam and Vaihingen, OpenEarthMap, iSAID, UAVid, roads.

images/NAME.* and masks/NAME.png, or NAME_label, NAME_mask, NAME_instance_color_RGB; both folders lie in ROOT, in ROOT/train, val, test, or
one folder deeper (LoveDA's Train/Rural/images_png). What the values mean must be said by a legend in ROOT (see
mask_files.read_legend): a file `legend.json` that holds "LoveDA" or {"binary": "road"} is enough. Nothing is guessed from colours.

Easy to get wrong: a colour outside the legend is no class; ids of LoveDA begin with 0 for no data; with NAME_instance_id_RGB.png beside it
(iSAID) every colour there but black is one object, which becomes a region. An image without a mask is dropped as `no_mask`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsvl_data.captions.land_cover import caption_of_classes
from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.mask_files import (
    LEGEND_FILES,
    BadMask,
    Legend,
    pack_colours,
    raw_pixels,
    read_legend,
    read_mask,
)
from rsvl_data.sources.base import Entry, Shown, make_sample, read_inside, split_of_name
from rsvl_data.sources.object_images import images_of, upright_size
from rsvl_data.stage import Dropped, Outcome

EXPECTS = f"images/ and masks/ with the same names, and a legend of the masks ({', '.join(LEGEND_FILES)})"
_IMAGE_FOLDERS = ("images", "images_png")
_MASK_FOLDERS = ("masks", "masks_png", "labels", "semantic_masks")
_MASK_ENDINGS = ("", "_label", "_mask", "_instance_color_RGB")
# A caption must not say that an image shows them.
_UNTOLD = frozenset({"background", "clutter"})


def find(path: Path) -> Path | None:
    """The folder over all the folders of images and masks."""
    return path if path.is_dir() and _parts(path) else None


def _parts(root: Path) -> list[tuple[Path, Path]]:
    """(folder of images, folder of masks), at most two folders down."""
    parts = []
    for folder in sorted({root, *_folders(root), *(deep for child in _folders(root) for deep in _folders(child))}):
        images = next((folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()), None)
        masks = next((folder / name for name in _MASK_FOLDERS if images_of(folder / name)), None)
        if images and masks:
            parts.append((images, masks))
    return parts


def _folders(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]


def open(root: Path, name: str, image_form: ImageForm, legend: Legend | Path | None = None) -> "MaskedImages":
    """Raises DataError when no legend is given and none lies in `root`."""
    if not isinstance(legend, Legend):
        path = legend or next((root / file for file in LEGEND_FILES if (root / file).is_file()), None)
        if path is None:
            raise DataError(
                f"{root} holds masks but no legend. Write what their values mean to {root / 'legend.json'}, or to another file and "
                'give it as --masks.legend: {"0": "background", "1": "road"} for ids, {"road": [255, 0, 0]} for colours, '
                '{"binary": "road"} for black and white, or the name of a known legend such as "LoveDA"'
            )
        legend = read_legend(path)
    return MaskedImages(name, root, legend, image_form)


@dataclass(frozen=True)
class MaskedImages:
    name: str
    root: Path
    legend: Legend
    image_form: ImageForm = DEFAULT_FORM
    note: str | None = None

    @property
    def mask(self) -> dict[str, Any]:
        return self.legend.to_manifest()

    def entries(self) -> Iterator[Entry]:
        for image_folder, mask_folder in _parts(self.root):
            images, masks = images_of(image_folder), images_of(mask_folder)
            split = next(filter(None, map(split_of_name, image_folder.relative_to(self.root).parts)), None)
            for stem, image in images.items():
                path = image.relative_to(self.root).as_posix()
                mask = next((masks[stem + ending] for ending in _MASK_ENDINGS if stem + ending in masks), None)
                facts = {"path": path}
                if mask is not None:
                    facts["mask"] = mask.relative_to(self.root).as_posix()
                if f"{stem}_instance_id_RGB" in masks:
                    facts["instances"] = masks[f"{stem}_instance_id_RGB"].relative_to(self.root).as_posix()
                yield Entry(path, split, facts)

    def read(self, entry: Entry) -> Outcome:
        if "mask" not in entry.facts:
            return Dropped(entry.id, "no_mask", f"{entry.id} has no mask of its name")
        contents = [
            read_inside(self.root, entry.facts[fact], entry.id) for fact in ("path", "mask", "instances") if fact in entry.facts
        ]
        for content in contents:
            if isinstance(content, Dropped):
                return content
        image, mask, *instances = [content for content in contents if isinstance(content, bytes)]
        size = upright_size(image, entry.id)
        if isinstance(size, Dropped):
            return size
        try:
            ids = read_mask(mask, self.legend, size)
            regions = instance_regions(raw_pixels(instances[0], size), ids, self.legend) if instances else []
        except BadMask as error:
            return Dropped(entry.id, error.reason, f"{entry.id}: {error}")
        return make_sample(
            image,
            entry.id,
            dataset=self.name,
            captions=self._captions,
            label=None,
            regions=regions,
            image_form=self.image_form,
            mask=ids,
            ignore_index=self.mask["ignore_index"],
        )

    def _captions(self, shown: Shown) -> list[dict[str, Any]]:
        assert shown.mask is not None
        return [caption_of_classes(shown_classes(shown.mask, self.legend)).model_dump()]


def shown_classes(ids: np.ndarray, legend: Legend) -> list[str]:
    """The classes in a mask that a caption may name, largest first."""
    counts = np.bincount(ids.ravel(), minlength=len(legend.classes))[: len(legend.classes)]
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index] and index != legend.ignore_index]
    return [legend.classes[index] for index in order if legend.classes[index].lower() not in _UNTOLD]


def instance_regions(pixels: np.ndarray, ids: np.ndarray, legend: Legend) -> list[dict[str, Any]]:
    """One region a colour of `pixels` but black, its class the one that `ids` has most often there. Raises BadMask."""
    if pixels.ndim != 3:
        raise BadMask("unsupported_format", "a mask of instances holds one colour an instance")
    ys, xs = np.nonzero(pixels.any(axis=2))
    colours, instance = np.unique(pack_colours(pixels[ys, xs]), return_inverse=True)
    first, last = np.full((len(colours), 2), max(ids.shape)), np.zeros((len(colours), 2), int)
    for axis, values in enumerate((xs, ys)):
        np.minimum.at(first[:, axis], instance, values)
        np.maximum.at(last[:, axis], instance, values + 1)
    classes = np.zeros((len(colours), 256), int)
    np.add.at(classes, (instance, ids[ys, xs]), 1)
    regions = []
    for index in range(len(colours)):
        category_id = int(classes[index].argmax())
        if category_id >= len(legend.classes):
            continue  # an object on ignored ground
        regions.append(
            {
                "bbox": [float(value) for value in (*first[index], *last[index])],
                "category": legend.classes[category_id],
                "category_id": category_id,
                "area_px": float(classes[index].sum()),
            }
        )
    return regions
