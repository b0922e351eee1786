"""Housing, industry, storage tanks, solar farm: scenes of blocks, roofs and rows."""

import math
from itertools import pairwise

import numpy as np

from rsvl_data.scenes import objects
from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.geometry import Number, Pose, ribbon, wander
from rsvl_data.scenes.objects import choose, paint
from rsvl_data.scenes.shading import fractal_field
from rsvl_data.scenes.streets import centre, drive, inside, street


def dense_residential(canvas: Canvas, rng: np.random.Generator) -> None:
    """Rows of small houses back to back between parallel streets."""
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"].tinted((1.02, 0.98, 0.95)))
    canvas.paint_field(fractal_field(rng, 8), 0.7, canvas.ground["bare land"])
    pose = centre(canvas, rng)
    block, lot = float(rng.uniform(44, 54)), float(rng.uniform(12.5, 15))
    roofs = [choose(rng, objects.ROOF_COLOURS) for _ in range(3)]
    cross = [float(rng.uniform(-0.3, 0.3)) * size]
    rows = np.arange(-1.5 * block, 1.6 * block, block) + rng.uniform(-0.3, 0.3) * block
    streets = [v for v in rows.tolist() if abs(v) < 0.75 * size]
    for u in cross:
        street(canvas, pose.at(u, 0, math.pi / 2), 3 * size, 8)
    for v in streets:
        street(canvas, pose.at(0, v), 3 * size, 7)
    for v in streets:
        for side in (-1, 1):
            _terrace(canvas, rng, pose, v + side * 14.5, side, lot, cross, roofs)
        drive(canvas, rng, pose.at(0, v), 1.3 * size, [-1.8, 1.8], 45, 0.05)
    objects.trees(canvas, rng, canvas.scatter(rng, 320, 2.2, ("grass", "bare land"))[:110], (1.8, 3.2))


def _terrace(
    canvas: Canvas,
    rng: np.random.Generator,
    pose: Pose,
    v: Number,
    side: int,
    lot: Number,
    cross: list[Number],
    roofs: list[tuple[int, int, int]],
) -> None:
    """One side of a street: a house on every lot, a driveway, sometimes a pool behind."""
    size = canvas.extent_m
    for u in np.arange(-0.8 * size, 0.8 * size, lot).tolist():
        house = pose.at(u, v + rng.normal(0, 0.5))
        if not inside(canvas, house, 8) or any(abs(u - c) < 12 for c in cross):
            continue
        canvas.paint(pose.rect(u + lot * 0.36, v - side * 6, 2.8, 9), canvas.ground["built-up"].tinted(0.95))
        turn = math.pi / 2 if rng.random() < 0.3 else 0.0
        objects.ridge_house(
            canvas,
            rng,
            house.at(0, 0, turn),
            lot * rng.uniform(0.68, 0.78),
            float(rng.uniform(8.5, 10)),
            choose(rng, roofs),
            bool(rng.random() < 0.5),
        )
        if rng.random() < 0.06:
            objects.swimming_pool(canvas, pose.at(u, v + side * 9), 6.5)


def sparse_residential(canvas: Canvas, rng: np.random.Generator) -> None:
    """A winding lane, large houses far apart, many trees."""
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    canvas.paint_field(fractal_field(rng, 4), 0.55, canvas.ground["forest"])
    pose = centre(canvas, rng)
    lane = pose.points(wander(rng, 1.8 * size, 0.09 * size, 1.5))
    canvas.paint(ribbon(lane, 9.5), canvas.ground["grass"])
    canvas.paint(ribbon(lane, 6.5), canvas.ground["road"])
    steps = list(pairwise(lane))
    for i in range(4, len(steps) - 4, 5):
        for side in (-1, 1):
            if rng.random() < 0.85:
                (x0, y0), (x1, y1) = steps[i]
                near = Pose(x0, y0, math.atan2(y1 - y0, x1 - x0))
                _villa(canvas, rng, near, side)
    for i in range(6, len(steps) - 6, 13):
        (x0, y0), (x1, y1) = steps[i]
        at = Pose(x0, y0, math.atan2(y1 - y0, x1 - x0)).at(0, 1.6)
        if inside(canvas, at):
            objects.vehicle(canvas, rng, at, "road")
    objects.trees(canvas, rng, canvas.scatter(rng, 420, 3.2, ("grass",))[:150], (2.6, 5.0))


def _villa(canvas: Canvas, rng: np.random.Generator, lane: Pose, side: int) -> None:
    """House with a wing, driveway from the lane, garden cleared of trees, often a pool."""
    distance = float(rng.uniform(22, 32))
    house = lane.at(0, side * distance, float(rng.normal(0, 0.15)))
    if not inside(canvas, house, 6):
        return
    canvas.paint(house.circle(0, 0, float(rng.uniform(17, 22)), 14), canvas.ground["grass"].tinted(1.06))
    canvas.paint(lane.rect(5, side * distance / 2, 3.4, distance), canvas.ground["built-up"])
    colour = choose(rng, objects.ROOF_COLOURS)
    length, width = float(rng.uniform(16, 21)), float(rng.uniform(10, 12))
    objects.ridge_house(canvas, rng, house, length, width, colour, True)
    if rng.random() < 0.5:
        objects.swimming_pool(canvas, house.at(rng.uniform(-4, 4), side * (width / 2 + 8)), float(rng.uniform(8, 11)))


def industrial_area(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["built-up"].tinted(0.92))
    canvas.paint_field(fractal_field(rng, 4), 1.0, canvas.ground["bare land"])
    pose = centre(canvas, rng)
    cell_u, cell_v = size * rng.uniform(0.3, 0.4), size * rng.uniform(0.26, 0.34)
    for i in range(-3, 3):
        street(canvas, pose.at(0, (i + 0.5) * cell_v), 3 * size, 9)
    street(canvas, pose.at(0.5 * cell_u, 0, math.pi / 2), 3 * size, 9)
    for i in range(-2, 3):
        for j in range(-3, 4):
            _plant(canvas, rng, pose.at(j * cell_u, i * cell_v), cell_u - 15, cell_v - 15)
    for i in range(-2, 2):
        drive(canvas, rng, pose.at(0, (i + 0.5) * cell_v), 1.3 * size, [-2.2, 2.2], 90, 0.4)
    objects.trees(canvas, rng, canvas.scatter(rng, 160, 3.5, ("grass",))[:60], (2.5, 4))


def _plant(canvas: Canvas, rng: np.random.Generator, pose: Pose, length: Number, width: Number) -> None:
    """One or two large halls on a yard with trailers at the docks."""
    if not inside(canvas, pose, 0.6 * length):
        return
    if rng.random() < 0.2:
        canvas.paint(pose.rect(0, 0, length, width), canvas.ground["grass"])
    yard = 0.2 * width
    parts = 1 if rng.random() < 0.55 else 2
    for k in range(parts):
        u = (k - (parts - 1) / 2) * length / parts
        objects.flat_building(
            canvas,
            rng,
            pose.at(u, -yard / 2),
            length / parts - 6,
            width - yard - 4,
            float(rng.uniform(8, 14)),
            ribs=bool(rng.random() < 0.7),
        )
    for u in np.arange(-0.45 * length, 0.45 * length, 5.0).tolist():
        if rng.random() < 0.35:
            objects.vehicle(canvas, rng, pose.at(u, width / 2 - yard / 2 + 1, math.pi / 2), "built-up", truck=True)


def storage_tanks(canvas: Canvas, rng: np.random.Generator) -> None:
    """Cylinders in bunded yards, pipes and service roads between them."""
    size = canvas.extent_m
    canvas.fill(canvas.ground["bare land"].tinted((0.95, 0.97, 1.0)))
    canvas.paint_field(fractal_field(rng, 4), 0.4, canvas.ground["grass"])
    pose = centre(canvas, rng)
    cells = int(rng.integers(3, 6))
    cell = size * 1.25 / cells
    white = [(232, 232, 228), (214, 216, 214), (196, 200, 200), (206, 188, 160)]
    tone = choose(rng, white)
    yard, wall = paint((172, 160, 142), "bare land", 0.06), paint((206, 198, 184), "built-up")
    for i in range(cells + 1):
        canvas.paint(pose.rect(0, (i - cells / 2) * cell, 3 * size, 7), canvas.ground["road"])
    canvas.paint(pose.rect(0.0 - cell * (cells / 2), 0, 7, 3 * size), canvas.ground["road"])
    for i in range(cells):
        for j in range(cells):
            spot = pose.at((j - (cells - 1) / 2) * cell, (i - (cells - 1) / 2) * cell)
            canvas.paint(spot.rect(0, 0, cell - 12, cell - 12), wall)
            canvas.paint(spot.rect(0, 0, cell - 15, cell - 15), yard)
            canvas.stroke(spot.points([(-cell / 2, 0.3 * cell), (cell / 2, 0.3 * cell)]), 1.4, paint((150, 146, 140), "built-up"))
            if inside(canvas, spot, 0.3 * cell) and rng.random() < 0.88:
                _tanks_in_yard(canvas, rng, spot, cell - 15, tone)
    objects.flat_building(canvas, rng, pose.at((cells / 2 + 0.22) * cell, 0, math.pi / 2), 0.14 * size, 14, 6)
    objects.trees(canvas, rng, canvas.scatter(rng, 120, 4, ("grass",))[:40], (2.5, 4))


def _tanks_in_yard(canvas: Canvas, rng: np.random.Generator, yard: Pose, side: Number, tone: tuple[int, int, int]) -> None:
    if rng.random() < 0.7:
        objects.storage_tank(canvas, yard, side * rng.uniform(0.33, 0.42), tone)
        return
    for u in (-0.24, 0.24):
        for v in (-0.24, 0.24):
            objects.storage_tank(canvas, yard.at(u * side, v * side), side * 0.17, tone)


def solar_farm(canvas: Canvas, rng: np.random.Generator) -> None:
    """Long dark rows, all alike, in blocks with service tracks and inverter huts."""
    size = canvas.extent_m
    ground = canvas.ground["grass"] if rng.random() < 0.6 else canvas.ground["bare land"]
    canvas.fill(ground)
    canvas.paint_field(fractal_field(rng, 5), 0.8, ground.tinted((1.1, 1.04, 0.94)))
    pose = centre(canvas, rng, angle=float(rng.normal(0, 0.12)))
    block_u, block_v = size * rng.uniform(0.3, 0.42), size * rng.uniform(0.28, 0.4)
    pitch = size / rng.uniform(24, 34)
    track = canvas.ground["bare land"].tinted(1.12)
    skip = (int(rng.integers(-1, 2)), int(rng.integers(-1, 2))) if rng.random() < 0.6 else None
    for i in range(-2, 3):
        canvas.paint(pose.rect(0, (i + 0.5) * block_v, 3 * size, 5), track)
        canvas.paint(pose.rect((i + 0.5) * block_u, 0, 5, 3 * size), track)
    for i in range(-2, 3):
        for j in range(-2, 3):
            block = pose.at(j * block_u, i * block_v)
            if (i, j) == skip:
                continue
            for v in np.arange(-block_v / 2 + pitch * 0.8, block_v / 2 - pitch * 0.7, pitch).tolist():
                row = block.at(0, v)
                if inside(canvas, row, block_u / 2):
                    objects.solar_panel(canvas, row, block_u - 9, pitch * 0.58)
            hut = block.rect(block_u / 2 - 3.6, block_v / 2 - 4, 5, 3)
            canvas.stand(None, hut, [(hut, paint((236, 236, 232), "built-up"))], 3)
