"""Airport, harbor, railway, bridge, parking lot, roundabout, highway interchange: scenes made of ways and what moves on them."""

import math

import numpy as np

from rsvl_data.scenes import objects
from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.geometry import Number, Point, Polygon, Pose, ribbon, wander
from rsvl_data.scenes.land_cover import Material
from rsvl_data.scenes.objects import paint
from rsvl_data.scenes.shading import fractal_field
from rsvl_data.scenes.streets import WHITE, YELLOW, centre, dashes, drive, street


def airport(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    canvas.paint_field(fractal_field(rng, 3), 0.9, canvas.ground["grass"].tinted((1.12, 1.0, 0.9)))
    pose = centre(canvas, rng)
    asphalt, concrete = paint((84, 86, 90), "built-up", 0.05), paint((176, 174, 168), "built-up", 0.04)
    runway_v = -0.27 * size
    _runway(canvas, pose, runway_v, 2.4 * size, asphalt, float(rng.uniform(-0.42, 0.2)) * size)
    taxi_v, apron_v, apron_depth = -0.07 * size, 0.1 * size, 0.2 * size
    taxi = asphalt.tinted(1.22)
    canvas.paint(pose.rect(0, taxi_v, 2.4 * size, 23), taxi)
    for u in (-0.36, -0.08, 0.27):
        lean = float(rng.choice([-40, 0, 40]))
        link = [
            (u * size - 12, taxi_v),
            (u * size + 12, taxi_v),
            (u * size + 12 + lean, runway_v),
            (u * size - 12 + lean, runway_v),
        ]
        canvas.paint(pose.points(link), taxi)
        canvas.stroke(pose.points([(u * size, taxi_v), (u * size + lean, runway_v)]), 1.0, paint(YELLOW, "built-up"))
    apron_length = size * rng.uniform(0.62, 0.8)
    canvas.paint(pose.rect(0, apron_v, apron_length, apron_depth), concrete)
    for u in (-0.3, 0.3):
        canvas.paint(pose.rect(u * apron_length, (taxi_v + apron_v) / 2, 26, apron_v - taxi_v), concrete)
    canvas.stroke(pose.points([(-1.2 * size, taxi_v), (1.2 * size, taxi_v)]), 1.0, paint(YELLOW, "built-up"))
    canvas.stroke(
        pose.points([(-apron_length / 2, apron_v - 0.06 * size), (apron_length / 2, apron_v - 0.06 * size)]),
        1.0,
        paint(YELLOW, "built-up"),
    )
    street(canvas, pose.at(0, 0.36 * size), 2.4 * size, 16)
    canvas.paint(pose.rect(0, 0.3 * size, apron_length * 0.8, 0.07 * size), canvas.ground["built-up"].tinted(0.8))
    _terminal(canvas, rng, pose, apron_v + apron_depth / 2, apron_length)
    if rng.random() < 0.5:
        objects.airplane(
            canvas, pose.at(float(rng.uniform(-0.3, 0.3)) * size, taxi_v, 0 if rng.random() < 0.5 else math.pi), 38, (40, 70, 140)
        )
    objects.trees(canvas, rng, canvas.scatter(rng, 90, 8, ("grass",))[:25], (4, 7))


def _runway(canvas: Canvas, pose: Pose, v: Number, length: Number, asphalt: Material, threshold_u: Number) -> None:
    """A 45 m runway whose threshold (piano keys, aiming marks) lies at `threshold_u`; it goes on to +u."""
    white = paint((226, 226, 222), "built-up")
    canvas.paint(pose.rect(0, v, length, 60), asphalt.tinted(1.35))
    canvas.paint(pose.rect(0, v, length, 45), asphalt)
    canvas.paint(pose.rect(threshold_u + 260, v, 480, 14), asphalt.tinted(0.82))
    for side in (-1, 1):
        canvas.stroke(pose.points([(-length / 2, v + side * 21), (length / 2, v + side * 21)]), 0.9, white)
        for k in range(5):
            canvas.mark(pose.rect(threshold_u + 20, v + side * (3.2 + k * 3.9), 32, 2.2), white)
        canvas.mark(pose.rect(threshold_u + 150, v + side * 9, 45, 6), white)
    dashes(canvas, pose, threshold_u + 60, length / 2, v, 30, 20, 1.4, white)
    canvas.mark(pose.rect(threshold_u - 30, v, 10, 42), paint(YELLOW, "built-up"))


def _terminal(canvas: Canvas, rng: np.random.Generator, pose: Pose, v: Number, apron_length: Number) -> None:
    """The building behind the apron, and airplanes parked nose in."""
    length = apron_length * rng.uniform(0.5, 0.7)
    depth = 38.0
    objects.flat_building(canvas, rng, pose.at(0, v + depth / 2), length, depth, 14, ribs=True)
    gap = rng.uniform(52, 60)
    liveries = ((190, 40, 40), (30, 70, 150), (30, 120, 90), (220, 140, 40))
    for u in np.arange(-apron_length / 2 + 30, apron_length / 2 - 25, gap).tolist():
        if rng.random() < 0.78:
            span = float(rng.choice([36.0, 40.0, 44.0]))
            objects.airplane(canvas, pose.at(u, v - 4 - span / 2, math.pi / 2), span, liveries[rng.integers(4)])
    if rng.random() < 0.6:
        side = 1 if rng.random() < 0.5 else -1
        hangar = pose.at(side * (length / 2 + 46), v + 26)
        objects.flat_building(canvas, rng, hangar, 58, 46, 16, ribs=True)


def harbor(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["water"])
    pose = centre(canvas, rng)
    quay = size * rng.uniform(0.12, 0.2)
    concrete = canvas.ground["built-up"].tinted(1.06)
    canvas.paint(pose.rect(0, quay + size, 4 * size, 2 * size), concrete)
    canvas.stroke(pose.points([(-2 * size, quay), (2 * size, quay)]), 2.5, concrete.tinted(0.7))
    if size < 260:
        _marina(canvas, rng, pose, quay)
    else:
        _piers(canvas, rng, pose, quay, concrete)
    street(canvas, pose.at(0, quay + 0.30 * size), 3 * size, 10)
    depth = 0.1 * size
    for u in np.arange(-0.62, 0.62, 0.24).tolist():
        if rng.random() < 0.8:
            objects.flat_building(canvas, rng, pose.at(u * size, quay + 0.2 * size), 0.17 * size, depth, 10, ribs=True)
    for u in np.arange(-0.6, 0.6, 0.16).tolist():
        objects.flat_building(canvas, rng, pose.at(u * size, quay + 0.41 * size), 0.1 * size, 0.08 * size, 8)


def _marina(canvas: Canvas, rng: np.random.Generator, pose: Pose, quay: Number) -> None:
    """Pontoons with boats moored stern to on both sides."""
    size = canvas.extent_m
    wood = paint((186, 176, 160), "built-up")
    spacing = 46.0
    first = -0.55 * size + rng.uniform(0, spacing)
    for u in np.arange(first, 0.55 * size, spacing).tolist():
        reach = rng.uniform(0.42, 0.56) * size
        canvas.paint(pose.rect(u, quay - reach / 2, 2.6, reach), wood)
        for v in np.arange(quay - reach + 3, quay - 8, 5.6).tolist():
            for side in (-1, 1):
                if rng.random() < 0.72:
                    length = float(rng.uniform(9, 15))
                    objects.boat(canvas, pose.at(u + side * (2.2 + length / 2), v, 0.0 if side > 0 else math.pi), length)
    objects.boat(canvas, pose.at(0.0, quay - 0.63 * size, float(rng.uniform(-0.4, 0.4))), 14)


def _piers(canvas: Canvas, rng: np.random.Generator, pose: Pose, quay: Number, concrete: Material) -> None:
    """Cargo piers with ships alongside, containers on the quay, one ship under way with its wake."""
    size = canvas.extent_m
    count = 2 if size < 360 else 3
    width = rng.uniform(26, 38)
    for i in range(count):
        u = (i - (count - 1) / 2) * size * 0.36
        reach = rng.uniform(0.32, 0.44) * size
        canvas.paint(pose.rect(u, quay - reach / 2 + 2, width + 3, reach), concrete.tinted(0.66))
        canvas.paint(pose.rect(u, quay - reach / 2 + 2, width, reach - 3), concrete.tinted(0.94))
        canvas.mark(pose.rect(u, quay - reach / 2, width * 0.3, reach * 0.9), canvas.ground["road"].tinted(1.1))
        for side in (-1, 1):
            if rng.random() < 0.8:
                length = reach * rng.uniform(0.55, 0.86)
                beam = length * 0.19
                objects.ship(
                    canvas, rng, pose.at(u + side * (width / 2 + 3 + beam / 2), quay - reach * 0.5, math.pi / 2 * side), length
                )
    for row in range(3):
        for u in np.arange(-0.7 * size, 0.7 * size, 13.5).tolist():
            if rng.random() < 0.8:
                box = paint(objects.choose(rng, objects.CONTAINER_COLOURS), "built-up")
                canvas.mark(pose.rect(u, quay + 0.05 * size + row * 6.5, 12.2, 5.4), box)
    under_way = pose.at(float(rng.uniform(-0.2, 0.2)) * size, quay - 0.55 * size, float(rng.uniform(-0.25, 0.25)))
    length = size * rng.uniform(0.13, 0.19)
    wake = canvas.ground["water"].tinted(1.5)
    canvas.paint(
        under_way.points([(0, 0), (-2.6 * length, -0.3 * length), (-2.4 * length, 0), (-2.6 * length, 0.3 * length)]),
        wake.tinted(0.78),
    )
    canvas.paint(under_way.points([(0, -3), (-1.8 * length, -0.06 * length), (-1.8 * length, 0.06 * length), (0, 3)]), wake)
    objects.ship(canvas, rng, under_way, length)


def railway(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    canvas.paint_field(fractal_field(rng), 0.2, canvas.ground["bare land"])
    pose = centre(canvas, rng)
    tracks = int(rng.integers(6, 14))
    gauge = 4.8
    half = tracks * gauge / 2
    ballast = paint((128, 116, 106), "built-up", 0.10)
    canvas.paint(pose.rect(0, 0, 3 * size, 2 * half + 6), ballast)
    platform = int(rng.integers(2, tracks - 2))
    for i in range(tracks):
        v = (i - (tracks - 1) / 2) * gauge
        _track(canvas, pose, v, 3 * size, ballast)
        if i == platform:
            canvas.paint(pose.rect(0, v, size * 0.6, 4.2), paint((196, 192, 184), "built-up"))
            roof = pose.rect(0, v, size * 0.36, 3.6)
            canvas.stand(None, roof, [(roof, paint((150, 158, 166), "built-up"))], 5)
        elif rng.random() < 0.62:
            objects.train(canvas, rng, pose.at(float(rng.uniform(-0.45, 0.45)) * size, v), float(rng.uniform(0.25, 0.75)) * size)
    for lead in (-1, 1):
        canvas.stroke(
            pose.points([(lead * 0.3 * size, -half + gauge / 2), (lead * 0.75 * size, half - gauge / 2)]),
            0.5,
            paint((92, 82, 76), "built-up"),
        )
    street(canvas, pose.at(0, half + 0.12 * size), 3 * size, 8)
    for u in np.arange(-0.6, 0.6, 0.21).tolist():
        objects.flat_building(
            canvas, rng, pose.at(u * size, half + 0.12 * size + 24), 0.16 * size, 22, 9, ribs=bool(rng.random() < 0.5)
        )
    drive(canvas, rng, pose.at(0, half + 0.12 * size), 1.3 * size, [-1.9, 1.9], 60)
    objects.trees(canvas, rng, canvas.scatter(rng, 260, 4, ("grass", "bare land"))[:90], (2.5, 4.5))


def _track(canvas: Canvas, pose: Pose, v: Number, length: Number, ballast: Material) -> None:
    sleepers = ballast.tinted(0.8).rows(pose.angle + math.pi / 2, 1.3, 0.12)
    canvas.paint(pose.rect(0, v, length, 2.6), sleepers)
    for side in (-0.72, 0.72):
        canvas.stroke(pose.points([(-length / 2, v + side), (length / 2, v + side)]), 0.3, paint((74, 62, 56), "built-up"))


def bridge(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    canvas.paint_field(fractal_field(rng), 0.5, canvas.ground["forest"])
    pose = centre(canvas, rng)
    width = size * rng.uniform(0.26, 0.42)
    banks = pose.points(wander(rng, 3 * size, 0.03 * size))
    canvas.paint(ribbon(banks, width + 12), canvas.ground["bare land"])
    canvas.paint(ribbon(banks, width), canvas.ground["water"])
    road = pose.at(0, 0, math.pi / 2 + float(rng.uniform(-0.25, 0.25)))
    lanes = int(rng.integers(1, 4))
    deck_width = 7.2 * lanes + 4
    street(canvas, road, 3 * size, deck_width - 3)
    span = width + 44
    deck = road.rect(0, 0, span, deck_width)
    asphalt = paint((132, 132, 134), "road")
    parts: list[tuple[Polygon, Material]] = [
        (deck, paint((206, 204, 198), "road")),
        (road.rect(0, 0, span, deck_width - 3), asphalt),
    ]
    line = max(0.3, 1 / canvas.px_per_m)
    for k in range(-lanes + 1, lanes):
        parts.append((road.rect(0, k * 3.4, span, line), paint(WHITE, "road")))
    for u in np.arange(-span / 2, span / 2, 26).tolist():
        parts.append((road.rect(u, 0, 1.2, deck_width), paint((168, 166, 162), "road")))
    canvas.stand("bridge", deck, parts, height_m=9)
    drive(canvas, rng, road, 1.4 * size, [s * (1.7 + 3.4 * k) for k in range(lanes) for s in (-1, 1)], 55)
    for x, y in canvas.scatter(rng, 60, 13, ("grass",))[:14]:
        objects.ridge_house(canvas, rng, Pose(x, y, road.angle), 14, 9, objects.choose(rng, objects.ROOF_COLOURS), True)
    objects.trees(canvas, rng, canvas.scatter(rng, 240, 4.5, ("grass",))[:80], (3, 5))


def parking_lot(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    pose = centre(canvas, rng, angle=float(rng.uniform(0, math.pi)))
    asphalt = Material((98, 98, 102), "built-up", grain=0.05)
    canvas.paint(pose.rect(0, -0.05 * size, 1.5 * size, 0.92 * size), asphalt)
    objects.flat_building(canvas, rng, pose.at(0, 0.62 * size), 1.4 * size, 0.36 * size, 7)
    line, curb = paint(WHITE, "built-up"), paint((190, 188, 182), "built-up")
    full = rng.uniform(0.45, 0.85)
    stall, depth = 2.7, 5.2
    for v in np.arange(-0.44 * size, 0.34 * size, 17.0).tolist():
        canvas.paint(pose.rect(0, v, 1.02 * size, 0.5), curb)
        for end in (-0.52, 0.52):
            canvas.paint(pose.rect(end * size, v, 2.6, 2 * depth), canvas.ground["grass"])
        for u in np.arange(-0.51 * size, 0.51 * size, stall).tolist():
            canvas.mark(pose.rect(u, v, 0.18, 2 * depth), line)
            for side in (-1, 1):
                if rng.random() < full:
                    nose = math.pi / 2 * (1 if rng.random() < 0.5 else -1) + rng.normal(0, 0.02)
                    place = pose.at(u + stall / 2, v + side * (depth / 2 + 0.2), nose)
                    if 0 < place.x < size and 0 < place.y < size and len(canvas.things) < 230:
                        objects.vehicle(canvas, rng, place, "built-up")
    _arrows(canvas, pose, line)
    objects.trees(canvas, rng, canvas.scatter(rng, 120, 1.6, ("grass",))[:40], (1.6, 2.8))


def _arrows(canvas: Canvas, pose: Pose, line: Material) -> None:
    size = canvas.extent_m
    for v in np.arange(-0.44 * size + 8.5, 0.3 * size, 17.0).tolist():
        for u in (-0.3 * size, 0.1 * size):
            canvas.mark(pose.rect(u, v, 2.4, 0.3), line)
            canvas.mark(pose.points([(u + 1.2, v - 0.6), (u + 2.4, v), (u + 1.2, v + 0.6)]), line)


def roundabout(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    pose = centre(canvas, rng, 0.08)
    radius = size * rng.uniform(0.13, 0.17)
    lane = max(8.0, 0.07 * size)
    outer = radius + lane
    arms = int(rng.integers(3, 6))
    turns = [2 * math.pi * i / arms + float(rng.uniform(-0.15, 0.15)) for i in range(arms)]
    asphalt, walk = canvas.ground["road"], canvas.ground["built-up"]
    canvas.paint(pose.circle(0, 0, outer + 3, 48), walk)
    for turn in turns:
        street(canvas, pose.at(0, 0, turn).at(size, 0), 2 * size, 9)
    for turn in turns:
        arm = pose.at(0, 0, turn)
        flare: list[Point] = [(outer - 3, -9), (outer + 16, -4.5), (outer + 16, 4.5), (outer - 3, 9)]
        canvas.paint(arm.points(flare), asphalt)
        canvas.mark(arm.points([(outer + 1, -2.2), (outer + 14, 0), (outer + 1, 2.2)]), walk.tinted(1.1))
        for k in range(6):
            canvas.mark(arm.rect(outer + 19, -3.75 + 1.5 * k, 2.5, 0.7), paint(WHITE, "road"))
    canvas.paint(pose.circle(0, 0, outer, 48), asphalt)
    canvas.paint(pose.circle(0, 0, radius + 1.2, 40), walk.tinted(1.12))
    canvas.paint(pose.circle(0, 0, radius, 40), canvas.ground["grass"].tinted(1.08))
    canvas.paint(pose.circle(0, 0, radius * 0.4, 24), canvas.ground["bare land"])
    canvas.stand("roundabout", pose.circle(0, 0, outer, 40), [])
    for turn in turns:
        drive(canvas, rng, pose.at(0, 0, turn).at(outer + 22 + 0.25 * size, 0), 0.5 * size, [-2.2, 2.2], 40)
    for k in range(int(rng.integers(1, 4))):
        a = float(rng.uniform(0, 2 * math.pi)) + 2 * k
        objects.vehicle(canvas, rng, pose.at(0, 0, a).at(radius + lane / 2, 0, math.pi / 2), "road")
    for x, y in canvas.scatter(rng, 80, 12, ("grass",))[:10]:
        if math.hypot(x - pose.x, y - pose.y) > outer + 14:
            objects.flat_building(canvas, rng, Pose(x, y, pose.angle + turns[0]), 16, 12, 8)
    objects.trees(canvas, rng, canvas.scatter(rng, 260, 3, ("grass", "bare land"))[:70], (2, 3.8))


def highway_interchange(canvas: Canvas, rng: np.random.Generator) -> None:
    """A cloverleaf: two dual carriageways, a loop and an outer ramp in each quadrant, the upper road on a bridge."""
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    canvas.paint_field(fractal_field(rng), 0.8, canvas.ground["forest"])
    canvas.paint_field(fractal_field(rng), 1.3, canvas.ground["bare land"])
    pose = centre(canvas, rng, 0.03)
    cross = pose.at(0, 0, math.pi / 2 + float(rng.uniform(-0.12, 0.12)))
    asphalt = canvas.ground["road"].tinted(1.05)
    loop = size * rng.uniform(0.115, 0.14)
    edge = 17.0
    for sx in (-1, 1):
        for sy in (-1, 1):
            middle = (sx * (edge + loop - 4), sy * (edge + loop - 4))
            canvas.paint(pose.circle(*middle, loop + 4.5, 40), asphalt)
            canvas.paint(pose.circle(*middle, loop - 4.5, 40), canvas.ground["grass"].tinted(1.05))
            canvas.paint(ribbon(pose.points(_outer_ramp(sx, sy, edge, loop)), 8.5), asphalt)
    for road in (cross, pose):
        _dual_carriageway(canvas, road, 3 * size, asphalt)
    deck = pose.rect(0, 0, 56, 33)
    parts = [(deck, paint((196, 194, 188), "road")), (pose.rect(0, 0, 56, 31), asphalt)]
    parts += [(pose.rect(0, 0, 56, 1.4), paint((200, 198, 192), "road"))]
    parts += [(pose.rect(0, v, 56, max(0.3, 1 / canvas.px_per_m)), paint(WHITE, "road")) for v in (-8.5, -5, 5, 8.5)]
    canvas.stand("bridge", deck, parts, height_m=7)
    for road in (cross, pose):
        drive(canvas, rng, road, 1.4 * size, [-10.2, -6.7, -3.2, 3.2, 6.7, 10.2], 110, 0.3)
    objects.trees(canvas, rng, canvas.scatter(rng, 300, 5, ("grass",))[:110], (3, 5))


def _outer_ramp(sx: int, sy: int, edge: Number, loop: Number) -> Polygon:
    """From one road to the other around the loop of a quadrant: a cubic Bezier curve, tangent to both roads."""
    far, near = edge + 2 * loop + 14, edge - 4
    line: Polygon = []
    for t in np.linspace(0, 1, 28).tolist():
        b0, b1, b2, b3 = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
        u = 2.2 * far * b0 + 1.35 * far * b1 + near * (b2 + b3)
        v = near * (b0 + b1) + 1.35 * far * b2 + 2.2 * far * b3
        line.append((sx * u, sy * v))
    return line


def _dual_carriageway(canvas: Canvas, pose: Pose, length: Number, asphalt: Material) -> None:
    white = paint(WHITE, "road")
    canvas.paint(pose.rect(0, 0, length, 31), asphalt)
    canvas.paint(pose.rect(0, 0, length, 2.0), canvas.ground["grass"])
    for v in (-8.5, -5, 5, 8.5):
        dashes(canvas, pose, -length / 4, length / 4, v, 6, 9, 0.35, white)
    for v in (-12.2, -1.7, 1.7, 12.2):
        canvas.stroke(pose.points([(-length / 2, v), (length / 2, v)]), 0.35, white)
