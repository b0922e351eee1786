import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsvl_data.captions.layout import (
    Frame,
    are_in_a_row,
    are_neighbours,
    cell,
    direction,
    half_of_most,
    is_north_up,
    is_spread,
    is_surrounded,
    place_of_group,
    sides_px,
    touches_border,
)
from rsvl_data.sample import Geo

FRAME = Frame(300, 300)


def box(x, y, width=10, height=10):
    """Around a middle."""
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


@pytest.mark.parametrize(
    ("x", "y", "name"),
    [(10, 10, "upper left"), (150, 20, "top"), (150, 150, "centre"), (290, 150, "right"), (290, 290, "lower right")],
)
def test_cells(x, y, name):
    assert cell(box(x, y), FRAME) == name


def test_cells_of_a_wide_frame():
    assert cell(box(500, 20), Frame(900, 90)) == "top"
    assert cell((0, 0, 900, 90), Frame(900, 90)) == "centre"


def test_groups():
    assert place_of_group([box(20, 20), box(80, 60)], FRAME) == "upper left"
    assert place_of_group([box(10, y) for y in (20, 120, 280)], FRAME) == "left edge"
    assert place_of_group([box(x, 290) for x in (20, 120, 280)], FRAME) == "bottom edge"
    assert place_of_group([box(20, 20), box(120, 280)], FRAME) == "left half"
    assert place_of_group([box(20, 20), box(145, 280, 80)], FRAME) is None, "one reaches far over the middle"
    assert place_of_group([box(20, 20), box(280, 280)], FRAME) is None


def test_most_and_spread():
    left = [box(40, 20 + 40 * index) for index in range(6)]
    assert half_of_most([*left, box(250, 40)], FRAME) == "left half"
    assert half_of_most(left, FRAME) is None, "all are more than most"
    assert half_of_most([*left[:3], box(250, 40)], FRAME) is None, "four are too few"
    grid = [box(x, y) for x in (50, 100, 200, 250) for y in (50, 250)]
    assert is_spread(grid, FRAME) and not is_spread(grid[:7], FRAME) and not is_spread([box(20, 20)] * 12, FRAME)


def test_neighbours():
    assert are_neighbours(box(50, 50, 20, 20), box(75, 50, 20, 20))
    assert not are_neighbours(box(50, 50, 20, 20), box(90, 50, 20, 20))
    assert not are_neighbours(box(50, 50, 20, 20), box(52, 50, 10, 10)), "one within the other is not beside it"


@pytest.mark.parametrize(
    ("dx", "dy", "in_image", "on_the_map"),
    [
        (0, -50, "above", "north of"),
        (50, 0, "to the right of", "east of"),
        (-50, 0, "to the left of", "west of"),
        (40, 45, "below and to the right of", "southeast of"),
        (5, 5, None, None),
        (100, -20, "to the right of", "east of"),
    ],
)
def test_directions(dx, dy, in_image, on_the_map):
    of, seen_from = box(150 + dx, 150 + dy), box(150, 150)
    assert direction(of, seen_from, north_up=False) == in_image
    assert direction(of, seen_from, north_up=True) == on_the_map


@given(st.floats(0, 2 * math.pi), st.integers(3, 12), st.randoms())
def test_rows_are_found_at_any_angle(turn, count, rng):
    line = [box(500 + 15 * index * math.cos(turn), 500 + 15 * index * math.sin(turn)) for index in range(count)]
    rng.shuffle(line)
    assert are_in_a_row(line)
    middle = line[0]
    assert not are_in_a_row([*line[1:], tuple(v + 25 * (-math.sin(turn), math.cos(turn))[k % 2] for k, v in enumerate(middle))])


def test_no_rows():
    assert not are_in_a_row([box(10, 10), box(20, 10)]), "two are none"
    assert not are_in_a_row([box(10, 10), box(25, 10), box(200, 10)]), "uneven steps"
    assert not are_in_a_row([box(10, 10), box(60, 10), box(110, 10)]), "far apart"
    assert not are_in_a_row([box(10, 10), box(30, 10, 30, 30), box(60, 10)]), "of unlike size"
    assert not are_in_a_row([box(10, 10)] * 3), "on one spot"


def test_surrounded():
    around = [box(150 + 25 * dx, 150 + 25 * dy) for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    middle = box(150, 150, 30, 30)
    assert is_surrounded(middle, around)
    assert not is_surrounded(middle, around[:3]) and not is_surrounded(middle, [*around[:3], box(150, 120)])
    assert not is_surrounded(middle, [*around, box(150, 150)]), "one lies inside"


@given(st.floats(0, math.pi), st.floats(5, 50), st.floats(1, 4))
def test_sides_of_a_turned_rectangle(turn, short, ratio):
    corners = [(x * short * ratio / 2, y * short / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (0, 0.5))]
    turned = [(x * math.cos(turn) - y * math.sin(turn) + 100, x * math.sin(turn) + y * math.cos(turn)) for x, y in corners]
    assert sides_px(turned) == pytest.approx((short * ratio, short), rel=1e-6)


def test_border():
    assert touches_border((0, 5, 10, 15), FRAME) and touches_border((5, 5, 10, 300), FRAME)
    assert not touches_border((1, 1, 299, 299), FRAME)


@pytest.mark.parametrize(
    ("footprint", "answer"),
    [
        ([(10, 51), (11, 51), (11, 50), (10, 50)], True),
        ([(10, 50), (11, 50), (11, 51), (10, 51)], False),  # south is up
        ([(10, 50), (10, 51), (11, 51), (11, 50)], False),  # turned by a quarter
        ([(11, 51), (10, 51), (10, 50), (11, 50)], False),  # mirrored
        ([(179.5, -16), (-179.5, -16), (-179.5, -17), (179.5, -17)], True),  # over the 180th meridian
        ([(10, 51), (11, 51), (11, 50)], False),
        (None, False),
    ],
)
def test_north_is_up(footprint, answer):
    assert is_north_up(Geo(footprint=footprint)) is answer
    assert not is_north_up(None)
