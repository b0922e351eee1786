"""Objects in Pascal VOC's XML, one file an image, as DIOR and many hand-labelled sets come:
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html

ROOT/Annotations/NAME.xml, ROOT/JPEGImages/NAME.jpg (or images/), ROOT/ImageSets/Main/train.txt, val.txt, test.txt with one NAME a line.

Easy to get wrong: the elements of a box come in any order; corners count from 1 in VOC itself but from 0 in most others, so they are kept
as written; sizes of 0 x 0 are common and then the picture's own counts. A document with a DTD is refused: entities can expand without
end or name files. An image named in two lists belongs to the later of train, val, test.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from rsvl_data.boxes import BadGeometry, finite_numbers
from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry, read_inside
from rsvl_data.sources.object_images import Annotation, BadAnnotation, Object, ObjectImages, images_of
from rsvl_data.stage import Dropped

EXPECTS = "a folder with Annotations/*.xml (Pascal VOC) and JPEGImages/ or images/; ImageSets/Main/*.txt gives the splits"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MAX_XML_BYTES = 50_000_000


def find(path: Path) -> Path | None:
    """The folder that holds `Annotations`."""
    annotations = path / "Annotations"
    return path if annotations.is_dir() and next(annotations.glob("*.xml"), None) and _image_folder(path) else None


def _image_folder(root: Path) -> Path | None:
    return next((root / name for name in ("JPEGImages", "images", "Images") if (root / name).is_dir()), None)


def open(root: Path, name: str, image_form: ImageForm) -> ObjectImages:
    return ObjectImages(name, root, lambda: list_entries(root), annotate, image_form)


def list_entries(root: Path) -> Iterator[Entry]:
    folder = _image_folder(root) or root
    images, splits = images_of(folder), _splits(root / "ImageSets" / "Main")
    annotations = {path.stem: path for path in (root / "Annotations").glob("*.xml")}
    for stem in sorted({*images, *annotations}):
        if stem not in annotations:
            facts: dict[str, object] = {"dropped": ["no_annotation", f"{images[stem].name} has no Annotations/{stem}.xml"]}
        else:
            facts = {"annotation": annotations[stem].relative_to(root).as_posix(), "folder": folder.relative_to(root).as_posix()}
            facts |= {"path": images[stem].relative_to(root).as_posix()} if stem in images else {}
        yield Entry(stem, splits.get(stem), facts)


def _splits(folder: Path) -> dict[str, str]:
    splits = {}
    for split in ("train", "val", "test"):
        path = folder / f"{split}.txt"
        if path.is_file():
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is not UTF-8: {error}. Expected one image name a line") from error
            splits.update({line.split()[0]: split for line in lines if line.strip()})
    return splits


def annotate(root: Path, entry: Entry) -> Annotation:
    """An image that does not bear the name of its XML is the one that `filename` says."""
    document = _parse(root, entry)
    size = _size(document)
    annotation = Annotation(size=size, size_unstated=size is None)
    if "path" not in entry.facts:
        name = (document.findtext("filename") or "").strip()
        if not name:
            raise BadAnnotation("missing_file", f"there is no image {entry.id} and its XML names none")
        annotation.image_path = f"{entry.facts['folder']}/{name}"
    for number, element in enumerate(document.findall("object")):
        category = " ".join((element.findtext("name") or "").split())
        box = element.find("bndbox")
        if not category or box is None:
            annotation.bad.append(("missing_field", f"object {number} has no name or no bndbox"))
            continue
        try:
            values, _ = finite_numbers([(box.findtext(corner) or "").strip() for corner in _CORNERS], 4)
        except BadGeometry as error:
            annotation.bad.append((error.reason, f"object {number}: {', '.join(_CORNERS)}: {error}"))
            continue
        difficult = (element.findtext("difficult") or "").strip() not in ("", "0")
        annotation.objects.append(Object(category, values, extra={"difficult": int(difficult)}))
    return annotation


def _parse(root: Path, entry: Entry) -> ElementTree.Element:
    content = read_inside(root, entry.facts["annotation"], entry.id)
    if isinstance(content, Dropped):
        raise BadAnnotation(content.reason, content.detail)
    if len(content) > _MAX_XML_BYTES:
        raise BadAnnotation("too_large", f"{entry.facts['annotation']} holds more than {_MAX_XML_BYTES} bytes")
    # Null bytes go first, so that a DTD in UTF-16 is seen too.
    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", content.replace(b"\0", b""), re.IGNORECASE):
        raise BadAnnotation("unsafe_xml", f"{entry.facts['annotation']} declares a document type or entities")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadAnnotation("not_xml", f"{entry.facts['annotation']}: {error}") from error


def _size(document: ElementTree.Element) -> tuple[int, int] | None:
    """None where the file gives none or one that is not a size."""
    try:
        width, height = (int(float(document.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
