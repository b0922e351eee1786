"""What a source says in pixels of its own image, in pixels of the stored one: regions and geo facts. Masks go with `resize.place_mask`.

`placement` is that of the upright image; a source whose annotation may mean an image that EXIF turns has to refuse it.
"""

import math
from collections.abc import Sequence

from rsvl_data.boxes import BadGeometry, Box, Point, box_area, box_in_image, box_of_points, clip_polygon, polygon_area
from rsvl_data.image_form import Placement
from rsvl_data.sample import Geo, Region


def place_regions(regions: Sequence[Region], placement: Placement) -> tuple[list[Region], int]:
    """And how many were left out because the crop leaves less than a pixel of them."""
    if placement.changes_nothing:
        return list(regions), 0
    placed = [_place_region(region, placement) for region in regions]
    kept = [region for region in placed if region is not None]
    return kept, len(placed) - len(kept)


def _place_region(region: Region, placement: Placement) -> Region | None:
    x0, y0, x1, y1 = region.bbox
    box = box_of_points(_place_points([(x0, y0), (x1, y1)], placement))
    polygon = None if region.polygon is None else _place_points(region.polygon, placement)
    area = None if region.area_px is None else region.area_px * placement.scale_x * placement.scale_y
    if placement.crops:
        try:
            box, polygon, area = _cut(box, polygon, area, placement)
        except BadGeometry:
            return None
    return region.model_copy(update={"bbox": box, "polygon": polygon, "area_px": area})


def _place_points(points: Sequence[Point], placement: Placement) -> list[Point]:
    return [(x * placement.scale_x + placement.left, y * placement.scale_y + placement.top) for x, y in points]


def _cut(
    box: Box, polygon: list[Point] | None, area: float | None, placement: Placement
) -> tuple[Box, list[Point] | None, float | None]:
    """Raises BadGeometry when less than a pixel is left. The area of what is left is known for a polygon and for a full box only."""
    width, height = placement.width, placement.height
    if box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height:
        return box, polygon, area
    cut_box, _ = box_in_image(box, width, height)
    if polygon:
        polygon = clip_polygon(polygon, width, height)
        cut_box, _ = box_in_image(box_of_points(polygon) if polygon else (0, 0, 0, 0), width, height)
        return cut_box, polygon, None if area is None else polygon_area(polygon)
    is_full = area is not None and math.isclose(area, box_area(box))
    return cut_box, None, box_area(cut_box) if is_full else None


def place_geo(geo: Geo, placement: Placement) -> Geo:
    """The ground sample distance grows as the image shrinks. The footprint of a part is not known without the map behind it, so a
    cropped image has none; its middle, lon and lat, is the whole image's."""
    scale = math.sqrt(placement.scale_x * placement.scale_y)
    return geo.model_copy(
        update={
            "gsd_m": None if geo.gsd_m is None else geo.gsd_m / scale,
            "footprint": None if placement.crops else geo.footprint,
        }
    )
