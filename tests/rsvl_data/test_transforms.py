import io
import random

import numpy as np
import open_clip
import pytest
import torch
import torchvision.transforms.functional as tvf
from PIL import Image

from rsvl_data.errors import DataError
from rsvl_data.transforms import Augment, Preprocess, View, _largest_shrink


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth shades with hard edges: what a resize filter can get wrong."""
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.array(coarse)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (240, 20, 60)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    image.save(file, format, **({"quality": 95} if format == "JPEG" else {}))
    return file.getvalue()


def open_clip_pixels(content: bytes, preprocess: Preprocess) -> torch.Tensor:
    transform = open_clip.image_transform(
        preprocess.size,
        is_train=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_mode=preprocess.resize_mode,
        interpolation=preprocess.interpolation,
    )
    return (transform(Image.open(io.BytesIO(content)).convert("RGB")) * 255).round().to(torch.uint8)


def mean_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.float() - b.float()).abs().mean().item()


STORED = [
    pytest.param(encoded(picture(90, 90)), id="square"),
    pytest.param(encoded(picture(131, 97)), id="wide"),
    pytest.param(encoded(picture(67, 200)), id="tall"),
    pytest.param(encoded(picture(20, 31)), id="smaller than the model input"),
    pytest.param(encoded(picture(48, 48)), id="of the size of the model input"),
    pytest.param(encoded(picture(90, 70, "L")), id="grey"),
    pytest.param(encoded(picture(90, 70, "CMYK")), id="CMYK"),
    pytest.param(encoded(picture(90, 70, "RGBA"), "PNG"), id="png with alpha"),
    pytest.param(encoded(picture(90, 70, "P"), "PNG"), id="png with palette"),
    pytest.param(encoded(picture(90, 70), "WEBP"), id="webp"),
]
PREPROCESSES = [
    Preprocess(size=48),
    Preprocess(size=48, interpolation="bilinear"),
    Preprocess(size=48, resize_mode="squash"),
]


@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=["bicubic", "bilinear", "squash"])
@pytest.mark.parametrize("content", STORED)
def test_exact_engine_equals_open_clip_to_the_bit(content, preprocess):
    assert torch.equal(preprocess.decode(content), open_clip_pixels(content, preprocess))


@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=["bicubic", "bilinear", "squash"])
@pytest.mark.parametrize("content", STORED)
def test_fast_engine_stays_within_a_grey_level_or_two(content, preprocess):
    exact, fast = preprocess.decode(content), preprocess.decode(content, "fast")
    assert fast.dtype == torch.uint8
    assert fast.is_contiguous()
    # The two libraries round CMYK differently; for the rest the mean is 0.1 at most. None is shrunk in decoding.
    assert mean_difference(fast, exact) < 1.1
    assert (fast.int() - exact.int()).abs().max() <= 2


def test_fast_engine_on_a_shrunk_jpeg_is_close():
    content = encoded(picture(500, 420))
    exact, fast = Preprocess(size=48).decode(content), Preprocess(size=48).decode(content, "fast")
    assert 0 < mean_difference(fast, exact) < 1.5


@pytest.mark.parametrize(
    ("width", "height", "target", "shrink"),
    [
        (224, 224, (224, 224), 1),
        (671, 900, (224, 224), 1),
        (672, 672, (224, 224), 2),
        (900, 672, (448, 224), 1),
        (1344, 1344, (224, 224), 4),
        (9000, 9000, (224, 224), 8),
    ],
)
def test_a_shrunk_jpeg_keeps_more_than_the_model_sees(width, height, target, shrink):
    assert _largest_shrink(View(0, 0, width, height), target) == shrink


def test_decode_and_normalize_are_open_clips_transform():
    preprocess, content = Preprocess(size=48), encoded(picture(90, 70))
    transform = open_clip.image_transform(48, is_train=False, mean=preprocess.mean, std=preprocess.std)
    theirs = transform(Image.open(io.BytesIO(content)))
    torch.testing.assert_close(preprocess.normalize(preprocess.decode(content)[None])[0], theirs, atol=1e-6, rtol=1e-5)


JPEG, PNG = encoded(picture(64, 64)), encoded(picture(64, 64), "PNG")


@pytest.mark.parametrize("engine", ["exact", "fast"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the image \(0 bytes\) is not readable"),
        (b"<html>not found</html>", r"the image \(22 bytes\) is not readable"),
        (JPEG[: len(JPEG) // 2], r"the JPEG image of \(64, 64\) px cannot be decoded: .*truncated"),
        (PNG[: len(PNG) // 2], r"the PNG image of \(64, 64\) px cannot be decoded"),
        (JPEG[:10], r"the image \(10 bytes\) is not readable"),
    ],
    ids=["empty", "not an image", "half a JPEG", "half a PNG", "a part of a header"],
)
def test_undecodable_bytes_are_data_errors(content, message, engine):
    with pytest.raises(DataError, match=message):
        Preprocess(size=48).decode(content, engine)


@pytest.mark.parametrize("engine", ["exact", "fast"])
def test_decompression_bombs_are_refused(engine, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"not readable.*decompression bomb"):
        Preprocess(size=48).decode(JPEG, engine)


def test_wrong_options_are_named():
    with pytest.raises((ValueError, TypeError), match="turbo"):  # a TypeError while the tests check annotations
        Preprocess().decode(JPEG, "turbo")
    with pytest.raises((ValueError, TypeError), match="simclr"):
        Augment("simclr")
    with pytest.raises(ValueError, match=r"is random and needs a generator: pass rng=random\.Random\(seed\)"):
        Preprocess().decode(JPEG, augment=Augment("open_clip"))


@pytest.mark.parametrize(("kind", "smallest"), [("open_clip", 0.9), ("rs", 0.5)])
def test_crops_lie_inside_the_image_and_have_the_asked_area(kind, smallest):
    rng = random.Random(0)
    views = [Augment(kind).view(400, 300, rng) for _ in range(500)]
    for view in views:
        assert view.left >= 0
        assert view.left + view.width <= 400
        assert view.top >= 0
        assert view.top + view.height <= 300
        assert 3 / 4 - 0.02 < view.width / view.height < 4 / 3 + 0.02
    shares = [view.width * view.height / 120_000 for view in views]
    assert smallest - 0.01 < min(shares) < smallest + 0.05
    assert 0.95 < max(shares) <= 1
    assert len({view.left for view in views}) > 10
    assert len({view.top for view in views}) > 10


@pytest.mark.parametrize(("width", "height", "view"), [(1000, 90, View(440, 0, 120, 90)), (90, 1000, View(0, 440, 90, 120))])
def test_elongated_images_give_their_centre(width, height, view):
    assert Augment("open_clip").view(width, height, random.Random(0)) == view


def test_exact_crop_equals_torchvisions_resized_crop():
    content, augment = encoded(picture(131, 97)), Augment("open_clip")
    view = augment.view(131, 97, random.Random(7))
    theirs = tvf.resized_crop(
        Image.open(io.BytesIO(content)), view.top, view.left, view.height, view.width, [48, 48], tvf.InterpolationMode.BICUBIC
    )
    ours = Preprocess(size=48).decode(content, "exact", augment, random.Random(7))
    assert torch.equal(ours, tvf.pil_to_tensor(theirs))
    fast = Preprocess(size=48).decode(content, "fast", augment, random.Random(7))
    assert mean_difference(fast, ours) < 0.1


def test_a_shrunk_crop_shows_the_same_place():
    content, augment = encoded(picture(500, 420)), Augment("rs")
    for seed in range(5):
        exact = Preprocess(size=48).decode(content, "exact", augment, random.Random(seed))
        fast = Preprocess(size=48).decode(content, "fast", augment, random.Random(seed))
        assert mean_difference(fast, exact) < 5  # its edges lie on a grid of four pixels
        elsewhere = Preprocess(size=48).decode(content, "exact", augment, random.Random(seed + 1))
        assert mean_difference(fast, elsewhere) > 10


@pytest.mark.parametrize("kind", ["open_clip", "rs"])
def test_views_depend_on_the_generator_alone(kind):
    def decode(seed: int) -> torch.Tensor:
        return Preprocess(size=48).decode(JPEG, "fast", Augment(kind), random.Random(seed))

    assert torch.equal(decode(1), decode(1))
    assert not torch.equal(decode(1), decode(2))


def test_flips_give_the_eight_orientations_of_the_plain_image():
    plain = Preprocess(size=48).decode(JPEG)
    orientations = [side.rot90(turns, (1, 2)) for side in (plain, plain.flip(2)) for turns in range(4)]
    seen = set()
    for seed in range(80):
        turned = Preprocess(size=48).decode(JPEG, "exact", Augment("none", flips=True), random.Random(seed))
        seen.add(next(number for number, orientation in enumerate(orientations) if torch.equal(orientation, turned)))
    assert seen == set(range(8))


def test_without_flips_nothing_is_turned():
    rng = random.Random(0)
    assert {(view.mirrored, view.quarter_turns) for view in (Augment("rs").view(90, 90, rng) for _ in range(50))} == {(False, 0)}


def test_the_views_of_a_seed_are_these():
    """A change here makes every published run irreproducible."""
    assert Augment("rs", flips=True).view(512, 512, random.Random("0 0 abc view")) == View(
        left=4, top=6, width=440, height=486, mirrored=True, quarter_turns=0
    )
