"""Random colours follow the law of torchvision's ColorJitter with the ranges of FarSLIP's second stage."""

import random
from collections import defaultdict

import pytest
import torch
from torchvision.transforms import ColorJitter

from rsvl_data import colour_jitter
from rsvl_data.colour_jitter import ColourJitter

PIXELS = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None].repeat(1, 4, 4)
KINDS = ("brightness", "contrast", "saturation", "hue")


@pytest.fixture
def drawn(monkeypatch) -> dict[str, list[float]]:
    """What each change was called with, by its name; "order" has the names as they came."""
    seen = defaultdict(list)
    for kind in KINDS:

        def change(image, amount, kind=kind):
            seen[kind].append(amount)
            seen["order"].append(kind)
            return image

        monkeypatch.setattr(colour_jitter.tvf, f"adjust_{kind}", change)
    return seen


def test_ranges_are_those_of_torchvision_at_the_released_strength(drawn):
    """Section 3.4 of the reference: brightness 0.4, contrast 0.4, saturation 0.2, hue 0.1; p 0.8, and grey 0.2."""
    rng, released = random.Random(0), ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    for _ in range(3000):
        ColourJitter().apply(PIXELS, rng)
    for kind in KINDS:
        low, high = getattr(released, kind)
        amounts = torch.tensor(drawn[kind])
        assert len(amounts) / 3000 == pytest.approx(0.8, abs=0.03)
        assert low <= amounts.min() <= low + 0.02 * (high - low) and high - 0.02 * (high - low) <= amounts.max() <= high
        assert amounts.mean().item() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert (ColourJitter().share, ColourJitter().grey_share) == (0.8, 0.2)


def test_every_order_comes(drawn):
    rng = random.Random(0)
    for _ in range(400):
        ColourJitter(share=1).apply(PIXELS, rng)
    orders = {tuple(drawn["order"][start : start + 4]) for start in range(0, 1600, 4)}
    assert len(orders) == 24 and all(set(order) == set(KINDS) for order in orders)


@pytest.mark.parametrize("kind", KINDS)
def test_each_strength_changes_colours_by_itself(kind):
    still = dict.fromkeys(KINDS, 0.0)
    pixels = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    furthest = []
    for changed in ({kind: 0.4}, {}):
        jitter, rng = ColourJitter(**{**still, **changed}, share=1, grey_share=0), random.Random(0)
        furthest.append(max((jitter.apply(pixels, rng).int() - pixels.int()).abs().max() for _ in range(20)))
    assert furthest[0] > 20 and furthest[1] <= 8  # hue, saturation and value are rounded on the way
