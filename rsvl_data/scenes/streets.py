"""What layouts of several kinds share: where the middle is, streets, and the traffic on them."""

import math

import numpy as np

from rsvl_data.scenes import objects
from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.geometry import Number, Pose
from rsvl_data.scenes.land_cover import Material
from rsvl_data.scenes.objects import paint

WHITE, YELLOW = (228, 228, 224), (214, 178, 70)


def centre(canvas: Canvas, rng: np.random.Generator, spread: Number = 0.05, angle: Number | None = None) -> Pose:
    """The middle of the frame, a little off, facing anywhere or along `angle`."""
    half, wobble = canvas.extent_m / 2, canvas.extent_m * spread
    turn = float(rng.uniform(0, 2 * math.pi)) if angle is None else angle
    return Pose(half + float(rng.uniform(-wobble, wobble)), half + float(rng.uniform(-wobble, wobble)), turn)


def dashes(
    canvas: Canvas,
    pose: Pose,
    start: Number,
    stop: Number,
    v: Number,
    dash: Number,
    gap: Number,
    width: Number,
    material: Material,
) -> None:
    for u in np.arange(start, stop, dash + gap).tolist():
        canvas.mark(pose.rect(u + dash / 2, v, dash, width), material)


def street(canvas: Canvas, pose: Pose, length: Number, width: Number, asphalt: Material | None = None) -> None:
    """A straight two-way street along u with sidewalks and a dashed centre line."""
    canvas.paint(pose.rect(0, 0, length, width + 4), canvas.ground["built-up"])
    canvas.paint(pose.rect(0, 0, length, width), asphalt or canvas.ground["road"])
    dashes(canvas, pose, -length / 2, length / 2, 0, 3, 6, 0.25, paint(WHITE, "road"))


def drive(
    canvas: Canvas,
    rng: np.random.Generator,
    pose: Pose,
    length: Number,
    lanes: list[Number],
    spacing: Number,
    trucks: Number = 0.15,
) -> None:
    """Vehicles along u in the lanes at the given v; traffic keeps right."""
    for v in lanes:
        u = -length / 2 + rng.uniform(0, spacing)
        while u < length / 2:
            heading = math.pi if v < 0 else 0.0
            objects.vehicle(canvas, rng, pose.at(u, v, heading), "road", truck=bool(rng.random() < trucks))
            u += spacing * rng.uniform(0.5, 1.8) + 12


def inside(canvas: Canvas, pose: Pose, margin: Number = 0.0) -> bool:
    return -margin < pose.x < canvas.extent_m + margin and -margin < pose.y < canvas.extent_m + margin
