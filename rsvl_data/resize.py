"""Pixels of another size, near to what img2dataset's OpenCV makes (area filter down, Lanczos up) and quicker.

Down: an antialiased bicubic filter (`shrink`); 1.4 grey levels from the area filter in the mean, on aerial photographs. Pillow's
filters come nearer (0.7) and take three times as long. A JPEG at least twice as large as is wanted is halved while it is decoded
(libjpeg's scaled inverse DCT): half the time, and still 1.5 grey levels.
Up: Pillow's Lanczos.
"""

import numpy as np
import simplejpeg
from PIL import Image

from rsvl_data.image_form import Placement
from rsvl_data.shrink import shrink

_WHITE = 255


def jpeg_factor(placement: Placement) -> int:
    """8, 4 or 2 when so small a part of a JPEG's width and height is still enough, else 1. Other factors decode no quicker than 1."""
    return next((factor for factor in (8, 4, 2) if max(placement.scale_x, placement.scale_y) * factor <= 1), 1)


def decode_jpeg(content: bytes, size: tuple[int, int], factor: int) -> np.ndarray:
    """A JPEG of grey or colour as RGB [H, W, 3]: `size` (width, height) divided by `factor` and rounded up.

    Every coefficient is read, whatever the factor: a cut or damaged file raises ValueError.
    """
    width, height = (-(-side // factor) for side in size)
    smallest = {"min_width": width, "min_height": height} if factor > 1 else {}
    return simplejpeg.decode_jpeg(content, "RGB", strict=True, **smallest)


def place(pixels: np.ndarray, placement: Placement, factor: int = 1) -> np.ndarray:
    """The stored pixels of a picture [H, W, 3] that comes whole or divided by `factor`. What is padded is white."""
    if placement.changes_nothing:
        return pixels
    x0, y0, x1, y1 = placement.shown
    if max(placement.scale_x, placement.scale_y) > 1:
        shown = Image.fromarray(pixels).resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS, box=placement.shown_in_source)
        return _padded(np.asarray(shown), placement, _WHITE)
    if pixels.shape[:2] != (placement.picture_height, placement.picture_width):
        # The scale counts from the whole picture: a division by `factor` was rounded up, and its last pixel is only in part one.
        rows_per_row, columns_per_column = (1 / (part * factor) for part in (placement.scale_y, placement.scale_x))
        pixels = shrink(pixels, (placement.picture_height, placement.picture_width), (rows_per_row, columns_per_column))
    return _padded(pixels[y0:y1, x0:x1], placement, _WHITE)


def place_mask(ids: np.ndarray, placement: Placement, ignore_index: int) -> np.ndarray:
    """The same for a mask [H, W]: every pixel takes the id at its middle; what is padded is ignored."""
    if placement.changes_nothing:
        return ids
    x0, y0, x1, y1 = placement.shown
    rows = ((np.arange(y0, y1) + 0.5) / placement.scale_y).astype(int)
    columns = ((np.arange(x0, x1) + 0.5) / placement.scale_x).astype(int)
    return _padded(ids[np.ix_(rows, columns)], placement, ignore_index)


def _padded(shown: np.ndarray, placement: Placement, value: int) -> np.ndarray:
    if shown.shape[:2] == (placement.height, placement.width):
        return shown
    stored = np.full((placement.height, placement.width, *shown.shape[2:]), value, shown.dtype)
    top, left = max(placement.top, 0), max(placement.left, 0)
    stored[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return stored
