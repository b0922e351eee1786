"""A class map over its picture, with a legend: a PNG to look at."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from rsvl_segment.classes import Classes, Colour
from rsvl_segment.postprocess import NO_CLASS

OVERLAY_PX = 2048  # longer side: larger pictures are shown smaller
_OPACITY = 0.45
_LINE_PX, _SWATCH_PX, _MARGIN_PX = 26, 16, 12
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


def overlay_png(
    picture: UInt8[np.ndarray, "h w 3"], ids: UInt8[np.ndarray, "h w"], classes: Classes, shares: dict[str, float]
) -> bytes:
    """Pixels without a class stay as they are. `shares` are the fractions of the whole map that stand beside the names."""
    blended = blend(picture, ids, classes)
    legend = _legend(classes, shares, blended.height)
    page = Image.new("RGB", (blended.width + legend.width, max(blended.height, legend.height)), _PAPER)
    page.paste(blended, (0, 0))
    page.paste(legend, (blended.width, 0))
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def blend(picture: UInt8[np.ndarray, "h w 3"], ids: UInt8[np.ndarray, "h w"], classes: Classes) -> Image.Image:
    """The picture under the colours of its classes."""
    colours = np.zeros((256, 3), np.float32)
    colours[: len(classes)] = classes.palette()
    opacity = np.where(ids == NO_CLASS, 0, _OPACITY)[..., None]
    return Image.fromarray((picture * (1 - opacity) + colours[ids] * opacity).round().astype(np.uint8))


def _legend(classes: Classes, shares: dict[str, float], height: int) -> Image.Image:
    """The names in columns no higher than the picture."""
    font = ImageFont.load_default(15)
    lines: list[tuple[Colour, str]] = [
        (colour, f"{name}  {shares.get(name, 0):.1%}") for name, colour in zip(classes.names, classes.palette())
    ]
    per_column = max((height - 2 * _MARGIN_PX) // _LINE_PX, 8)
    columns = [lines[i : i + per_column] for i in range(0, len(lines), per_column)]
    widths = [int(max(font.getlength(text) for _, text in column)) + _SWATCH_PX + 3 * _MARGIN_PX for column in columns]
    legend = Image.new("RGB", (sum(widths), 2 * _MARGIN_PX + _LINE_PX * min(len(lines), per_column)), _PAPER)
    draw = ImageDraw.Draw(legend)
    for number, column in enumerate(columns):
        left = sum(widths[:number]) + _MARGIN_PX
        for line, (colour, text) in enumerate(column):
            top = _MARGIN_PX + line * _LINE_PX
            draw.rectangle((left, top, left + _SWATCH_PX, top + _SWATCH_PX), fill=colour, outline=_INK)
            draw.text((left + _SWATCH_PX + 8, top - 1), text, fill=_INK, font=font)
    return legend
