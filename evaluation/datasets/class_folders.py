"""Scenes in one folder a class, at any depth: ROOT/CLASS/image, ROOT/Images/CLASS/image, ROOT/SUPERCLASS/CLASS/image.

Easy to get wrong: the spelling of folders varies between copies and decides the words of a prompt, so a label is always the official
spelling. A folder that is no class, or a class without a folder, is an error: one wrong class moves every number.

Splits, the first that is there: `splits.csv` beside the folders (columns filename, split; ours), folders called train, val or test,
published lists of file names, and always `all`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evaluation.data import EvalItem, EvalSet, FileSet
from evaluation.datasets.entry import DatasetEntry, choose, joined, official_note, spelling
from rsvl_data.errors import DataError
from rsvl_data.images import READABLE_SUFFIXES
from rsvl_data.splits import given_split, split_of_name
from rsvl_data.table_rows import Fault, column_names, read_rows

_SPLITS = ("train", "val", "test")
_IMAGE_ENDINGS = tuple(READABLE_SUFFIXES)
_MAX_DEPTH = 3  # of class folders; fMoW and split folders have one more above or below


@dataclass(frozen=True)
class ClassFolders:
    """`lists` is the name of published lists of file names, with {} for the split. `level` says how many folders above the image its class
    stands. Images whose names do not end in `ending` are others' (other bands, other renderings)."""

    lists: str | None = None
    level: int = 1
    ending: str = ""

    @property
    def expects(self) -> str:
        return "a folder of images a class" + (f", {self.lists.format('SPLIT')} beside them for splits" if self.lists else "")

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        known = _known(entry)
        return any(spelling(name) in known for name in _folder_names(folder, _MAX_DEPTH))

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        table = next((path for path in (folder / "splits.csv", folder.parent / "splits.csv") if path.is_file()), None)
        below = {} if table else _split_folders(folder)
        of_file = _read_splits(table) if table else {}
        lists = self._lists(folder) if not (table or below) else {}
        names = [name for name in _SPLITS if name in below or name in lists or name in of_file.values()]
        chosen = choose(split, "test" if table else entry.splits[0].name, [*names, "all"], entry, folder)
        images = list(_images(below.get(chosen, folder), folder, self.ending))
        notes = None
        if chosen in lists:
            images, notes = _of_list(images, lists[chosen], entry, chosen)
        elif table and chosen != "all":
            images = _of_table(images, {name for name, its in of_file.items() if its == chosen}, table)
        return self._labelled(images, folder, chosen, entry, notes)

    def _lists(self, folder: Path) -> dict[str, Path]:
        places = (folder, folder.parent)
        named = {split: self.lists.format(split) for split in _SPLITS} if self.lists else {}
        return {split: place / name for split, name in named.items() for place in places if (place / name).is_file()}

    def _labelled(self, images: list[str], folder: Path, split: str, entry: DatasetEntry, note: str | None) -> FileSet:
        """In the order of the classes, then of file names."""
        known, places = _known(entry), {label: place for place, label in enumerate(entry.classes)}
        extra = Counter[str]()
        rows = []
        for image in images:
            parts = image.split("/")
            name = parts[-1 - self.level] if len(parts) > self.level else ""
            label = known.get(spelling(name))
            if label is None:
                extra[name or "."] += 1
            else:
                rows.append((places[label], parts[-1], label, image))
        found = {label for _, _, label, _ in rows}
        missing = [label for label in entry.classes if label not in found]
        if extra or missing:
            raise _wrong_classes(entry, folder, split, missing, extra)
        rows.sort()
        names = [row[1] for row in rows]
        return FileSet(
            name=entry.name,
            split=split,
            classes=entry.classes,
            items=[EvalItem(f"{label}/{name}", label) for _, name, label, _ in rows],
            root=folder,
            paths=[Path(row[3]) for row in rows],
            note=joined(official_note(entry, split, names), note),
        )


def _wrong_classes(entry: DatasetEntry, folder: Path, split: str, missing: list[str], extra: Counter[str]) -> DataError:
    return DataError(
        f"{folder}: the folders are not the {len(entry.classes)} classes of {entry.title} (split {split}). "
        f"Missing: {', '.join(missing) or 'none'}. "
        f"Not a class: {', '.join(f'{name} ({count} images)' for name, count in sorted(extra.items())) or 'none'}. "
        "Rename or move what does not belong there, or complete the download."
    )


def _known(entry: DatasetEntry) -> dict[str, str]:
    """Spellings of folders -> classes."""
    return {spelling(label): label for label in entry.classes} | {
        spelling(other): label for other, label in entry.aliases.items()
    }


# --- the folder -----------------------------------------------------------------------------------------------------------


def _folder_names(folder: Path, depth: int) -> Iterator[str]:
    """Breadth first, so that the answer comes before a large folder is listed."""
    level = [folder]
    for _ in range(depth):
        children = []
        for parent in level:
            with os.scandir(parent) as found:
                children += sorted(child.path for child in found if child.is_dir() and not child.name.startswith("."))
        yield from (os.path.basename(child) for child in children)  # noqa: PTH119  # no Path for each of many
        level = [Path(child) for child in children]


def _split_folders(folder: Path) -> dict[str, Path]:
    for place in (folder, folder / "images", folder / "Images"):
        found = {split: child for child in _subfolders(place) if (split := split_of_name(child.name))}
        if found:
            return found
    return {}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []


def _images(below: Path, root: Path, ending: str) -> Iterator[str]:
    """Relative to `root`. Nothing is asked of a file but its name: a set may have 700,000."""
    prefix = "" if below == root else f"{below.relative_to(root).as_posix()}/"
    waiting = [(str(below), prefix)]
    while waiting:
        path, prefix = waiting.pop()
        with os.scandir(path) as children:
            for child in children:
                if child.name.startswith("."):
                    continue
                if child.is_dir():
                    if prefix.count("/") <= _MAX_DEPTH:  # a link to a folder above would lead on without end
                        waiting.append((child.path, f"{prefix}{child.name}/"))
                    continue
                name = child.name.lower()
                if prefix and name.endswith(ending) and name.endswith(_IMAGE_ENDINGS):
                    yield prefix + child.name


# --- splits ---------------------------------------------------------------------------------------------------------------


def _read_splits(path: Path) -> dict[str, str]:
    """File name -> split. Raises DataError for a table without the columns, or with a row that cannot be read."""
    if not {"filename", "split"} <= set(column_names(path)):
        raise DataError(f"{path} has columns {', '.join(column_names(path))[:200]}; expected filename and split")
    splits: dict[str, str] = {}
    for number, row in read_rows(path, only={"filename", "split"}):
        if isinstance(row, Fault):
            raise DataError(f"{path}: {row.detail}. Expected the columns filename and split")
        name, split = row.get("filename"), row.get("split")
        if not isinstance(name, str) or not isinstance(split, str):
            raise DataError(f"{path}: row {number} has filename {name!r} and split {split!r}; expected both")
        if name in splits:
            raise DataError(f"{path}: row {number} names {name} again. Each image has one split")
        splits[name] = given_split(split, f"{path}: {name}") or ""
    return splits


def _of_table(images: list[str], wanted: set[str], table: Path) -> list[str]:
    """Rows name an image with its class folder or without."""
    kept, found = [], set()
    for image in images:
        names = {"/".join(image.split("/")[-2:]), image.rsplit("/", 1)[-1]} & wanted
        if names:
            kept.append(image)
            found |= names
    _check_all_found(wanted - found, len(wanted), table)
    return kept


def _of_list(images: list[str], path: Path, entry: DatasetEntry, split: str) -> tuple[list[str], str | None]:
    """Compared without the ending, which copies change."""
    content = path.read_bytes()
    wanted = {PurePosixPath(line.strip()).stem for line in content.decode("utf-8", "replace").splitlines() if line.strip()}
    kept = [image for image in images if PurePosixPath(image).stem in wanted]
    _check_all_found(wanted - {PurePosixPath(image).stem for image in kept}, len(wanted), path)
    official = entry.official(split)
    differs = official and official.list_md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != official.list_md5
    return kept, f"{path.name} is not the published list." if differs else None


def _check_all_found(absent: set[str], num_wanted: int, path: Path) -> None:
    if absent:
        raise DataError(
            f"{path} names {num_wanted:,} images, of which {len(absent):,} are not there, such as {', '.join(sorted(absent)[:3])}. "
            "Complete the download, or give another split."
        )
