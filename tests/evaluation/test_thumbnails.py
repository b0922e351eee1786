"""Pictures of a gallery: all of them, small, and none of what cannot be shown."""

import base64
import io
import logging

from PIL import Image

from evaluation.data import EvalItem, MemorySet
from evaluation.thumbnails import THUMBNAIL_PX, with_pictures


def tiff(level: int) -> bytes:
    """Wide, with a white middle square that is all a square thumbnail shows."""
    picture = Image.new("RGB", (400, 100), (level,) * 3)
    picture.paste((255, 255, 255), (150, 0, 250, 100))
    encoded = io.BytesIO()
    picture.save(encoded, "TIFF")
    return encoded.getvalue()


def test_every_picture_that_a_gallery_shows_is_there_once(caplog):
    keys = ("a", "b", "c", "d", "e")
    data = MemorySet("toy", "test", (), [EvalItem(key) for key in keys], [*map(tiff, (10, 60, 110, 160)), b"none"])
    gallery = [
        {"direction": "text_to_image", "query_key": None, "found": [{"key": "a"}, {"key": "e"}, {"key": "a"}]},
        {"direction": "image_to_text", "query_key": "b", "found": [{"key": "d"}]},  # d is shown as its text
    ]
    with caplog.at_level(logging.WARNING):
        details = with_pictures(data, gallery)
    assert details["gallery"] == gallery and set(details["gallery_pictures"]) == {"a", "b"}
    assert "no thumbnail of e: cannot identify image file" in caplog.text
    with Image.open(io.BytesIO(base64.b64decode(details["gallery_pictures"]["a"]))) as picture:
        assert (picture.format, picture.size) == ("WEBP", (THUMBNAIL_PX, THUMBNAIL_PX))
        assert picture.convert("L").crop((8, 8, 152, 152)).getextrema()[0] > 250  # colours bleed a little over an edge
