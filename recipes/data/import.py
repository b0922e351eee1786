"""Class folders, Karpathy JSON or a table with local images -> image-text shards.

rsvl run data/import --source MY_IMAGES --out DATASET
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from recipes.config import save_config
from rsvl_data.images import ImageSuffix
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.shards import Dataset
from rsvl_data.sources import Format, open_source


@dataclass(frozen=True, kw_only=True)
class Options(BuildOptions):
    source: str
    """folder or file with the images and their words, or hub:org/name for a dataset of the Hugging Face Hub"""
    format: Format = "auto"
    """what it is; auto looks for Karpathy JSON, then a table, then class folders"""
    image_format: ImageSuffix = "jpg"
    """format of the stored images; those that have it already are kept byte for byte, png loses nothing"""


def run(options: Options) -> Dataset | None:
    source = open_source(options.source, options.format, options.image_format)
    dataset = build(source, [], options, recipe="data/import", image_suffix=options.image_format)
    if dataset is not None:
        save_config(options.out, "data/import", options)
    return dataset


def smoke(folder: Path) -> Options:
    """Twelve flat-coloured images in three class folders."""
    for index in range(12):
        path = folder / "source" / ("forest", "river", "beach")[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * index, 80, 255 - 20 * index)).save(path)
    return Options(source=str(folder / "source"), out=folder / "dataset", val=0.2, test=0.2)
