"""Five sentences on a scene, each a different kind of true: what, how many, where, how large, in which surroundings.

Every number and place is read off the exact mask, regions and geo facts; a sentence that would need a guess is not written.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from rsvl_data.sample import Geo, Region
from rsvl_data.scenes.land_cover import LAND_COVER
from rsvl_data.scenes.refer import cell_name, centres, standouts
from rsvl_data.scenes.site import Site

COVER_NOUNS: dict[str, str] = {
    "water": "water",
    "forest": "tree cover",
    "cropland": "cropland",
    "grass": "grass",
    "bare land": "bare ground",
    "built-up": "built-up land",
    "road": "road surface",
    "beach": "sand",
    "snow": "snow",
}
_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")

_WHAT = (
    "An aerial view of {a}.",
    "A satellite image showing {a}.",
    "This overhead image shows {a}.",
    "{A}, seen from directly above.",
    "A remote sensing image of {a}.",
    "A top-down photograph of {a}.",
    "{A} as it appears from the air.",
)
_HOW_MANY = (
    "{Counts} can be seen in this view of {a}.",
    "In this picture of {a} one can count {counts}.",
    "This image of {a} contains {counts}.",
    "{Counts} {be} visible in the scene, which shows {a}.",
    "Seen from above, {the} comes with {counts}.",
)
_NONE = ("No {none} can be seen in this view of {a}.", "There are no {none} in this image of {a}.", "{The} shows no {none}.")
_OBJECT_PLACE = (
    "{Expression} lies in the {cell} of this {label} image.",
    "In this view of {a}, {expression} is in the {cell} of the frame.",
    "Look in the {cell} of this {label} scene to find {expression}.",
)
_COVER_PLACE = (
    "There is more {cover} in the {half} half of this {label} scene than in the {other} half.",
    "In this view of {a}, the {half} half holds more {cover} than the {other} half.",
)
_SHARE = (
    "{Cover} makes up about {percent} percent of this {label} scene.",
    "About {percent} percent of the image of {a} is {cover}.",
    "In this {label} scene, {cover} takes up about {percent} percent of the frame.",
)
_SPAN = (
    "The view of {a} spans about {span} by {span} meters on the ground.",
    "This {label} image covers a square of ground about {span} meters wide.",
)
_LENGTH = (
    "In this {label} image, {expression} is about {length} meters {long}.",
    "{Expression} in this {label} scene measures about {length} meters {across}.",
)
_SEASON = (
    "Taken in {season} under {sky}, this image of {a} consists mostly of {covers}.",
    "A {season} image of {a} under {sky}, dominated by {covers}.",
    "{The} was photographed in {season}; the ground is mostly {covers}.",
)
_SHADOW = (
    "{The} in {season}: under {sky}, {length} shadows fall to the {direction}.",
    "It is {season} in this {label} image, and {length} shadows point to the {direction}.",
)


@dataclass(frozen=True)
class Facts:
    """What may be said. `partial` are objects in view that are not regions; `upright` whether anything casts a shadow."""

    phrase: str
    label: str
    regions: Sequence[Region]
    partial: Sequence[Region]
    mask: UInt8[np.ndarray, "h w"]
    geo: Geo
    site: Site
    upright: bool

    @property
    def words(self) -> dict[str, str]:
        the = "the " + self.phrase.split(" ", 1)[1]
        return {"a": self.phrase, "A": _sentence(self.phrase), "the": the, "The": _sentence(the), "label": self.label}


def number_word(n: int) -> str:
    """In letters below one thousand: a sentence may begin with it."""
    if n < 20:
        return _UNITS[n]
    if n < 100:
        return _TENS[n // 10 - 2] + (f"-{_UNITS[n % 10]}" if n % 10 else "")
    return f"{_UNITS[n // 100]} hundred" + (f" and {number_word(n % 100)}" if n % 100 else "")


def plural(noun: str) -> str:
    return noun if noun.endswith("s") else f"{noun}s"


def listed(parts: Sequence[str], last: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def describe(rng: np.random.Generator, facts: Facts) -> list[str]:
    """Exactly five sentences, one of each kind, in a fixed order of kinds."""
    shares = np.bincount(facts.mask.ravel(), minlength=len(LAND_COVER)) / facts.mask.size
    return [
        _pick(rng, _WHAT).format(**facts.words),
        _how_many(rng, facts),
        _where(rng, facts, shares),
        _how_large(rng, facts, shares),
        _surroundings(rng, facts, shares),
    ]


def _pick(rng: np.random.Generator, templates: Sequence[str]) -> str:
    return templates[int(rng.integers(len(templates)))]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _how_many(rng: np.random.Generator, facts: Facts) -> str:
    """A kind of which part is cut off by the frame is counted as "at least"."""
    cut = {r.category for r in facts.partial}
    counts = Counter(r.category for r in facts.regions).most_common(3)
    if not counts:
        absent = [plural(c) for c in ("building", "vehicle", "ship", "airplane", "bridge") if c not in cut]
        return _pick(rng, _NONE).format(none=listed(absent[:3], "or"), **facts.words)
    parts = [f"{'at least ' if c in cut else ''}{number_word(n)} {c if n == 1 else plural(c)}" for c, n in counts]
    text = listed(parts)
    be = "is" if len(counts) == 1 and counts[0][1] == 1 else "are"
    return _pick(rng, _HOW_MANY).format(counts=text, Counts=_sentence(text), be=be, **facts.words)


def _where(rng: np.random.Generator, facts: Facts, shares: Float[np.ndarray, " c"]) -> str:
    size_px = facts.mask.shape[0]
    found = _named_object(rng, facts)
    if found is not None and rng.random() < 0.75:
        expression, i = found
        x, y = centres([facts.regions[i]])[0].tolist()
        return _pick(rng, _OBJECT_PLACE).format(
            expression=expression, Expression=_sentence(expression), cell=cell_name(x, y, size_px), **facts.words
        )
    return _cover_place(rng, facts, shares)


def _cover_place(rng: np.random.Generator, facts: Facts, shares: Float[np.ndarray, " c"]) -> str:
    """The class and the cut of the frame in two with the clearest difference."""
    half = facts.mask.shape[0] // 2
    best = (-1.0, "", "", "")
    for index in np.flatnonzero(shares > 0.02).tolist():
        here = facts.mask == index
        for name, other, first, second in (
            ("left", "right", here[:, :half], here[:, half:]),
            ("upper", "lower", here[:half], here[half:]),
        ):
            one, two = float(first.mean()), float(second.mean())
            names = (name, other) if one > two else (other, name)
            best = max(best, (abs(one - two), *names, LAND_COVER[index]))
    _, name, other, cover = best
    if best[0] < 0.02:
        main = COVER_NOUNS[LAND_COVER[int(shares.argmax())]]
        return f"The {main} is spread evenly over all halves of this {facts.label} image: left, right, upper and lower."
    return _pick(rng, _COVER_PLACE).format(half=name, other=other, cover=COVER_NOUNS[cover], **facts.words)


def _how_large(rng: np.random.Generator, facts: Facts, shares: Float[np.ndarray, " c"]) -> str:
    assert facts.geo.gsd_m is not None
    kind = rng.random()
    found = _named_object(rng, facts)
    if kind < 0.35 and found is not None and _whole(facts.regions[found[1]], facts.mask.shape[0]):
        expression, i = found
        length, width = (side * facts.geo.gsd_m for side in sides_px(facts.regions[i]))
        long, across = ("long", "in length") if length > 1.3 * width else ("wide", "across")
        text = _pick(rng, _LENGTH)
        return text.format(
            expression=expression, Expression=_sentence(expression), length=round(length), long=long, across=across, **facts.words
        )
    if kind < 0.55:
        span = facts.geo.gsd_m * facts.mask.shape[0]
        return _pick(rng, _SPAN).format(span=round(span) if span < 1000 else 10 * round(span / 10), **facts.words)
    main = np.flatnonzero(shares >= 0.1).tolist() or [int(shares.argmax())]
    index = main[int(rng.integers(len(main)))]
    noun = COVER_NOUNS[LAND_COVER[index]]
    return _pick(rng, _SHARE).format(cover=noun, Cover=_sentence(noun), percent=round(100 * float(shares[index])), **facts.words)


def _surroundings(rng: np.random.Generator, facts: Facts, shares: Float[np.ndarray, " c"]) -> str:
    site = facts.site
    sky = "a hazy sky" if site.haze > 0.15 else "a slightly hazy sky" if site.haze > 0 else "a clear sky"
    if facts.upright and rng.random() < 0.4:
        bearing = np.degrees(np.arctan2(site.shadow[0], -site.shadow[1]))
        length = "long" if site.sun_elevation_deg < 35 else "short" if site.sun_elevation_deg > 55 else "medium-length"
        direction = _COMPASS[round(bearing / 45) % 8]
        return _pick(rng, _SHADOW).format(season=site.season, sky=sky, direction=direction, length=length, **facts.words)
    order = np.argsort(-shares)
    main = order[: int(np.searchsorted(np.cumsum(shares[order]), 0.6)) + 1][:3]  # the fewest classes with most of the ground
    covers = listed([COVER_NOUNS[LAND_COVER[i]] for i in main])
    text = _pick(rng, _SEASON).format(season=site.season, sky=sky, covers=covers, **facts.words)
    return text.replace("A autumn", "An autumn")


def _named_object(rng: np.random.Generator, facts: Facts) -> tuple[str, int] | None:
    """Rather a landmark than one car among many."""
    names = standouts(facts.regions, facts.partial)
    landmarks = [n for n in names if n[0] != "the largest vehicle"] or names
    return landmarks[int(rng.integers(len(landmarks)))] if landmarks else None


def _whole(region: Region, size_px: int) -> bool:
    x0, y0, x1, y1 = region.bbox
    return x0 > 0 and y0 > 0 and x1 < size_px and y1 < size_px


def sides_px(region: Region) -> tuple[float, float]:
    """The long and the short side of the smallest rectangle around the polygon."""
    assert region.polygon is not None
    corners = np.array(region.polygon)
    edges = np.diff(corners, axis=0, append=corners[:1])
    turns = np.arctan2(edges[:, 1], edges[:, 0])
    along = np.ptp(corners @ np.stack([np.cos(turns), np.sin(turns)]), axis=0)
    across = np.ptp(corners @ np.stack([-np.sin(turns), np.cos(turns)]), axis=0)
    best = int(np.argmin(along * across))
    return float(max(along[best], across[best])), float(min(along[best], across[best]))
