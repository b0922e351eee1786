"""`rsvl eval localization`: where in a large scene is what a sentence describes?"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from evaluation.benchmarks import localization as localization_benchmark
from evaluation.datasets.air_slt import open_air_slt
from evaluation.heat_map_files import HeatMapType
from evaluation.localization_map import SCALES_PX
from evaluation.metrics.heat_map_peaks import LocalizationProtocol
from recipes._eval_measured import Measured


@dataclass(frozen=True, kw_only=True)
class Localization(Measured):
    data: Path
    """folder of anno.json and scenes, in the layout of AIR-SLT"""
    limit: int | None = None
    """only so many queries, spread over the file"""
    protocol: LocalizationProtocol = "rsvl"
    """rsvl, or the authors' own code; numbers under different protocols do not compare"""
    scales_px: tuple[int, ...] = SCALES_PX
    """sides of the windows, even numbers of pixels"""
    heat_maps: Path | None = None
    """folder for a GeoTIFF and a picture of every query's heat map; left out, none is written"""
    heat_map_type: HeatMapType = "uint8"
    """of the GeoTIFFs: uint8 is 0 to 255, float32 is 0 to 1"""


def localization(options: tyro.conf.OmitArgPrefixes[Localization]) -> int:
    """Semantic localisation in large scenes: Rsu, Ras, Rda, Rmi, and heat maps."""
    data = open_air_slt(options.data)
    if options.limit is not None:
        data = data.thinned(options.limit)
    names = ("protocol", "scales_px", "heat_maps", "heat_map_type")
    own = {name: getattr(options, name) for name in names}
    return options.measure_images(localization_benchmark.localization, data, images=data.scenes, **own)
