"""A dataset of images that the `datasets` library can load: a Hub id (`hub:org/name`) or a local folder it understands.

The image column is the one of type Image; a ClassLabel, or a column of words called label or class, is the scene class; captions and
position come from the columns of `hub_rows`, those of KEY.json too where the dataset is made of tars. Splits are the dataset's own, the
licence is that of its README.md.

`datasets` and `huggingface_hub` take a second to import, so they are imported where such a dataset is opened and not with every other
kind of source.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.sources.base import Entry, make_sample, split_of_name
from rsvl_data.sources.dataset_card import DatasetCard
from rsvl_data.sources.hub_rows import captions_of_row, label_of_row, position_of_row, provenance_of_row
from rsvl_data.stage import Dropped, Outcome

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


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
        splits = self._splits
        licence = _card(self.id).licence  # in the plan, so that every worker says the same
        for name, rows in splits.items():
            for index in range(len(rows)):
                yield Entry(f"{name}/{index}", split_of_name(name), {"split": name, "index": index, "licence": licence})

    def read(self, entry: Entry) -> Outcome:
        rows = self._splits[entry.facts["split"]]
        row = rows[entry.facts["index"]]
        image = row[_image_column(rows, self.id)]
        try:
            content = image["bytes"] or Path(image["path"]).read_bytes()
        except (OSError, TypeError) as error:  # a row without an image is None
            return Dropped(entry.id, "missing_file", f"{entry.id}: {error}")
        said = {**row["json"], **row} if isinstance(row.get("json"), dict) else row
        return make_sample(
            content,
            entry.id,
            dataset=self.id,
            captions=captions_of_row(said),
            label=_label(rows, said),
            geo=position_of_row(said),
            provenance=provenance_of_row(said, DatasetCard(licence=entry.facts["licence"])),
            image_form=self.image_form,
        )


def _image_column(rows: "datasets.Dataset", name: str) -> str:
    import datasets

    columns = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise DataError(f"{name} has the columns {', '.join(rows.features)}; none of them holds images")
    return columns[0]


def _card(id: str) -> DatasetCard:
    """Of a local folder, or of the Hub. Without a network nothing is known."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        local = Path(id).is_dir()
        return DatasetCard.read(Path(id) / "README.md" if local else Path(hf_hub_download(id, "README.md", repo_type="dataset")))
    except (OSError, ValueError, HfHubHTTPError) as error:
        logger.warning("%s: its README.md cannot be had, so the licence is not known: %s", id, error)
        return DatasetCard()


def _label(rows: "datasets.Dataset", row: dict[str, Any]) -> str | None:
    import datasets

    for column, feature in rows.features.items():
        if isinstance(feature, datasets.ClassLabel) and row[column] is not None:
            return feature.int2str(row[column])
    return label_of_row(row, DatasetCard())
