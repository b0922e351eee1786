"""What the field publishes and what lies on people's disks -> image-text shards.

rsvl run data/import --source MY_IMAGES --out DATASET

`--format` names what it is; `auto` finds out. docs/formats.md lists what is read.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from recipes.config import save_config
from rsvl_data.image_form import ImageForm
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.shards import Dataset
from rsvl_data.sources import Format, open_source


@dataclass(frozen=True)
class GeoTiffOptions:
    """How scenes become tiles and display pictures."""

    tile_px: int = 512
    """side of a tile"""
    overlap_px: int = 0
    """pixels that neighbours share"""
    min_valid: float = 0.5
    """least share of a tile that is not nodata; others are dropped"""
    bands: tuple[int, ...] | None = None
    """one or three band numbers to show, the first band being 1; left out, their names decide"""
    stretch: str = "auto"
    """to 8 bit: auto, minmax, percentile, percentile:LOW-HIGH or divide:VALUE"""
    climate: Path | None = None
    """file of a Koeppen-Geiger grid (lat lon class, or the PNG with its legend), for the climate zone of each tile"""


@dataclass(frozen=True)
class GaiaOptions:
    """GAIA's captions."""

    strip_lead_in: bool = False
    """take "The image showcases:" off the captions"""


@dataclass(frozen=True, kw_only=True)
class Options(BuildOptions):
    source: str
    """folder, file or pattern of shards ({a,b}-{00..31}.tar), or hub:org/name for a dataset of the Hugging Face Hub"""
    format: Format = "auto"
    """what it is; auto finds out"""
    image: ImageForm = field(default_factory=ImageForm)
    geotiff: GeoTiffOptions = field(default_factory=GeoTiffOptions)
    gaia: GaiaOptions = field(default_factory=GaiaOptions)


def run(options: Options) -> Dataset | None:
    own = {"geotiff": asdict(options.geotiff), "gaia": asdict(options.gaia)}
    source = open_source(options.source, options.format, options.image, own)
    dataset = build(source, [], options, recipe="data/import", image_suffix=options.image.suffix)
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
