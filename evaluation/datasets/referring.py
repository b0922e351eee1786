"""Sets of phrases with the mask of what each means, in the layouts of their authors. One item a phrase: an image may come several times.

Easy to get wrong: a mask may be empty (RRSIS-D has some); it stays, since who leaves it out measures another split, and each protocol of
`metrics/referring` has its rule. `refs(unc).p` is a pickle: it is read without the power to name any class or function, so that
nothing in it can run.
"""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from evaluation.data import EvalItem, EvalSet, FileSet, file_sha256, split_sha256
from evaluation.datasets.entry import DatasetEntry, check_files, check_inside, choose, first_that_holds, official_note
from evaluation.datasets.segmentation.masked_files import open_image
from rsvl_data.boxes import BadGeometry, segmentation_mask
from rsvl_data.errors import DataError
from rsvl_data.mask_files import BadMask, raw_pixels
from rsvl_data.splits import split_of_name

_SPLITS = ("test", "val", "train")


class ReferringSet(EvalSet, Protocol):
    """An EvalSet of phrases: the one caption of an item is its phrase, its label the category where one is given.

    image_of   for each item the number of its image: phrases of one image stand or fall together
    """

    @property
    def image_of(self) -> Sequence[int]: ...

    def mask(self, index: int) -> np.ndarray:
        """bool [h, w]: what the phrase means. Raises DataError naming a file that cannot be used."""


@dataclass(frozen=True)
class Reference:
    """`target` is the path of a mask, true where a value is above 0, or a COCO segmentation. Paths are relative to the root."""

    key: str
    sentence: str
    image: str
    target: str | dict[str, Any] | list[Any]
    category: str | None = None


@dataclass(frozen=True)
class ReferringFiles:
    """A ReferringSet of files."""

    name: str
    split: str
    classes: tuple[str, ...]
    root: Path
    references: Sequence[Reference]
    note: str | None = None

    def __post_init__(self) -> None:
        names = [one.image for one in self.references] + [one.target for one in self.references if isinstance(one.target, str)]
        check_inside(names, f"{self.name} in {self.root}")
        check_files([self.root / name for name in dict.fromkeys(names)], f"{self.name} in {self.root}, split {self.split}")
        self._files  # noqa: B018  # checks keys

    @cached_property
    def items(self) -> Sequence[EvalItem]:
        return [EvalItem(one.key, one.category, ((one.sentence, "en"),)) for one in self.references]

    @cached_property
    def image_of(self) -> Sequence[int]:
        numbers: dict[str, int] = {}
        return [numbers.setdefault(one.image, len(numbers)) for one in self.references]

    @cached_property
    def _files(self) -> FileSet:
        paths = [Path(one.image) for one in self.references]
        return FileSet(self.name, self.split, self.classes, self.items, self.root, paths, self.note)

    def image(self, index: int) -> bytes:
        return self._files.image(index)

    def image_sha256(self, index: int) -> str:
        return self._files.image_sha256(index)

    def sha256(self) -> str:
        """Of keys, phrases, images, and the masks: files, or runs."""
        return split_sha256(self, (f"{self.image_sha256(i)} {self._mask_mark(one)}" for i, one in enumerate(self.references)))

    def _mask_mark(self, one: Reference) -> str:
        if not isinstance(one.target, str):
            return json.dumps(one.target, sort_keys=True)
        try:
            return file_sha256(self.root / one.target)
        except OSError as error:
            raise DataError(f"{self.name}: the mask of {one.key} cannot be read: {error}") from error

    def mask(self, index: int) -> np.ndarray:
        one = self.references[index]
        with open_image(self.image(index), one.image) as image:
            width, height = image.size
        try:
            if not isinstance(one.target, str):
                return segmentation_mask(one.target, width, height)
            pixels = raw_pixels((self.root / one.target).read_bytes(), (width, height))
            return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels > 0)
        except (BadMask, BadGeometry, OSError) as error:
            where = one.target if isinstance(one.target, str) else "its annotation"
            raise DataError(f"{self.name}: the mask of {one.key} ({where}) cannot be used: {error}") from error


# --- layouts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhraseLines:
    """`output_phrase_SPLIT.txt` with lines of an id, a space and a phrase; images and masks called after the id.

    RefSegRS: numbers without an ending. RISBench: "test_11_4.png", image 11 and its object 4; the image is looked for under that name and
    then without the number of the object (inferred: its authors publish no reader).
    """

    images: str
    masks: str
    ending: str = ""

    @property
    def expects(self) -> str:
        return f"output_phrase_SPLIT.txt, {self.images}/ and {self.masks}/"

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return bool(self._splits(folder)) and (folder / self.images).is_dir()

    def _splits(self, folder: Path) -> dict[str, Path]:
        paths = {split: folder / f"output_phrase_{split}.txt" for split in _SPLITS}
        return {split: path for split, path in paths.items() if path.is_file()}

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        there = self._splits(folder)
        chosen = choose(split, next(iter(there)), there, entry, folder)
        references = list(self._references(there[chosen], {path.name for path in (folder / self.images).iterdir()}))
        return _opened(entry, chosen, folder, references)

    def _references(self, path: Path, images: set[str]) -> Iterator[Reference]:
        for number, line in enumerate(_text(path).splitlines(), start=1):
            name, _, sentence = line.strip().partition(" ")
            if not name:
                continue
            if not sentence.strip():
                raise DataError(f"{path}, line {number}: {line!r}; expected an id, a space and a phrase")
            file = name + self.ending
            whole = PurePosixPath(file)
            shared = whole.stem.rpartition("_")[0] + whole.suffix
            image = file if file in images or shared not in images else shared
            yield Reference(f"{whole.stem}_{number}", sentence.strip(), f"{self.images}/{image}", f"{self.masks}/{file}")


@dataclass(frozen=True)
class CocoRefs:
    """`instances.json` in the form of COCO beside `refs*.json` or the pickle `refs(unc).p`, in the folder or one below.

    Of an annotation only the segmentation counts: in RRSIS-D `bbox` is corners and `area` wrong.
    """

    images: tuple[str, ...] = ("images/rrsisd/JPEGImages", "JPEGImages", "images")
    expects: str = "rrsisd/instances.json, rrsisd/refs(unc).p (or .json) and images/rrsisd/JPEGImages/"

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return _refs_file(folder) is not None

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        path = _refs_file(folder)
        assert path is not None
        refs = _plain_pickle(path) if path.suffix == ".p" else _json(path)
        rows = refs["refs"] if isinstance(refs, dict) and "refs" in refs else refs
        instances = _json(path.parent / "instances.json")
        try:
            there = [name for name in _SPLITS if any(split_of_name(ref["split"]) == name for ref in rows)]
            chosen = choose(split, (there or ["test"])[0], there, entry, folder)
            mine = [ref for ref in rows if split_of_name(ref["split"]) == chosen]
            roots = [folder / name for name in self.images]
            images = first_that_holds(roots, [ref["file_name"] for ref in mine]).relative_to(folder).as_posix()
            references = list(_of_refs(mine, instances, images))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} and instances.json do not fit: {error!r}. Expected refs with file_name, split, ann_id, ref_id and sentences"
            ) from error
        return _opened(entry, chosen, folder, references)


def _of_refs(refs: list[dict[str, Any]], instances: dict[str, Any], images: str) -> Iterator[Reference]:
    annotations = {row["id"]: row for row in instances["annotations"]}
    categories = {row["id"]: row["name"] for row in instances["categories"]}
    for ref in refs:
        row = annotations[ref["ann_id"]]
        category = categories[row["categories_id"] if "categories_id" in row else row["category_id"]]
        for number, sentence in enumerate(ref["sentences"]):
            key = f"{PurePosixPath(ref['file_name']).stem}_{ref['ref_id']}_{number}"
            yield Reference(key, str(sentence["sent"]), f"{images}/{ref['file_name']}", row["segmentation"], category)


@dataclass(frozen=True)
class PhraseRecords:
    """Lines of JSON as RSRefSeg 2 has them for RRSIS-D, RefSegRS and RISBench: split, sent, file_name, segmentation (run lengths, or a list
    of them) and category_name where there is one."""

    images: tuple[str, ...] = ("images", "JPEGImages", "img_rgb", "images/rrsisd/JPEGImages", ".")
    expects: str = "*.jsonl with split, sent, file_name, segmentation"

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return next(folder.glob("*.jsonl"), None) is not None

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        records = [(path, record) for path in sorted(folder.glob("*.jsonl")) for record in _json_lines(path)]
        try:
            there = [name for name in _SPLITS if any(split_of_name(record["split"]) == name for _, record in records)]
            chosen = choose(split, (there or ["test"])[0], there, entry, folder)
            mine = [record for _, record in records if split_of_name(record["split"]) == chosen]
            roots = [folder / name for name in self.images]
            images = first_that_holds(roots, [record["file_name"] for record in mine]).relative_to(folder).as_posix()
            references = [
                Reference(
                    f"{PurePosixPath(record['file_name']).stem}_{number}",
                    str(record["sent"]),
                    f"{images}/{record['file_name']}",
                    record["segmentation"],
                    record.get("category_name"),
                )
                for number, record in enumerate(mine)
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{folder}: a record is not whole: {error!r}. Expected {self.expects}") from error
        return _opened(entry, chosen, folder, references)


def _opened(entry: DatasetEntry, split: str, folder: Path, references: list[Reference]) -> ReferringFiles:
    classes = entry.classes or tuple(sorted({one.category for one in references if one.category is not None}))
    note = official_note(entry, split, [one.key for one in references])
    return ReferringFiles(entry.name, split, classes, folder, references, note and note.replace(" images", " phrases"))


# --- files ----------------------------------------------------------------------------------------------------------------


def _refs_file(folder: Path) -> Path | None:
    for place in (folder, folder / "rrsisd"):
        if (place / "instances.json").is_file():
            return next(iter([*sorted(place.glob("refs*.json")), *sorted(place.glob("refs*.p"))]), None)
    return None


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, and could run it")


def _plain_pickle(path: Path) -> Any:
    """Lists, dicts, text and numbers. Raises DataError for anything else."""
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes may raise anything
        raise DataError(f"{path} is not the pickle of plain lists that RRSIS-D publishes: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}") from error


def _json(path: Path) -> Any:
    return _parsed(_text(path), str(path))


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            yield _parsed(line, f"{path}, line {number}")


def _parsed(text: str, where: str, parse: Callable[[str], Any] = json.loads) -> Any:
    try:
        return parse(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
