"""Encoded images: what a file is, whether it can be read, and the form it is stored in."""

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import simplejpeg
from PIL import Image, ImageOps

ImageSuffix = Literal["jpg", "png", "webp"]
_PIL_FORMAT = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
READABLE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


class UnreadableImage(ValueError):
    """`reason` is a short word for counting: empty, not_an_image, truncated, too_many_pixels."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class StoredImage:
    content: bytes
    width: int
    height: int
    reencoded: bool


def to_stored(content: bytes, suffix: ImageSuffix = "jpg", *, quality: int = 95, max_pixels: int = 100_000_000) -> StoredImage:
    """Check that an image decodes to its last row, and give it the dataset's one format.

    Bytes that already are an upright RGB image of that format are kept as they are; all else becomes 8-bit RGB: EXIF orientation
    applied, alpha laid over black, first frame of an animation. Raises UnreadableImage.
    """
    if not content:
        raise UnreadableImage("empty", "the file holds no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns about bombs and broken metadata
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > max_pixels:
                    raise UnreadableImage("too_many_pixels", f"{image.width} x {image.height} is above {max_pixels} pixels")
                return _decoded_to_stored(image, content, suffix, quality)
    except UnreadableImage:
        raise
    except (Image.UnidentifiedImageError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        bomb = not isinstance(error, Image.UnidentifiedImageError)
        raise UnreadableImage("too_many_pixels" if bomb else "not_an_image", str(error)) from error
    except (OSError, ValueError, SyntaxError, Warning, EOFError, IndexError) as error:
        raise UnreadableImage("truncated" if "truncated" in str(error) else "corrupt", str(error)) from error


def _decoded_to_stored(image: Image.Image, content: bytes, suffix: ImageSuffix, quality: int) -> StoredImage:
    image.load()
    upright = image.getexif().get(0x0112, 1) == 1
    animated = getattr(image, "n_frames", 1) > 1
    if image.format == _PIL_FORMAT[suffix] and image.mode == "RGB" and upright and not animated:
        return StoredImage(content, image.width, image.height, reencoded=False)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    return StoredImage(encode(image.convert("RGB"), suffix, quality), image.width, image.height, reencoded=True)


def encode(image: Image.Image, suffix: ImageSuffix, quality: int = 95) -> bytes:
    """`quality` is libjpeg's; PNG is lossless and ignores it."""
    if suffix == "jpg":
        import numpy as np

        return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="444")
    out = io.BytesIO()
    image.save(out, _PIL_FORMAT[suffix], quality=quality)
    return out.getvalue()
