import io

import numpy as np
import pytest
from PIL import Image

from rsvl_data.images import UnreadableImage, to_stored

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (12, 20, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_an_rgb_jpeg_is_kept_byte_for_byte():
    content = encoded(Image.fromarray(PIXELS), "JPEG", quality=70)
    stored = to_stored(content)
    assert stored.content == content and not stored.reencoded and (stored.width, stored.height) == (20, 12)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "WEBP"])
def test_other_formats_become_jpeg(form):
    stored = to_stored(encoded(Image.fromarray(PIXELS // 4 * 2 + 60), form, **({"lossless": True} if form == "WEBP" else {})))
    assert stored.reencoded and stored.content[:2] == b"\xff\xd8"
    assert np.abs(pixels(stored.content).astype(int) - (PIXELS // 4 * 2 + 60)).mean() < 6


def test_png_datasets_lose_nothing():
    stored = to_stored(encoded(Image.fromarray(PIXELS), "BMP"), "png")
    assert np.array_equal(pixels(stored.content), PIXELS)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = to_stored(encoded(Image.fromarray(PIXELS), "PNG", exif=exif), "png")
    assert (stored.width, stored.height) == (12, 20)
    assert np.array_equal(pixels(stored.content), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("RGBA", (4, 4), (200, 100, 0, 128)), (100, 50, 0)),
        (Image.new("P", (4, 4), 0), (0, 0, 0)),
        (Image.fromarray(np.full((4, 4), 0x4D00, np.uint16)), (77, 77, 77)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(image, expected):
    stored = to_stored(encoded(image, "PNG"), "png")
    assert tuple(pixels(stored.content)[0, 0]) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, not an image", "not_an_image"),
        (encoded(Image.fromarray(PIXELS), "JPEG")[:-60], "truncated"),
        (encoded(Image.fromarray(PIXELS), "PNG")[:200], "truncated"),
    ],
)
def test_what_cannot_be_read(content, reason):
    with pytest.raises(UnreadableImage) as caught:
        to_stored(content)
    assert caught.value.reason == reason


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    bomb = encoded(Image.new("L", (300, 300)), "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage) as caught:
        to_stored(bomb, max_pixels=80_000)
    assert caught.value.reason == "too_many_pixels"
