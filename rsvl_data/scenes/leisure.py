"""Stadium, courts, ball fields, golf course: grounds laid out for a game."""

import math

import numpy as np

from rsvl_data.scenes import objects
from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.geometry import Number, Point, Pose, blob, ellipse, ribbon
from rsvl_data.scenes.land_cover import Colour, Material
from rsvl_data.scenes.objects import choose, paint
from rsvl_data.scenes.shading import fractal_field
from rsvl_data.scenes.streets import WHITE, centre, drive, inside, street


def stadium(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    pose = centre(canvas, rng, 0.04)
    plaza = canvas.ground["built-up"].tinted(1.05)
    a, b = 128.0, 104.0
    canvas.paint(ellipse(pose.x, pose.y, a + 26, b + 26, pose.angle, 48), plaza)
    for side in (-1, 1):
        street(canvas, pose.at(0, side * (b + 42)), 3 * size, 10)
        _car_park(canvas, rng, pose.at(side * (a + 62), 0), 52, 150)
    drive(canvas, rng, pose.at(0, b + 42), 1.3 * size, [-2.4, 2.4], 60)
    _bowl(canvas, rng, pose, a, b)
    grass = Material((86, 140, 62), "grass", grain=0.03)
    objects.soccer_field(canvas, pose, 105, 68, grass)
    objects.trees(canvas, rng, canvas.scatter(rng, 240, 6, ("grass",))[:80], (3.5, 5.5))


def _bowl(canvas: Canvas, rng: np.random.Generator, pose: Pose, a: Number, b: Number) -> None:
    """An oval roof ring over the stands, seats, and a running track or grass around the pitch."""
    seats = choose(rng, ((176, 60, 52), (58, 84, 150), (196, 160, 70), (120, 124, 130), (70, 130, 84)))
    roof = paint((222, 224, 226), "built-up", 0.02)
    sx, sy = canvas.site.shadow
    reach = max(math.hypot(sx, sy), 1e-6)

    def ring(shrink: Number, corners: int = 56) -> list[Point]:
        return ellipse(pose.x, pose.y, a - shrink, b - shrink, pose.angle, corners)

    parts = [(ring(0), roof.tinted(0.9))]
    outer, inner = ring(1.5, 56), ring(20, 56)
    for i in range(56):
        j = (i + 1) % 56
        facing = math.atan2(outer[i][1] - pose.y, outer[i][0] - pose.x) - math.atan2(-sy, -sx)
        tone = round(1 + 0.16 * math.cos(facing) + (0.04 if i % 2 else -0.04), 2)
        parts.append(([outer[i], outer[j], inner[j], inner[i]], roof.tinted(tone)))
    parts.append((ring(20), paint(seats, "built-up").tinted(0.62)))
    lit = ellipse(pose.x + 5 * sx / reach, pose.y + 5 * sy / reach, a - 21, b - 21, pose.angle, 56)
    parts.append((lit, paint(seats, "built-up")))
    for k in (26, 31):
        parts += [(ring(k), paint(seats, "built-up").tinted(1.25)), (ring(k + 0.8), paint(seats, "built-up"))]
    floor = paint((178, 92, 72), "built-up") if rng.random() < 0.5 else Material((92, 132, 70), "grass", grain=0.04)
    parts += [(ring(36), paint((196, 192, 186), "built-up")), (ring(37.5), floor)]
    canvas.stand("stadium", ring(0), parts, height_m=24)


def _car_park(canvas: Canvas, rng: np.random.Generator, pose: Pose, length: Number, width: Number) -> None:
    canvas.paint(pose.rect(0, 0, length, width), paint((112, 112, 116), "built-up", 0.04))
    full = rng.uniform(0.2, 0.6)
    for u in np.arange(-length / 2 + 6, length / 2 - 4, 17).tolist():
        canvas.mark(pose.rect(u, 0, 0.3, width - 6), paint(WHITE, "built-up"))
        for v in np.arange(-width / 2 + 5, width / 2 - 4, 3.0).tolist():
            if rng.random() < full and inside(canvas, pose.at(u, v)) and len(canvas.things) < 150:
                objects.vehicle(canvas, rng, pose.at(u + 3, v), "built-up")


def tennis_courts(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    canvas.paint_field(fractal_field(rng, 4), 1.1, canvas.ground["bare land"])
    pose = centre(canvas, rng, 0.06)
    play: list[tuple[Colour, Colour]] = [
        ((62, 96, 160), (78, 128, 84)),
        ((76, 132, 86), (168, 82, 62)),
        ((188, 104, 70), (188, 104, 70)),
        ((80, 120, 190), (50, 80, 140)),
    ]
    colour, surround = play[rng.integers(len(play))]
    rows, cols = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    canvas.paint(pose.rect(0, 0, cols * 20 + 5, rows * 40 + 5), canvas.ground["built-up"])
    basket = int(rng.integers(rows * cols)) if rng.random() < 0.3 else -1
    for i in range(rows):
        for j in range(cols):
            spot = pose.at((j - (cols - 1) / 2) * 20, (i - (rows - 1) / 2) * 40, math.pi / 2)
            if not inside(canvas, spot, 10):
                continue
            if i * cols + j == basket:
                objects.court(canvas, spot, "basketball court", (150, 150, 150), (110, 116, 122))
            else:
                objects.court(canvas, spot, "tennis court", colour, surround)
    edge = rows * 20 + 14
    street(canvas, pose.at(0, edge + 12), 3 * size, 7)
    objects.flat_building(canvas, rng, pose.at(cols * 10 + 16, 0, math.pi / 2), 24, 12, 5)
    _car_park(canvas, rng, pose.at(0, -edge - 6, math.pi / 2), 20, cols * 20)
    objects.trees(canvas, rng, canvas.scatter(rng, 320, 2.8, ("grass", "bare land"))[:100], (2.4, 4.2))


def baseball_field(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"])
    canvas.paint_field(fractal_field(rng, 4), 1.0, canvas.ground["forest"])
    pose = centre(canvas, rng, 0.02)
    if size < 235:
        _ball_field(canvas, pose.at(-0.34 * size, 0), size * 0.62)
    else:
        for k in range(2 + int(rng.integers(0, 3))):
            _ball_field(canvas, pose.at(0, 0, k * math.pi / 2).at(12, 0), size * 0.36)
        canvas.paint(pose.circle(0, 0, 11, 20), canvas.ground["built-up"])
    objects.trees(canvas, rng, canvas.scatter(rng, 300, 5, ("grass",))[:70], (3, 5))
    for x, y in canvas.scatter(rng, 30, 11, ("grass",))[:3]:
        objects.flat_building(canvas, rng, Pose(x, y, pose.angle), 18, 9, 5)


def _ball_field(canvas: Canvas, home: Pose, radius: Number) -> None:
    """Home plate at the pose, the field opens 45 degrees to both sides of u; bases 27.4 m apart."""
    quarter = [(math.cos(t), math.sin(t)) for t in np.linspace(-math.pi / 4, math.pi / 4, 20).tolist()]

    def fan(r: Number, back: Number) -> list[Point]:
        return home.points([(-back, 0), *((r * c, r * s) for c, s in quarter)])

    dirt = Material((182, 132, 92), "bare land", grain=0.05)
    turf = Material((88, 138, 60), "grass", grain=0.04).rows(home.angle + 0.7, 9.0, 0.07)
    canvas.paint(fan(radius + 5, 8), dirt)
    canvas.paint(fan(radius, 3), turf)
    canvas.reserve(fan(radius + 8, 25))
    infield = [home.point(-6, 0), *home.points((38.0 * c, 38.0 * s) for c, s in quarter)]
    side = 27.4 / math.sqrt(2)
    outline = home.points([(-6, 0), *((42.0 * c, 42.0 * s) for c, s in quarter)])
    canvas.paint(outline, dirt)
    canvas.paint(home.circle(0, 0, 7, 20), dirt)
    grass = turf.rows(home.angle, 5.0, 0.07)
    canvas.paint(home.points([(4.5, 0), (side, side - 4.5), (2 * side - 4.5, 0), (side, 4.5 - side)]), grass)
    canvas.paint(home.circle(18.4, 0, 2.8, 14), dirt)
    white = paint((240, 240, 236), "bare land")
    for s in (-1, 1):
        canvas.stroke([home.point(0, 0), home.point(radius * 0.7, s * radius * 0.7)], 0.4, white)
        canvas.mark(home.at(side, s * side).rect(0, 0, 1.2, 1.2), white)
        dugout = home.at(9, s * 21, s * math.pi / 4)
        canvas.paint(dugout.rect(0, 0, 15, 3.5), paint((150, 150, 154), "built-up"))
    canvas.mark(home.rect(2 * side, 0, 1.2, 1.2), white)
    canvas.stand("baseball diamond", infield, [])


def golf_course(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fairways between woods, each with a tee, a green, white bunkers; ponds and a cart path."""
    size = canvas.extent_m
    canvas.fill(canvas.ground["grass"].tinted((0.95, 0.96, 0.9)))
    canvas.paint_field(fractal_field(rng, 5), 0.1, canvas.ground["forest"])
    pose = centre(canvas, rng)
    fairways = int(rng.integers(3, 5))
    gap = 1.02 * size / fairways
    for i in range(fairways):
        lane = pose.at(
            float(rng.uniform(-0.08, 0.08)) * size, (i - (fairways - 1) / 2) * gap, math.pi * (i % 2) + float(rng.normal(0, 0.07))
        )
        _fairway(canvas, rng, lane, size * rng.uniform(0.66, 0.82), gap * 0.36)
    if rng.random() < 0.75:
        x, y = pose.point(float(rng.uniform(-0.3, 0.3)) * size, gap * (0.5 if fairways % 2 else 0.0))
        canvas.paint(blob(rng, x, y, 0.055 * size, 0.2), canvas.ground["water"])
    objects.trees(canvas, rng, canvas.scatter(rng, 260, 5, ("grass",))[: int(rng.integers(40, 100))], (3, 5.5))


def _fairway(canvas: Canvas, rng: np.random.Generator, pose: Pose, length: Number, width: Number) -> None:
    bend = rng.choice([-1, 1]) * rng.uniform(0.25, 0.5) * width
    t = np.linspace(-0.5, 0.5, 30)
    line = pose.points(list(zip((t * length).tolist(), (bend * np.cos(np.pi * t) * 2).tolist(), strict=True)))
    swell = width * (0.8 + 0.25 * np.sin(2 * np.pi * (t * 1.5 + rng.uniform()))) * np.sqrt(np.clip(1 - (2 * t) ** 6, 0.02, 1))
    turf = canvas.ground["grass"]
    canvas.paint(ribbon(line, (swell + 14).tolist()), turf)
    mown = turf.tinted((1.1, 1.24, 1.0)).rows(pose.angle + math.pi / 4, 11.0, 0.06)
    canvas.paint(ribbon(line, swell.tolist()), mown)
    x, y = line[-1]
    sand = Material((232, 220, 190), "bare land", grain=0.02)
    for _ in range(int(rng.integers(2, 5))):
        turn, far = rng.uniform(0, 2 * math.pi), rng.uniform(19, 25)
        canvas.paint(blob(rng, x + far * math.cos(turn), y + far * math.sin(turn), float(rng.uniform(6, 9)), 0.3, 24), sand)
    middle = line[int(rng.integers(9, 20))]
    canvas.paint(
        blob(rng, middle[0] + rng.uniform(-1, 1) * width * 0.5, middle[1] + rng.uniform(-1, 1) * width * 0.5, 8, 0.3, 24), sand
    )
    canvas.paint(blob(rng, x, y, 15, 0.15, 32), mown.tinted(0.92))
    canvas.paint(blob(rng, x, y, 12, 0.15, 32), Material((138, 182, 112), "grass", grain=0.01))
    for k in range(2):
        canvas.paint(pose.rect(-length / 2 - 16 - 12 * k, 0, 9, 7), turf.tinted((1.04, 1.2, 0.96)))
    path = pose.points(
        [
            (-length / 2 - 20, -0.62 * width),
            (-length / 4, -0.75 * width),
            (length / 4, -0.72 * width),
            (length / 2 + 10, -0.5 * width),
        ]
    )
    canvas.stroke(path, 2.4, canvas.ground["road"].tinted(1.5))
    canvas.reserve(ribbon(line, (swell + 4).tolist()))
