"""Random colours: brightness, contrast, saturation and hue in a random order, and now and then none at all.

The law of torchvision's `ColorJitter` and `RandomGrayscale` (https://github.com/pytorch/vision/blob/v0.23.0/torchvision/transforms/transforms.py).
"""

import random
from dataclasses import dataclass

import torchvision.transforms.functional as tvf
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from rsvl_data.errors import OptionError


@dataclass(frozen=True)
class ColourJitter:
    """The defaults are those that FarSLIP's second stage trains with (https://github.com/NJU-LHRS/FarSLIP, open_clip/transform.py).

    brightness, contrast, saturation   factors are drawn from 1 minus to 1 plus the value
    hue                                turns of the colour circle, from minus to plus the value
    share                              of the pictures that are changed so
    grey_share                         of the pictures that become grey
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    share: float = 0.8
    grey_share: float = 0.2

    def __post_init__(self) -> None:
        if not all(0 <= value <= 1 for value in (self.brightness, self.contrast, self.saturation, self.share, self.grey_share)):
            raise OptionError(f"{self}: brightness, contrast, saturation and shares must be from 0 to 1")
        if not 0 <= self.hue <= 0.5:
            raise OptionError(f"{self}: hue must be from 0 to 0.5, half of the colour circle")

    def apply(self, pixels: UInt8[Tensor, "3 h w"], rng: random.Random) -> UInt8[Tensor, "3 h w"]:
        """Grey levels 0-255 of other colours. The same state of `rng` gives the same picture."""
        changed, grey = rng.random() < self.share, rng.random() < self.grey_share
        if not (changed or grey):
            return pixels
        image = tvf.to_pil_image(pixels)  # Pillow changes the hue five times as fast as torch does
        if changed:
            image = self._jittered(image, rng)
        if grey:
            image = tvf.rgb_to_grayscale(image, num_output_channels=3)
        return tvf.pil_to_tensor(image)

    def _jittered(self, image: Image.Image, rng: random.Random) -> Image.Image:
        def around(middle: float, spread: float) -> float:
            return middle + spread * (2 * rng.random() - 1)

        changes = [
            (tvf.adjust_brightness, around(1, self.brightness)),
            (tvf.adjust_contrast, around(1, self.contrast)),
            (tvf.adjust_saturation, around(1, self.saturation)),
            (tvf.adjust_hue, around(0, self.hue)),
        ]
        order = sorted((rng.random(), place) for place in range(len(changes)))
        for _, place in order:
            change, amount = changes[place]
            image = change(image, amount)
        return image
