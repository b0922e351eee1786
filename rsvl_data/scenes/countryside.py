"""Farmland, orchard, greenhouses, meadow: ground that is worked."""

import math

import numpy as np

from rsvl_data.scenes import objects
from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.geometry import Point, Polygon, Pose, ribbon, wander
from rsvl_data.scenes.land_cover import Colour, Material
from rsvl_data.scenes.shading import fractal_field
from rsvl_data.scenes.streets import centre, inside, street


def crops(canvas: Canvas, rng: np.random.Generator) -> list[Material]:
    """What the parcels of one scene carry: growing, ripe and bare fields in the colours of its season."""
    growing = canvas.ground["cropland"]
    green: Colour = (92, 130, 62) if canvas.site.season in ("spring", "summer") else (116, 128, 74)
    kinds = [growing, growing.tinted((1.14, 1.08, 0.96)), growing.coloured(green), growing.coloured(green).tinted(0.82)]
    kinds += [growing.coloured((164, 140, 110)), growing.coloured((134, 108, 84)), growing.coloured((196, 178, 116))]
    return [k.tinted(float(rng.uniform(0.92, 1.08))) for k in kinds]


def farmland(canvas: Canvas, rng: np.random.Generator) -> None:
    """A patchwork of parcels with rows, farm tracks between them; in dry country, circles under pivots."""
    size = canvas.extent_m
    kinds = crops(canvas, rng)
    canvas.fill(canvas.ground["grass"])
    pose = centre(canvas, rng)
    pivots = canvas.site.climate == "arid" or rng.random() < 0.2
    if pivots:
        _pivots(canvas, rng, pose, kinds)
    else:
        _parcels(canvas, rng, pose, kinds)
    canvas.stroke(pose.points([(-2 * size, 0.0), (2 * size, 0.0)]), 9, canvas.ground["road"].tinted(1.3))
    if rng.random() < 0.6:
        canvas.stroke(
            pose.points([(0.12 * size, -2 * size), (0.12 * size, 2 * size)]), 7, canvas.ground["bare land"].tinted(1.15)
        )
    yard = pose.at(float(rng.uniform(-0.3, 0.3)) * size, 30)
    canvas.paint(yard.rect(0, 8, 90, 56), canvas.ground["bare land"])
    for k in range(int(rng.integers(2, 5))):
        objects.ridge_house(
            canvas, rng, yard.at(-30 + 22 * k, 6 + 10 * (k % 2)), 26, 13, objects.choose(rng, objects.ROOF_COLOURS), False
        )
    ring = [yard.point(u, v) for u in (-52, 52) for v in (-22, -8, 6, 20, 34)]
    objects.trees(canvas, rng, [p for p in ring if rng.random() < 0.8], (5, 8))


def _parcels(canvas: Canvas, rng: np.random.Generator, pose: Pose, kinds: list[Material]) -> None:
    """Split a rectangle larger than the frame again and again; some borders carry a hedge."""
    size = canvas.extent_m
    least = size * rng.uniform(0.13, 0.22)
    todo = [(-0.85 * size, -0.85 * size, 1.7 * size, 1.7 * size)]
    hedges: list[Point] = []
    while todo:
        u, v, w, h = todo.pop()
        if max(w, h) > 2.2 * least or (max(w, h) > 1.4 * least and rng.random() < 0.75):
            cut = rng.uniform(0.35, 0.65)
            todo += (
                [(u, v, w * cut, h), (u + w * cut, v, w * (1 - cut), h)]
                if w > h
                else [(u, v, w, h * cut), (u, v + h * cut, w, h * (1 - cut))]
            )
            continue
        along = pose.angle if w > h else pose.angle + math.pi / 2
        field = kinds[rng.integers(len(kinds))].rows(along, float(rng.choice([10.0, 16.0, 24.0])), float(rng.uniform(0.03, 0.11)))
        canvas.paint(pose.rect(u + w / 2, v + h / 2, w - 5, h - 5), field)
        if rng.random() < 0.3:
            hedges += [pose.point(u + w * t, v) for t in np.arange(0, 1, 13 / w).tolist() if rng.random() < 0.85]
    shown = [(x, y) for x, y in hedges if 0 <= x < size and 0 <= y < size]
    objects.trees(canvas, rng, shown[:160], (4.5, 7.5))


def _pivots(canvas: Canvas, rng: np.random.Generator, pose: Pose, kinds: list[Material]) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["bare land"])
    cell = size * rng.uniform(0.3, 0.5)
    for i in range(-3, 3):
        for j in range(-3, 3):
            spot = pose.at((j + 0.5) * cell, (i + 0.5) * cell)
            if not inside(canvas, spot, cell) or rng.random() < 0.08:
                continue
            crop, r = kinds[rng.integers(len(kinds))], cell * 0.47
            canvas.paint(
                spot.rect(0, 0, cell - 12, cell - 12), canvas.ground["bare land"].tinted(float(rng.choice([0.92, 1.0, 1.08])))
            )
            canvas.paint(spot.circle(0, 0, r, 48), crop)
            if rng.random() < 0.5:
                start, turn = rng.uniform(0, 6.28), rng.uniform(0.6, 2.6)
                wedge = [
                    (0.0, 0.0),
                    *((r * math.cos(start + t), r * math.sin(start + t)) for t in np.linspace(0, turn, 14).tolist()),
                ]
                canvas.paint(spot.points(wedge), kinds[rng.integers(len(kinds))])
            for ring in (0.35, 0.6, 0.85):
                canvas.stroke([*spot.circle(0, 0, r * ring, 40), spot.circle(0, 0, r * ring, 40)[0]], 1.5, crop.tinted(0.9))
            canvas.stroke([(spot.x, spot.y), spot.at(0, 0, float(rng.uniform(0, 6.28))).point(r, 0)], 3, crop.tinted(0.7))


def orchard(canvas: Canvas, rng: np.random.Generator) -> None:
    """Trees on a grid, in blocks with grassy lanes; every tree its own shadow."""
    size = canvas.extent_m
    soil = canvas.ground["bare land"] if rng.random() < 0.5 else canvas.ground["grass"].tinted(1.08)
    floor = Material(soil.colour, "cropland", grain=0.08)
    canvas.fill(floor)
    pose = centre(canvas, rng)
    row_gap = size / rng.uniform(17, 23)
    tree_gap = row_gap * rng.uniform(0.72, 1.0)
    canvas.paint_field(fractal_field(rng, 6), 0.8, floor.tinted(1.07))
    lanes = [float(rng.uniform(-0.35, 0.0)) * size, float(rng.uniform(0.1, 0.4)) * size]
    radius = 0.36 * tree_gap
    spots: list[Point] = []
    for v in np.arange(-0.75 * size, 0.75 * size, row_gap).tolist():
        canvas.paint(pose.rect(0, v, 2 * size, row_gap * 0.42), floor.tinted((0.9, 0.93, 0.86)))
        for u in np.arange(-0.75 * size, 0.75 * size, tree_gap).tolist():
            x, y = pose.point(u + rng.normal(0, 0.05) * tree_gap, v + rng.normal(0, 0.05) * tree_gap)
            shown = -radius < x < size + radius and -radius < y < size + radius
            if shown and rng.random() < 0.965 and abs(u - lanes[0]) > row_gap * 0.8 and abs(v - lanes[1]) > row_gap * 0.7:
                spots.append((x, y))
    canvas.paint(pose.rect(lanes[0], 0, row_gap * 0.6, 3 * size), canvas.ground["bare land"].tinted(1.12))
    canvas.paint(pose.rect(0, lanes[1], 3 * size, row_gap * 0.5), canvas.ground["bare land"].tinted(1.12))
    if rng.random() < 0.4:
        objects.ridge_house(canvas, rng, pose.at(lanes[0], lanes[1]), 14, 9, objects.choose(rng, objects.ROOF_COLOURS), False)
    objects.trees(canvas, rng, spots, (radius * 0.85, radius * 1.12), cover="cropland")


def greenhouses(canvas: Canvas, rng: np.random.Generator) -> None:
    """Long pale roofs side by side in blocks, with plots and tracks between."""
    size = canvas.extent_m
    canvas.fill(canvas.ground["bare land"])
    canvas.paint_field(fractal_field(rng, 4), 0.3, canvas.ground["grass"])
    pose = centre(canvas, rng)
    width = size / rng.uniform(17, 24)
    length = size * rng.uniform(0.26, 0.4)
    tone: Colour = [(216, 222, 222), (198, 212, 214), (226, 226, 216)][rng.integers(3)]
    kinds = crops(canvas, rng)
    for i in range(-2, 3):
        for j in range(-4, 5):
            block = pose.at(i * (length + 12), j * width * 6.6)
            if not inside(canvas, block, 0.6 * length):
                continue
            if rng.random() < 0.22:
                canvas.paint(block.rect(0, 0, length, width * 5.6), kinds[rng.integers(len(kinds))].rows(block.angle, 3.0, 0.12))
                continue
            for k in range(5):
                roof = block.at(float(rng.uniform(-2, 2)), (k - 2) * width * 1.14)
                shade = round(float(rng.choice([0.9, 0.96, 1.0, 1.06])), 2)
                r, g, b = (int(min(c * shade, 255)) for c in tone)
                objects.greenhouse(canvas, roof, length * 0.97, width, (r, g, b))
    canvas_road = pose.at((length + 12) / 2, 0, math.pi / 2)
    street(canvas, canvas_road, 3 * size, 6)
    objects.trees(canvas, rng, canvas.scatter(rng, 100, 3, ("grass",))[:30], (2.2, 3.6))


def meadow(canvas: Canvas, rng: np.random.Generator) -> None:
    """Open grass of several tones, a trodden path, single trees; now and then turbines."""
    size = canvas.extent_m
    grass = canvas.ground["grass"]
    canvas.fill(grass)
    canvas.paint_field(fractal_field(rng, 3, 5, 0.65), 0.3, grass.tinted((1.08, 1.04, 0.94)))
    canvas.paint_field(fractal_field(rng, 4, 5, 0.65), 0.9, grass.tinted((0.88, 0.95, 0.86)))
    canvas.relief, canvas.relief_m = fractal_field(rng, 3, 3), size * 0.012
    pose = centre(canvas, rng)
    line: Polygon = pose.points(wander(rng, 1.8 * size, 0.05 * size, 1.3))
    if rng.random() < 0.8:
        canvas.stroke(line, 3, canvas.ground["bare land"])
    if rng.random() < 0.5:
        canvas.paint(ribbon(pose.at(0, 0.3 * size).points(wander(rng, 1.8 * size, 0.04 * size, 2.5)), 4), canvas.ground["water"])
    if rng.random() < 0.4:
        for k in range(int(rng.integers(1, 4))):
            objects.wind_turbine(
                canvas, pose.at((k - 1) * 0.36 * size, -0.22 * size, float(rng.uniform(0, 3))), min(0.1 * size, 45)
            )
    objects.trees(canvas, rng, canvas.scatter(rng, 60, 6, ("grass",))[: int(rng.integers(3, 26))], (3.5, 6.5))
