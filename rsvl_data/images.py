"""Encoded images: what a file is, whether it can be read, and the form it is stored in.

The bytes decide, never the name. A file that already is an upright 8-bit RGB image of the dataset's format and size is kept byte for byte;
everything else becomes 8-bit RGB by these rules, in this order:

frames      the first frame or page, or refused where the dataset wants no animated files
orientation EXIF orientation 2 to 8 is applied; other values are ignored
16-bit grey divided so that the container's depth (8, 10, 12, 14 or 16 bits, the smallest that holds the largest value) becomes 8 bits;
            16-bit colour keeps its upper 8 bits
float       percentiles 2 and 98 of the finite pixels become 0 and 255; pixels that are not finite become black; a flat image mid grey.
            32-bit integers go the same way unless they are a 16-bit range
alpha       laid over black, so hidden colours do not show
colour      an ICC profile that can be read is converted to sRGB and left out; one that cannot be read is ignored; one that changes no
            pixel by more than 2 is kept with the bytes. CMYK without a profile: R = (255 - C)(255 - K) / 255
size        by the dataset's `ImageForm`, upright; JPEGs that were resized keep one colour for four pixels (4:2:0), others one for each
EXIF, XMP   not copied. Bytes that would be kept but hold a GPS position, or EXIF that cannot be read, lose their EXIF and XMP blocks;
            a JPEG's pixels are not coded anew for that

Refused: what is not one of `READABLE_FORMATS` (nothing that would start another program, as EPS does), JPEGs that libjpeg only reads
with warnings, cut files, fewer than 4 pixels on a side, and sizes above `max_pixels`, which the header tells before anything is decoded.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import Image, ImageCms

from rsvl_data.image_form import DEFAULT_FORM, MIN_SIDE_PX, ImageForm, ImageSuffix, Placement
from rsvl_data.resize import decode_jpeg, jpeg_factor, place

_PIL_FORMAT = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
READABLE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF")
READABLE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif"})

_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # JPEG markers (ITU-T T.81, B.1.1.4)
_ORIENTATION, _GPS = 0x0112, 0x8825  # EXIF 2.32, 4.6.5 and 4.6.3
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")  # the second picture of an MPO is a preview or the other eye
_LONGEST_SIDE_PX = {"jpg": 65_500, "webp": 16_383}  # JPEG_MAX_DIMENSION of libjpeg, WEBP_MAX_DIMENSION of libwebp
_SAME_COLOUR = 2  # rounding of an sRGB profile converted to sRGB

# What often lies under an image's name, for the person who reads the message.
_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself",
    b"<svg": "SVG, which is no raster image",
    b"<?xml": "XML or SVG, which is no raster image",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"%pdf": "a PDF",
    b"pk\x03\x04": "a ZIP archive",
    b"{": "JSON",
}


class UnreadableImage(ValueError):
    """`reason` is a short word for counting: empty, not_an_image, truncated, corrupt, too_small, too_many_pixels, no_valid_pixels,
    animated."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class StoredImage:
    """`reencoded`: the bytes are not those given. `orientation`: the EXIF value that was applied. What the source says in its own pixels
    (boxes, masks) must be turned by it, then moved by `placement`, which is that of the upright image."""

    content: bytes
    width: int
    height: int
    reencoded: bool
    placement: Placement
    orientation: int = 1


def to_stored(content: bytes, form: ImageForm = DEFAULT_FORM, *, max_pixels: int = 100_000_000) -> StoredImage:
    """Check that an image decodes to its last row, and give it the form of the dataset, by the rules above.

    `max_pixels` above 178,956,970 has no effect: Pillow stops there. Raises UnreadableImage.
    """
    if not content:
        raise UnreadableImage("empty", "the file holds no bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata and sizes; both are judged here
        image = _open(content, max_pixels)
        if form.animated == "drop" and image.format in _ANIMATED_FORMATS and _has_second_frame(content, max_pixels):
            raise UnreadableImage("animated", f"a {image.format} with more than one frame")
        raw_modes = [tile[3] for tile in getattr(image, "tile", [])]  # tells a PNG's depth; Pillow forgets it once it has loaded
        if not _is_jpeg(image):
            _load(image)  # before EXIF, which may come after the pixels
        exif = _exif(image)
        orientation = exif.get(_ORIENTATION, 1) if exif else 1
        orientation = orientation if orientation in _TURN else 1
        placement = form.placement(*(image.size if orientation < 5 else image.size[::-1]))
        _check_placement(placement, form.suffix, max_pixels)
        whole = orientation == 1 and not (image.format == "PNG" and raw_modes != ["RGB"])
        if whole and placement.changes_nothing and _is_plain(image, form.suffix):
            _check(image, content)
            if "icc_profile" in image.info:
                _load(image)  # to see what the profile changes
            if _to_srgb(image) is image:
                return _keep(image, exif, content, form, placement)
        pixels = _placed(image, content, orientation, placement)
    return _stored(pixels, form, placement, orientation)


def pixels_to_stored(pixels: np.ndarray, form: ImageForm, *, max_pixels: int = 100_000_000) -> StoredImage:
    """The same for RGB pixels [H, W, 3] of 8 bits. Raises UnreadableImage for sizes that cannot be stored."""
    height, width = pixels.shape[:2]
    _check_size(width, height, max_pixels)
    placement = form.placement(width, height)
    _check_placement(placement, form.suffix, max_pixels)
    return _stored(place(pixels, placement), form, placement)


def _stored(pixels: np.ndarray, form: ImageForm, placement: Placement, orientation: int = 1) -> StoredImage:
    coded = encode(pixels, form.suffix, form.quality, subsampling="444" if placement.changes_nothing else "420")
    return StoredImage(coded, placement.width, placement.height, reencoded=True, placement=placement, orientation=orientation)


def encode(
    image: Image.Image | np.ndarray, suffix: ImageSuffix, quality: int = 95, *, subsampling: Literal["444", "420"] = "444"
) -> bytes:
    """Of an RGB image, without its metadata. `quality` is libjpeg's and WebP's; PNG is lossless and ignores it.

    `subsampling` of JPEGs: 444 keeps the colour of every pixel, 420 of every four, as img2dataset and most cameras do.
    """
    pixels = np.ascontiguousarray(image)
    if suffix == "jpg":
        return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling=subsampling)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, _PIL_FORMAT[suffix], quality=quality)
    return out.getvalue()


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """The header, and nothing more of it."""
    try:
        image = Image.open(io.BytesIO(content), formats=READABLE_FORMATS)
    except Image.UnidentifiedImageError as error:
        start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        what = next(
            (name for mark, name in _FOREIGN.items() if start.startswith(mark)), f"bytes that begin with {content[:12]!r}"
        )
        raise UnreadableImage("not_an_image", f"holds {what}; readable are {', '.join(READABLE_FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too_many_pixels", str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        raise _damaged(error) from error
    _check_size(image.width, image.height, max_pixels)
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableImage("too_many_pixels", f"{width} x {height} is above {max_pixels} pixels")
    if min(width, height) < MIN_SIDE_PX:
        raise UnreadableImage("too_small", f"{width} x {height} has fewer than {MIN_SIDE_PX} pixels on a side")


def _check_placement(placement: Placement, suffix: ImageSuffix, max_pixels: int) -> None:
    _check_size(placement.width, placement.height, max_pixels)
    longest_px = _LONGEST_SIDE_PX.get(suffix, max_pixels)
    if max(placement.width, placement.height) > longest_px:
        raise UnreadableImage(
            "too_many_pixels", f"{placement.width} x {placement.height} cannot be stored as {suffix}: {longest_px} a side"
        )


def _has_second_frame(content: bytes, max_pixels: int) -> bool:
    """Asked of an image of its own, since looking for the second frame loses the first."""
    try:
        _open(content, max_pixels).seek(1)
    except MemoryError:
        raise
    except Exception:  # EOFError for a single frame; whatever a decoder raises on damaged bytes
        return False
    return True


def _is_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO")


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _damaged(error) from error


def _check(image: Image.Image, content: bytes) -> None:
    """Every coefficient of a JPEG, strictly: Pillow alone takes those with a damaged scan and shifts their colours.

    An eighth of the size in grey costs least, and finds what decoding in full finds. Other formats are known to be sound once loaded.
    """
    if _is_jpeg(image):
        colours = "CMYK" if image.mode == "CMYK" else "GRAY"
        try:
            simplejpeg.decode_jpeg(content, colours, min_width=1, min_height=1, strict=True)
        except ValueError as error:
            raise _damaged(error) from error


def _placed(image: Image.Image, content: bytes, orientation: int, placement: Placement) -> np.ndarray:
    """The RGB pixels to store."""
    factor = 1
    if _is_jpeg(image) and image.mode in ("L", "RGB") and "icc_profile" not in image.info:
        if orientation == 1:  # else the part of a pixel that a division leaves would lie on another side
            factor = jpeg_factor(placement)
        try:
            pixels = decode_jpeg(content, image.size, factor)
        except ValueError as error:
            raise _damaged(error) from error
    else:
        _check(image, content)
        _load(image)
        pixels = np.asarray(_to_srgb(_flatten(image)).convert("RGB"))
    if orientation > 1:
        pixels = np.asarray(Image.fromarray(pixels).transpose(_TURN[orientation]))
    return place(pixels, placement, factor)


def _damaged(error: Exception) -> UnreadableImage:
    text = str(error)
    cut = "truncated" in text.lower() or "premature end" in text.lower()
    return UnreadableImage("truncated" if cut else "corrupt", text or repr(error))


def _exif(image: Image.Image) -> Image.Exif | None:
    """None where it cannot be read: the picture is what counts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Image.Exif().load(image.info.get("exif", b""))  # Pillow has read it on opening, and says only once what is wrong
            return image.getexif()
    except Exception:  # Pillow's parser on damaged bytes raises what it happens to meet
        return None


def _is_plain(image: Image.Image, suffix: ImageSuffix) -> bool:
    """A single, opaque RGB image of the dataset's format."""
    return (
        image.format == _PIL_FORMAT[suffix]
        and image.mode == "RGB"
        and "transparency" not in image.info
        and not getattr(image, "is_animated", False)
    )


def _keep(image: Image.Image, exif: Image.Exif | None, content: bytes, form: ImageForm, placement: Placement) -> StoredImage:
    xmp = image.info.get("xmp", b"")
    tells_position = (exif is not None and _GPS in exif) or b"GPS" in (xmp if isinstance(xmp, bytes) else str(xmp).encode())
    if exif is not None and not tells_position:
        return StoredImage(content, image.width, image.height, reencoded=False, placement=placement)
    stripped = _without_exif(content) if form.suffix == "jpg" else None
    if stripped is None:
        stripped = encode(Image.fromarray(np.asarray(image)), form.suffix, form.quality)
    return StoredImage(stripped, image.width, image.height, reencoded=True, placement=placement)


def _without_exif(jpeg: bytes) -> bytes | None:
    """Without its APP1 segments (EXIF, XMP). Segments before the scan are FF, marker, length of two bytes that counts itself.

    None where they cannot be followed: decoders forgive more than this, and a position could hide behind it.
    """
    kept, position = [jpeg[:2]], 2
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF:
        marker = jpeg[position + 1]
        if marker == 0xDA:
            return b"".join([*kept, jpeg[position:]])
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            end = position + 2 + struct.unpack_from(">H", jpeg, position + 2)[0]
            kept += [jpeg[position:end]] if marker != 0xE1 else []
            position = end
    return None


def _flatten(image: Image.Image) -> Image.Image:
    """L, RGB or CMYK of 8 bits, opaque."""
    if image.mode == "F" or image.mode.startswith("I"):
        flat = Image.fromarray(_to_8_bit(np.asarray(image)))
        flat.info = image.info
        return flat
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Grey of more than 8 bits, by the rules at the top of this file."""
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < 1 << 16:
        depth = next(depth for depth in (8, 10, 12, 14, 16) if values.max() < 1 << depth)
        return (values >> (depth - 8)).astype(np.uint8)
    valid = np.isfinite(values)
    if not valid.any():
        raise UnreadableImage("no_valid_pixels", "no pixel holds a finite number")
    low, high = np.percentile(values[valid], (2, 98))
    if low == high:
        return np.where(valid, 128, 0).astype(np.uint8)
    share = (np.where(valid, values, low).astype(np.float64) - low) / (high - low)
    return np.where(valid, np.rint(share.clip(0, 1) * 255), 0).astype(np.uint8)


def _to_srgb(image: Image.Image) -> Image.Image:
    """The same object when there is no readable profile or when it changes nothing."""
    profile: Any = image.info.get("icc_profile")
    if not profile:
        return image
    try:
        converted = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if converted is None:  # Pillow's type says so; only in-place conversion gives None
        return image
    before = np.asarray(image.convert("RGB"), np.int16)
    return converted if np.abs(np.asarray(converted, np.int16) - before).max() > _SAME_COLOUR else image
