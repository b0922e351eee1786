"""A layout in which images and masks are paired by their paths: two patterns whose groups must agree.

An image without its mask is an error, since a part of a split is another split; a mask without its image is told in the note (the
xBD part of OpenEarthMap is handed out without images).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.data import EvalSet
from evaluation.datasets.entry import DatasetEntry, choose, joined, official_note
from evaluation.datasets.segmentation.masked_files import Labels, MaskedFiles, Pair, open_image
from evaluation.datasets.segmentation.tiles import Tiles
from rsvl_data.errors import DataError

_MAX_DEPTH = 5


@dataclass(frozen=True)
class PairedFiles:
    """`image` and `mask` are patterns of whole paths below the folder, with / between names; {split} is the word of `splits`. What their
    groups hold, joined with "_", is the key.

    splits   our name of a split -> the word in its paths
    only     our name of a split -> the keys it has, where paths do not tell
    lists    name of published lists of file names, with {split}, where paths do not tell
    """

    expects: str
    image: str
    mask: str
    labels: Labels
    splits: Mapping[str, str]
    synonyms: tuple[tuple[str, ...], ...] = ()
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    lists: str | None = None
    tiles: Tiles | None = None

    def matches(self, folder: Path, entry: DatasetEntry) -> bool:
        return any(self._is_there(folder, split) for split in self.splits)

    def _is_there(self, folder: Path, split: str) -> bool:
        """Whether it has masks: images of a split whose labels are withheld cannot be measured on."""
        word = self.splits[split]
        if self.lists and not (folder / self.lists.format(split=word)).is_file():
            return False
        pattern = re.compile(self.mask.replace("{split}", re.escape(word)))
        found = filter(None, map(pattern.fullmatch, _files(folder)))
        return any(split not in self.only or _key(match) in self.only[split] for match in found)

    def open(self, folder: Path, split: str | None, entry: DatasetEntry) -> EvalSet:
        there = [name for name in self.splits if self._is_there(folder, name)]
        chosen = choose(split, there[0], there, entry, folder)
        word = re.escape(self.splits[chosen])
        files = sorted(_files(folder))
        images, masks = (_by_key(files, pattern.replace("{split}", word), folder) for pattern in (self.image, self.mask))
        wanted = self._wanted(folder, chosen)
        if wanted is not None:
            images = {key: path for key, path in images.items() if key in wanted or Path(path).name in wanted}
        without = [key for key in images if key not in masks]
        if without:
            raise DataError(
                f"{entry.title} in {folder}, split {chosen}: {len(without):,} of {len(images):,} images have no mask, such as "
                f"{images[without[0]]}. Expected {self.expects}"
            )
        pairs = [Pair(key, Path(path), Path(masks[key])) for key, path in images.items()]
        extra = _missing_note(wanted, pairs)
        names = [pair.image.name for pair in pairs]
        return MaskedFiles(
            name=entry.name,
            split=chosen,
            labels=self.labels,
            synonyms=self.synonyms or tuple((name,) for name in self.labels.classes),
            root=folder,
            pairs=pairs if self.tiles is None else list(_cut(folder, pairs, self.tiles)),
            note=joined(None if self._is_cut_already else official_note(entry, chosen, names), extra),
        )

    @property
    def _is_cut_already(self) -> bool:
        return self.image.startswith("img_dir/")

    def _wanted(self, folder: Path, split: str) -> frozenset[str] | None:
        if self.lists is None:
            return self.only.get(split)
        path = folder / self.lists.format(split=self.splits[split])
        return frozenset(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())


def _missing_note(wanted: frozenset[str] | None, pairs: list[Pair]) -> str | None:
    if wanted is None or len(wanted) == len(pairs):
        return None
    return f"{len(pairs):,} of the {len(wanted):,} images of the split are here."


def _cut(folder: Path, pairs: list[Pair], tiles: Tiles) -> Iterator[Pair]:
    """Sizes are read from the headers."""
    for pair in pairs:
        with open_image((folder / pair.image).read_bytes(), str(folder / pair.image)) as image:
            size = image.size
        for window in tiles.windows(*size):
            key = f"{pair.key}_{window.y0}_{window.y1}_{window.x0}_{window.x1}"
            yield Pair(key, pair.image, pair.mask, window)


def _by_key(files: list[str], pattern: str, folder: Path) -> dict[str, str]:
    """Raises DataError for two files with one key."""
    compiled, found = re.compile(pattern), dict[str, str]()
    for path in files:
        match = compiled.fullmatch(path)
        if match:
            key = _key(match)
            if key in found:
                raise DataError(f"{folder}: {path} and {found[key]} are both {key}. Remove one of them")
            found[key] = path
    return found


def _key(match: re.Match[str]) -> str:
    return "_".join(group for group in match.groups() if group)


def _files(folder: Path, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Relative to the folder. Nothing is asked of a file but its name."""
    with os.scandir(folder) as children:
        for child in children:
            if child.name.startswith("."):
                continue
            if not child.is_dir():
                yield prefix + child.name
            elif depth < _MAX_DEPTH:  # a link to a folder above would lead on without end
                yield from _files(Path(child.path), f"{prefix}{child.name}/", depth + 1)
