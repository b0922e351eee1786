"""One file per kind of input. A source lists its entries cheaply, then reads one at a time.

`open_source` finds out what lies at a path; a new kind is one file here and one line in `_KINDS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rsvl_data.errors import DataError, OptionError
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.sources import (
    class_folders,
    clip_benchmark,
    coco,
    dota,
    gaia,
    geotiff,
    image_folder,
    img2dataset,
    karpathy,
    masks,
    mgrs,
    referring,
    rs5m,
    rsvl_dataset,
    skyscript,
    table,
    url_table,
    voc,
    web_dataset,
)
from rsvl_data.sources.base import Entry, Source
from rsvl_data.sources.hugging_face import HuggingFace

Format = Literal[
    "auto",
    "rsvl",
    "rs5m",
    "gaia",
    "mgrs",
    "clip-benchmark",
    "img2dataset",
    "karpathy",
    "skyscript",
    "referring",
    "coco",
    "voc",
    "dota",
    "masks",
    "url-table",
    "webdataset",
    "image-folder",
    "table",
    "class-folders",
    "geotiff",
    "hugging-face",
]

# In the order of trial: what is known by its own marks first, any table and any folder of pictures last. Whole scenes come after
# class folders, which may hold .tif as well.
_KINDS: dict[str, Any] = {
    "rsvl": rsvl_dataset,
    "rs5m": rs5m,
    "gaia": gaia,
    "mgrs": mgrs,
    "clip-benchmark": clip_benchmark,
    "img2dataset": img2dataset,
    "karpathy": karpathy,
    "skyscript": skyscript,
    "referring": referring,  # before coco and masks: it has their files too
    "coco": coco,
    "voc": voc,
    "dota": dota,
    "masks": masks,
    "url-table": url_table,
    "webdataset": web_dataset,  # after the formats that are tars too
    "image-folder": image_folder,
    "table": table,
    "class-folders": class_folders,
    "geotiff": geotiff,
}

__all__ = ["Entry", "Format", "Source", "open_source"]


def open_source(
    location: str | Path,
    format: Format = "auto",
    image_form: ImageForm = DEFAULT_FORM,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Source:
    """`location` is a path, or `hub:org/name` for a dataset of the Hugging Face Hub. Images are stored as `image_form`.

    A pattern such as `{pub11,rs3}-train-{0000..0031}.tar` names shards. `options` are for the formats that have them, by format.
    Raises DataError when nothing readable lies there, OptionError when it is not of the `format` asked for.
    """
    hub_id = str(location).removeprefix("hub:")
    if hub_id != str(location) or format == "hugging-face":
        return HuggingFace(hub_id, image_form)
    path = Path(location)
    if not path.exists() and "{" not in path.name:
        raise DataError(f"{path} does not exist. Give the folder or file that holds the images and their words.")
    if format == "url-table":  # also where the column of URLs has a name that `find` cannot know
        return url_table.open(path, path.resolve().stem, image_form, **(options or {}).get(format, {}))
    kinds = _KINDS if format == "auto" else {format: _KINDS[format]}
    for name, kind in kinds.items():
        if (main := kind.find(path)) is not None:
            return kind.open(main, path.resolve().stem, image_form, **(options or {}).get(name, {}))
    expected = "\n".join(f"  {name}: {kind.EXPECTS}" for name, kind in kinds.items())
    error = DataError if format == "auto" else OptionError
    raise error(f"{path} holds nothing that can be imported. Expected one of\n{expected}")
