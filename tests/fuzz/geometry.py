"""Boxes, polygons and run lengths, as JSON: python -m tests.fuzz.geometry --seconds 60"""

import json

from rsvl_data.boxes import (
    BadGeometry,
    box_in_image,
    box_of_mask,
    box_of_points,
    clip_polygon,
    corners,
    finite_numbers,
    polygon_area,
    segmentation_mask,
)
from tests.fuzz.engine import BrokenRule, fuzz, shared_fixtures
from tests.fuzz.records import POLYGON, RUNS, mutate

SEEDS = [
    [1, 1, 9, 9],
    [POLYGON],
    [POLYGON, POLYGON],
    RUNS,
    [RUNS, RUNS],
    {"size": [24, 32], "counts": "P3b0f?"},
    ["1", 2.5, 3, "4e0"],
]
WIDTH, HEIGHT = 32, 24


def target(content: bytes) -> None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return
    values = value if isinstance(value, list) else [value]
    for check in (check_box, check_polygon, check_mask):
        for part in [value, *values[:20]]:
            try:
                check(part)
            except BadGeometry as error:
                if not error.reason or len(str(error)) > 500:
                    raise BrokenRule("an error without a reason or without an end") from error


def check_box(value: object) -> None:
    box, _ = box_in_image(finite_numbers(value, 4)[0], WIDTH, HEIGHT)
    if not (0 <= box[0] < box[2] <= WIDTH and 0 <= box[1] < box[3] <= HEIGHT):
        raise BrokenRule(f"box {box} reaches over the image")


def check_polygon(value: object) -> None:
    points = corners(value)
    clipped = clip_polygon(points, WIDTH, HEIGHT)
    if clipped:
        x0, y0, x1, y1 = box_of_points(clipped)
        if (
            min(x0, y0) < -1e-6
            or x1 > WIDTH + 1e-6
            or y1 > HEIGHT + 1e-6
            or not polygon_area(clipped) <= WIDTH * HEIGHT * (1 + 1e-6)
        ):
            raise BrokenRule(f"polygon {clipped[:8]} reaches over the image")


def check_mask(value: object) -> None:
    mask = segmentation_mask(value, WIDTH, HEIGHT, max_pixels=1_000_000)
    if mask.shape != (HEIGHT, WIDTH) or mask.dtype != bool:
        raise BrokenRule(f"mask of {mask.shape} {mask.dtype}")
    box_of_mask(mask)


if __name__ == "__main__":
    runs = [case["segmentation"] for content in shared_fixtures("bad/masks/rle.json") for case in json.loads(content)]
    fuzz(target, [json.dumps(seed).encode() for seed in [*SEEDS, *runs]], mutate)
