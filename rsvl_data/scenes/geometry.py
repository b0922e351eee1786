"""Points and polygons on the ground, in metres: x to the right, y down, the origin in the upper left corner of the frame.

Plain lists of tuples: a scene draws hundreds of polygons of 4 to 20 corners, where numpy's cost per call would dominate.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

Number = float | int  # run-time type checks do not take an int for a float
Point = tuple[Number, Number]
Polygon = list[Point]


@dataclass(frozen=True)
class Pose:
    """A place and a direction: local u runs along `angle` (radians, from x towards y), local v to the right of it."""

    x: Number
    y: Number
    angle: Number = 0.0

    def point(self, u: Number, v: Number) -> Point:
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return self.x + u * cos - v * sin, self.y + u * sin + v * cos

    def points(self, local: Iterable[Point]) -> Polygon:
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return [(self.x + u * cos - v * sin, self.y + u * sin + v * cos) for u, v in local]

    def at(self, u: Number, v: Number, turn: Number = 0.0) -> "Pose":
        """The pose at local (u, v), turned by `turn` radians."""
        x, y = self.point(u, v)
        return Pose(x, y, self.angle + turn)

    def rect(self, u: Number, v: Number, length: Number, width: Number) -> Polygon:
        """A rectangle centred on (u, v): `length` along u, `width` along v."""
        a, b = length / 2, width / 2
        return self.points([(u - a, v - b), (u + a, v - b), (u + a, v + b), (u - a, v + b)])

    def circle(self, u: Number, v: Number, radius: Number, corners: int = 16) -> Polygon:
        return ellipse(*self.point(u, v), radius, radius, 0.0, corners)


@cache
def unit_circle(corners: int) -> tuple[Point, ...]:
    turns = [2 * math.pi * i / corners for i in range(corners)]
    return tuple((math.cos(t), math.sin(t)) for t in turns)


def ellipse(x: Number, y: Number, a: Number, b: Number, angle: Number = 0.0, corners: int = 16) -> Polygon:
    """Half axes `a` (along `angle`) and `b`."""
    return Pose(x, y, angle).points((a * c, b * s) for c, s in unit_circle(corners))


def polygon_of(xy: Float[np.ndarray, "n 2"]) -> Polygon:
    return list(zip(xy[:, 0].tolist(), xy[:, 1].tolist()))


def blob(rng: np.random.Generator, x: Number, y: Number, radius: Number, roughness: Number = 0.25, corners: int = 64) -> Polygon:
    """A closed, wavy outline around (x, y); `roughness` 0 is a circle, 0.5 is ragged."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    waves = np.arange(2, 9)
    size = rng.normal(0, 1.5 * roughness / waves**1.4)
    phase = rng.uniform(0, 2 * np.pi, waves.size)
    r = radius * np.maximum(1 + (size * np.sin(turn[:, None] * waves + phase)).sum(1), 0.25)
    return polygon_of(np.stack([x + r * np.cos(turn), y + r * np.sin(turn)], 1))


def wander(
    rng: np.random.Generator, length: Number, amplitude: Number, waves: Number = 2.0, points: int = 48, octaves: int = 3
) -> Polygon:
    """A smooth line along u from -length/2 to length/2 that swings by about `amplitude` in v, with about `waves` bends."""
    t = np.linspace(-0.5, 0.5, points)
    v = np.zeros(points)
    for octave in (1.0, 1.9, 3.7)[:octaves]:
        v += amplitude / octave**1.3 * np.sin(2 * np.pi * waves * octave * t + rng.uniform(0, 2 * np.pi)) * rng.uniform(0.6, 1.0)
    return polygon_of(np.stack([t * length, v], 1))


def ribbon(line: Sequence[Point], width: Number | Sequence[Number]) -> Polygon:
    """The band of `width` (one, or one a point) around a smooth line."""
    xy = np.asarray(line)
    step = np.gradient(xy, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], 1) / np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-9)[:, None]
    side = normal * (np.broadcast_to(np.asarray(width, dtype=float), len(xy))[:, None] / 2)
    return polygon_of(np.concatenate([xy + side, (xy - side)[::-1]]))


def shift(polygon: Sequence[Point], dx: Number, dy: Number) -> Polygon:
    return [(x + dx, y + dy) for x, y in polygon]


def sweep(polygon: Sequence[Point], dx: Number, dy: Number) -> Polygon:
    """What a convex polygon covers on its way by (dx, dy): the shadow of a prism."""
    sign = 1.0 if signed_area(polygon) > 0 else -1.0
    swept: Polygon = []
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]]):
        ahead = sign * ((y1 - y0) * dx - (x1 - x0) * dy) > 0
        mx, my = (dx, dy) if ahead else (0.0, 0.0)
        swept += [(x0 + mx, y0 + my), (x1 + mx, y1 + my)]
    return swept


def signed_area(polygon: Sequence[Point]) -> float:
    """Positive where the corners run from x towards y."""
    last_x, last_y = polygon[-1]
    total = 0.0
    for x, y in polygon:
        total += last_x * y - x * last_y
        last_x, last_y = x, y
    return total / 2


def clip_to_square(polygon: Sequence[Point], side: Number) -> Polygon:
    """The part of a polygon inside [0, side] x [0, side] (Sutherland-Hodgman); empty where nothing is left."""
    corners = list(polygon)
    if all(0 <= x <= side and 0 <= y <= side for x, y in corners):
        return corners
    for axis, bound, keep in ((0, 0.0, 1.0), (0, side, -1.0), (1, 0.0, 1.0), (1, side, -1.0)):
        clipped: Polygon = []
        for a, b in zip([*corners[-1:], *corners[:-1]], corners):
            da, db = keep * (a[axis] - bound), keep * (b[axis] - bound)
            if (da < 0) != (db < 0):
                t = da / (da - db)
                cut = [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])]
                cut[axis] = bound
                clipped.append((cut[0], cut[1]))
            if db >= 0:
                clipped.append(b)
        corners = clipped
    return corners
