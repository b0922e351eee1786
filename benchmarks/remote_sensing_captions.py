"""Captions with the lengths of published remote-sensing ones, from a seed, for benchmarks of text towers and training steps.

CLIP's tokenizer gives RSITMD's test captions 12.5 tokens on average (median 12, 99th percentile 24, longest 30) and UCM-Captions' 14.1
(14, 23, 27). These have 15.7 (16, 30, 35); the longest of 16 has about 27, of 256 about 32.
"""

import random

_COUNTS = ("a", "two", "three", "several", "many", "some rows of")
_THINGS = (
    "buildings",
    "green trees",
    "white planes",
    "storage tanks",
    "ships",
    "cars",
    "tennis courts",
    "houses",
    "ponds",
    "bridges",
)
_PLACES = (
    "a river",
    "the parking lot",
    "a long runway",
    "the harbor",
    "bare land",
    "a wide road",
    "farmland",
    "the industrial area",
)
_RELATIONS = ("near", "beside", "on both sides of", "at the corner of", "scattered around", "next to")
_CLAUSES = (1, 1, 1, 2, 2, 2, 2, 3)


def captions(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [_caption(rng) for _ in range(count)]


def _caption(rng: random.Random) -> str:
    clauses = [
        f"{rng.choice(_COUNTS)} {rng.choice(_THINGS)} {rng.choice(_RELATIONS)} {rng.choice(_PLACES)}"
        for _ in range(rng.choice(_CLAUSES))
    ]
    return " and ".join(clauses)
