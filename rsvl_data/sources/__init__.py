"""One file per kind of input. A source lists its entries cheaply, then reads one at a time.

`open_source` finds out what lies at a path; a new kind is one file here and one line in `_KINDS`.
"""

from pathlib import Path
from typing import Literal

from rsvl_data.errors import DataError, OptionError
from rsvl_data.images import ImageSuffix
from rsvl_data.sources import class_folders, karpathy, table
from rsvl_data.sources.base import Entry, Source
from rsvl_data.sources.hugging_face import HuggingFace

Format = Literal["auto", "class-folders", "karpathy", "table", "hugging-face"]

# In the order of trial: a JSON or a table beside class folders knows more about the same images.
_KINDS = {"karpathy": karpathy, "table": table, "class-folders": class_folders}

__all__ = ["Entry", "Format", "Source", "open_source"]


def open_source(location: str | Path, format: Format = "auto", image_suffix: ImageSuffix = "jpg") -> Source:
    """`location` is a path, or `hub:org/name` for a dataset of the Hugging Face Hub. Images are stored as `image_suffix`.

    Raises DataError when nothing readable lies there, OptionError when it is not of the `format` asked for.
    """
    hub_id = str(location).removeprefix("hub:")
    if hub_id != str(location) or format == "hugging-face":
        return HuggingFace(hub_id, image_suffix)
    path = Path(location)
    if not path.exists():
        raise DataError(f"{path} does not exist. Give the folder or file that holds the images and their words.")
    kinds = _KINDS if format == "auto" else {format: _KINDS[format]}
    for kind in kinds.values():
        if (main := kind.find(path)) is not None:
            return kind.open(main, path.resolve().stem, image_suffix)
    expected = "\n".join(f"  {name}: {kind.EXPECTS}" for name, kind in kinds.items())
    error = DataError if format == "auto" else OptionError
    raise error(f"{path} holds nothing that can be imported. Expected one of\n{expected}")
