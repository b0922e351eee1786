"""Heat maps to look at and to use: a GeoTIFF that lies where the scene lies, and a picture over the scene with a colour bar."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from evaluation.metrics.polygon_mask import Polygon
from evaluation.scene_windows import Scene
from rsvl_data.geo import geo_library
from rsvl_data.shards import write_atomically

HeatMapType = Literal["uint8", "float32"]
_OPACITY = 0.45
_MARGIN_PX = 64
_OUTLINE = (255, 255, 255)


def write_geotiff(
    path: Path, heat_map: UInt8[np.ndarray, "h w"], scene: Scene, dtype: HeatMapType = "uint8", text: str = ""
) -> None:
    """One band in the scene's CRS and transform, uint8 (0 to 255) or float32 (0 to 1). A scene without CRS gives a plain TIFF.

    `text` becomes the band's description. Raises RsvlError that names the extra without rasterio.
    """
    rasterio = geo_library("rasterio")
    height, width = heat_map.shape
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": dtype, "tiled": True,
        "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2 if dtype == "uint8" else 3,
    }  # fmt: skip
    if scene.crs is not None:
        profile["crs"] = scene.crs
    if scene.transform is not None:
        profile["transform"] = scene.transform
    with rasterio.MemoryFile() as memory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with memory.open(**profile) as file:
                file.write(heat_map if dtype == "uint8" else heat_map.astype(np.float32) / np.float32(255), 1)
                file.set_band_description(1, text)
        write_atomically(path, memory.getbuffer())


def overlay(
    heat_map: UInt8[np.ndarray, "h w"], scene: Scene, regions: Sequence[Polygon] = (), longest_px: int = 1024
) -> Image.Image:
    """The scene, reduced to `longest_px` if it is larger, under the colours of the map; `regions` outlined; a colour bar on the right."""
    scale = min(1.0, longest_px / max(scene.height, scene.width))
    width, height = (max(1, round(side * scale)) for side in (scene.width, scene.height))
    levels = np.asarray(Image.fromarray(heat_map).resize((width, height), Image.Resampling.BOX))
    below = scene.overview(width, height)
    mixed = np.rint((1 - _OPACITY) * below + _OPACITY * _colours(levels)).astype(np.uint8)
    picture = Image.new("RGB", (width + _MARGIN_PX, max(height, 48)), _OUTLINE)
    picture.paste(Image.fromarray(mixed))
    draw = ImageDraw.Draw(picture)
    for region in regions:
        points = [(x * scale, y * scale) for x, y in region]
        draw.line([*points, points[0]], _OUTLINE, 2)
    _draw_bar(picture, draw, width)
    return picture


def encoded(picture: Image.Image, kind: Literal["PNG", "WEBP"]) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **({"quality": 70, "method": 4} if kind == "WEBP" else {}))
    return content.getvalue()


def _colours(levels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    table = colormaps["turbo"](np.arange(256), bytes=True)[:, :3]
    return table[levels]


def _draw_bar(picture: Image.Image, draw: ImageDraw.ImageDraw, left: int) -> None:
    """From 1 above to 0 below: the probability, whatever the lowest and highest similarity were."""
    top, bottom = 8, picture.height - 8
    column = np.linspace(255, 0, bottom - top).astype(np.uint8)[:, None].repeat(16, 1)
    picture.paste(Image.fromarray(_colours(column)), (left + 8, top))
    font = ImageFont.load_default(12)
    for value, y in (("1", top), ("0.5", (top + bottom) // 2 - 7), ("0", bottom - 14)):
        draw.text((left + 30, y), value, (0, 0, 0), font)
