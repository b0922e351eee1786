"""What the field publishes and what lies on people's disks -> image-text shards.

rsvl run data/import --source MY_IMAGES --out DATASET

`--format` names what it is; `auto` finds out. docs/formats.md lists what is read. A table of URLs is downloaded first, into a folder of its
own (`--downloads`); `rsvl run data/download` asks again for what failed.
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from recipes.config import save_config
from rsvl_data.downloading.download import describe, download, is_downloaded
from rsvl_data.downloading.fetch_many import DownloadOptions
from rsvl_data.errors import OptionError
from rsvl_data.executor import start_importing
from rsvl_data.geo_facts import GeoOptions, add_geo_facts
from rsvl_data.image_form import ImageForm
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.shards import Dataset
from rsvl_data.sources import Format, open_source
from rsvl_data.sources.class_folders import FolderWords
from rsvl_data.sources.url_table import UrlTable


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


@dataclass(frozen=True)
class MaskOptions:
    """What the values of masks mean."""

    legend: Path | None = None
    """file of the legend; left out, legend.json, classes.json, semantic_classes.json or legend.csv beside the masks"""


@dataclass(frozen=True)
class GaiaOptions:
    """GAIA's captions."""

    strip_lead_in: bool = False
    """take "The image showcases:" off the captions"""


@dataclass(frozen=True)
class ClassFolderOptions:
    """Folders named after classes."""

    words: FolderWords = "split"
    """what captions call a class: split makes words of AnnualCrop and golf_course; folder takes the name in lower case, with _ and /
    as spaces, as GeoRSCLIP does (annualcrop)"""


@dataclass(frozen=True, kw_only=True)
class Options(BuildOptions):
    source: str
    """folder, file or pattern of shards ({a,b}-{00..31}.tar), or hub:org/name for a dataset of the Hugging Face Hub"""
    format: Format = "auto"
    """what it is; auto finds out"""
    image: ImageForm = field(default_factory=ImageForm)
    geo: GeoOptions = field(default_factory=GeoOptions)
    geotiff: GeoTiffOptions = field(default_factory=GeoTiffOptions)
    masks: MaskOptions = field(default_factory=MaskOptions)
    gaia: GaiaOptions = field(default_factory=GaiaOptions)
    class_folders: ClassFolderOptions = field(default_factory=ClassFolderOptions)
    download: DownloadOptions = field(default_factory=DownloadOptions)
    downloads: Path | None = None
    """folder for the images of a table of URLs, outside of --out; left out, that of --out with .downloads behind its name"""

    def facts(self) -> dict[str, Any]:
        """How the images came here is no matter: what came is in the plan."""
        return {name: value for name, value in super().facts().items() if name not in ("download", "downloads")}


def run(options: Options) -> Dataset | None:
    if options.workers > 1 and not options.dry_run:
        start_importing("rsvl_data.sources", *(["torch"] if options.image.resize != "no" else []))
    own = {"geotiff": asdict(options.geotiff), "gaia": asdict(options.gaia), "class-folders": asdict(options.class_folders)}
    own["masks"] = asdict(options.masks)
    own["url-table"] = {"fetch": partial(_fetch, options)}
    source = open_source(options.source, options.format, options.image, own)
    if options.dry_run and isinstance(source, UrlTable):
        return None
    dataset = build(source, [add_geo_facts(options.geo)], options, recipe="data/import", image_suffix=options.image.suffix)
    if dataset is not None:
        save_config(options.out, "data/import", options)
    return dataset


def _fetch(options: Options, table: Path) -> Path | None:
    """The folder of its download, which a dry run only describes."""
    out = options.out.resolve()
    folder = options.downloads or out.with_name(out.name + ".downloads")
    if folder.resolve().is_relative_to(out):
        raise OptionError(f"--downloads {folder} lies inside of --out {options.out}; give a folder beside it")
    if is_downloaded(table, folder, options.download):
        return folder
    if options.dry_run:
        print(describe(table, options.download))
        return None
    download(table, folder, options.download)
    return folder


def smoke(folder: Path) -> Options:
    """Twelve flat-coloured images in three class folders."""
    for index in range(12):
        path = folder / "source" / ("forest", "river", "beach")[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * index, 80, 255 - 20 * index)).save(path)
    return Options(source=str(folder / "source"), out=folder / "dataset", val=0.2, test=0.2)
