"""The drawing board of a scene: ground first, then the shadows of all that stands on it, then the things themselves.

Everything is given in metres and drawn at twice the image size or more, so a scene is the same place at any size.
Three layers of bytes are kept: the material of a pixel, whether it lies in shadow, and which object it belongs to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw

from rsvl_data.scenes.geometry import Number, Point, Polygon, polygon_of, shift, sweep
from rsvl_data.scenes.land_cover import Material
from rsvl_data.scenes.site import Site

PLAN_PX = 128  # the plan answers "what is here" while a scene is laid out; its size is fixed, so the layout is too
OCCUPIED = 255
MAX_OBJECTS = 255
PLANTED_SHADOW = 0.9  # trees are about as high as wide; a longer shadow hides too much ground


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground. With a `category` it is an object of the scene, else only decoration."""

    category: str | None
    outline: Polygon
    parts: list[tuple[Polygon, Material]]
    height_m: Number = 0.0


@dataclass
class Canvas:
    size_px: int
    extent_m: float
    site: Site
    ground: dict[str, Material]
    palette: list[Material] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    relief: Float[np.ndarray, "k k"] | None = None
    relief_m: float = 0.0

    def __post_init__(self) -> None:
        self.factor = 2 if self.size_px >= 160 else 4
        self.px_per_m = self.size_px * self.factor / self.extent_m
        side = self.size_px * self.factor
        self.material, self.shadow, self.ids, self.plan = (Image.new("L", (n, n)) for n in (side, side, side, PLAN_PX))
        self._draw, self._draw_shadow, self._draw_id, self._draw_plan = (
            ImageDraw.Draw(layer) for layer in (self.material, self.shadow, self.ids, self.plan)
        )
        self._numbers: dict[Material, int] = {}

    def number(self, material: Material) -> int:
        """The material's index in `palette`, which it joins when it is new."""
        found = self._numbers.get(material)
        if found is None:
            found = self._numbers[material] = len(self.palette)
            assert found < OCCUPIED, "a scene may use 255 materials: round colours before making them"
            self.palette.append(material)
        return found

    def fill(self, material: Material) -> None:
        index = self.number(material)
        self.material.paste(index, (0, 0, *self.material.size))
        self.plan.paste(index, (0, 0, PLAN_PX, PLAN_PX))

    def paint(self, polygon: Sequence[Point], material: Material) -> None:
        """Ground: later paint covers earlier paint."""
        index, scale, plan_scale = self.number(material), self.px_per_m, PLAN_PX / self.extent_m
        self._draw.polygon([c * scale - 0.5 for point in polygon for c in point], fill=index)
        self._draw_plan.polygon([c * plan_scale - 0.5 for point in polygon for c in point], fill=index)

    def stroke(self, line: Sequence[Point], width_m: Number, material: Material) -> None:
        """A band along a line; narrower than a pixel of the canvas it stays one pixel wide."""
        index, scale, plan_scale = self.number(material), self.px_per_m, PLAN_PX / self.extent_m
        width = max(round(width_m * scale), 1)
        joint = "curve" if width > 3 and len(line) > 2 else None
        self._draw.line([c * scale - 0.5 for point in line for c in point], index, width, joint)
        if width_m * plan_scale > 0.7:
            self._draw_plan.line([c * plan_scale - 0.5 for point in line for c in point], index, round(width_m * plan_scale))

    def mark(self, polygon: Sequence[Point], material: Material) -> None:
        """Paint too small to matter to the plan: road markings, lines of a court."""
        scale = self.px_per_m
        self._draw.polygon([c * scale - 0.5 for point in polygon for c in point], fill=self.number(material))

    def paint_field(self, values: Float[np.ndarray, "k k"], level: Number, material: Material) -> None:
        """Paint wherever a coarse field over the frame is above `level`."""
        lift = np.clip((values - level) * 255 / max(float(np.ptp(values)), 1e-9) + 127.5, 0, 255).astype(np.uint8)
        threshold = [0] * 128 + [255] * 128
        for layer, shrink in ((self.material, 2), (self.plan, 1)):
            side = layer.width // shrink  # half the canvas is fine enough for a natural edge, and four times as fast
            where = Image.fromarray(lift).resize((side, side), Image.Resampling.BILINEAR).point(threshold)
            layer.paste(self.number(material), (0, 0, *layer.size), where.resize(layer.size, Image.Resampling.NEAREST))

    def reserve(self, polygon: Sequence[Point]) -> None:
        """Nothing is to be scattered here."""
        scale = PLAN_PX / self.extent_m
        self._draw_plan.polygon([c * scale - 0.5 for point in polygon for c in point], fill=OCCUPIED)

    def stand(
        self, category: str | None, outline: Polygon, parts: Iterable[tuple[Polygon, Material]], height_m: Number = 0.0
    ) -> None:
        """Put a thing on the ground; `parts` are drawn in turn, when all ground and all shadows are there."""
        if category is not None:
            self.reserve(outline)
        self.things.append(Thing(category, outline, list(parts), height_m))

    def free(self, xy: Float[np.ndarray, "n 2"], radius_m: Number, covers: Sequence[str]) -> Bool[np.ndarray, " n"]:
        """Which points have only the named covers, and no thing, within `radius_m`. Points outside the frame are not free."""
        good = np.zeros(256, dtype=bool)
        good[: len(self.palette)] = [m.cover in covers for m in self.palette]
        plan = good[np.asarray(self.plan)]
        ring = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7)])
        cells = ((xy[:, None, :] + radius_m * ring) * (PLAN_PX / self.extent_m)).astype(int)  # [n, 9, 2]
        inside = ((xy >= 0) & (xy < self.extent_m)).all(1)
        cells = np.clip(cells, 0, PLAN_PX - 1)
        return inside & plan[cells[..., 1], cells[..., 0]].all(1)

    def scatter(self, rng: np.random.Generator, tries: int, radius_m: Number, covers: Sequence[str]) -> list[Point]:
        """Random places, free for `radius_m` around, two radii apart: of places too near to each other only the first is kept."""
        xy = rng.uniform(0, self.extent_m, (tries, 2))
        xy = xy[self.free(xy, radius_m, covers)]
        near = ((xy[:, None] - xy) ** 2).sum(2) < 4 * radius_m**2
        return polygon_of(xy[~np.tril(near, -1).any(1)])

    def finish(self) -> list[int]:
        """Draw shadows and things. Returns for each thing its number in the object layer, 0 for decoration."""
        self._cast_shadows()
        numbers, objects = [], 0
        scale = self.px_per_m
        for thing in self.things:
            outline = [c * scale - 0.5 for point in thing.outline for c in point]
            for polygon, material in thing.parts:
                self._draw.polygon([c * scale - 0.5 for point in polygon for c in point], fill=self.number(material))
            if thing.category is not None:
                objects += 1
                assert objects <= MAX_OBJECTS, f"a scene may hold {MAX_OBJECTS} objects"
            number = objects if thing.category is not None else 0
            self._draw_id.polygon(outline, fill=number)
            if thing.parts:
                self._draw_shadow.polygon(outline, fill=0)
            numbers.append(number)
        return numbers

    def _cast_shadows(self) -> None:
        scale = self.px_per_m
        for thing in self.things:
            if thing.height_m <= 0:
                continue
            dx, dy = (thing.height_m * s for s in self.site.shadow)
            flat = len(thing.outline) > 4 and thing.height_m < 8  # small and not always convex: its own shape, shifted
            swept = shift(thing.outline, dx, dy) if flat else sweep(thing.outline, dx, dy)
            self._draw_shadow.polygon([c * scale - 0.5 for point in swept for c in point], fill=255)
