"""Caption sets as their authors publish them: one JSON of all splits beside a folder of images.

`KarpathyJson` is RSICD, RSITMD, UCM-Captions, Sydney-Captions: {"images": [{"filename", "split", "sentences": [{"raw"}], "class"?}]}.
`NwpuJson` is NWPU-Captions: {class: [{"filename", "split", "raw", "raw_1", ..., "raw_4"}]}, images in folders of classes or not.
What is easy to get wrong: `raw` is the sentence, `tokens` may differ; sentences repeat within and between images and all count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.data import EvalSet
from evaluation.datasets.captioned import CaptionedImage, captioned_set, read_json
from evaluation.datasets.entry import DatasetEntry, choose, first_that_holds
from rsvl_data.errors import DataError
from rsvl_data.sources import karpathy
from rsvl_data.splits import given_split

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class KarpathyJson:
    """`files` and `images` are the names in use, the authors' first."""

    files: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def expects(self) -> str:
        return f"{self.files[0]} beside {self.images[0]}/"

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return any((folder / name).is_file() for name in self.files)

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        path = next(folder / name for name in self.files if (folder / name).is_file())
        found: dict[str, list[CaptionedImage]] = {}
        faults = []
        for record in karpathy.list_entries(path):
            if fault := record.facts.get("fault"):
                faults.append(fault[1])
            else:
                facts = record.facts
                image = CaptionedImage(record.id, record.id, tuple(facts["captions"]), facts["label"])
                found.setdefault(record.split or "all", []).append(image)
        if faults:
            raise DataError(f"{path} has {len(faults)} records that cannot be used. The first: {faults[0]}")
        return _split_set(entry, folder, split, found, self.images)


@dataclass(frozen=True)
class NwpuJson:
    file: str
    images: tuple[str, ...]

    @property
    def expects(self) -> str:
        return f"{self.file} beside {self.images[0]}/CLASS/"

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return (folder / self.file).is_file()

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        found: dict[str, list[CaptionedImage]] = {}
        for its, image in _nwpu_records(folder / self.file):
            found.setdefault(its, []).append(image)
        return _split_set(entry, folder, split, found, self.images)


def _nwpu_records(path: Path) -> Iterator[tuple[str, CaptionedImage]]:
    """Raises DataError for a file of another form, naming the record."""
    document = read_json(path)
    if not isinstance(document, dict) or not all(isinstance(records, list) for records in document.values()):
        raise DataError(
            f"{path} is not in the form of NWPU-Captions; expected {{class: [{{'filename', 'split', 'raw', 'raw_1', ...}}]}}"
        )
    for label, records in document.items():
        for number, record in enumerate(records):
            where = f"{path}: {label}, record {number}"
            if not isinstance(record, dict) or not all(
                isinstance(record.get(name), str) for name in ("filename", "split", "raw")
            ):
                raise DataError(f"{where} is {str(record)[:120]}; expected filename, split and raw as texts")
            texts = [record["raw"], *(record[name] for name in ("raw_1", "raw_2", "raw_3", "raw_4") if name in record)]
            split = given_split(record["split"], where) or "all"
            yield split, CaptionedImage(record["filename"], f"{label}/{record['filename']}", tuple(map(str, texts)), label)


def _split_set(
    entry: DatasetEntry, folder: Path, split: str | None, found: dict[str, list[CaptionedImage]], image_folders: tuple[str, ...]
) -> EvalSet:
    known = [name for name in (*_SPLITS, "all") if name in found]
    chosen = choose(split, entry.splits[0].name, known, entry, folder)
    images = found[chosen]
    roots = [folder / name for name in image_folders]
    if not any((root / images[0].path).is_file() for root in roots):  # some copies have no folders of classes
        flat = [replace(image, path=image.path.rpartition("/")[2]) for image in images]
        images = flat if any((root / flat[0].path).is_file() for root in roots) else images
    root = first_that_holds(roots, [image.path for image in images])
    return captioned_set(entry, chosen, images, folder=folder, root=root)
