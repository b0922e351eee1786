"""Laws of the procedural scenes: same seed same pixels, and no sentence, box or phrase that the exact mask denies."""

import re
import subprocess
import sys
from collections import Counter
from functools import cache

import numpy as np
import pytest

from rsvl_data.sample import Region
from rsvl_data.scenes import LAND_COVER, LAND_COVER_PALETTE, OBJECT_CATEGORIES, SCENE_TYPES, Scene, referents, render_scene
from rsvl_data.scenes.describe import COVER_NOUNS, number_word, plural
from rsvl_data.scenes.geometry import clip_to_square, signed_area, sweep
from rsvl_data.scenes.render import scene_type_of
from rsvl_data.scenes.site import season_of

NUMBERS = {number_word(n): n for n in range(300)}
COVERS = {noun: LAND_COVER.index(cover) for cover, noun in COVER_NOUNS.items()}
CASES = [(seed, i, 256 if i % 3 else 64) for seed in (0, 5) for i in range(2 * len(SCENE_TYPES))]


@cache
def scene(seed: int, index: int, size_px: int = 256) -> Scene:
    return render_scene(seed, index, size_px)


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request: pytest.FixtureRequest) -> Scene:
    return scene(*request.param)


def fingerprint(one: Scene) -> str:
    import hashlib

    words = "\n".join([*one.captions, one.label, one.geo.model_dump_json(), *(r.model_dump_json() for r in one.regions)])
    return hashlib.sha256(one.image.tobytes() + one.mask.tobytes() + one.object_numbers.tobytes() + words.encode()).hexdigest()


def test_same_seed_same_scene_in_any_order_and_process():
    wanted = [5, 0, 17]
    here = [fingerprint(render_scene(3, i, 128)) for i in wanted]
    code = (
        "from tests.rsvl_data.test_scenes import fingerprint, render_scene\n"
        f"print(*[fingerprint(render_scene(3, i, 128)) for i in {wanted[::-1]}])"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert there[::-1] == here
    assert len(set(here)) == 3
    assert fingerprint(render_scene(4, 5, 128)) != here[0]


@pytest.mark.parametrize("scene_type", SCENE_TYPES)
def test_every_type_is_one_place_at_every_size(scene_type: str):
    small, large = (render_scene(1, 2, size, scene_type) for size in (64, 256))
    for one, size in ((small, 64), (large, 256)):
        assert one.image.shape == (size, size, 3) and one.image.dtype == np.uint8
        assert one.mask.shape == (size, size) and one.mask.dtype == np.uint8
        assert one.label == scene_type
    assert small.geo.gsd_m == pytest.approx(4 * large.geo.gsd_m)
    blocks = large.image.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(blocks - small.image).mean() < 14
    other = render_scene(1, 3, 256, scene_type).image.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(blocks - small.image).mean() < 0.7 * np.abs(blocks - other).mean()
    assert (large.mask[2::4, 2::4] == small.mask).mean() > 0.85


@pytest.mark.parametrize("size_px", [65, 200, 512])
def test_odd_and_large_sizes(size_px: int):
    one = render_scene(0, 0, size_px)
    assert one.image.shape == (size_px, size_px, 3) and one.mask.shape == one.object_numbers.shape == (size_px, size_px)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size_px": 32}, "size_px is 32; scenes are drawn from 64 to 512"),
        ({"size_px": 1024}, "size_px is 1024"),
        ({"scene_type": "airprot"}, "unknown scene type 'airprot'; known are airport"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        render_scene(0, 0, **arguments)


def test_vocabularies():
    assert len(SCENE_TYPES) >= 20 and len(OBJECT_CATEGORIES) >= 12
    assert len(LAND_COVER_PALETTE) == len(set(LAND_COVER_PALETTE)) == len(LAND_COVER)
    for names in (SCENE_TYPES, OBJECT_CATEGORIES, LAND_COVER):
        assert len(set(names)) == len(names) and all(name == name.lower() for name in names)


def test_types_are_balanced_over_any_stretch():
    n = len(SCENE_TYPES)
    counts = Counter(scene_type_of(9, i) for i in range(13, 13 + 10 * n))
    assert set(counts) == set(SCENE_TYPES) and max(counts.values()) - min(counts.values()) <= 2
    assert [scene_type_of(9, i) for i in range(n)] != [scene_type_of(9, i) for i in range(n, 2 * n)]


def test_every_category_and_class_occurs():
    categories = {r.category for case in CASES for r in scene(*case).regions}
    assert categories == set(OBJECT_CATEGORIES)
    classes = {int(c) for case in CASES for c in np.unique(scene(*case).mask)}
    assert classes == set(range(len(LAND_COVER)))


def test_regions_agree_with_their_masks(case: Scene):
    size = case.mask.shape[0]
    for i, region in enumerate(case.regions):
        x0, y0, x1, y1 = region.bbox
        assert 0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size
        xs, ys = zip(*region.polygon, strict=True)
        assert region.bbox == (min(xs), min(ys), max(xs), max(ys))
        assert OBJECT_CATEGORIES[region.category_id] == region.category
        where = case.region_mask(i)
        assert where.sum() == region.area_px > 0
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        assert rows[0] + 1 > y0 - 0.5 and columns[0] + 1 > x0 - 0.5 and rows[-1] < y1 + 0.5 and columns[-1] < x1 + 0.5
        assert region.area_px <= 1.15 * abs(signed_area(region.polygon)) + 0.8 * (x1 - x0 + y1 - y0) + 4


def test_land_cover_under_objects():
    expected = {
        "ship": {"water"},
        "swimming pool": {"water"},
        "building": {"built-up"},
        "storage tank": {"built-up"},
        "greenhouse": {"built-up"},
        "bridge": {"road"},
    }
    for one in (scene(*case) for case in CASES):
        for i, region in enumerate(one.regions):
            if region.category in expected:
                assert {LAND_COVER[c] for c in np.unique(one.mask[one.region_mask(i)])} <= expected[region.category] | {"forest"}


def test_captions_are_five_different_sentences(case: Scene):
    assert len(set(case.captions)) == 5
    for text in case.captions:
        assert text[0].isupper() and text.endswith(".") and len(text.split()) < 30
        assert "{" not in text and "  " not in text and not re.search(r"\b[Aa] [aeio]\w|\b[Aa]n [^aeiou ]", text)
        assert not re.search(r"(?<!-)\bone (airplanes|ships|vehicles|buildings)", text)
    assert case.label in case.captions[0]
    assert sum(case.label in text for text in case.captions) >= 4


def test_captions_are_varied():
    texts = Counter(re.sub(scene(*case).label, "", text) for case in CASES for text in scene(*case).captions)
    assert len(texts) > 3.2 * len(CASES)


def test_counts_in_captions(case: Scene):
    text = case.captions[1].lower()
    listed, cut = Counter(r.category for r in case.regions), {r.category for r in case.partial}
    if not listed:
        denied = [c for c in OBJECT_CATEGORIES if re.search(rf"\b{plural(c)}\b", text)]
        assert " no " in f" {text}" and denied and not cut & set(denied)
        return
    number = "|".join(sorted(NUMBERS, key=len, reverse=True))
    said = {c: m for c in OBJECT_CATEGORIES if (m := re.search(rf"(at least )?\b({number}) {c}s?\b", text))}
    assert len(said) == min(len(listed), 3)
    for category, match in said.items():
        n = NUMBERS[match[2]]
        assert n == listed[category]
        assert bool(match[1]) == (category in cut)
        assert match[0].endswith("s") == (n != 1)


def test_shares_halves_and_sizes_in_captions(case: Scene):
    size = case.mask.shape[0]
    checked = 0
    where, how_large = case.captions[2], case.captions[3]
    if match := re.search(r"(\d+) percent", how_large):
        noun = next(n for n in sorted(COVERS, key=len, reverse=True) if n in how_large.lower().replace(case.label, ""))
        assert abs((case.mask == COVERS[noun]).mean() * 100 - int(match[1])) <= 0.51
        checked += 1
    elif match := re.search(r"(?:spans about|about) (\d+)(?: by \d+)? meters (?:on the ground|wide)\.", how_large):
        assert ("ground" not in how_large) or abs(size * case.geo.gsd_m - int(match[1])) <= 5
        checked += 1
    if match := re.search(r"(left|right|upper|lower) half", where):
        noun = next(n for n in sorted(COVERS, key=len, reverse=True) if n in where.replace(case.label, ""))
        here = case.mask == COVERS[noun]
        halves = {
            "left": here[:, : size // 2],
            "right": here[:, size // 2 :],
            "upper": here[: size // 2],
            "lower": here[size // 2 :],
        }
        opposite = {"left": "right", "right": "left", "upper": "lower", "lower": "upper"}[match[1]]
        assert halves[match[1]].mean() > halves[opposite].mean()
        checked += 1
    assert checked or case.regions


def test_places_of_objects_in_captions():
    """Reads "the largest ship lies in the upper left" and looks there."""
    found = 0
    for one in (scene(*case) for case in CASES):
        text, third = one.captions[2], one.mask.shape[0] / 3
        cell = re.search(r"(?:in the|Look in the) ((?:upper|middle|lower) (?:left|middle|right)|center)", text)
        named = re.search(rf"[Tt]he (largest )?({'|'.join(OBJECT_CATEGORIES)})(?= lies| is|\.)", text)
        if cell is None or named is None:
            continue
        kin = [r for r in one.regions if r.category == named[2]]
        assert named[1] or len(kin) == 1
        x0, y0, x1, y1 = max(kin, key=lambda r: r.area_px).bbox
        row, _, column = cell[1].partition(" ") if cell[1] != "center" else ("middle", "", "middle")
        assert ("left", "middle", "right")[int((x0 + x1) / 2 / third)] == column
        assert ("upper", "middle", "lower")[int((y0 + y1) / 2 / third)] == row
        found += 1
    assert found >= 10


def test_main_covers_and_sky_in_captions(case: Scene):
    text = case.captions[4]
    if match := re.search(r"(?:consists mostly of|dominated by|is mostly) (.*)\.", text):
        named = [COVERS[noun] for noun in re.split(r", | and ", match[1])]
        shares = np.bincount(case.mask.ravel(), minlength=len(LAND_COVER)) / case.mask.size
        assert shares[named].sum() > 0.5
        assert min(shares[named]) >= np.delete(shares, named).max()
    else:
        assert re.search(r"shadows (fall|point) to the (north|south|east|west)", text)


def test_lengths_in_captions():
    """The largest or only object of a kind, measured again from its polygon: the widest distance between two corners bounds its length."""
    found = 0
    for one in (scene(*case) for case in CASES):
        match = re.search(
            r"[Tt]he (?:largest )?([a-z ]+?)(?: in this [a-z ]+)? (?:is|measures) about (\d+) meters (long|in length|wide|across)",
            one.captions[3],
        )
        if match and match[1] in OBJECT_CATEGORIES:
            biggest = max((r for r in one.regions if r.category == match[1]), key=lambda r: r.area_px)
            corners = np.array(biggest.polygon)
            diagonal = np.hypot(*(corners[:, None] - corners).reshape(-1, 2).T).max() * one.geo.gsd_m
            assert 0.7 * diagonal - 1 <= int(match[2]) <= diagonal + 1
            found += 1
    assert found >= 3


def test_seasons(case: Scene):
    year, month, _ = case.geo.acquired.split("T")[0].split("-")
    assert 2015 < int(year) < 2026
    assert season_of(int(month), case.geo.lat) == case.geo.season
    others = {"spring", "summer", "autumn", "winter"} - {case.geo.season}
    assert case.geo.season in case.captions[4]
    assert not any(re.search(rf"\b{name}\b", text) for name in others for text in case.captions)
    assert case.geo.platform == "procedural"


@pytest.mark.parametrize(
    ("month", "lat", "season"),
    [
        (1, 50, "winter"),
        (1, -30, "summer"),
        (4, 50, "spring"),
        (4, -30, "autumn"),
        (7, -30, "winter"),
        (12, 50, "winter"),
        (9, -1, "spring"),
    ],
)
def test_season_of(month: int, lat: float, season: str):
    assert season_of(month, lat) == season


def test_ground_sample_distance_is_in_range(case: Scene):
    full = case.geo.gsd_m * case.mask.shape[0] / 256
    assert 0.3 <= full <= 10


def test_referring_expressions_fit_one_object(case: Scene):
    for i, region in enumerate(case.regions):
        if region.caption is not None:
            assert region.category in region.caption
            assert referents(region.caption, case.regions, case.mask) == [i]
            assert referents(region.caption, [*case.regions, *case.partial], case.mask) == [i]


def test_referring_expressions_exist():
    spoken = [r.caption for case in CASES for r in scene(*case).regions if r.caption]
    assert len(spoken) > 2 * len(CASES)
    kinds = ("largest", "smallest", "leftmost", "topmost", "closest to", "in the", "only")
    assert all(any(kind in text for text in spoken) for kind in kinds)


def test_largest_and_leftmost_by_hand():
    for one in (scene(*case) for case in CASES):
        for region in one.regions:
            kin = [r for r in [*one.regions, *one.partial] if r.category == region.category and r is not region]
            if (region.caption or "").startswith("the largest"):
                assert all(r.area_px < region.area_px for r in kin)
            if (region.caption or "").startswith("the leftmost"):
                assert all(r.bbox[0] + r.bbox[2] > region.bbox[0] + region.bbox[2] for r in kin)


def square(x: float, y: float, side: float, category: str = "ship") -> Region:
    return Region(bbox=(x, y, x + side, y + side), category=category, area_px=side**2)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("the largest ship", [1]),
        ("the smallest ship", [0, 2]),
        ("the rightmost ship", [1]),
        ("the ship in the upper left", [0]),
        ("the ship in the center", []),
        ("the only bridge", [3]),
        ("the ship closest to the bridge", [2]),
        ("the ship closest to the water", [0]),
        ("the only ship", []),
        ("the fastest ship", []),
    ],
)
def test_referents(expression: str, found: list[int]):
    regions = [square(5, 5, 8), square(80, 5, 16), square(10, 70, 8), square(10, 85, 8, "bridge")]
    mask = np.full((100, 100), LAND_COVER.index("grass"), np.uint8)
    mask[:10, :30] = LAND_COVER.index("water")
    assert referents(expression, regions, mask) == found


@pytest.mark.parametrize(
    ("n", "word"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (42, "forty-two"),
        (100, "one hundred"),
        (229, "two hundred and twenty-nine"),
    ],
)
def test_number_word(n: int, word: str):
    assert number_word(n) == word


def test_clip_and_sweep():
    corners = [(-1.0, 2.0), (3.0, 2.0), (3.0, 4.0), (-1.0, 4.0)]
    assert abs(signed_area(clip_to_square(corners, 10.0))) == pytest.approx(6)
    assert clip_to_square([(-3.0, 0.0), (-1.0, 0.0), (-1.0, 1.0)], 10.0) == []
    assert abs(signed_area(sweep(corners, 2.0, 0.0))) == pytest.approx(12)
    assert abs(signed_area(sweep(corners[::-1], 1.0, 1.0))) == pytest.approx(8 + 4 + 2)
