"""Languages and captions of the batches."""

import random
from collections import Counter

import pytest

from rsvl_data.caption_draw import LanguageDraw, draw_caption
from rsvl_data.errors import DataError, OptionError
from rsvl_data.sample import Caption

CAPTIONS = [
    *(Caption(text=f"sentence {number}") for number in range(6)),
    Caption(text="frase", lang="es", kind="translation"),
    Caption(text="фраза", lang="ru", kind="translation"),
]
NUM_DRAWS = 4000


def shares(languages: LanguageDraw | None, captions=CAPTIONS, kinds=None) -> dict[str, float]:
    rng = random.Random(0)
    drawn = Counter(draw_caption(captions, kinds, None, languages, rng).lang for _ in range(NUM_DRAWS))
    return {lang: count / NUM_DRAWS for lang, count in drawn.items()}


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        (None, {"en": 6 / 8, "es": 1 / 8, "ru": 1 / 8}),
        (LanguageDraw(("en", "es", "ru", "zh")), {"en": 1 / 3, "es": 1 / 3, "ru": 1 / 3}),
        (LanguageDraw(("en", "es", "ru"), 0.6), {"en": 0.6, "es": 0.2, "ru": 0.2}),
        (LanguageDraw(("en", "ru"), 0.0), {"ru": 1.0}),
        (LanguageDraw(("en", "es"), 1.0), {"en": 1.0}),
        (LanguageDraw(("es", "ru")), {"es": 0.5, "ru": 0.5}),
        (LanguageDraw(("en", "zh"), 0.1), {"en": 1.0}),
    ],
)
def test_how_often_a_language_is_drawn(languages, expected):
    assert shares(languages) == pytest.approx(expected, abs=0.03)


def test_languages_among_the_kinds_that_are_asked_for():
    assert set(shares(LanguageDraw(("en", "es", "ru")), kinds=("translation",))) == {"es", "ru"}


def test_every_caption_of_a_language_is_drawn():
    rng = random.Random(0)
    assert len({draw_caption(CAPTIONS, None, None, LanguageDraw(("en", "es")), rng).text for _ in range(200)}) == 7


def test_a_sample_in_none_of_the_languages():
    with pytest.raises(DataError, match=r"no caption of any kind in ko or zh; it has human \(en\), translation \(es\)"):
        draw_caption(CAPTIONS, None, None, LanguageDraw(("ko", "zh")), random.Random(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "give one or more"),
        ((("en", "en"),), "each once"),
        ((("en", "es"), 1.5), "share of English is 1.5"),
        ((("es", "ru"), 0.5), "languages that are English and others"),
        ((("en",), 0.5), "English and others"),
    ],
)
def test_draws_that_make_no_sense(arguments, message):
    with pytest.raises(OptionError, match=message):
        LanguageDraw(*arguments)
