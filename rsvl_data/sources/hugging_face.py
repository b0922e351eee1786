"""A dataset of images that the `datasets` library can load: a Hub id (`hub:org/name`) or a local folder it understands.

The image column is the one of type Image; a ClassLabel, or a string column called label or class, is the scene class; captions come
from the columns named in `CAPTION_COLUMNS`, as texts or lists of texts. Splits are the dataset's own.

`datasets` takes a second to import, so it is imported where such a dataset is opened and not with every other kind of source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.sources.base import Entry, make_sample, split_of_name
from rsvl_data.stage import Dropped, Outcome

if TYPE_CHECKING:
    import datasets

CAPTION_COLUMNS = (
    "caption",
    "captions",
    "text",
    "texts",
    "sentences",
    "raw",
    "caption_0",
    "caption_1",
    "caption_2",
    "caption_3",
    "caption_4",
)


@dataclass(frozen=True)
class HuggingFace:
    """`id` is what `datasets.load_dataset` takes."""

    id: str
    image_form: ImageForm = DEFAULT_FORM
    note: str | None = None
    mask: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return Path(self.id).name

    def __getstate__(self) -> dict[str, Any]:
        return {"id": self.id, "image_form": self.image_form, "note": self.note}  # each process opens the tables itself

    @cached_property
    def _splits(self) -> "dict[str, datasets.Dataset]":
        import datasets

        try:
            loaded = datasets.load_dataset(self.id)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"datasets.load_dataset({self.id!r}) failed: {error}") from error
        return {
            name: rows.cast_column(_image_column(rows, self.id), datasets.Image(decode=False)) for name, rows in loaded.items()
        }

    def entries(self) -> Iterator[Entry]:
        for name, rows in self._splits.items():
            for index in range(len(rows)):
                yield Entry(f"{name}/{index}", split_of_name(name), {"split": name, "index": index})

    def read(self, entry: Entry) -> Outcome:
        rows = self._splits[entry.facts["split"]]
        row = rows[entry.facts["index"]]
        image = row[_image_column(rows, self.id)]
        try:
            content = image["bytes"] or Path(image["path"]).read_bytes()
        except (OSError, TypeError) as error:  # a row without an image is None
            return Dropped(entry.id, "missing_file", f"{entry.id}: {error}")
        captions = [text for column in CAPTION_COLUMNS for text in _texts(row.get(column))]
        return make_sample(
            content, entry.id, dataset=self.id, captions=captions, label=_label(rows, row), image_form=self.image_form
        )


def _image_column(rows: "datasets.Dataset", name: str) -> str:
    import datasets

    columns = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise DataError(f"{name} has the columns {', '.join(rows.features)}; none of them holds images")
    return columns[0]


def _label(rows: "datasets.Dataset", row: dict[str, Any]) -> str | None:
    import datasets

    for column, feature in rows.features.items():
        if isinstance(feature, datasets.ClassLabel) and row[column] is not None:
            return feature.int2str(row[column])
    return next((row[column] for column in ("label", "class") if isinstance(row.get(column), str)), None)


def _texts(value: Any) -> list[str]:
    return (
        [value]
        if isinstance(value, str)
        else [text for text in value if isinstance(text, str)]
        if isinstance(value, list)
        else []
    )
