"""GAIA: {train,val,test}_data.json as released, images in `images/` under the last part of their address.

Images come from the addresses, and addresses die: those that are not there are left out, and the note of the split counts them.
Captions are kept as released, with their lead-in "The image showcases:". The alt text of the web page is no caption.
img2dataset shards, as the authors' options make them, are read by `rsvl run data/import`; measure that dataset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from evaluation.data import EvalSet
from evaluation.datasets.captioned import CaptionedImage, captioned_set
from evaluation.datasets.entry import DatasetEntry, choose
from rsvl_data.errors import DataError
from rsvl_data.sources import gaia

_SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class GaiaRecords:
    expects: str = "test_data.json beside images/"

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return bool(_files(folder))

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        files = _files(folder)
        chosen = choose(split, "test", files, entry, folder)
        return captioned_set(entry, chosen, list(_images(files[chosen], folder)), folder=folder, root=folder, may_be_absent=True)


def _files(folder: Path) -> dict[str, Path]:
    names = [(split, folder / f"{split}_data{ending}") for split in _SPLITS for ending in (".jsonl", ".json")]
    return {split: path for split, path in names if path.is_file()}


def _images(path: Path, folder: Path) -> Iterator[CaptionedImage]:
    for number, (record, _) in enumerate(gaia.read_records(path, folder)):
        url, captions = (record.get("image_src"), record.get("captions")) if isinstance(record, dict) else (None, None)
        if not isinstance(url, str) or not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
            raise DataError(f"{path}: record {number} is {str(record)[:120]}; expected image_src and a list of captions")
        name = PurePosixPath(unquote(urlsplit(url).path)).name
        if not name:
            raise DataError(f"{path}: record {number} has image_src {url[:120]!r}, which does not end in the name of a file")
        yield CaptionedImage(str(record.get("id") or name), f"images/{name}", tuple(captions))
