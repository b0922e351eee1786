"""One split of a dataset of the Hugging Face Hub (`hub:org/name`) or of a folder that `datasets.load_dataset` understands.

The column of type Image is the image; a ClassLabel, or a column of words called label or class, the scene class; captions come from the
columns of `rsvl_data/sources/hub_rows.py`. Images stay encoded. `datasets` takes a second to import, so it is imported where it is used.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.data import EvalItem, check_items, split_sha256
from rsvl_data.errors import DataError
from rsvl_data.sources.dataset_card import DatasetCard
from rsvl_data.sources.hub_rows import captions_of_row, label_of_row
from rsvl_data.splits import split_of_name

if TYPE_CHECKING:
    import datasets


class HubSet:
    """`id` is what `datasets.load_dataset` takes. Splits go by its own names or by ours ("validation" is val).

    Raises DataError when it cannot be loaded, has no such split or no column of images.
    """

    def __init__(self, id: str, split: str):
        self.name, self.split, self.note = id, split, None
        self._splits = _load(id)
        self._rows = _choose(self._splits, split, id)
        self._image = _image_column(self._rows, id)
        self._label = _class_label(self._rows)
        self.items: Sequence[EvalItem] = [self._item(number, row) for number, row in enumerate(_words(self._rows, self._image))]
        check_items(self, f"hub:{id}")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Of the ClassLabel, in its order; else the words found in all splits, sorted."""
        if self._label:
            return tuple(self._rows.features[self._label].names)
        card = DatasetCard()
        found = {
            label_of_row(row, card)
            for rows in self._splits.values()
            for row in rows.remove_columns(_image_column(rows, self.name))
        }
        return tuple(sorted(label for label in found if label is not None))

    def image(self, index: int) -> bytes:
        stored = self._rows[index][self._image]
        try:
            return stored["bytes"] or Path(stored["path"]).read_bytes()
        except (OSError, TypeError) as error:  # a row without an image is None
            raise DataError(f"hub:{self.name}: the image of {self.items[index].key} cannot be read: {error}") from error

    @cached_property
    def _sha256s(self) -> dict[int, str]:
        return {}

    def image_sha256(self, index: int) -> str:
        """Reads the image the first time."""
        if index not in self._sha256s:
            self._sha256s[index] = hashlib.sha256(self.image(index)).hexdigest()
        return self._sha256s[index]

    def sha256(self) -> str:
        """Of names, labels, captions and images."""
        return split_sha256(self, map(self.image_sha256, range(len(self.items))))

    def _item(self, number: int, row: dict[str, Any]) -> EvalItem:
        row = {**row["json"], **row} if isinstance(row.get("json"), dict) else row
        label = None
        if self._label is None:
            label = label_of_row(row, DatasetCard())
        elif row[self._label] is not None:
            label = self._rows.features[self._label].int2str(row[self._label])
        captions = [
            (said, "en") if isinstance(said, str) else (said["text"], said.get("lang", "en")) for said in captions_of_row(row)
        ]
        return EvalItem(f"{self.split}/{number}", label, tuple(pair for pair in captions if pair[0].strip()))


def _load(id: str) -> "dict[str, datasets.Dataset]":
    import datasets

    try:
        loaded = datasets.load_dataset(id)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"datasets.load_dataset({id!r}) failed: {error}") from error
    return {name: rows.cast_column(_image_column(rows, id), datasets.Image(decode=False)) for name, rows in loaded.items()}


def _choose(splits: "dict[str, datasets.Dataset]", split: str, id: str) -> "datasets.Dataset":
    found = [rows for name, rows in splits.items() if split in (name, split_of_name(name))]
    if not found:
        raise DataError(f"hub:{id} has no split {split!r}; it has {', '.join(splits)}")
    return found[0]


def _image_column(rows: "datasets.Dataset", id: str) -> str:
    import datasets

    columns = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise DataError(f"hub:{id} has the columns {', '.join(rows.features)}; none of them holds images")
    return columns[0]


def _words(rows: "datasets.Dataset", image: str) -> Iterable[dict[str, Any]]:
    """The rows without their images. A table without a column would have no rows, so one of images alone says nothing of each."""
    return rows.remove_columns(image) if len(rows.column_names) > 1 else ({} for _ in range(len(rows)))


def _class_label(rows: "datasets.Dataset") -> str | None:
    import datasets

    return next((column for column, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)), None)
