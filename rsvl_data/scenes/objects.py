"""The things that are counted, boxed and referred to: their true sizes, and how each looks from above.

Every function puts one thing on a canvas at a pose whose u axis is the thing's own forward direction.
"""

import math
from collections.abc import Sequence

import numpy as np

from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.geometry import Number, Polygon, Pose, shift, unit_circle
from rsvl_data.scenes.land_cover import Colour, Material

OBJECT_CATEGORIES: tuple[str, ...] = (
    "airplane",
    "ship",
    "vehicle",
    "train",
    "storage tank",
    "building",
    "bridge",
    "roundabout",
    "stadium",
    "soccer field",
    "baseball diamond",
    "tennis court",
    "basketball court",
    "swimming pool",
    "solar panel",
    "greenhouse",
    "wind turbine",
)

CAR_COLOURS: tuple[Colour, ...] = (
    (236, 236, 238),
    (210, 212, 214),
    (150, 152, 156),
    (40, 42, 46),
    (72, 76, 84),
    (170, 34, 34),
    (38, 62, 130),
    (200, 190, 170),
)
ROOF_COLOURS: tuple[Colour, ...] = (
    (168, 92, 70),
    (150, 108, 84),
    (122, 112, 106),
    (104, 100, 100),
    (176, 120, 92),
    (140, 132, 124),
    (96, 84, 78),
)
FLAT_ROOF_COLOURS: tuple[Colour, ...] = (
    (206, 206, 202),
    (180, 182, 184),
    (156, 158, 160),
    (196, 186, 170),
    (134, 146, 158),
    (224, 224, 224),
    (120, 130, 148),
)
SHIP_COLOURS: tuple[Colour, ...] = ((150, 60, 50), (60, 70, 84), (46, 84, 70), (92, 92, 92), (168, 168, 164))
CONTAINER_COLOURS: tuple[Colour, ...] = (
    (170, 64, 48),
    (58, 98, 148),
    (196, 168, 84),
    (82, 130, 92),
    (200, 200, 200),
    (140, 84, 52),
)

_AIRPLANE: tuple[tuple[float, float], ...] = (  # one half, nose to tail, of a twin-jet 1 long
    (0.5, 0.0), (0.485, 0.022), (0.44, 0.045), (0.16, 0.05), (-0.09, 0.44), (-0.15, 0.46), (-0.10, 0.30), (-0.09, 0.05),
    (-0.33, 0.035), (-0.44, 0.17), (-0.48, 0.175), (-0.46, 0.03), (-0.5, 0.0),
)  # fmt: skip
_AIRPLANE_OUTLINE = [*_AIRPLANE, *((u, -v) for u, v in _AIRPLANE[-2:0:-1])]
_HULL: tuple[tuple[float, float], ...] = (  # bow first, 1 long and 1 wide
    (0.5, 0.0), (0.44, 0.26), (0.34, 0.46), (0.22, 0.5), (-0.42, 0.5), (-0.5, 0.36),
    (-0.5, -0.36), (-0.42, -0.5), (0.22, -0.5), (0.34, -0.46), (0.44, -0.26),
)  # fmt: skip


def paint(colour: Colour, cover: str, grain: Number = 0.02) -> Material:
    return Material(colour, cover, grain=grain)


def choose(rng: np.random.Generator, colours: Sequence[Colour]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def airplane(canvas: Canvas, pose: Pose, length_m: Number, stripe: Colour) -> None:
    outline = pose.points((u * length_m, v * length_m) for u, v in _AIRPLANE_OUTLINE)
    wing = length_m * 0.12
    parts = [(outline, paint((226, 228, 230), "built-up"))]
    for side in (-1, 1):
        parts.append(
            (pose.rect(0.08 * length_m, side * wing, 0.09 * length_m, 0.04 * length_m), paint((150, 154, 160), "built-up"))
        )
    parts.append((pose.rect(0.0, 0.0, 0.86 * length_m, 0.055 * length_m), paint((250, 250, 250), "built-up")))
    parts.append((pose.rect(-0.42 * length_m, 0.0, 0.13 * length_m, 0.05 * length_m), paint(stripe, "built-up")))
    canvas.stand("airplane", outline, parts, height_m=length_m * 0.10)


def ship(canvas: Canvas, rng: np.random.Generator, pose: Pose, length_m: Number) -> None:
    width = length_m * rng.uniform(0.15, 0.19)
    outline = pose.points((u * length_m, v * width) for u, v in _HULL)
    hull, deck = choose(rng, SHIP_COLOURS), choose(rng, ((196, 190, 180), (150, 96, 76), (120, 132, 126), (206, 206, 204)))
    inner = pose.points((u * length_m * 0.94, v * width * 0.78) for u, v in _HULL)
    parts = [(outline, paint(hull, "water")), (inner, paint(deck, "water"))]
    if rng.random() < 0.5:
        for u in np.arange(-0.24, 0.34, 0.075).tolist():
            for v in (-0.22, 0.0, 0.22):
                parts.append(
                    (
                        pose.rect(u * length_m, v * width, 0.068 * length_m, 0.2 * width),
                        paint(choose(rng, CONTAINER_COLOURS), "water"),
                    )
                )
    else:
        for u in (-0.15, 0.03, 0.21):
            parts.append((pose.rect(u * length_m, 0, 0.13 * length_m, 0.5 * width), paint((112, 110, 108), "water")))
    parts.append((pose.rect(-0.38 * length_m, 0, 0.12 * length_m, 0.8 * width), paint((244, 244, 242), "water")))
    canvas.stand("ship", outline, parts, height_m=min(length_m * 0.06, 9.0))


def boat(canvas: Canvas, pose: Pose, length_m: Number) -> None:
    """A yacht or motor boat; its category is ship."""
    width = length_m * 0.3
    outline = pose.points((u * length_m, v * width) for u, v in _HULL)
    cabin = pose.rect(-0.12 * length_m, 0, 0.36 * length_m, 0.56 * width)
    canvas.stand(
        "ship", outline, [(outline, paint((240, 240, 238), "water")), (cabin, paint((176, 186, 196), "water"))], height_m=1.6
    )


def vehicle(canvas: Canvas, rng: np.random.Generator, pose: Pose, on: str, truck: bool = False) -> None:
    length, width, height = (11.5, 2.6, 3.4) if truck else (rng.uniform(4.2, 5.0), 1.9, 1.5)
    outline = pose.rect(0, 0, length, width)
    colour = choose(rng, CAR_COLOURS)
    parts = [(outline, paint(colour, on))]
    if truck:
        parts = [(outline, paint((228, 228, 226), on)), (pose.rect(length / 2 - 1.3, 0, 2.2, 2.4), paint(colour, on))]
    elif canvas.px_per_m > 3:
        parts.append((pose.rect(-0.1 * length, 0, 0.62 * length, width * 0.84), paint((44, 50, 58), on)))
        parts.append((pose.rect(-0.12 * length, 0, 0.36 * length, width * 0.8), paint(colour, on)))
    canvas.stand("vehicle", outline, parts, height)


def train(canvas: Canvas, rng: np.random.Generator, pose: Pose, length_m: Number) -> None:
    """Pose is the middle of the train; the wagons share one colour scheme."""
    outline = pose.rect(0, 0, length_m, 3.0)
    body = choose(rng, ((196, 196, 198), (150, 52, 46), (60, 84, 128), (126, 96, 70), (78, 104, 84)))
    parts = [(outline, paint((70, 68, 66), "built-up"))]
    wagons = max(round(length_m / 22), 1)
    for i in range(wagons):
        u = -length_m / 2 + (i + 0.5) * length_m / wagons
        parts.append((pose.rect(u, 0, length_m / wagons - 1.6, 3.0), paint(body, "built-up")))
        parts.append((pose.rect(u, 0, length_m / wagons - 4, 1.0), paint((222, 222, 222), "built-up")))
    canvas.stand("train", outline, parts, height_m=4.0)


def storage_tank(canvas: Canvas, pose: Pose, radius_m: Number, colour: Colour) -> None:
    outline = pose.circle(0, 0, radius_m, 28)
    height = min(12.0, radius_m * 0.8)
    sx, sy = canvas.site.shadow
    reach = max(math.hypot(sx, sy), 1e-6)
    ox, oy = 0.14 * radius_m * sx / reach, 0.14 * radius_m * sy / reach
    roof = Material(colour, "built-up", grain=0.015)
    parts = [(outline, roof.tinted(0.78)), (pose.circle(0, 0, radius_m * 0.95, 28), roof)]
    parts.append((shift(pose.circle(0, 0, radius_m * 0.78, 28), ox * 0.5, oy * 0.5), roof.tinted(1.1)))
    parts.append((pose.circle(0, 0, radius_m * 0.12, 10), roof.tinted(0.7)))
    parts.append((pose.rect(radius_m * 0.5, 0, radius_m * 0.9, max(radius_m * 0.04, 0.6)), roof.tinted(0.7)))
    canvas.stand("storage tank", outline, parts, height)


def flat_building(
    canvas: Canvas, rng: np.random.Generator, pose: Pose, length_m: Number, width_m: Number, height_m: Number, ribs: bool = False
) -> None:
    """Parapet, flat or ribbed roof, a few air conditioners."""
    outline = pose.rect(0, 0, length_m, width_m)
    roof = Material(choose(rng, FLAT_ROOF_COLOURS), "built-up", grain=0.03)
    inner = roof.rows(pose.angle + math.pi / 2, 6.0, 0.06) if ribs else roof
    parts = [(outline, roof.tinted(1.12)), (pose.rect(0, 0, length_m - 1.2, width_m - 1.2), inner)]
    dark, white = roof.tinted(0.55), paint((212, 214, 216), "built-up")
    for _ in range(int(rng.integers(2, 6))):
        u, v = rng.uniform(-0.4, 0.4, 2) * (length_m, width_m)
        side = rng.uniform(1.8, 3.6)
        box = pose.rect(u, v, side * 1.4, side)
        parts += [(shift(box, *(0.9 * s for s in canvas.site.shadow)), dark), (box, white)]
    canvas.stand("building", outline, parts, height_m)


def ridge_house(
    canvas: Canvas, rng: np.random.Generator, pose: Pose, length_m: Number, width_m: Number, colour: Colour, hip: bool
) -> None:
    """A pitched roof along u: the slope towards the sun is bright, the other dark."""
    a, b = length_m / 2, width_m / 2
    end = a - b * 0.9 if hip else a
    outline = pose.rect(0, 0, length_m, width_m)
    ridge = pose.points([(-end, 0), (end, 0)])
    sx, sy = canvas.site.shadow
    reach = max(math.hypot(sx, sy), 1e-6)
    lit = -(sx * -math.sin(pose.angle) + sy * math.cos(pose.angle)) / reach  # how far the slope at +v faces the sun
    along = -(sx * math.cos(pose.angle) + sy * math.sin(pose.angle)) / reach
    tones = [round(1 + 0.22 * t, 1) for t in (lit, -lit, along, -along)]
    roof = Material(colour, "built-up", grain=0.03)
    p0, p1, p2, p3 = outline
    parts = [
        (outline, roof),
        ([p3, p2, ridge[1], ridge[0]], roof.tinted(tones[0])),
        ([p0, p1, ridge[1], ridge[0]], roof.tinted(tones[1])),
    ]
    if hip:
        parts += [([p1, p2, ridge[1]], roof.tinted(tones[2])), ([p0, p3, ridge[0]], roof.tinted(tones[3]))]
    if rng.random() < 0.5:
        parts.append((pose.rect(a * 0.4, b * 0.4, 1.0, 1.0), paint((90, 70, 62), "built-up")))
    canvas.stand("building", outline, parts, height_m=6.0)


def swimming_pool(canvas: Canvas, pose: Pose, length_m: Number) -> None:
    outline = pose.rect(0, 0, length_m, length_m * 0.5)
    deck = pose.rect(0, 0, length_m + 3, length_m * 0.5 + 3)
    canvas.mark(deck, paint((214, 206, 192), "built-up"))
    canvas.stand("swimming pool", outline, [(outline, Material((84, 190, 214), "water", grain=0.0, ripple=0.03))])


def greenhouse(canvas: Canvas, pose: Pose, length_m: Number, width_m: Number, colour: Colour) -> None:
    outline = pose.rect(0, 0, length_m, width_m)
    glass = Material(colour, "built-up", grain=0.04).rows(pose.angle, 4.0, 0.10)
    canvas.stand(
        "greenhouse", outline, [(outline, glass), (pose.rect(0, 0, length_m, width_m * 0.06), glass.tinted(1.15))], height_m=4.5
    )


def solar_panel(canvas: Canvas, pose: Pose, length_m: Number, width_m: Number) -> None:
    outline = pose.rect(0, 0, length_m, width_m)
    cells = Material((44, 58, 96), "built-up", grain=0.04)
    parts = [(outline, cells), (pose.rect(0, 0, length_m, 0.35), cells.tinted(1.6))]
    canvas.stand("solar panel", outline, parts, height_m=1.8)


def court(canvas: Canvas, pose: Pose, category: str, colour: Colour, surround: Colour) -> None:
    """A tennis (36.6 x 18.3 m with its run-off) or basketball court (30 x 17 m), lines at their true distances."""
    white = paint((238, 238, 236), "built-up")
    tennis = category == "tennis court"
    length, width = (36.6, 18.3) if tennis else (30.0, 17.0)
    inner_length, inner_width = (23.77, 10.97) if tennis else (28.0, 15.0)
    outline = pose.rect(0, 0, length, width)
    parts = [(outline, paint(surround, "built-up")), (pose.rect(0, 0, inner_length, inner_width), white)]
    parts.append((pose.rect(0, 0, inner_length - 0.5, inner_width - 0.5), paint(colour, "built-up")))
    line = max(0.25, 1 / canvas.px_per_m)
    if tennis:
        parts += [(pose.rect(0, side * 4.11, inner_length, line), white) for side in (-1, 1)]
        parts += [(pose.rect(side * 6.4, 0, line, 8.23), white) for side in (-1, 1)]
        parts += [(pose.rect(0, 0, 12.8, line), white), (pose.rect(0, 0, line, 12.8), paint((60, 60, 60), "built-up"))]
    else:
        parts += [(pose.rect(side * 11.1, 0, 5.8, 4.9), paint((176, 84, 60), "built-up")) for side in (-1, 1)]
        parts += [(pose.rect(0, 0, line, inner_width), white), (pose.circle(0, 0, 1.8, 14), white)]
    canvas.stand(category, outline, parts)


def soccer_field(canvas: Canvas, pose: Pose, length_m: Number, width_m: Number, grass: Material) -> None:
    outline = pose.rect(0, 0, length_m, width_m)
    white = paint((236, 240, 232), "grass")
    line = max(0.4, 1 / canvas.px_per_m)
    parts: list[tuple[Polygon, Material]] = []
    stripes = 12
    for i in range(stripes):
        u = -length_m / 2 + (i + 0.5) * length_m / stripes
        parts.append((pose.rect(u, 0, length_m / stripes, width_m), grass.tinted(1.12 if i % 2 else 0.94)))
    for u in (-length_m / 2 + 2, 0, length_m / 2 - 2):
        parts.append((pose.rect(u, 0, line, width_m - 4), white))
    parts += [(pose.rect(0, side * (width_m / 2 - 2), length_m - 4, line), white) for side in (-1, 1)]
    parts += [(pose.circle(0, 0, 9.15, 24), white), (pose.circle(0, 0, 9.15 - line, 24), grass)]
    for side in (-1, 1):
        box = side * (length_m / 2 - 2 - 8.25)
        parts += [
            (pose.rect(box, 0, 16.5, 40.3), white),
            (pose.rect(box + side * line / 2, 0, 16.5 - line, 40.3 - 2 * line), grass),
        ]
    canvas.stand("soccer field", outline, parts)


def wind_turbine(canvas: Canvas, pose: Pose, radius_m: Number) -> None:
    """Three blades around a hub, seen from above: a thin bar and a nacelle, and a long shadow."""
    hub = pose.circle(0, 0, radius_m * 0.14, 10)
    sx, sy = canvas.site.shadow
    tower = 1.8 * radius_m
    foot = pose.circle(0, 0, radius_m * 0.22, 14)
    canvas.mark(foot, paint((190, 182, 168), "bare land"))
    shadow = Pose(pose.x + sx * tower, pose.y + sy * tower)
    dark = paint((66, 74, 52), "grass")
    canvas.stroke([(pose.x, pose.y), (shadow.x, shadow.y)], 3.0, dark)
    for i in range(3):
        tip = shadow.at(0, 0, 2 * math.pi * i / 3 + pose.angle).point(radius_m, 0)
        canvas.stroke([(shadow.x, shadow.y), tip], 2.2, dark)
    white = paint((244, 244, 244), "built-up")
    outline = pose.rect(0, 0, radius_m * 0.22, 2 * radius_m)
    blades = pose.rect(0, 0, max(radius_m * 0.06, 1.5), 2 * radius_m)
    canvas.stand("wind turbine", outline, [(blades, white), (hub, white)])


def trees(
    canvas: Canvas,
    rng: np.random.Generator,
    places: Sequence[tuple[Number, Number]],
    radius_m: tuple[Number, Number],
    cover: str = "forest",
) -> None:
    """Round crowns, lighter towards the sun."""
    base = Material(canvas.ground["forest"].colour, cover, grain=0.12, crowns=0.25)
    looks = [(base.tinted(0.8 * tone), base.tinted(1.2 * tone)) for tone in (0.88, 1.0, 1.12)]
    sx, sy = canvas.site.shadow
    reach = max(math.hypot(sx, sy), 1e-6)
    radii = rng.uniform(*radius_m, len(places)).tolist()
    tones = rng.integers(0, 3, len(places)).tolist()
    for (x, y), r, tone in zip(places, radii, tones, strict=True):
        dark, light = looks[tone]
        lit_x, lit_y = x - 0.28 * r * sx / reach, y - 0.28 * r * sy / reach
        crown = [(x + r * c, y + r * s) for c, s in unit_circle(10)]
        lit = [(lit_x + 0.62 * r * c, lit_y + 0.62 * r * s) for c, s in unit_circle(8)]
        canvas.stand(None, crown, [(crown, dark), (lit, light)], min(1.5 * r, 7.9))
