"""The form a dataset stores its images in: options for every source."""

from dataclasses import dataclass
from typing import Literal

from rsvl_data.errors import OptionError

ImageSuffix = Literal["jpg", "png", "webp"]


@dataclass(frozen=True)
class ImageForm:
    """How images are stored."""

    suffix: ImageSuffix = "jpg"
    """format; images that have it already are kept byte for byte, png loses nothing"""
    quality: int = 95
    """of jpg and webp images that have to be coded anew, 1 to 100"""

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise OptionError(f"quality {self.quality}; allowed is 1 to 100")


DEFAULT_FORM = ImageForm()
