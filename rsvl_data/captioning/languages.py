"""Whether a caption is written in the language asked for, by its script and its commonest words.

Enough to notice a model that answers in another language; no language identification (lingua, fastText do that): only the languages below
are told apart, and a text without any common word, such as a list of nouns, passes in the right script.
"""

import re
import unicodedata
from collections import Counter

_STOPWORDS = {
    "en": "the a an of and in on with is are to at by from that this it its as near some there which has have between along their several",
    "de": "der die das ein eine einen einer einem und mit auf den dem des ist sind von im zu am neben sich es wird zwischen nicht einige",
    "fr": "le la les un une des et de du dans sur avec est sont au aux par qui il à en près entre plusieurs ce cette se d l",
    "es": "el la los las un una unos unas y de del en con es son al por que se junto entre hay varios varias su",
    "pt": "o a os as um uma uns umas e de do da dos das em no na nos nas com é são ao por que se entre há vários várias ao lado sobre",
    "it": "il lo la i gli le un una uno e di del della dei degli delle in nel nella con è sono al alla per che si tra ci sono alcuni",
    "nl": "de het een en van in op met is zijn aan bij door dat dit er naast tussen te om langs enkele veel uit",
}
_SCRIPT = {
    "zh": "HAN",
    "ja": "KANA",
    "ko": "HANGUL",
    "ru": "CYRILLIC",
    "ar": "ARABIC",
    "hi": "DEVANAGARI",
    **dict.fromkeys(_STOPWORDS, "LATIN"),
}
KNOWN_LANGUAGES = tuple(_SCRIPT)
UNSPACED_LANGUAGES = ("zh", "ja")
_WORDS = {language: frozenset(words.split()) for language, words in _STOPWORDS.items()}


def is_written_in(text: str, lang: str) -> bool:
    """`lang` is one of `KNOWN_LANGUAGES`. Needs most letters in its script; between Latin languages, no other may have more of its words.

    Japanese is told from Chinese by its kana. Raises ValueError for another language.
    """
    if lang not in _SCRIPT:
        raise ValueError(f"{lang!r} cannot be checked; known are {', '.join(KNOWN_LANGUAGES)}")
    scripts = Counter(_script(character) for character in text if character.isalpha())
    total = scripts.total()
    if total == 0:
        return False
    if lang == "ja":
        return scripts["KANA"] > 0 and scripts["KANA"] + scripts["HAN"] > total / 2
    if lang == "zh":
        return scripts["HAN"] > total / 2 and scripts["KANA"] <= 0.1 * total
    if scripts[_SCRIPT[lang]] <= total / 2:
        return False
    return _SCRIPT[lang] != "LATIN" or _fits_latin(text, lang)


def _fits_latin(text: str, lang: str) -> bool:
    words = re.findall(r"[^\W\d_]+", text.casefold())
    hits = {language: sum(word in common for word in words) for language, common in _WORDS.items()}
    return hits[lang] == max(hits.values())


def _script(character: str) -> str:
    """The first word of the character's Unicode name, with the names of Han and kana made plain."""
    first = unicodedata.name(character, "OTHER").split()[0]
    return {"CJK": "HAN", "HIRAGANA": "KANA", "KATAKANA": "KANA"}.get(first, first)
