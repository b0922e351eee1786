"""Smaller views of each training image beside the picture itself: at random, as a grid, or of its objects.

They are cut from the stored image in its own resolution, not from the picture that was made of it, and the image is decoded once for all.
What is drawn follows from (seed, epoch, key of the sample, name of the crops), as the loader's own draws do.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rsvl_data.boxes import Box, box_area
from rsvl_data.errors import DataError, OptionError
from rsvl_data.sample import Region, Sample
from rsvl_data.transforms import ASPECTS, Augment, Cut, Engine, Preprocess, View, random_view, stored_size, turn

NO_CATEGORY = -1


@dataclass(frozen=True)
class RandomCrops:
    """The defaults are FarSLIP's (https://github.com/NJU-LHRS/FarSLIP, open_clip/transform.py, `DataAugmentationMulticrop`).

    count    of every image
    area     range of their share of the image's area
    aspect   range of width by height
    size_px  side of the square they are stretched to; None: the size of the picture
    flips    one of the eight orientations at random, on top of the picture's
    """

    count: int = 4
    area: tuple[float, float] = (0.3, 0.7)
    aspect: tuple[float, float] = ASPECTS
    size_px: int | None = None
    flips: bool = False

    def __post_init__(self) -> None:
        _check_counts(self.count, self.size_px)
        if not 0 < self.area[0] <= self.area[1] <= 1 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise OptionError(
                f"crops of area {self.area} and aspect {self.aspect}: each is a range from a smaller to a larger number above 0, "
                "and no area is above 1"
            )


@dataclass(frozen=True)
class GridCrops:
    """`count` parts of equal size, in as many rows and columns as make the most square grid: 2 x 2 of 4, 2 x 3 of 6."""

    count: int = 4
    size_px: int | None = None

    def __post_init__(self) -> None:
        _check_counts(self.count, self.size_px)


@dataclass(frozen=True)
class ObjectCrops:
    """Regions of the sample, at most `count`, drawn without replacement.

    min_area_px  smallest and largest area of a box that is used, in square pixels of the stored image: FarSLIP's 64 x 64 and
    max_area_px  1024 x 1024
    size_px      side of the square they are stretched to; None: the size of the picture
    margin       context on each side, as a share of the box's width or height; it ends at the border of the image
    letterbox    keep the aspect: the longer side fills the square, the rest has the mean colour
    prompt       text of a region, with {category}
    captions     what a region's own caption does: nothing; take the place of the prompt and be a category of its own; or take its place and
                 have no category, by which FarSLIP's multi-positive loss leaves such regions out
    """

    count: int = 4
    min_area_px: float = 64.0**2
    max_area_px: float = 1024.0**2
    size_px: int | None = None
    margin: float = 0.0
    letterbox: bool = False
    prompt: str = "a satellite image of {category}"
    captions: Literal["ignored", "own_category", "no_category"] = "own_category"

    def __post_init__(self) -> None:
        _check_counts(self.count, self.size_px)
        if "{category}" not in self.prompt:
            raise OptionError(f"the prompt of a region is {self.prompt!r}; it must hold {{category}}")
        if not 0 <= self.min_area_px <= self.max_area_px or self.margin < 0:
            raise OptionError(
                f"object crops of {self.min_area_px} to {self.max_area_px} square pixels with margin {self.margin}: "
                "the first area must not be above the second, and nothing is negative"
            )


CropConfig = RandomCrops | GridCrops | ObjectCrops


@dataclass
class Crops:
    """All crops of one name in a batch, those of a sample side by side in the order of the batch. There may be none.

    images      grey levels 0-255, not normalised
    boxes       x0, y0, x1, y1: what a crop shows, in fractions of the picture that `Batch.images` holds. Of pictures that show a part
                of the image, they may lie outside
    sample      row of the batch
    texts       of regions; empty for other kinds
    tokens      of those texts; [n, 0] for other kinds
    categories  of regions: equal for equal category names, on every process and in every run; NO_CATEGORY where there is none
    kinds       of regions: the category of the object, also where its own caption is its category
    """

    images: UInt8[Tensor, "n 3 s s"]
    boxes: Float[Tensor, "n 4"]
    sample: Int[Tensor, " n"]
    texts: list[str]
    tokens: Int[Tensor, "n l"]
    categories: Int[Tensor, " n"]
    kinds: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.images)

    def pin_memory(self) -> "Crops":
        pinned = ("images", "boxes", "sample", "tokens", "categories", "kinds")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in pinned})

    def of_rows(self, start: int, stop: int) -> "Crops":
        """Those of a part of the batch, which counts its rows from 0."""
        inside = (self.sample >= start) & (self.sample < stop)
        return Crops(
            self.images[inside],
            self.boxes[inside],
            self.sample[inside] - start,
            [text for text, is_inside in zip(self.texts, inside.tolist()) if is_inside],
            self.tokens[inside],
            self.categories[inside],
            self.kinds[inside],
        )


class Words(NamedTuple):
    """What a region is called, and as what (`Crops`)."""

    text: str
    category: int
    kind: int


@dataclass(frozen=True)
class DrawnCrop:
    """`box` in pixels of the stored image: of an object exactly, while `view` has whole pixels."""

    view: View
    box: Box
    words: Words | None = None


@dataclass(frozen=True)
class DecodedCrop:
    pixels: UInt8[Tensor, "3 s s"]
    box: Box
    words: Words | None


def category_number(name: str) -> int:
    """63 bits of the name, whatever its case: different names have different numbers but for a chance of 2^-63."""
    return int.from_bytes(hashlib.blake2b(name.casefold().encode(), digest_size=8).digest()) >> 1


def draw_crops(config: CropConfig, regions: Sequence[Region], width: int, height: int, rng: random.Random) -> list[DrawnCrop]:
    """Of an image of this size. Only `rng.random()` is used."""
    if isinstance(config, RandomCrops):
        views = [random_view(width, height, config.area, config.aspect, config.flips, rng) for _ in range(config.count)]
        return [DrawnCrop(view, _box_of(view)) for view in views]
    if isinstance(config, GridCrops):
        return list(_grid(config.count, width, height))
    return list(_objects(config, regions, width, height, rng))


def decode_with_crops(
    preprocess: Preprocess,
    sample: Sample,
    configs: Mapping[str, CropConfig],
    engine: Engine,
    augment: Augment,
    rng_of: Callable[[str], random.Random],
) -> tuple[UInt8[Tensor, "3 s s"], dict[str, list[DecodedCrop]]]:
    """What `preprocess.decode` gives, and crops by name. `rng_of` makes the generator of one purpose.

    Raises DataError as `decode` does.
    """
    size = stored_size(sample.image)
    rng = rng_of("view")
    whole = preprocess.cut(*size, augment, rng)
    drawn = {name: draw_crops(config, sample.regions, *size, rng_of(f"crops {name}")) for name, config in configs.items()}
    cuts = [Cut(crop.view, _target(configs[name], crop.view, preprocess.size)) for name, crops in drawn.items() for crop in crops]
    picture, *rest = preprocess.decode_cuts(sample.image, [whole, *cuts], engine)
    picture = preprocess.picture(picture, whole)
    picture = augment.colour.apply(picture, rng) if augment.colour else picture
    pixels = iter(rest)
    decoded: dict[str, list[DecodedCrop]] = {}
    for name, crops in drawn.items():
        colour_rng, side = rng_of(f"colours {name}"), configs[name].size_px or preprocess.size
        decoded[name] = []
        for crop in crops:
            upright = turn(_padded(next(pixels), side, preprocess.mean), crop.view)
            image = turn(upright, whole.view).contiguous()  # so that its patches lie as those of the picture
            image = augment.colour.apply(image, colour_rng) if augment.colour else image
            box = _in_picture(crop.box, whole, preprocess.size)
            decoded[name].append(DecodedCrop(image, box, crop.words))
    return picture, decoded


def collate_crops(
    config: CropConfig, rows: Sequence[Sequence[DecodedCrop]], size_px: int, tokenize: Callable[[list[str]], Tensor], length: int
) -> Crops:
    """`rows` has the crops of each sample of the batch; `size_px` is the side of the picture, `length` the tokens of a text."""
    crops = [crop for row in rows for crop in row]
    side = config.size_px or size_px
    images = torch.stack([crop.pixels for crop in crops]) if crops else torch.empty((0, 3, side, side), dtype=torch.uint8)
    boxes = torch.tensor([crop.box for crop in crops], dtype=torch.float32).reshape(-1, 4)
    sample = torch.tensor([row for row, crops_of_row in enumerate(rows) for _ in crops_of_row], dtype=torch.int64)
    texts = [crop.words.text for crop in crops if crop.words]
    categories = torch.tensor([crop.words.category if crop.words else NO_CATEGORY for crop in crops], dtype=torch.int64)
    kinds = torch.tensor([crop.words.kind if crop.words else NO_CATEGORY for crop in crops], dtype=torch.int64)
    return Crops(images, boxes, sample, texts, _tokens(texts, len(crops), tokenize, length), categories, kinds)


def most_square_grid(count: int) -> tuple[int, int]:
    """Rows and columns, no more rows than columns, whose product is `count`."""
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return rows, count // rows


def _tokens(texts: list[str], num_crops: int, tokenize: Callable[[list[str]], Tensor], length: int) -> Int[Tensor, "n l"]:
    """Each text is tokenized once, however many regions have it."""
    if not texts:
        return torch.zeros((num_crops, length if num_crops == 0 else 0), dtype=torch.int64)
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return tokenize(list(places))[[places[text] for text in texts]]


def _grid(count: int, width: int, height: int) -> Iterator[DrawnCrop]:
    """Boxes that meet; pixels as FarSLIP truncates them, so that they differ from the box by less than one."""
    rows, columns = most_square_grid(count)
    if width < columns or height < rows:
        raise DataError(f"an image of {width} x {height} px cannot be cut into a grid of {columns} x {rows}")
    for row in range(rows):
        for column in range(columns):
            box = (column * width / columns, row * height / rows, (column + 1) * width / columns, (row + 1) * height / rows)
            left, top, right, bottom = map(int, box)
            yield DrawnCrop(View(left, top, right - left, bottom - top), box)


def _objects(config: ObjectCrops, regions: Sequence[Region], width: int, height: int, rng: random.Random) -> Iterator[DrawnCrop]:
    left_over = config.count
    for region in _shuffled(regions, rng):
        if left_over and config.min_area_px <= box_area(region.bbox) <= config.max_area_px:
            box = _with_margin(region.bbox, config.margin, width, height)
            if box[2] > box[0] and box[3] > box[1]:
                yield DrawnCrop(_whole_pixels(box, width, height), box, _words(config, region))
                left_over -= 1


def _words(config: ObjectCrops, region: Region) -> Words:
    kind = category_number(region.category)
    if not region.caption or config.captions == "ignored":
        return Words(config.prompt.format(category=region.category), kind, kind)
    return Words(region.caption, category_number(region.caption) if config.captions == "own_category" else NO_CATEGORY, kind)


def _shuffled(regions: Sequence[Region], rng: random.Random) -> list[Region]:
    order = sorted((rng.random(), place) for place in range(len(regions)))
    return [regions[place] for _, place in order]


def _with_margin(box: Box, margin: float, width: int, height: int) -> Box:
    """Ends at the border of the image; empty for a box outside."""
    x0, y0, x1, y1 = box
    wider, higher = margin * (x1 - x0), margin * (y1 - y0)
    return max(x0 - wider, 0.0), max(y0 - higher, 0.0), min(x1 + wider, float(width)), min(y1 + higher, float(height))


def _whole_pixels(box: Box, width: int, height: int) -> View:
    """Rounded as Pillow's `crop` rounds, and at least a pixel."""
    left, top = min(round(box[0]), width - 1), min(round(box[1]), height - 1)
    return View(left, top, max(round(box[2]) - left, 1), max(round(box[3]) - top, 1))


def _box_of(view: View) -> Box:
    return float(view.left), float(view.top), float(view.left + view.width), float(view.top + view.height)


def _target(config: CropConfig, view: View, picture_px: int) -> tuple[int, int]:
    """Width and height to resize to."""
    side = config.size_px or picture_px
    if not (isinstance(config, ObjectCrops) and config.letterbox):
        return side, side
    longer = max(view.width, view.height)
    return max(round(side * view.width / longer), 1), max(round(side * view.height / longer), 1)


def _padded(pixels: UInt8[Tensor, "3 h w"], side: int, mean: tuple[float, float, float]) -> UInt8[Tensor, "3 s s"]:
    height, width = pixels.shape[-2:]
    if (height, width) == (side, side):
        return pixels
    square = torch.tensor([round(255 * value) for value in mean], dtype=torch.uint8)[:, None, None].repeat(1, side, side)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = pixels
    return square


def _in_picture(box: Box, whole: Cut, size_px: int) -> Box:
    """From pixels of the stored image to fractions of the picture that `Preprocess.picture` makes of the cut `whole`."""
    view, (width, height) = whole.view, whole.size
    # The square middle that is shown, in pixels of the image.
    shown_width, shown_height = view.width * size_px / width, view.height * size_px / height
    left, top = view.left + (view.width - shown_width) / 2, view.top + (view.height - shown_height) / 2
    x0, y0, x1, y1 = (
        (box[0] - left) / shown_width,
        (box[1] - top) / shown_height,
        (box[2] - left) / shown_width,
        (box[3] - top) / shown_height,
    )
    if view.mirrored:
        x0, x1 = 1 - x1, 1 - x0
    for _ in range(view.quarter_turns):  # against the clock, as `turn` does
        x0, y0, x1, y1 = y0, 1 - x1, y1, 1 - x0
    return x0, y0, x1, y1


def _check_counts(count: int, size_px: int | None) -> None:
    if count < 1 or (size_px is not None and size_px < 1):
        raise OptionError(f"{count} crops of {size_px} px; both must be 1 or more")
