"""Small square pictures: what a gallery shows of an image, in a result file and on a page."""

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageOps

from evaluation.data import EvalSet
from rsvl_data.errors import DataError

logger = logging.getLogger(__name__)

THUMBNAIL_PX = 160


def thumbnail(content: bytes) -> bytes:
    """Square from the centre, as most encoders see it. WebP, because it is a third smaller than JPEG.

    Raises OSError or ValueError, as pillow does, for what cannot be read.
    """
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
        small = ImageOps.fit(image.convert("RGB"), (THUMBNAIL_PX, THUMBNAIL_PX))
    encoded = io.BytesIO()
    small.save(encoded, "WEBP", quality=68, method=4)
    return encoded.getvalue()


def with_pictures(data: EvalSet, gallery: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`gallery` and `gallery_pictures` of `Result.details`: the queries and answers, and of every image among them a thumbnail by key.

    An image that cannot be shown is named in the log and left out.
    """
    shown = {entry["query_key"] for entry in gallery}
    shown |= {found["key"] for entry in gallery for found in entry["found"] if entry["direction"] == "text_to_image"}
    pictures = {}
    for index, item in enumerate(data.items):
        if item.key in shown:
            try:
                pictures[item.key] = base64.b64encode(thumbnail(data.image(index))).decode()
            except (DataError, OSError, ValueError) as error:
                logger.warning("no thumbnail of %s: %s", item.key, error)
    return {"gallery": list(gallery), "gallery_pictures": pictures}
