"""A scene from a seed: image, mask, objects, words and geo facts, all exact."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, UInt8

from rsvl_data.sample import Geo, Region
from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.describe import Facts, describe
from rsvl_data.scenes.geometry import clip_to_square, signed_area
from rsvl_data.scenes.land_cover import ground_materials
from rsvl_data.scenes.objects import OBJECT_CATEGORIES
from rsvl_data.scenes.refer import referring_expressions
from rsvl_data.scenes.shading import middle, sensor_image, sensor_mask
from rsvl_data.scenes.site import draw_site
from rsvl_data.scenes.types import SCENE_TYPES, TYPES

MIN_REGION_PX = 4
MIN_VISIBLE = 0.4
FULL_SIZE_PX = 256


@dataclass(frozen=True)
class Scene:
    """An overhead view, north up. Pixel x runs right, y down; `mask` is an index into LAND_COVER."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    regions: list[Region]
    captions: list[str]
    label: str
    geo: Geo
    partial: list[Region]  # objects in view of which too little shows to make them regions
    object_numbers: UInt8[np.ndarray, "h w"] = field(
        repr=False
    )  # what stands on a pixel: 0, or a number such as in `region_numbers`
    region_numbers: list[int] = field(repr=False)

    def region_mask(self, i: int) -> Bool[np.ndarray, "h w"]:
        """The visible pixels of region i."""
        return self.object_numbers == self.region_numbers[i]


def scene_type_of(seed: int, index: int) -> str:
    """Every run of len(SCENE_TYPES) scenes from a multiple of it holds each type once, in an order of its own."""
    block, place = divmod(index, len(SCENE_TYPES))
    return SCENE_TYPES[np.random.default_rng([seed, block, 1]).permutation(len(SCENE_TYPES))[place]]


def render_scene(seed: int, index: int, size_px: int = FULL_SIZE_PX, scene_type: str | None = None) -> Scene:
    """Scene `index` of the endless set `seed`: the same place at every `size_px`, whatever was rendered before.

    `scene_type` overrules the balanced choice of type. Raises ValueError for an unknown type or a size outside 64 to 512.
    """
    if not 64 <= size_px <= 512:
        raise ValueError(f"size_px is {size_px}; scenes are drawn from 64 to 512 pixels wide")
    label = scene_type_of(seed, index) if scene_type is None else scene_type
    if label not in TYPES:
        raise ValueError(f"unknown scene type {label!r}; known are {', '.join(SCENE_TYPES)}")
    kind = TYPES[label]
    layout_rng, sensor_rng, words_rng = (
        np.random.default_rng([seed, index, SCENE_TYPES.index(label), stream]) for stream in (2, 3, 4)
    )
    site = draw_site(layout_rng, kind.places)
    extent_m = FULL_SIZE_PX * float(np.exp(layout_rng.uniform(*np.log(kind.gsd_m))))
    canvas = Canvas(size_px, extent_m, site, ground_materials(layout_rng, site.climate, site.season))
    kind.lay_out(canvas, layout_rng)
    numbers = canvas.finish()
    object_numbers = middle(canvas, canvas.ids)
    regions, region_numbers, partial = objects_in_view(canvas, numbers, object_numbers)
    mask = sensor_mask(canvas)
    for region, expression in zip(regions, referring_expressions(words_rng, regions, partial, mask), strict=True):
        region.caption = expression
    geo = site.geo(extent_m / size_px)
    upright = any(thing.height_m > 0 for thing in canvas.things)
    facts = Facts(kind.phrase, label, regions, partial, mask, geo, site, upright)
    return Scene(
        image=sensor_image(canvas, sensor_rng),
        mask=mask,
        regions=regions,
        captions=describe(words_rng, facts),
        label=label,
        geo=geo,
        partial=partial,
        object_numbers=object_numbers,
        region_numbers=region_numbers,
    )


def objects_in_view(
    canvas: Canvas, numbers: list[int], object_numbers: UInt8[np.ndarray, "h w"]
) -> tuple[list[Region], list[int], list[Region]]:
    """The objects that mostly show, their numbers in the object layer, and the objects that show less."""
    visible_px = np.bincount(object_numbers.ravel(), minlength=256).tolist()
    px_per_m = canvas.size_px / canvas.extent_m
    regions, kept, partial = [], [], []
    for thing, number in zip(canvas.things, numbers, strict=True):
        if number == 0 or visible_px[number] == 0:
            continue
        assert thing.category is not None
        polygon = [(round(x * px_per_m, 2), round(y * px_per_m, 2)) for x, y in clip_to_square(thing.outline, canvas.extent_m)]
        xs, ys = [x for x, _ in polygon] or [0.0], [y for _, y in polygon] or [0.0]
        bbox = min(xs), min(ys), max(xs), max(ys)
        if bbox[2] <= bbox[0] or bbox[3] <= bbox[1]:  # touches the frame from outside
            continue
        category_id = OBJECT_CATEGORIES.index(thing.category)
        region = Region(bbox=bbox, polygon=polygon, category=thing.category, category_id=category_id, area_px=visible_px[number])
        whole_px = abs(signed_area(thing.outline)) * px_per_m**2
        if visible_px[number] >= max(MIN_REGION_PX, MIN_VISIBLE * whole_px):
            regions.append(region)
            kept.append(number)
        else:
            partial.append(region)
    return regions, kept, partial
