"""Tables that name images: the benchmark files of SkyScript and the retrieval files of GeoRSCLIP.

`LabelTable`   FOLDER/TABLE.csv (filepath, label) and FOLDER/classnames.txt, whose lines are the classes. Labels are names or line numbers
               from 0. https://github.com/wangzhecheng/SkyScript/blob/df09dc8ae3194f7dd07c3a259451976fb603709b/benchmark_dataset_info.py
`PairTable`    one row a pair of image and caption; the rows of an image are joined, in the order of the file.
               SkyScript: filepath, title. GeoRSCLIP: filename, title, GB18030 for RSICD (the encoding is found out).

SkyScript's paths begin at the root of all benchmarks (RSICD/RSICD_images/x.jpg), so images are looked for beside the table and one
folder up, as the first row of the table says.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.data import EvalItem, EvalSet, FileSet
from evaluation.datasets.captioned import CaptionedImage, captioned_set
from evaluation.datasets.entry import DatasetEntry, check_files, check_inside, choose, first_that_holds, official_note
from rsvl_data.errors import DataError
from rsvl_data.table_rows import Fault, read_rows


@dataclass(frozen=True)
class LabelTable:
    """`files` are split -> name of the table."""

    files: Mapping[str, str]

    @property
    def expects(self) -> str:
        return f"{' or '.join(self.files.values())} beside classnames.txt (SkyScript)"

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return any((folder / name).is_file() for name in self.files.values())

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        there = [name for name, file in self.files.items() if (folder / file).is_file()]
        chosen = choose(split, there[0], there, entry, folder)
        table, classes = folder / self.files[chosen], _class_names(folder / "classnames.txt")
        rows = [(name, _label(row.get("label"), classes, where)) for where, name, row in _rows(table, "filepath", {"label"})]
        paths = [name for name, _ in rows]
        check_inside(paths, str(table))
        root = first_that_holds((folder / "..", folder), paths)
        check_files([root / path for path in paths], str(table))
        return FileSet(
            name=entry.name,
            split=chosen,
            classes=classes,
            items=[EvalItem(name, label) for name, label in rows],
            root=root,
            paths=[Path(path) for path in paths],
            note=official_note(entry, chosen, paths),
        )


@dataclass(frozen=True)
class PairTable:
    """`files` are split -> name of the table, in the folder or in a folder of it; `images` where the images lie, seen from the folder."""

    files: Mapping[str, str]
    image: str = "filepath"
    caption: str = "title"
    images: tuple[str, ...] = ("..", ".")
    folders: tuple[str, ...] = (".", "dataframe")

    @property
    def expects(self) -> str:
        return f"{' or '.join(self.files.values())} with the columns {self.image}, {self.caption}"

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return bool(self._there(folder))

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        tables = self._there(folder)
        chosen = choose(split, next(iter(tables)), tables, entry, folder)
        captions: dict[str, list[str]] = {}
        for where, name, row in _rows(tables[chosen], self.image, {self.caption}):
            if not isinstance(row.get(self.caption), str):
                raise DataError(f"{where} has no {self.caption}; expected one row a pair of {self.image} and {self.caption}")
            captions.setdefault(name, []).append(row[self.caption])
        root = first_that_holds((folder / name for name in self.images), list(captions))
        images = [CaptionedImage(name, name, tuple(texts)) for name, texts in captions.items()]
        return captioned_set(entry, chosen, images, folder=folder, root=root)

    def _there(self, folder: Path) -> dict[str, Path]:
        """In the order of `files`."""
        places = {split: [folder / place / name for place in self.folders] for split, name in self.files.items()}
        return {split: path for split, paths in places.items() if (path := next(filter(Path.is_file, paths), None))}


def _rows(table: Path, image: str, others: set[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Where a row stands, its image and the row. Raises DataError for a row that names none or cannot be read."""
    num_rows = 0
    for number, row in read_rows(table, only={image, *others}):
        where = f"{table}: row {number}"
        if isinstance(row, Fault):
            raise DataError(f"{where} cannot be used: {row.detail}. Expected the columns {image}, {', '.join(others)}")
        name = row.get(image)
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where} has {', '.join(row)} and names no image; expected the columns {image}, {', '.join(others)}")
        num_rows += 1
        yield where, name, row
    if not num_rows:
        raise DataError(f"{table} has no rows; expected the columns {image}, {', '.join(others)}")


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). It names the classes, one a line, in the order of the label numbers"
        ) from error
    if len(set(names)) != len(names) or not names:
        raise DataError(f"{path} has {len(names)} lines, {len(set(names))} of them different; expected each class once")
    return names


def _label(value: Any, classes: tuple[str, ...], where: str) -> str | None:
    """None for an empty cell, as SkyScript's script leaves such rows out. Raises DataError for what is no class."""
    if value is None or value == "":
        return None
    text = str(value).strip()
    if text in classes:
        return text
    if text.isdecimal() and int(text) < len(classes):
        return classes[int(text)]
    raise DataError(
        f"{where} has label {text[:80]!r}, which is neither a line of classnames.txt nor its number (0 to {len(classes) - 1})"
    )
