"""Images with captions: what the readers of all captioned layouts make, and translations beside them.

Translations (our own layout: RS-M-CLIP, arXiv:2410.23370, published none) lie beside the captions as `captions.<lang>.json`, in the form
of Karpathy's split files: {"images": [{"filename", "sentences": [{"raw"}]}]}. `lang` is an ISO 639-1 code, `filename` as in the original.
A language must cover every image of the split: else each language would be measured on another gallery.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from evaluation.data import EvalItem, FileSet
from evaluation.datasets.entry import DatasetEntry, absent_files, check_files, check_inside, joined, official_note
from rsvl_data.caption_text import decode_text
from rsvl_data.errors import DataError
from rsvl_data.json_records import parse, read_document

_TRANSLATION = re.compile(r"captions\.([a-z]{2})\.json")


@dataclass(frozen=True)
class CaptionedImage:
    """`path` is relative to the root of the images; `key` as the dataset names the image."""

    key: str
    path: str
    captions: tuple[str, ...]
    label: str | None = None


def captioned_set(
    entry: DatasetEntry,
    split: str,
    images: Sequence[CaptionedImage],
    *,
    folder: Path,
    root: Path,
    may_be_absent: bool = False,
) -> FileSet:
    """English captions and what `captions.<lang>.json` in `folder` adds; the images lie under `root`. Blank captions are left out and
    counted in the note.

    Raises DataError for images that are not there, unless `may_be_absent`: then they are left out and counted.
    """
    where = f"{folder}, split {split}"
    check_inside([image.path for image in images], where)
    paths = [root / image.path for image in images]
    absent = set(absent_files(paths)) if may_be_absent else set()
    if not may_be_absent:
        check_files(paths, where)
    kept = [image for image, path in zip(images, paths) if path not in absent]
    if images and not kept:
        raise DataError(f"{where}: none of the {len(images):,} images is there; expected for example {paths[0]}")
    translations = [(lang, _captions_by_name(path)) for lang, path in _translations(folder)]
    items = []
    for image in kept:
        said = [(text, "en") for text in image.captions if text.strip()]
        for lang, captions in translations:
            said += [(text, lang) for text in _translated(image, captions) if text.strip()]
        items.append(EvalItem(image.key, image.label, tuple(said)))
    _check_languages(items, translations, where)
    num_blank = sum(not text.strip() for image in kept for text in image.captions)
    return FileSet(
        name=entry.name,
        split=split,
        classes=tuple(sorted({image.label for image in images if image.label is not None})),
        items=items,
        root=root,
        paths=[Path(image.path) for image in kept],
        note=joined(
            official_note(entry, split, [image.key for image in kept]),
            f"{len(absent):,} of {len(images):,} images are not there and left out." if absent else None,
            f"{num_blank} blank captions are left out." if num_blank else None,
        ),
    )


# --- translations ---------------------------------------------------------------------------------------------------------


def _translations(folder: Path) -> list[tuple[str, Path]]:
    found = ((_TRANSLATION.fullmatch(path.name), path) for path in sorted(folder.glob("captions.*.json")))
    return [(match[1], path) for match, path in found if match]


def _translated(image: CaptionedImage, captions: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return captions.get(image.key) or captions.get(PurePosixPath(image.path).name) or ()


def _captions_by_name(path: Path) -> dict[str, tuple[str, ...]]:
    expected = "expected {'images': [{'filename', 'sentences': [{'raw'}]}]}"
    try:
        images = read_json(path)["images"]
        return {image["filename"]: tuple(str(sentence["raw"]) for sentence in image["sentences"]) for image in images}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not a file of translations ({type(error).__name__}: {error}); {expected}") from error


def _check_languages(items: Sequence[EvalItem], translations: list[tuple[str, Any]], where: str) -> None:
    for lang, _ in translations:
        without = [item.key for item in items if not any(its == lang for _, its in item.captions)]
        if without:
            raise DataError(
                f"{where}: captions.{lang}.json has no caption for {len(without):,} of {len(items):,} images, such as "
                f"{', '.join(without[:3])}. A language is measured on the whole split or not at all: complete the file or move it away."
            )


def read_json(path: Path) -> Any:
    """Raises DataError for a file that is no JSON."""
    try:
        return parse(decode_text(read_document(path)))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
