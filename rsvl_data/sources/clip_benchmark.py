"""The webdataset layout of CLIP_benchmark, https://github.com/LAION-AI/CLIP_benchmark: FOLDER/SPLIT/{0..n-1}.tar and nshards.txt.

Classification: KEY.cls is the class index as decimal text, a line of `classnames.txt`. Retrieval (`dataset_type.txt` says so): KEY.txt
has one caption a line. What is easy to get wrong: nshards.txt may lack a final line break; 10.tar comes after 9.tar; a missing shard
is an error that only nshards.txt shows. `zeroshot_classification_templates.txt` is a matter of evaluation and not read.
"""

from collections.abc import Iterator
from pathlib import Path

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry, split_of_name
from rsvl_data.sources.tar_files import find_tar
from rsvl_data.sources.tar_members import Described, MemberSource, Refused, image_member, tar_entries, text_member

EXPECTS = "SPLIT/nshards.txt beside SPLIT/0.tar, with classnames.txt or captions in KEY.txt (CLIP_benchmark's webdataset layout)"
_MAX_SHARDS = 100_000


def find(path: Path) -> Path | None:
    """The folder of the split folders; a split folder itself stands for that split alone."""
    return path if path.is_dir() and _split_folders(path) else None


def open(path: Path, name: str, image_form: ImageForm) -> MemberSource:
    """Raises DataError when classnames.txt is not text."""
    root = path.parent if _split_folders(path) == [path] else path
    classes = _class_names(root)

    def describe(entry: Entry, members: dict[str, bytes]) -> Described:
        captions = text_member(members, "txt").splitlines() if "txt" in members else []
        return Described(image_member(members), captions, label=_label(members, classes))

    return MemberSource(name, root, lambda: list_entries(path), describe, image_form)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError when nshards.txt holds no number."""
    for folder in _split_folders(path):
        for shard in range(_num_shards(folder / "nshards.txt")):
            root = path.parent if folder == path else path
            yield from tar_entries(root, f"{folder.name}/{find_tar(folder, str(shard))}", split_of_name(folder.name))


def _split_folders(path: Path) -> list[Path]:
    if (path / "nshards.txt").is_file():
        return [path]
    return sorted(file.parent for file in path.glob("*/nshards.txt"))


def _num_shards(path: Path) -> int:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not (text.isdecimal() and len(text) < 7 and int(text) <= _MAX_SHARDS):
        raise DataError(f"{path} holds {text[:40]!r}; expected the number of shards, {_MAX_SHARDS} at the most")
    return int(text)


def _class_names(root: Path) -> list[str]:
    path = root / "classnames.txt"
    if not path.is_file():
        return []
    try:
        return path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}") from error


def _label(members: dict[str, bytes], classes: list[str]) -> str | None:
    if "cls" not in members:
        return None
    text = text_member(members, "cls").strip()
    if not (text.isdecimal() and len(text) < 10 and int(text) < len(classes)):
        raise Refused("bad_label", f"cls is {text[:40]!r}; classnames.txt names {len(classes)} classes, counted from 0")
    return classes[int(text)].strip()
