"""One image on its way to the disk: in memory while it is small, and never under its name before it is whole and judged.

Most images are small, so most take one write and one rename, and an answer that is no image leaves no trace. No file is synced by
itself: after a power cut one may be short or empty. Its length stands in state.jsonl, so the next run sees that and asks again;
`download.py` syncs all of them before it calls a download finished.
"""

import io
import struct
import warnings
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from PIL import Image

from rsvl_data.downloading.web_address import NotFetched

IN_MEMORY_BYTES = 1024 * 1024
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


class ArrivingImage:
    """`with ArrivingImage(part) as image:` write to it, then `keep` it. What is not kept is gone; `part` is where it may wait."""

    def __init__(self, part: Path):
        self._part, self._on_disk = part, False
        self._content: BinaryIO = io.BytesIO()
        self.num_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._content.close()
        finally:
            if self._on_disk:
                self._part.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        self._content.write(piece)
        self.num_bytes += len(piece)
        if self.num_bytes > IN_MEMORY_BYTES and not self._on_disk:
            self._to_disk()

    def suffix(self, max_pixels: int) -> str:
        """See `image_suffix`."""
        self._content.seek(0)
        return image_suffix(self._content, max_pixels)

    def keep(self, path: Path) -> None:
        """Give it its name. The folder is made."""
        if not self._on_disk:
            self._to_disk()
        self._content.close()
        try:
            self._part.replace(path)
        except FileNotFoundError:  # once a folder; asking before each file would cost more
            path.parent.mkdir(parents=True, exist_ok=True)
            self._part.replace(path)
        self._on_disk = False

    def _to_disk(self) -> None:
        content = self._content
        assert isinstance(content, io.BytesIO)
        self._content = open(self._part, "w+b")  # noqa: SIM115 (closed in __exit__)
        self._on_disk = True
        self._content.write(content.getbuffer())


def image_suffix(file: BinaryIO, max_pixels: int) -> str:
    """The usual suffix of the form the bytes have, whatever the server called them. Only the header is read.

    Raises NotFetched: not_an_image, too_many_pixels, corrupt.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, and about bombs, which are judged below
            with Image.open(file, formats=_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise NotFetched("too_many_pixels", f"{image.width} x {image.height} is above {max_pixels} pixels")
                return _SUFFIXES[image.format or ""]
    except Image.DecompressionBombError as error:
        raise NotFetched("too_many_pixels", str(error)) from error
    except Image.UnidentifiedImageError as error:
        raise NotFetched("not_an_image", f"the bytes are none of {', '.join(_FORMATS)}") from error
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, OverflowError, struct.error) as error:
        raise NotFetched("corrupt", str(error)) from error
