"""Resized pixels against a slow plain area filter, and what is stored of them."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageCms

from rsvl_data.image_form import ImageForm
from rsvl_data.images import UnreadableImage, pixels_to_stored, to_stored
from rsvl_data.resize import jpeg_factor, place_mask

RNG = np.random.default_rng(0)


def area_filter(pixels, width, height):
    """Every pixel is the mean of the rectangle it covers, as OpenCV's INTER_AREA."""

    def weights(length, count):
        edges, begin = np.linspace(0, length, count + 1), np.arange(length)
        shared = np.minimum(begin + 1, edges[1:, None]) - np.maximum(begin, edges[:-1, None])
        return shared.clip(0) * count / length

    rows, columns = weights(pixels.shape[0], height), weights(pixels.shape[1], width)
    return np.einsum("ab,bcd,ec->aed", rows, pixels.astype(float), columns, optimize=True)


def smooth(width, height):
    """Waves of 12 px and more: what any filter keeps."""
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    waves = [np.sin(x / period + y / (period + 2)) for period in (4, 9, 23)]
    return np.stack([127 + 100 * wave for wave in waves], axis=-1).astype(np.uint8)


def encoded(pixels, form="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def decoded(stored):
    with Image.open(io.BytesIO(stored.content)) as image:
        assert image.mode == "RGB" and image.size == (stored.width, stored.height)
        return np.asarray(image, float)


@pytest.mark.parametrize("width", [301, 515, 640, 1030])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_down_is_near_the_area_filter(form, width):
    pixels = smooth(width, 400)
    options = {"quality": 97, "subsampling": 0} if form == "JPEG" else {}
    stored = to_stored(encoded(pixels, form, **options), ImageForm("png", size_px=128, resize="keep_ratio"))
    assert np.abs(decoded(stored) - area_filter(pixels, stored.width, stored.height)).mean() < 2
    assert (stored.placement.source_width, stored.placement.source_height) == (width, 400)


def test_down_on_aerial_photographs(shared):
    """Mean difference in grey levels to the area filter, JPEGs decoded in full and in part; img2dataset's own is 0.2 (it rounds)."""
    paths = sorted((shared / "data" / "nwpu_vhr10" / "images").glob("*.jpg"))[:6]
    far = []
    for path in paths:
        with Image.open(path) as image:
            pixels = np.asarray(image)
        for size_px in (100, 256, 400):
            stored = to_stored(path.read_bytes(), ImageForm("png", size_px=size_px, resize="keep_ratio"))
            far.append(np.abs(decoded(stored) - area_filter(pixels, stored.width, stored.height)).mean())
    assert np.mean(far) < 2 and max(far) < 4


def test_up_is_lanczos():
    pixels = smooth(40, 30)
    stored = to_stored(encoded(pixels), ImageForm("png", size_px=90, resize="keep_ratio", upscale=True))
    expected = np.asarray(Image.fromarray(pixels).resize((120, 90), Image.Resampling.LANCZOS))
    assert np.array_equal(decoded(stored), expected)


def test_crop_is_the_middle_and_border_is_white():
    pixels = smooth(400, 200)
    whole = decoded(to_stored(encoded(pixels), ImageForm("png", size_px=100, resize="keep_ratio")))
    cropped = decoded(to_stored(encoded(pixels), ImageForm("png", size_px=100, resize="center_crop")))
    assert np.array_equal(cropped, whole[:, 50:150])
    bordered = decoded(to_stored(encoded(pixels), ImageForm("png", size_px=200, resize="border")))
    assert np.array_equal(bordered[50:150], whole)
    assert (bordered[:50] == 255).all() and (bordered[150:] == 255).all()
    enlarged = ImageForm("png", size_px=50, resize="center_crop", upscale=True)
    small = smooth(30, 20)
    middle = np.asarray(Image.fromarray(small).resize((75, 50), Image.Resampling.LANCZOS), float)[:, 12:62]
    assert np.abs(decoded(to_stored(encoded(small), enlarged)) - middle)[:, 3:-3].max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_applied_before_the_size(orientation):
    pixels, exif = smooth(321, 203), Image.Exif()
    exif[0x0112] = orientation
    form = ImageForm("png", size_px=64, resize="keep_ratio")
    turned = [to_stored(encoded(pixels, kind, exif=exif, quality=97), form) for kind in ("PNG", "JPEG")]
    assert np.abs(decoded(turned[0]) - decoded(turned[1])).mean() < 3
    upright = decoded(to_stored(encoded(pixels, exif=exif), ImageForm("png")))
    assert np.abs(decoded(turned[0]) - area_filter(upright, turned[0].width, turned[0].height)).mean() < 2
    assert turned[1].orientation == orientation and min(turned[1].width, turned[1].height) == 64


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_grey_and_cmyk_jpegs(mode):
    out = io.BytesIO()
    Image.new("RGB", (300, 200), (120, 120, 120)).convert(mode).save(out, "JPEG")
    stored = to_stored(out.getvalue(), ImageForm("jpg", size_px=64, resize="border"))
    assert np.abs(decoded(stored)[20:40] - 120).max() <= 3


def test_a_colour_profile_is_applied_before_the_size():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    content = encoded(np.full((128, 128, 3), (200, 100, 20), np.uint8), "JPEG", icc_profile=swapped, quality=97)
    stored = to_stored(content, ImageForm("png", size_px=64, resize="keep_ratio"))
    assert np.abs(decoded(stored) - (20, 100, 200)).max() <= 4


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_damaged_jpeg_is_found_whatever_part_is_decoded(factor):
    content = encoded(RNG.integers(0, 256, (512, 512, 3), np.uint8), "JPEG")
    form = ImageForm(size_px=512 // factor, resize="keep_ratio", upscale=factor == 1)
    assert jpeg_factor(form.placement(512, 512)) == factor
    to_stored(content, form)
    cuts = [content[:-place] + b"\xff\xd9" for place in (3, 300, len(content) // 2)]
    holes = [content[:place] + content[place + 40 :] for place in RNG.integers(700, len(content) - 100, 12)]
    found = []
    for damaged in [*cuts, *holes]:
        try:
            simplejpeg.decode_jpeg(damaged, "RGB", strict=True)  # what decoding in full says
        except ValueError:
            with pytest.raises(UnreadableImage) as caught:
                to_stored(damaged, form)
            found.append(caught.value.reason)
        else:
            to_stored(damaged, form)
    assert len(found) > 3 and set(found) <= {"truncated", "corrupt"}


def test_an_image_of_that_size_is_kept_byte_for_byte():
    content = encoded(smooth(64, 64), "JPEG")
    for resize in ("keep_ratio", "keep_ratio_largest", "center_crop", "border"):
        stored = to_stored(content, ImageForm(size_px=64, resize=resize, upscale=True))
        assert stored.content == content and not stored.reencoded
    assert to_stored(content, ImageForm(size_px=63, resize="border")).reencoded


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_quality_decides_the_bytes(suffix):
    content = encoded(smooth(64, 64), "BMP")
    fine, coarse = (len(to_stored(content, ImageForm(suffix, quality=quality)).content) for quality in (95, 20))
    assert coarse < fine / 2


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animated_files_can_be_dropped(form):
    first, second = smooth(16, 16), smooth(16, 16)[::-1]
    lossless = {"lossless": True} if form == "WEBP" else {}
    one = encoded(first, form, **lossless)
    two = encoded(first, form, **lossless, save_all=True, append_images=[Image.fromarray(second)])
    drop = ImageForm("png", animated="drop")
    assert to_stored(one, drop).content == to_stored(one, ImageForm("png")).content == to_stored(two, ImageForm("png")).content
    with pytest.raises(UnreadableImage, match="more than one frame") as caught:
        to_stored(two, drop)
    assert caught.value.reason == "animated"


@pytest.mark.parametrize(
    ("size", "form", "reason"),
    [
        ((1000, 4), ImageForm(size_px=100, resize="keep_ratio_largest"), "too_small"),
        ((1000, 4), ImageForm(size_px=20_000, resize="keep_ratio", upscale=True), "too_many_pixels"),
        ((70_000, 4), ImageForm("jpg"), "too_many_pixels"),
        ((17_000, 4), ImageForm("webp"), "too_many_pixels"),
    ],
)
def test_sizes_that_cannot_be_stored(size, form, reason):
    with pytest.raises(UnreadableImage) as caught:
        to_stored(encoded(np.zeros((size[1], size[0], 3), np.uint8)), form)
    assert caught.value.reason == reason
    with pytest.raises(UnreadableImage):
        pixels_to_stored(np.zeros((size[1], size[0], 3), np.uint8), form)


def test_pixels_are_stored_as_their_file_would_be():
    pixels = smooth(300, 200)
    for form in (ImageForm("png", size_px=64, resize="center_crop"), ImageForm("jpg")):
        assert pixels_to_stored(pixels, form).content == to_stored(encoded(pixels), form).content


def test_a_mask_takes_the_id_at_the_middle_of_each_pixel():
    ids = RNG.integers(0, 9, (30, 50)).astype(np.uint8)
    for resize in ("keep_ratio", "center_crop", "border", "keep_ratio_largest"):
        for size_px, upscale in ((16, False), (77, True)):
            placed = ImageForm(size_px=size_px, resize=resize, upscale=upscale).placement(50, 30)
            found = place_mask(ids, placed, 255)
            assert found.shape == (placed.height, placed.width) and found.dtype == np.uint8
            for y in range(placed.height):
                for x in range(placed.width):
                    source_x, source_y = (x + 0.5 - placed.left) / placed.scale_x, (y + 0.5 - placed.top) / placed.scale_y
                    inside = 0 <= source_x < 50 and 0 <= source_y < 30
                    assert found[y, x] == (ids[int(source_y), int(source_x)] if inside else 255)


def test_no_size_is_rounded_down_to_one_less():
    """49 times 32/49 is 31.999999999999996 in floating point; the row that lacks would be padded with white."""
    for width in range(33, 200):
        stored = pixels_to_stored(np.zeros((width, width, 3), np.uint8), ImageForm("png", size_px=32, resize="keep_ratio"))
        assert not decoded(stored).any()
