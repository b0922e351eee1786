"""Prompts of the own protocol in the ten languages of RS-M-CLIP (arXiv:2410.23370).

Templates here and class names in `templates/class_names.csv` are ours, written by a machine and not checked by native speakers: a
number in another language measures them as well as the model. Where a case or an article would depend on the noun, the name stands
after a colon. The table holds the classes of EuroSAT, UC Merced, RESISC45 and AID.
"""

import csv
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from evaluation.prompts import RSVL, PromptSet, prompts_of_protocol
from rsvl_data.errors import OptionError
from rsvl_data.words import words_of_label

TEMPLATES = {
    "en": RSVL.templates,
    "pt": (
        "uma imagem de satélite de {}.",
        "uma fotografia aérea de {}.",
        "uma imagem de sensoriamento remoto de {}.",
        "uma vista de cima: {}.",
        "{}: visão de cima.",
    ),
    "es": (
        "una imagen de satélite de {}.",
        "una fotografía aérea de {}.",
        "una imagen de teledetección de {}.",
        "una vista desde arriba: {}.",
        "{}: visto desde arriba.",
    ),
    "fr": (
        "une image satellite : {}.",
        "une photo aérienne : {}.",
        "une image de télédétection : {}.",
        "une vue de dessus : {}.",
        "{}, vu du ciel.",
    ),
    "de": (
        "ein Satellitenbild: {}.",
        "ein Luftbild: {}.",
        "ein Fernerkundungsbild: {}.",
        "eine Ansicht von oben: {}.",
        "{}, von oben gesehen.",
    ),
    "nl": (
        "een satellietbeeld van {}.",
        "een luchtfoto van {}.",
        "een aardobservatiebeeld van {}.",
        "een bovenaanzicht van {}.",
        "{}, van bovenaf gezien.",
    ),
    "it": (
        "un'immagine satellitare: {}.",
        "una foto aerea: {}.",
        "un'immagine di telerilevamento: {}.",
        "una vista dall'alto: {}.",
        "{}, visto dall'alto.",
    ),
    "zh": ("{}的卫星图像。", "{}的航拍照片。", "{}的遥感图像。", "{}的俯视图。", "从空中看到的{}。"),
    "ko": ("{} 위성 영상.", "{} 항공 사진.", "{} 원격 탐사 영상.", "위에서 본 {}.", "하늘에서 내려다본 {}."),
    "ru": (
        "спутниковый снимок: {}.",
        "аэрофотоснимок: {}.",
        "снимок дистанционного зондирования: {}.",
        "вид сверху: {}.",
        "{}, вид с воздуха.",
    ),
}
LANGS = tuple(TEMPLATES)


def rsvl_prompts(lang: str) -> PromptSet:
    """The own prompts in a language. Raises OptionError for a language that is not among the ten.

    Asked for a class the table does not have, the set raises OptionError.
    """
    if lang == "en":
        return RSVL
    if lang not in TEMPLATES:
        raise OptionError(f"there are no prompts in {lang!r}; allowed: {', '.join(LANGS)}")
    return PromptSet(f"rsvl_{lang}", TEMPLATES[lang], class_name=partial(class_name, lang=lang))


def prompts_in(lang: str, protocol: str, labels: Sequence[str]) -> PromptSet:
    """`prompts_of_protocol` in English, `rsvl_prompts` in another language. Raises OptionError for other protocols' languages."""
    if lang == "en":
        return prompts_of_protocol(protocol, labels)
    if protocol != "rsvl":
        raise OptionError(f"the protocol {protocol!r} has English prompts only; use --protocol rsvl for {lang!r}")
    return rsvl_prompts(lang)


def class_name(label: str, lang: str) -> str:
    english = words_of_label(label)
    try:
        return class_names()[english][lang]
    except KeyError:
        raise OptionError(
            f"the class {english!r} has no name in {lang!r}; the classes of EuroSAT, UC Merced, RESISC45 and AID have. "
            "Use --lang en, or add a line to evaluation/templates/class_names.csv."
        ) from None


@cache
def class_names() -> dict[str, dict[str, str]]:
    """English words -> language -> name."""
    with open(Path(__file__).parent / "templates" / "class_names.csv", encoding="utf-8", newline="") as file:
        return {row["en"]: row for row in csv.DictReader(file)}
