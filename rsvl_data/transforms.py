"""Encoded image to model input: the only home of mean and std values, of resizing and of random views."""

import io
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as tvf
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rsvl_data.colour_jitter import ColourJitter
from rsvl_data.errors import DataError

# https://github.com/openai/CLIP/blob/main/clip/clip.py, `_transform`
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

Engine = Literal["exact", "fast"]


@dataclass(frozen=True)
class View:
    """A rectangle of the stored image, in its pixels, and how the picture made from it is turned."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool = False
    quarter_turns: int = 0


@dataclass(frozen=True)
class Cut:
    """A part of an image, and the width and height in pixels that it is resized to before it is turned."""

    view: View
    size: tuple[int, int]


# The smallest share of the area. open_clip's is `AugmentationCfg.scale`; its `ratio` is unset, so torchvision's 3/4 to 4/3 holds:
# https://github.com/mlfoundations/open_clip/blob/v3.3.0/src/open_clip/transform.py,
# https://github.com/pytorch/vision/blob/v0.23.0/torchvision/transforms/transforms.py (`RandomResizedCrop`)
_SMALLEST_AREA = {"open_clip": 0.9, "rs": 0.5}
ASPECTS = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10  # as torchvision's `RandomResizedCrop.get_params`


def random_view(
    width: int, height: int, area: tuple[float, float], aspect: tuple[float, float], flips: bool, rng: random.Random
) -> View:
    """A crop by the law of torchvision's `RandomResizedCrop`: its share of the image's area is uniform in the range `area`, the log of
    width by height in that of `aspect`; whole pixels take both a little out of their ranges.

    Only `rng.random()` is used: it is the one method whose numbers Python promises to keep between versions.
    """
    left, top, crop_width, crop_height = _random_crop(width, height, area, aspect, rng)
    mirrored, quarter_turns = (rng.random() < 0.5, int(4 * rng.random())) if flips else (False, 0)
    return View(left, top, crop_width, crop_height, mirrored, quarter_turns)


def _random_crop(
    width: int, height: int, area: tuple[float, float], aspect: tuple[float, float], rng: random.Random
) -> tuple[int, int, int, int]:
    """Left, top, width and height."""
    log_low, log_high = map(math.log, aspect)
    for _ in range(_CROP_ATTEMPTS):
        pixels = width * height * (area[0] + (area[1] - area[0]) * rng.random())
        ratio = math.exp(log_low + (log_high - log_low) * rng.random())
        crop_width, crop_height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int((width - crop_width + 1) * rng.random())
            top = int((height - crop_height + 1) * rng.random())
            return left, top, crop_width, crop_height
    # An image too elongated for any such crop: the largest centred one whose ratio is allowed.
    crop_width, crop_height = min(width, round(height * aspect[1])), min(height, round(width / aspect[0]))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


@dataclass(frozen=True)
class Augment:
    """A random view of each training image.

    kind    none: the whole image, as in evaluation; stretch: the whole image, its aspect given up, as FarSLIP trains; open_clip: a crop
            of 90 to 100 % of the area, the recipe of the published CLIP models; rs: 50 to 100 %, for objects seen from above at many
            scales
    flips   one of the eight orientations (mirror image, quarter turns) at random. Overhead images have no up, but captions do:
            "left of the runway", "north bank", "top right" turn false. Ask for it only where captions name no positions.
    colour  random colours of the picture and, independently, of every crop
    """

    kind: Literal["none", "stretch", "open_clip", "rs"] = "none"
    flips: bool = False
    colour: ColourJitter | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("none", "stretch", *_SMALLEST_AREA):
            raise ValueError(f"augment kind is {self.kind!r}; allowed: none, stretch, {', '.join(_SMALLEST_AREA)}")

    @property
    def is_random(self) -> bool:
        return self.kind in _SMALLEST_AREA or self.flips or self.colour is not None

    def view(self, width: int, height: int, rng: random.Random | None) -> View:
        """Draw one view of an image of this size. The same state of `rng` gives the same view."""
        if not self.is_random:
            return View(0, 0, width, height)
        if rng is None:
            raise ValueError(f"{self} is random and needs a generator: pass rng=random.Random(seed)")
        if self.kind in _SMALLEST_AREA:
            return random_view(width, height, (_SMALLEST_AREA[self.kind], 1.0), ASPECTS, self.flips, rng)
        mirrored, quarter_turns = (rng.random() < 0.5, int(4 * rng.random())) if self.flips else (False, 0)
        return View(0, 0, width, height, mirrored, quarter_turns)


@dataclass(frozen=True)
class Preprocess:
    """What turns a stored image into what the encoder sees. It travels with the checkpoint, in open_clip's `preprocess_cfg`.

    `resize_mode` as in open_clip: "shortest" scales the shorter side to `size` and crops the centre, "squash" ignores the aspect.
    """

    size: int = 224
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"

    @classmethod
    def from_open_clip(cls, config: dict[str, Any]) -> "Preprocess":
        size = config.get("size", 224)
        return cls(
            size=size if isinstance(size, int) else size[0],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            interpolation=config.get("interpolation", "bicubic"),
            resize_mode=config.get("resize_mode", "shortest"),
        )

    def to_open_clip(self) -> dict[str, Any]:
        return {**asdict(self), "mode": "RGB", "fill_color": 0}

    def normalize(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Grey levels 0-255 to standardised floats, on the device the images are on."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1) * 255
        return (images - mean).div_(
            std
        )  # in place: three times as fast on a CPU, where fresh memory costs more than the division

    def decode(
        self, image: bytes, engine: Engine = "exact", augment: Augment = Augment(), rng: random.Random | None = None
    ) -> UInt8[Tensor, "3 s s"]:
        """Grey levels 0-255 of an encoded image, as the encoder wants them before `normalize`.

        engine   exact: to the bit what open_clip's transforms give before ToTensor, for evaluation and for numbers that others
                 compare with; fast: about three times the speed and at most a few grey levels away, further at edges where a
                 large JPEG is decoded at a half, a quarter or an eighth of its size
        augment  a random view in place of the whole image; it needs `rng`

        Alpha is dropped, palettes become colours, EXIF orientation is ignored, all as Pillow's `convert("RGB")` does.
        Raises DataError for bytes that are no readable image.
        """
        cut = self.cut(*stored_size(image), augment, rng)
        (pixels,) = self.decode_cuts(image, [cut], engine)
        picture = self.picture(pixels, cut)
        return augment.colour.apply(picture, rng) if augment.colour and rng else picture

    def cut(self, width: int, height: int, augment: Augment, rng: random.Random | None) -> Cut:
        """What `decode` takes from an image of this size."""
        view = augment.view(width, height, rng)
        return Cut(view, self._resized(width, height) if augment.kind == "none" else (self.size, self.size))

    def decode_cuts(self, image: bytes, cuts: Sequence[Cut], engine: Engine) -> list[UInt8[Tensor, "3 _ _"]]:
        """All cuts of one image, which is decoded once: as small as the one that needs the most pixels allows."""
        if engine not in ("exact", "fast"):
            raise ValueError(f"engine is {engine!r}; allowed: exact, fast")
        return (_cuts_exact if engine == "exact" else _cuts_fast)(image, cuts, self.interpolation)

    def picture(self, pixels: UInt8[Tensor, "3 h w"], cut: Cut) -> UInt8[Tensor, "3 s s"]:
        """The cut of the whole image as the encoder gets it: its square middle, turned."""
        return turn(tvf.center_crop(pixels, [self.size, self.size]), cut.view).contiguous()

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height before the centre crop, rounded as by torchvision's `Resize`."""
        if self.resize_mode == "squash":
            return self.size, self.size
        shorter = min(width, height)
        return int(self.size * width / shorter), int(self.size * height / shorter)


def _cuts_exact(image: bytes, cuts: Sequence[Cut], interpolation: str) -> list[UInt8[Tensor, "3 _ _"]]:
    picture = _decode_with_pillow(image)
    resized = []
    for cut in cuts:
        view = cut.view
        # Cut first: given the box, `resize` would let the filter look beyond its edges, and torchvision does not.
        crop = picture.crop((view.left, view.top, view.left + view.width, view.top + view.height))
        resized.append(tvf.pil_to_tensor(crop.resize(cut.size, Image.Resampling[interpolation.upper()])))
    return resized


def _cuts_fast(image: bytes, cuts: Sequence[Cut], interpolation: str) -> list[UInt8[Tensor, "3 _ _"]]:
    pixels, shrink = _decode_shrunk(image, min(_largest_shrink(cut.view, cut.size) for cut in cuts))
    resized = []
    for cut in cuts:
        view = cut.view
        left, right = view.left // shrink, math.ceil((view.left + view.width) / shrink)
        top, bottom = view.top // shrink, math.ceil((view.top + view.height) / shrink)
        crop = pixels[top:bottom, left:right]
        # torch's own uint8 kernel wants channels last, without gaps: 6 times as fast as Pillow's resize, within one grey level of it.
        channels_last = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None]
        resized.append(F.interpolate(channels_last, size=cut.size[::-1], mode=interpolation, antialias=True)[0])
    return resized


def _largest_shrink(view: View, target: tuple[int, int]) -> int:
    """How many times smaller a JPEG is decoded: it keeps 1.5 times the pixels the model sees on either side.

    Down to 1 time would be another fifth faster at 512 px, but differs by 1.2 grey levels from the exact picture instead of 0.003
    (at 1024 px 0.8 instead of 0.35). libjpeg-turbo offers sizes between these, but has vector code for powers of two alone:
    1024 px take 3.3 ms whole, 2.7 at 1/2, 3.0 at 3/8, 2.5 at 1/4.
    """
    room = min(view.width / target[0], view.height / target[1]) / 1.5
    return next((shrink for shrink in (8, 4, 2) if shrink <= room), 1)


def _decode_shrunk(image: bytes, shrink: int) -> tuple[np.ndarray, int]:
    """RGB [h, w, 3] and how much it was shrunk. Pillow decodes what is no JPEG or simplejpeg refuses, and shrinks nothing."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(image)
        smallest = {"min_height": math.ceil(height / shrink), "min_width": math.ceil(width / shrink)}
        return simplejpeg.decode_jpeg(image, "RGB", **smallest), shrink
    except ValueError:
        return np.array(_decode_with_pillow(image)), 1


def turn(pixels: UInt8[Tensor, "3 h w"], view: View) -> UInt8[Tensor, "3 h w"]:
    pixels = pixels.flip(-1) if view.mirrored else pixels
    return pixels.rot90(view.quarter_turns, (-2, -1)) if view.quarter_turns else pixels


def stored_size(image: bytes) -> tuple[int, int]:
    """Width and height from the header. Pillow judges what is no JPEG, and refuses decompression bombs."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(image)
    except ValueError:
        return _open_with_pillow(image).size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        return _open_with_pillow(image).size
    return width, height


def _open_with_pillow(image: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(image))
    except UnidentifiedImageError as error:  # its own text names an address in memory, another in each run
        raise DataError(f"the image ({len(image)} bytes) is not readable: it is in no known format") from error
    except Exception as error:  # Pillow's readers raise a dozen types for broken bytes
        raise DataError(f"the image ({len(image)} bytes) is not readable: {error}") from error


def _decode_with_pillow(image: bytes) -> Image.Image:
    picture = _open_with_pillow(image)
    try:
        return picture.convert("RGB")
    except Exception as error:  # as above; truncated files are noticed only here
        raise DataError(f"the {picture.format} image of {picture.size} px cannot be decoded: {error}") from error
