"""Oriented boxes in DOTA's text form: https://captain-whu.github.io/DOTA/dataset.html

ROOT/images/NAME.png and ROOT/labelTxt/NAME.txt, or the same below ROOT/train, val, test. A label file:

    imagesource:GoogleEarth
    gsd:0.146
    x1 y1 x2 y2 x3 y3 x4 y4 category difficult

Easy to get wrong: both header lines may be missing, and gsd may be `null` or nonsense (then it is absent); an empty label file is an image
without objects, no label file is an image that nobody has labelled, which is dropped. The corners are kept in the written order, the box
is the one around them, clipped to the image. `difficult` of 2 (v1.5, tiny objects) becomes 1 and counts as repaired.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from rsvl_data.boxes import BadGeometry, corners
from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry, read_inside, split_of_name
from rsvl_data.sources.object_images import Annotation, BadAnnotation, Object, ObjectImages, images_of
from rsvl_data.stage import Dropped

EXPECTS = "a folder with images/ and labelTxt/*.txt (DOTA), or such folders in train/, val/, test/"
_MAX_GSD_M = 100.0  # coarser is no image of objects


def find(path: Path) -> Path | None:
    """The folder that holds `images` and `labelTxt`, or folders of splits that do."""
    return path if path.is_dir() and _parts(path) else None


def _parts(root: Path) -> list[tuple[Path, Path]]:
    """(folder of a split, its folder of labels). Of labelTxt, labelTxt-v1.5, ... the first that holds labels counts."""
    folders = [root, *(child for child in sorted(root.iterdir()) if child.is_dir() and split_of_name(child.name))]
    parts = []
    for folder in folders:
        labels = next((found for found in sorted(folder.glob("labelTxt*")) if next(found.glob("*.txt"), None)), None)
        if labels and (folder / "images").is_dir():
            parts.append((folder, labels))
    return parts


def open(root: Path, name: str, image_form: ImageForm) -> ObjectImages:
    return ObjectImages(name, root, lambda: list_entries(root), annotate, image_form)


def list_entries(root: Path) -> Iterator[Entry]:
    for folder, label_folder in _parts(root):
        images = images_of(folder / "images")
        labels = {path.stem: path for path in label_folder.glob("*.txt")}
        split = split_of_name(folder.name) if folder != root else None
        for stem in sorted({*images, *labels}):
            image = images.get(stem, folder / "images" / f"{stem}.png").relative_to(root).as_posix()
            facts: dict[str, object] = {"path": image}
            if stem in labels:
                facts["annotation"] = labels[stem].relative_to(root).as_posix()
            else:
                facts["dropped"] = ["no_annotation", f"{image} has no {label_folder.name}/{stem}.txt"]
            yield Entry(image, split, facts)


def annotate(root: Path, entry: Entry) -> Annotation:
    content = read_inside(root, entry.facts["annotation"], entry.id)
    if isinstance(content, Dropped):
        raise BadAnnotation(content.reason, content.detail)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadAnnotation("encoding", f"{entry.facts['annotation']} is not UTF-8: {error}") from error
    annotation = Annotation()
    for number, line in enumerate(map(str.strip, lines), start=1):
        name, colon, value = line.partition(":")
        if colon and name.lower() in ("imagesource", "gsd"):
            annotation.geo |= _gsd(value) if name.lower() == "gsd" else {}
        elif line:
            try:
                annotation.objects.append(object_of_line(line))
            except BadGeometry as error:
                annotation.bad.append((error.reason, f"line {number}: {error}"))
    return annotation


def object_of_line(line: str) -> Object:
    """A class of several words is read as such. Raises BadGeometry."""
    words = line.replace(",", " ").split()
    if len(words) < 9:
        raise BadGeometry("bad_box", f"{line[:100]!r} has fewer words than eight numbers and a class")
    polygon, names, repaired = corners(words[:8]), words[8:], "," in line
    difficult = 0
    if len(names) > 1 and names[-1].isdecimal():
        difficult = int(names.pop())
    else:
        repaired = True
    if not names or names[0].replace(".", "").isdecimal():
        raise BadGeometry("bad_box", f"{line[:100]!r} has no class after eight numbers")
    extra = {"difficult": min(difficult, 1)}
    return Object(" ".join(names), polygon=polygon, extra=extra, repaired=repaired or difficult > 1)


def _gsd(text: str) -> dict[str, float]:
    try:
        gsd = float(text)
    except ValueError:
        return {}
    return {"gsd_m": gsd} if math.isfinite(gsd) and 0 < gsd <= _MAX_GSD_M else {}
