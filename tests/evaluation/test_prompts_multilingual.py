"""Prompts in ten languages: complete, in the right script, and never one name for two classes of a dataset."""

import re
import unicodedata

import pytest

from evaluation.prompts import EUROSAT_CLASS_NAMES, RESISC45_CLASS_NAMES, RSVL
from evaluation.prompts_multilingual import LANGS, TEMPLATES, class_names, prompts_in, rsvl_prompts
from rsvl_data.errors import OptionError
from rsvl_data.words import words_of_label

UCM = (
    "agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway golfcourse harbor intersection "
    "mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential storagetanks tenniscourt"
).split()
AID = (
    "Airport BareLand BaseballField Beach Bridge Center Church Commercial DenseResidential Desert Farmland Forest Industrial Meadow "
    "MediumResidential Mountain Park Parking Playground Pond Port RailwayStation Resort River School SparseResidential Square "
    "Stadium StorageTanks Viaduct"
).split()
DATASETS = {"eurosat": tuple(EUROSAT_CLASS_NAMES), "resisc45": RESISC45_CLASS_NAMES, "ucm": UCM, "aid": AID}
SCRIPTS = {"zh": "CJK", "ko": "HANGUL", "ru": "CYRILLIC"}


def test_the_ten_languages_of_rs_m_clip():
    assert sorted(LANGS) == sorted("en pt es fr de nl it zh ko ru".split())
    assert rsvl_prompts("en") is RSVL and prompts_in("en", "rsvl", []) is RSVL
    assert all(len(set(templates)) == len(RSVL.templates) for templates in TEMPLATES.values())


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_class_has_a_name_of_its_own(dataset, lang):
    prompts = rsvl_prompts(lang)
    names = [prompts.class_name(label) for label in DATASETS[dataset]]
    assert len(set(names)) == len(names) == len(DATASETS[dataset])
    assert all(len(prompts.prompts(label)) == 5 for label in DATASETS[dataset])


@pytest.mark.parametrize("lang", [lang for lang in LANGS if lang != "en"])
def test_names_and_templates_are_in_the_script_of_their_language(lang):
    script = SCRIPTS.get(lang, "LATIN")
    for text in [*(row[lang] for row in class_names().values()), *TEMPLATES[lang]]:
        letters = [unicodedata.name(character) for character in text if character.isalpha()]
        assert letters and all(name.startswith(script) for name in letters), text
        assert text == unicodedata.normalize("NFC", text).strip() and not re.search("  ", text)


def test_a_name_is_translated_once():
    """The same English words never get two names; equal names are synonyms in English too."""
    assert len(class_names()) == len({words_of_label(english) for english in class_names()})
    assert {row["en"] for row in class_names().values()} == {
        words_of_label(label) for labels in DATASETS.values() for label in labels
    }


def test_a_prompt():
    assert rsvl_prompts("de").prompts("golf_course")[0] == "ein Satellitenbild: Golfplatz."
    assert rsvl_prompts("zh").prompts("GolfCourse")[0] == "高尔夫球场的卫星图像。"


def test_what_has_no_prompts():
    with pytest.raises(OptionError, match="no prompts in 'eo'; allowed: en, pt, es, fr, de, nl, it, zh, ko, ru"):
        rsvl_prompts("eo")
    with pytest.raises(OptionError, match="the class 'space port' has no name in 'fr'"):
        rsvl_prompts("fr").prompts("SpacePort")
    with pytest.raises(OptionError, match="'clip_benchmark' has English prompts only"):
        prompts_in("pt", "clip_benchmark", [])
