"""River, lake, island, beach, forest, bare land, snow mountain: ground as it lies."""

import math

import numpy as np

from rsvl_data.scenes import objects
from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.countryside import crops
from rsvl_data.scenes.geometry import Number, Polygon, Pose, blob, polygon_of, ribbon, wander
from rsvl_data.scenes.land_cover import Material
from rsvl_data.scenes.objects import paint
from rsvl_data.scenes.shading import fractal_field, terrain_field
from rsvl_data.scenes.streets import centre


def river(canvas: Canvas, rng: np.random.Generator) -> None:
    """A meander with sandbars through woods and fields; often an arm around an island."""
    size = canvas.extent_m
    grass, kinds = canvas.ground["grass"], crops(canvas, rng)
    canvas.fill(grass)
    pose = centre(canvas, rng)
    for i in range(-3, 3):
        for j in range(-3, 3):
            if rng.random() < 0.6:
                field = kinds[rng.integers(len(kinds))].rows(pose.angle, 20.0, 0.05)
                canvas.paint(pose.rect((i + 0.5) * 0.24 * size, (j + 0.5) * 0.24 * size, 0.23 * size, 0.23 * size), field)
    canvas.paint_field(fractal_field(rng, 4), 0.5, canvas.ground["forest"])
    width = size * rng.uniform(0.07, 0.13)
    bends = wander(rng, 1.9 * size, size * rng.uniform(0.09, 0.15), float(rng.uniform(2.2, 3.4)), 90, octaves=2)
    line = pose.points(bends)
    swell = width * (1 + 0.22 * np.sin(np.linspace(0, 19, 90) + rng.uniform(0, 6)))
    canvas.paint(ribbon(line, (swell * 2.2).tolist()), canvas.ground["forest"])
    canvas.paint(ribbon(line, (swell * 1.5).tolist()), grass.tinted((0.92, 0.98, 0.88)))
    v = np.array(bends)[:, 1]
    inner = pose.points(
        [(u, b - 0.35 * width * np.sign(b)) for (u, b) in zip(np.array(bends)[:, 0].tolist(), v.tolist(), strict=True)]
    )
    canvas.paint(
        ribbon(inner, (swell * (0.5 + 0.8 * np.abs(v) / max(np.abs(v).max(), 1e-6))).tolist()),
        paint((206, 192, 160), "bare land", 0.06),
    )
    canvas.paint(ribbon(line, swell.tolist()), canvas.ground["water"].tinted(1.14))
    canvas.paint(ribbon(line, (swell * 0.8).tolist()), canvas.ground["water"])
    if rng.random() < 0.4:
        x, y = line[int(rng.integers(30, 60))]
        canvas.paint(blob(rng, x, y, width * 0.24, 0.3, 30), canvas.ground["forest"])


def lake(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    grass = canvas.ground["grass"]
    canvas.fill(grass)
    canvas.paint_field(fractal_field(rng, 4), -0.1, canvas.ground["forest"])
    canvas.paint_field(fractal_field(rng, 4), 1.1, canvas.ground["bare land"])
    pose = centre(canvas, rng, 0.06)
    shore = np.array(blob(rng, 0, 0, size * rng.uniform(0.24, 0.34), rng.uniform(0.3, 0.45), 90))
    water, stretch = canvas.ground["water"], float(rng.uniform(0.7, 1.0))
    for scale, material in (
        (1.08, grass.tinted(0.95)),
        (1.03, paint((190, 176, 144), "bare land", 0.06)),
        (1.0, water.tinted(1.25)),
        (0.95, water.tinted(1.1)),
        (0.88, water),
    ):
        canvas.paint(pose.points(polygon_of(shore * scale * (1, stretch))), material)
    if rng.random() < 0.4:
        canvas.paint(blob(rng, pose.x + 0.06 * size, pose.y, 0.03 * size, 0.3, 30), canvas.ground["forest"])
    line = pose.at(0, -0.42 * size).points(wander(rng, 2 * size, 0.05 * size, 1.5))
    canvas.stroke(line, 8, canvas.ground["road"].tinted(1.15))


def island(canvas: Canvas, rng: np.random.Generator) -> None:
    """Land with water all around: reef, shallows, a rim of sand, a green middle, sometimes a jetty."""
    size = canvas.extent_m
    deep = Material((24, 70, 104), "water", grain=0.015, ripple=0.05).tinted(float(rng.uniform(0.85, 1.15)))
    canvas.fill(deep)
    pose = centre(canvas, rng, 0.05)
    stretch = (1.0, float(rng.uniform(0.6, 1.0)))
    shore = np.array(blob(rng, 0, 0, size * rng.uniform(0.22, 0.3), 0.34, 90))
    reef = np.array(blob(rng, 0, 0, size * 0.06, 0.5, 90))
    shallow = deep.coloured((70, 158, 168)) if canvas.site.climate == "tropical" else deep.coloured((56, 112, 124))
    for scale, mix in ((1.5, 0.25), (1.38, 0.45), (1.26, 0.65), (1.15, 0.85), (1.07, 1.0)):
        r, g, b = (int(d + (s - d) * mix) for d, s in zip(deep.colour, shallow.colour, strict=True))
        canvas.paint(pose.points(polygon_of((shore * scale + reef * mix) * stretch)), deep.coloured((r, g, b)))
    canvas.paint(pose.points(polygon_of(shore * 1.045 * stretch)), paint((226, 234, 232), "water"))
    canvas.paint(pose.points(polygon_of(shore * 1.02 * stretch)), canvas.ground["beach"])
    canvas.paint(pose.points(polygon_of(shore * 0.9 * stretch)), canvas.ground["grass"])
    canvas.paint(pose.points(polygon_of(np.roll(shore, 3, 0) * 0.82 * stretch)), canvas.ground["forest"])
    if rng.random() < 0.6:
        canvas.paint(blob(rng, *pose.point(0.02 * size, 0), 0.07 * size, 0.3), canvas.ground["grass"])
        houses = [(x, y) for x, y in canvas.scatter(rng, 300, 9, ("grass",)) if math.hypot(x - pose.x, y - pose.y) < 0.1 * size]
        for x, y in houses[:4]:
            objects.ridge_house(canvas, rng, Pose(x, y, pose.angle), 14, 10, objects.choose(rng, objects.ROOF_COLOURS), True)
    u, v = (shore[0] * stretch).tolist()
    canvas.stroke(pose.points([(u * 0.95, v), (u * 0.95 + 0.12 * size, v)]), 4, paint((176, 164, 146), "built-up"))


def beach(canvas: Canvas, rng: np.random.Generator) -> None:
    """Sea, breakers, wet and dry sand, a green or built edge: bands along a gently curved coast."""
    size = canvas.extent_m
    water = Material((36, 104, 130), "water", grain=0.02, ripple=0.05).tinted(float(rng.uniform(0.85, 1.15)))
    canvas.fill(water)
    pose = centre(canvas, rng)
    coast = wander(rng, 2.4 * size, 0.03 * size, 1.6, 60)

    def landward(v: Number, material: Material, wobble: Number = 0.0) -> None:
        edge = [(u, w + v + wobble * math.sin(u / size * 23 + v)) for u, w in coast]
        far: Polygon = [(1.2 * size, 3 * size), (-1.2 * size, 3 * size)]
        canvas.paint(pose.points([*edge, *far]), material)

    for k in range(5):
        r, g, b = (int(c + (s - c) * (k + 1) / 6) for c, s in zip(water.colour, (116, 184, 178), strict=True))
        landward((-0.32 + 0.05 * k) * size, water.coloured((r, g, b)), 0.006 * size)
    foam = paint((232, 238, 236), "water", 0.05)
    for k in range(3):
        far = -0.19 + 0.06 * k + float(rng.uniform(-0.01, 0.01))
        wave = pose.points([(u, w + far * size + 0.012 * size * math.sin(u / size * (17 + 3 * k) + k)) for u, w in coast])
        swell = np.sin(np.linspace(0, rng.uniform(9, 16), 60) + rng.uniform(0, 6)) + 0.5 * np.sin(np.linspace(0, 31, 60) + k)
        widths = np.clip(0.009 * size * swell, 0.002 * size, None) * (0.6 + 0.25 * k)
        canvas.paint(ribbon(wave, widths.tolist()), foam)
    sand, depth = canvas.ground["beach"], float(rng.uniform(0.16, 0.26))
    landward(-0.035 * size, foam, 0.006 * size)
    landward(-0.025 * size, sand.tinted(0.8), 0.006 * size)
    landward(0.0, sand)
    landward(depth * size, canvas.ground["grass"].tinted((1.05, 1.03, 0.9)), 0.008 * size)
    _promenade(canvas, rng, pose, depth * size)


def _promenade(canvas: Canvas, rng: np.random.Generator, pose: Pose, shore_v: Number) -> None:
    size = canvas.extent_m
    built = rng.random() < 0.5
    umbrellas = ((210, 70, 60), (240, 240, 236), (60, 110, 180), (236, 196, 80))
    for u, v in zip(rng.uniform(-0.6, 0.6, 70).tolist(), rng.uniform(0.15, 0.75, 70).tolist(), strict=True):
        spot = pose.at(u * size, v * shore_v).circle(0, 0, 1.4, 8)
        canvas.stand(None, spot, [(spot, paint(umbrellas[int(abs(u) * 97) % 4], "beach"))], 2.2)
    if built:
        canvas.paint(pose.rect(0, shore_v + 0.06 * size, 3 * size, 9), canvas.ground["road"])
        canvas.paint(pose.rect(0, shore_v + 0.06 * size - 6, 3 * size, 3), canvas.ground["built-up"].tinted(1.1))
        for u in np.arange(-0.6, 0.6, 0.17).tolist():
            if rng.random() < 0.8:
                objects.flat_building(canvas, rng, pose.at(u * size, shore_v + 0.06 * size + 22), 0.12 * size, 18, 14)
    objects.trees(canvas, rng, canvas.scatter(rng, 300, 3.5, ("grass",))[:90], (2.4, 4.2))


def forest(canvas: Canvas, rng: np.random.Generator) -> None:
    """Closed canopy of two or three stands, a clearing or two, a track."""
    size = canvas.extent_m
    leaf = canvas.ground["forest"]
    canvas.fill(leaf)
    canvas.paint_field(fractal_field(rng, 3, 5, 0.6), 0.3, leaf.tinted((1.12, 1.08, 0.98)))
    canvas.paint_field(fractal_field(rng, 3, 5, 0.6), 0.7, leaf.tinted((0.8, 0.86, 0.86)))
    if rng.random() < 0.7:
        canvas.paint_field(fractal_field(rng, 4, 5, 0.6), 2.0, canvas.ground["grass"])
    pose = centre(canvas, rng, 0.2)
    line = pose.points(wander(rng, 2.2 * size, 0.06 * size, 1.6))
    if rng.random() < 0.6:
        canvas.stroke(line, 5, canvas.ground["bare land"])
    canvas.relief, canvas.relief_m = fractal_field(rng, 3, 3), size * 0.02


def bare_land(canvas: Canvas, rng: np.random.Generator) -> None:
    """Soil with gullies, or dunes; hardly anything grows."""
    size = canvas.extent_m
    soil = canvas.ground["bare land"]
    canvas.fill(soil)
    canvas.paint_field(fractal_field(rng, 3, 5, 0.65), 0.4, soil.tinted((1.08, 1.05, 1.0)))
    canvas.paint_field(fractal_field(rng, 4, 5, 0.65), 0.9, soil.tinted((0.88, 0.9, 0.92)))
    field = terrain_field(rng, 2.4)
    if rng.random() < 0.5:
        grid = np.linspace(0, 1, 128)
        turn, count = rng.uniform(0, math.pi), rng.uniform(6, 11)
        phase = count * (grid * math.cos(turn) + grid[:, None] * math.sin(turn)) + 0.6 * terrain_field(rng, 3.2)
        canvas.relief, canvas.relief_m = (
            np.sin(2 * np.pi * phase) + 0.4 * np.sin(4 * np.pi * phase + 1) + 0.3 * field,
            size * 0.009,
        )
    else:
        canvas.relief, canvas.relief_m = -np.abs(field) - 0.2 * np.abs(terrain_field(rng, 2.4, 6.0)), size * 0.02
        pose = centre(canvas, rng)
        canvas.stroke(pose.points(wander(rng, 2 * size, 0.05 * size)), max(0.008 * size, 3), soil.tinted(1.18))
    shrubs = canvas.scatter(rng, 200, 0.006 * size, ("bare land",))[: int(rng.integers(0, 80))]
    for x, y in shrubs:
        canvas.mark(Pose(x, y).circle(0, 0, float(rng.uniform(0.002, 0.005)) * size, 7), Material((104, 108, 72), "grass"))


def snow_mountain(canvas: Canvas, rng: np.random.Generator) -> None:
    """Sharp ridges and smooth valleys: snow where it is high and not steep, rock on the faces, forest low down."""
    size = canvas.extent_m
    height = (
        -1.5 * np.abs(terrain_field(rng, 2.9, 2.5)) - 0.25 * np.abs(terrain_field(rng, 2.7, 7.0)) + 0.5 * terrain_field(rng, 3.2)
    )
    height = (height - height.mean()) / height.std()
    steep = np.hypot(*np.gradient(height))
    steep = steep / steep.mean()
    rock = Material((124, 114, 108), "bare land", grain=0.12)
    canvas.fill(rock)
    if rng.random() < 0.6:
        canvas.paint_field(-height + 0.2 * terrain_field(rng, 1.6), float(rng.uniform(1.0, 1.6)), canvas.ground["forest"])
    canvas.paint_field(
        height * 0.45 - steep + 0.35 * terrain_field(rng, 1.2), float(rng.uniform(-1.8, -1.0)), canvas.ground["snow"]
    )
    canvas.relief, canvas.relief_m = height, size * 0.05
