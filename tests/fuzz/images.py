"""Encoded images and masks: python -m tests.fuzz.images --seconds 60"""

import io

import numpy as np
from PIL import Image

from rsvl_data.images import UnreadableImage, to_stored
from rsvl_data.mask_files import KNOWN_LEGENDS, BadMask, read_mask
from rsvl_data.sources.object_images import upright_size
from tests.fuzz.engine import BrokenRule, fuzz, shared_fixtures


def target(content: bytes) -> None:
    upright_size(content, "a")
    try:
        read_mask(content, KNOWN_LEGENDS["LoveDA"], (16, 12), max_pixels=1_000_000)
    except BadMask as error:
        assert error.reason and str(error)
    for suffix in ("jpg", "png"):
        try:
            stored = to_stored(content, suffix, max_pixels=1_000_000)
        except UnreadableImage as error:
            assert error.reason and str(error)
            continue
        with Image.open(io.BytesIO(stored.content)) as image:
            image.load()
            if image.size != (stored.width, stored.height) or image.mode != "RGB" or 0x8825 in image.getexif():
                raise BrokenRule(f"stored {image.mode} {image.size} for {stored.width} x {stored.height}")


def seeds() -> list[bytes]:
    pixels = np.random.default_rng(1).integers(0, 8, (12, 16), np.uint8)
    pictures = [
        Image.fromarray(pixels),
        Image.fromarray(np.dstack([pixels * 30] * 3)),
        Image.fromarray(pixels.astype(np.uint16) * 900),
    ]
    pictures += [
        Image.fromarray(pixels.astype(np.float32)),
        Image.fromarray(pixels).convert("P"),
        Image.fromarray(pixels).convert("LA"),
    ]
    contents = []
    for picture in pictures:
        for form in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "AVIF"):
            out = io.BytesIO()
            try:
                picture.save(out, form)
            except (OSError, ValueError, KeyError):
                continue
            contents.append(out.getvalue())
    exif = Image.Exif()
    exif[0x0112], exif[0x8825] = 6, {1: "N", 2: (1.0, 2.0, 3.0)}
    out = io.BytesIO()
    pictures[1].save(out, "JPEG", exif=exif)
    return [*contents, out.getvalue()]


if __name__ == "__main__":
    fuzz(target, [*seeds(), *(content for content in shared_fixtures("bad/images/*", "bad/masks/*.*") if len(content) < 20_000)])
