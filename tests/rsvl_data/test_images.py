import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from rsvl_data.image_form import ImageForm
from rsvl_data.images import READABLE_FORMATS, UnreadableImage, to_stored

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
    stored = to_stored(encoded(Image.fromarray(PIXELS), "BMP"), ImageForm("png"))
    assert np.array_equal(pixels(stored.content), PIXELS)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (2, PIXELS[:, ::-1]),
        (3, PIXELS[::-1, ::-1]),
        (4, PIXELS[::-1]),
        (5, PIXELS.transpose(1, 0, 2)),
        (6, np.rot90(PIXELS, -1)),
        (7, PIXELS.transpose(1, 0, 2)[::-1, ::-1]),
        (8, np.rot90(PIXELS)),
    ],
)
def test_exif_orientation_is_applied_and_recorded(orientation, turned):
    stored = to_stored(encoded(Image.fromarray(PIXELS), "PNG", exif=exif(orientation)), ImageForm("png"))
    assert (stored.height, stored.width) == turned.shape[:2] and stored.orientation == orientation
    assert np.array_equal(pixels(stored.content), turned)
    with Image.open(io.BytesIO(stored.content)) as image:
        assert not image.getexif()


@pytest.mark.parametrize("orientation", [0, 1, 9, 4711])
def test_an_orientation_that_is_none_changes_nothing(orientation):
    content = encoded(Image.fromarray(PIXELS), "JPEG", exif=exif(orientation))
    stored = to_stored(content)
    assert stored.content == content and stored.orientation == 1 and not stored.reencoded


def exif(orientation, gps=None):
    values = Image.Exif()
    values[0x0112] = orientation
    if gps:
        values[0x8825] = gps
    return values


@pytest.mark.parametrize(("form", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_a_camera_position_is_not_published(form, suffix):
    gps = {1: "N", 2: (41.0, 53.0, 0.0), 3: "E", 4: (12.0, 29.0, 0.0)}
    plain = Image.fromarray(PIXELS // 4 * 2 + 60)
    content = encoded(plain, form, exif=exif(1, gps), quality=90, comment=b"kept")
    stored = to_stored(content, ImageForm(suffix))
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(stored.content)) as after:
        assert 0x8825 in before.getexif() and not after.getexif() and stored.reencoded
        if suffix == "webp":
            assert np.abs(np.asarray(after, float) - np.asarray(before)).mean() < 8
        else:
            assert np.array_equal(np.asarray(after), np.asarray(before))
        assert suffix != "jpg" or after.info["comment"] == b"kept"


def test_a_position_in_xmp_is_not_published_either():
    content = encoded(Image.fromarray(PIXELS), "JPEG", xmp=b"<x drone-dji:GpsLatitude='41' exif:GPSLatitude='41'/>")
    stored = to_stored(content)
    assert b"GPS" in content and b"GPS" not in stored.content and np.array_equal(pixels(stored.content), pixels(content))


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
    stored = to_stored(encoded(image, "PNG"), ImageForm("png"))
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


def cut_scan(content):
    """Bytes taken out of the middle of a JPEG's scan: the end is there, the colours are not."""
    middle = len(content) * 2 // 3
    return content[:middle] + content[middle + 40 :]


def test_a_damaged_scan_is_no_picture_though_pillow_loads_it():
    content = encoded(Image.fromarray(RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG")
    Image.open(io.BytesIO(cut_scan(content))).load()
    with pytest.raises(UnreadableImage) as caught:
        to_stored(cut_scan(content))
    assert caught.value.reason in ("corrupt", "truncated")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_damaged_bytes_raise_nothing_else(form):
    content = bytearray(encoded(Image.fromarray(PIXELS), form, exif=exif(6)))
    for _ in range(150):
        damaged = bytearray(content)
        for position in RNG.integers(0, len(content), 3):
            damaged[position] = RNG.integers(0, 256)
        try:
            stored = to_stored(bytes(damaged[: RNG.integers(1, len(content) + 1)]))
        except UnreadableImage as error:
            assert error.reason in UnreadableImage.__doc__
        else:
            assert pixels(stored.content).shape == (stored.height, stored.width, 3)


@pytest.mark.parametrize(
    ("start", "what"),
    [(b"version https://git-lfs.github.com/spec/v1", "LFS pointer"), (b"\n <svg x", "SVG"), (b"<!DOCTYPE HTML>", "HTML")],
)
def test_the_message_says_what_it_is_instead(start, what):
    with pytest.raises(UnreadableImage, match=what):
        to_stored(start)


def test_formats_that_start_other_programs_are_not_opened():
    with pytest.raises(UnreadableImage) as caught:
        to_stored(encoded(Image.fromarray(PIXELS), "EPS"))
    assert caught.value.reason == "not_an_image" and "EPS" not in READABLE_FORMATS


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (20000, 1)])
def test_a_few_pixels_are_no_picture(size):
    with pytest.raises(UnreadableImage) as caught:
        to_stored(encoded(Image.new("RGB", size), "PNG"))
    assert caught.value.reason == "too_small"


def grey(values):
    return pixels(to_stored(encoded(Image.fromarray(np.asarray(values)), "TIFF"), ImageForm("png")).content)[..., 0]


@pytest.mark.parametrize(("largest", "shift"), [(255, 0), (256, 2), (1023, 2), (4095, 4), (16383, 6), (16384, 8), (65535, 8)])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_16_bits_are_scaled_by_their_depth(largest, shift, dtype):
    values = np.linspace(0, largest, 64).astype(dtype).reshape(8, 8)
    assert np.array_equal(grey(values), values >> shift)


def test_floats_are_stretched_between_percentiles_and_nodata_is_black():
    values = np.linspace(0, 0.3, 10_000, dtype=np.float32).reshape(100, 100)
    values[0, :10], values[50, 50], values[50, 51] = np.nan, np.inf, 1e30
    result = grey(values)
    assert (result[0, :10] == 0).all() and result[50, 50] == 0 and result[50, 51] == 255
    assert 125 < result[2:].mean() < 131 and result[1:].min() == 0 and result.max() == 255
    assert (grey(np.full((8, 8), -7.5, np.float32)) == 128).all()
    assert grey(np.linspace(-40, 40, 64).astype(np.int32).reshape(8, 8)).max() == 255
    with pytest.raises(UnreadableImage) as caught:
        grey(np.full((8, 8), np.nan, np.float32))
    assert caught.value.reason == "no_valid_pixels"


def test_16_bit_colour_in_png_is_not_kept_as_it_is(shared):
    content = (shared / "fixtures" / "bad" / "images" / "rgb16.png").read_bytes()
    assert to_stored(content, ImageForm("png")).content[24] == 8 and content[24] == 16  # depth, in the header of a PNG


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_the_picture(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {}))
    stored = to_stored(content, ImageForm("webp" if form == "WEBP" else "png"))
    assert stored.reencoded and np.abs(pixels(stored.content)[0, 0].astype(int) - (255, 0, 0)).max() <= 3


def test_profiles():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    plain = Image.fromarray(PIXELS)
    for profile in (srgb, b"no profile", xyz):
        content = encoded(plain, "PNG", icc_profile=profile)
        assert to_stored(content, ImageForm("png")).content == content or profile == xyz
    swapped = srgb.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    stored = to_stored(encoded(plain, "PNG", icc_profile=swapped), ImageForm("png"))
    assert np.abs(pixels(stored.content).astype(int) - PIXELS[..., ::-1]).max() <= 3
    with Image.open(io.BytesIO(stored.content)) as image:
        assert "icc_profile" not in image.info


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    bomb = encoded(Image.new("L", (300, 300)), "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage) as caught:
        to_stored(bomb, max_pixels=80_000)
    assert caught.value.reason == "too_many_pixels"
