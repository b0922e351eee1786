"""What lies at the beginning of a build: the options of every format, said once for the recipes that read them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rsvl_data.geo_facts import GeoOptions
from rsvl_data.image_form import ImageForm
from rsvl_data.sources import Format, open_source
from rsvl_data.sources.base import Source
from rsvl_data.sources.class_folders import FolderWords


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
class SourceOptions:
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

    def open(self, more: Mapping[str, Mapping[str, Any]] | None = None) -> Source:
        """`more` are options of further formats, by format."""
        own: dict[str, Any] = {
            "geotiff": self.geotiff,
            "masks": self.masks,
            "gaia": self.gaia,
            "class-folders": self.class_folders,
        }
        options = {name: asdict(group) for name, group in own.items()}
        return open_source(self.source, self.format, self.image, {**options, **(more or {})})
