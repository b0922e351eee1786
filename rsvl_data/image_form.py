"""The form a dataset stores its images in, and where the pixels of the source come to lie in it. Numbers only; pixels are moved by
`images` and `resize`, annotations by `placed_annotations`.

The modes of resizing are img2dataset's, rounding included:
https://github.com/rom1504/img2dataset/blob/95523bc7579745a1749b8132d408b9fea89a338e/img2dataset/resizer.py#L167-L216
One thing differs: there, an image whose side is `size_px` already is neither cropped nor padded unless smaller ones are enlarged.
"""

from dataclasses import dataclass
from typing import Literal

from rsvl_data.errors import OptionError

ImageSuffix = Literal["jpg", "png", "webp"]
Resize = Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"]
MIN_SIDE_PX = 4  # tracking pixels and stray strips are less; what is too small to learn from is for a filter to say


@dataclass(frozen=True)
class Placement:
    """A picture of source_width x source_height is scaled to picture_width x picture_height and laid on a stored image of width x height.

    `left` and `top` say where the scaled picture begins there: negative where it is cropped, positive where it is padded.
    """

    source_width: int
    source_height: int
    picture_width: int
    picture_height: int
    left: int
    top: int
    width: int
    height: int

    @property
    def scale_x(self) -> float:
        return self.picture_width / self.source_width

    @property
    def scale_y(self) -> float:
        return self.picture_height / self.source_height

    @property
    def changes_nothing(self) -> bool:
        source = (self.source_width, self.source_height)
        return source == (self.picture_width, self.picture_height) == (self.width, self.height)

    @property
    def shown(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of what is left of the scaled picture, in its own pixels."""
        x0, y0 = max(-self.left, 0), max(-self.top, 0)
        return x0, y0, min(self.picture_width, self.width - self.left), min(self.picture_height, self.height - self.top)

    @property
    def crops(self) -> bool:
        return self.shown != (0, 0, self.picture_width, self.picture_height)

    @property
    def shown_in_source(self) -> tuple[float, float, float, float]:
        """The same in pixels of the source."""
        x0, y0, x1, y1 = self.shown
        return x0 / self.scale_x, y0 / self.scale_y, x1 / self.scale_x, y1 / self.scale_y


@dataclass(frozen=True)
class ImageForm:
    """How images are stored."""

    suffix: ImageSuffix = "jpg"
    """format; images that have it already, and keep their size, are kept byte for byte. png loses nothing"""
    quality: int = 95
    """of jpg and webp images that have to be coded anew, 1 to 100"""
    size_px: int | None = None
    """side that `resize` brings images to, 4 or more"""
    resize: Resize = "no"
    """keep_ratio: the shorter side becomes size_px; keep_ratio_largest: the longer one; center_crop: a square of size_px, cut from the
    middle of keep_ratio; border: a square of size_px, keep_ratio_largest with white around it"""
    upscale: bool = False
    """enlarge images that are smaller than size_px too, instead of leaving them as they are"""
    animated: Literal["first", "drop"] = "first"
    """of GIF, PNG, WebP, AVIF and TIFF files with several frames or pages: take the first, or drop the file"""

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise OptionError(f"quality {self.quality}; allowed is 1 to 100")
        if self.size_px is not None and self.size_px < MIN_SIDE_PX:
            raise OptionError(f"size_px {self.size_px}; allowed is {MIN_SIDE_PX} or more")
        if self.resize == "no" and (self.size_px is not None or self.upscale):
            raise OptionError(
                "size_px and upscale say nothing without resize; add keep_ratio, keep_ratio_largest, center_crop or border"
            )
        if self.resize != "no" and self.size_px is None:
            raise OptionError(f"resize {self.resize} needs the size: add size_px, for example 256")

    def placement(self, width: int, height: int) -> Placement:
        """Of an upright image of this size."""
        by_shorter = self.resize in ("keep_ratio", "center_crop")
        side = min(width, height) if by_shorter else max(width, height)
        if self.size_px is None or (side < self.size_px and not self.upscale):
            return Placement(width, height, width, height, 0, 0, width, height)
        picture = max(1, round(width * self.size_px / side)), max(1, round(height * self.size_px / side))
        stored = (self.size_px, self.size_px) if self.resize in ("center_crop", "border") else picture
        left, top = (_begin(space, length) for space, length in zip(stored, picture))
        return Placement(width, height, *picture, left, top, *stored)


def _begin(space: int, length: int) -> int:
    """In the middle; of an odd rest the larger half comes after. Python's // would turn that round where the rest is negative."""
    return (space - length) // 2 if space >= length else -((length - space) // 2)


DEFAULT_FORM = ImageForm()
