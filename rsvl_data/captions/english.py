"""The English that rule captions need: class names as nouns with their plural and article, numbers in words, lists.

Easy to get wrong, and tested: `aircraft` has no other plural and `farmland` none at all, `storage tanks` is one already; a `unit` is no
"an unit"; "dense residential" is no noun. A name in no table is a countable noun with a regular plural.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rsvl_data.words import words_of_label

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# Last words that have no plural and take no article.
_UNCOUNTABLE = frozenset(
    "agriculture aquaculture asphalt barren chaparral clutter concrete cropland debris fabric farmland forestry grass grassland heathland "
    "housing ice infrastructure land machinery mud parkland pasture pavement rangeland rubble sand scrub shrubland silt snow soil "
    "traffic tundra undergrowth vegetation water wasteland woodland".split()
)
_SAME_PLURAL = frozenset(
    "aircraft barracks crossroads headquarters hovercraft ironworks series species watercraft waterworks".split()
)
_IRREGULAR = {
    "child": "children",
    "foot": "feet",
    "gas": "gases",
    "leaf": "leaves",
    "man": "men",
    "person": "people",
    "quay": "quays",
    "wharf": "wharves",
    "woman": "women",
}
_SINGULAR = {many: one for one, many in _IRREGULAR.items()}
# Last words that only describe: the noun behind them is an area.
_ADJECTIVES = frozenset(
    "agricultural commercial educational industrial institutional mountainous recreational residential rural suburban urban".split()
)
# Class names of known data sets that are no noun phrase as they stand, or mean more than they say: (one, many).
_KNOWN = {
    "annual crop": ("field of annual crops", "annual crops"),  # EuroSAT
    "annual crops": ("field of annual crops", "annual crops"),
    "bareland": ("bare land", "bare land"),  # AID
    "built up": ("built-up area", "built-up areas"),
    "medium residential": ("medium-density residential area", "medium-density residential areas"),  # UC Merced
    "multi unit residential": ("multi-unit residential building", "multi-unit residential buildings"),
    "oil or gas facility": ("oil or gas facility", "oil or gas facilities"),  # FMoW
    "parking": ("parking lot", "parking lots"),  # AID
    "permanent crop": ("plantation of permanent crops", "permanent crops"),  # EuroSAT
    "permanent crops": ("plantation of permanent crops", "permanent crops"),
    "rail way": ("railway", "railways"),
    "rail way station": ("railway station", "railway stations"),
    "sea lake": ("sea or lake", "seas or lakes"),  # EuroSAT
    "single unit residential": ("single-unit residential building", "single-unit residential buildings"),
    "waste disposal": ("waste disposal site", "waste disposal sites"),
}
_END_MARKS = (".", "!", "?", "…", "。", "！", "？", "؟", "।")
_SILENT_H = ("heir", "honest", "honor", "honour", "hour")
_LIKE_YOU = re.compile(
    r"(?:eu|ewe|one\b|once\b|u(?:\b|bi|fo|k\b|ni(?![dmn])|ran|rin|sa\b|se|sg|su|ti|to))"
)  # "a unit", "a European city"
_SAID_WITH_VOWEL = re.compile(r"(?:8|11(?!\d)|18(?!\d)|[aefhilmnorsx](?:\b|\d))")  # "an 8 m", "an L-shaped", "an S2 image"


@dataclass(frozen=True)
class Noun:
    """`one` and `many` are equal for what cannot be counted; `is_plural` says how the class name itself stood."""

    one: str
    many: str
    countable: bool = True
    is_plural: bool = False

    @property
    def phrase(self) -> str:
        """As one would name it: "an airport", "storage tanks", "farmland"."""
        return self.many if self.is_plural or not self.countable else with_article(self.one)

    def counted(self, count: int) -> str:
        """ "one ship", "12 ships"; of what has no plural the areas are counted."""
        if not self.countable:
            return f"{number(count)} {'area' if count == 1 else 'areas'} of {self.one}"
        return f"{number(count)} {self.one if count == 1 else self.many}"

    def several(self, count: int) -> str:
        """The noun in the form that goes with `count`."""
        if not self.countable:
            return f"{'area' if count == 1 else 'areas'} of {self.one}"
        return self.one if count == 1 else self.many


@lru_cache(maxsize=65536)
def noun_of_label(label: str) -> Noun:
    """Raises ValueError for a label without a word."""
    words = words_of_label(label)
    if words in _KNOWN:
        one, many = _KNOWN[words]
        return Noun(one, many, countable=one != many)
    head, joint, rest = words.partition(" of ")
    if joint:  # "place of worship": the first noun takes the plural
        noun = noun_of_label(head)
        return Noun(f"{noun.one} of {rest}", f"{noun.many} of {rest}", noun.countable, noun.is_plural)
    first, joint, rest = words.partition(" or ")
    if joint:  # "lake or pond": both take the plural
        nouns = noun_of_label(first), noun_of_label(rest)
        one, many = (" or ".join(forms) for forms in zip(*((noun.one, noun.many) for noun in nouns)))
        return Noun(one, many, all(noun.countable for noun in nouns), all(noun.is_plural for noun in nouns))
    last = words.rpartition(" ")[2]
    if " and " in words or last in _UNCOUNTABLE:
        return Noun(words, words, countable=False)
    if last in _ADJECTIVES:
        return Noun(f"{words} area", f"{words} areas")
    if last in _SAME_PLURAL:
        return Noun(words, words)
    if _is_plural(last):
        return Noun(singular(words), words, is_plural=True)
    return Noun(words, plural(words))


def _is_plural(word: str) -> bool:
    return word in _SINGULAR or (
        len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) and word not in _IRREGULAR
    )


def plural(name: str) -> str:
    """Of the last word: "storage tank" -> "storage tanks". Names that are plurals already, or have none, stay."""
    before, space, last = name.rpartition(" ")
    if last in _UNCOUNTABLE or last in _SAME_PLURAL or _is_plural(last):
        return name
    if last in _IRREGULAR:
        return f"{before}{space}{_IRREGULAR[last]}"
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return f"{name}es"
    if last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        return f"{name[:-1]}ies"
    return f"{name}s"


def singular(name: str) -> str:
    """Of a plural by `plural`: "factories" -> "factory"."""
    before, space, last = name.rpartition(" ")
    if last in _SINGULAR:
        return f"{before}{space}{_SINGULAR[last]}"
    if last.endswith("ies") and len(last) > 4:
        return f"{name[:-3]}y"
    return (
        name[:-2]
        if last.endswith(("sses", "xes", "zes", "ches", "shes", "uses")) and last not in ("houses", "uses")
        else name[:-1]
    )


@lru_cache(maxsize=65536)
def with_article(phrase: str) -> str:
    """ "a unit", "an hour", "an 8 m pixel", "an S2 image"."""
    word = phrase.lower()
    if _SAID_WITH_VOWEL.match(word) or word.startswith(_SILENT_H):
        return f"an {phrase}"
    vowel = word[:1] in tuple("aeiou") and not _LIKE_YOU.match(word)
    return f"an {phrase}" if vowel else f"a {phrase}"


def number(count: int) -> str:
    """In words up to ten, then digits."""
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def listed(things: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def sentence(text: str) -> str:
    """With a capital, and with a full stop where it has no mark of its own."""
    text = text[:1].upper() + text[1:]
    return text if text.rstrip("\"')]”’").endswith(_END_MARKS) else f"{text.rstrip(',;:')}."
