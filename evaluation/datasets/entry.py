"""What is known of a public dataset: where it lies on a disk, its official splits, classes, licence, home.

A dataset is found below a root by the name of its folder, in any spelling of case, spaces, hyphens and underscores; what lies in the
folder decides which layout reads it. Numbers compare only on the same images, so what differs from the published split gets a note.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from evaluation.data import EvalSet
from rsvl_data.errors import DataError

Task = Literal["zero-shot", "retrieval", "segmentation", "referring"]


class NoSuchSplit(DataError):
    """`there` are the splits that the copy has."""

    def __init__(self, message: str, there: list[str]):
        super().__init__(message)
        self.there = there


@dataclass(frozen=True)
class OfficialSplit:
    """`num_images` None: not known. `files_sha256` is the `names_sha256` of the published images, `list_md5` the checksum of the published
    file that lists them; None where we could not see the list."""

    name: str
    num_images: int | None
    files_sha256: str | None = None
    list_md5: str | None = None


class Layout(Protocol):
    """One form in which a dataset lies in its folder."""

    @property
    def expects(self) -> str:
        """What has to be there, to follow the word "expected"."""

    def matches(self, folder: Path, entry: "DatasetEntry") -> bool:
        """Whether the folder looks like it, from a few names."""

    def open(self, folder: Path, split: str | None, entry: "DatasetEntry") -> EvalSet:
        """Raises NoSuchSplit for a split that is not there, DataError for files that are missing or names that do not fit."""


@dataclass(frozen=True)
class DatasetEntry:
    """One dataset of the catalogue.

    classes   in the official order and spelling; () where the dataset brings the list itself or has none
    splits    the first is measured when none is asked for, if the layout has it
    folders   names the folder goes by; the archive's own first
    family    what the images are called where several entries have the same ones, with other classes or texts
    aliases   other spellings of classes in folders -> the class
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    splits: tuple[OfficialSplit, ...]
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]
    home: str
    licence: str
    citation: str
    notes: str
    classes: tuple[str, ...] = ()
    num_classes: int | None = None
    family: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)

    def find(self, root: Path) -> Path | None:
        """The folder of the dataset below `root`, or `root` itself; None when it is not there."""
        return next((folder for folder, _ in self._found(root)), None)

    def splits_under(self, root: Path) -> list[str]:
        """Of the copy below `root`, which need not be the published ones. Raises DataError for one whose lists cannot be read."""
        for folder, layout in self._found(root):
            try:
                layout.open(folder, "", self)
            except NoSuchSplit as error:
                return error.there
        return []

    def open(self, root: Path, split: str | None = None) -> EvalSet:
        """Raises DataError when it is not under `root`, or is not whole."""
        if not root.is_dir():
            raise DataError(f"{root} does not exist. Give the folder that holds {self.folders[0]}.")
        found = next(self._found(root), None)
        if found is None:
            expected = "\n".join(f"  {layout.expects}" for layout in self.layouts)
            there = next(folders_called(root, self.folders), None)
            raise DataError(
                f"{there} holds nothing of {self.title}. Expected one of\n{expected}\n"
                if there
                else f"{self.title} is not under {root}. Expected a folder called {' or '.join(self.folders)} with one of\n{expected}\n"
                f"Get it at {self.home}"
            )
        folder, layout = found
        return layout.open(folder, split, self)

    def official(self, split: str) -> OfficialSplit | None:
        return next((known for known in self.splits if known.name == split), None)

    def _found(self, root: Path) -> Iterator[tuple[Path, Layout]]:
        for folder in folders_called(root, self.folders):
            for layout in self.layouts:
                if layout.matches(folder, self):
                    yield folder, layout


def folders_called(root: Path, names: Iterable[str]) -> Iterator[Path]:
    """Folders that go by one of these names: the root first, since people give the folder of one dataset, too, then those in it."""
    wanted = [spelling(name) for name in names]
    if not root.is_dir():
        return
    if spelling(root.resolve().name) in wanted:
        yield root
    children = sorted(child for child in root.iterdir() if child.is_dir())
    for name in wanted:
        yield from (child for child in children if spelling(child.name) == name)


def spelling(name: str) -> str:
    """Letters and digits alone, lower case: "Bare_Land", "BareLand" and "bare land" are one name."""
    return re.sub(r"[\W_]+", "", name).lower()


def names_sha256(names: Iterable[str]) -> str:
    """The identity of a list of images: of their file names in order, without folder and ending, lower case, a line each.

    Without the ending, since copies are re-encoded (.tif as .jpg); without the folder, since copies rename it.
    """
    stems = sorted(PurePosixPath(name).stem.lower() for name in names)
    return hashlib.sha256("".join(f"{stem}\n" for stem in stems).encode()).hexdigest()


def official_note(entry: DatasetEntry, split: str, names: list[str]) -> str | None:
    """A sentence when these images are not those of the published split, as far as that is known."""
    official = entry.official(split)
    if official is None:
        return f"{entry.title}: split {split!r} ({len(names):,} images) is not a published one; numbers on it compare only with themselves."
    if official.num_images not in (None, len(names)):
        return (
            f"{entry.title}, split {split}: {len(names):,} images here, {official.num_images:,} as published; "
            "numbers do not compare with published ones."
        )
    if official.files_sha256 and names_sha256(names) != official.files_sha256:
        return f"{entry.title}, split {split}: other file names than published; numbers may not compare with published ones."
    return None


def joined(*notes: str | None) -> str | None:
    return " ".join(note for note in notes if note) or None


# --- what every layout asks of a folder -----------------------------------------------------------------------------------


def check_files(paths: list[Path], what: str) -> None:
    """Raises DataError that begins with `what` and names the first of the files that are not there. A folder is listed once."""
    absent = absent_files(paths)
    if absent:
        shown = ", ".join(str(path) for path in absent[:3])
        raise DataError(
            f"{what}: {len(absent):,} of {len(paths):,} images are not there, such as {shown}. "
            "Complete the download; a part of a split is another split."
        )


def check_inside(names: Iterable[str], what: str) -> None:
    """Raises DataError for a name that leads out of the folder: such a table would have us read anything."""
    outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise DataError(
            f"{what}: {len(outside)} names lead out of the folder, such as {outside[0][:200]!r}; expected paths in it"
        )


def absent_files(paths: list[Path]) -> list[Path]:
    listed: dict[Path, set[str]] = {}
    absent = []
    for path in paths:
        if path.parent not in listed:
            listed[path.parent] = _names_in(path.parent)
        if path.name not in listed[path.parent]:
            absent.append(path)
    return absent


def _names_in(folder: Path) -> set[str]:
    try:
        return {child.name for child in folder.iterdir()}
    except OSError:
        return set()


def first_that_holds(roots: Iterable[Path], relative: list[str]) -> Path:
    """The first of the roots under which the first of these files lies; the first root when there is none, for the error to name."""
    candidates = list(roots)
    holding = (root for root in candidates if relative and (root / relative[0]).is_file())
    return next(holding, candidates[0])


def choose(split: str | None, default: str, available: Iterable[str], entry: DatasetEntry, folder: Path) -> str:
    """Raises NoSuchSplit for a split that the folder does not have."""
    names = list(available)
    chosen = default if split is None else split
    if chosen not in names:
        raise NoSuchSplit(f"{entry.title} in {folder} has no split {chosen!r}; it has {', '.join(names)}", names)
    return chosen
