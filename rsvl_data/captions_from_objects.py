"""Captions that are true by counting: which annotated objects an image holds, or which classes its mask.

They say no more than the annotation does. An image in which nothing is annotated is "an aerial image."; where an object was left out, or
some are annotated as a crowd, kinds are named without a number.
"""

from collections import Counter
from collections.abc import Sequence

from rsvl_data.sample import Caption, TextSource
from rsvl_data.words import words_of_label

_SOURCE = TextSource(engine="rsvl object counts", revision="1")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def caption_of_objects(categories: Sequence[str], *, complete: bool = True) -> Caption:
    """`categories` holds one name an object. Most frequent first. `complete` is False when there are more than those."""
    counts = Counter(words_of_label(category) for category in categories)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    if complete:
        text = _sentence([_counted(name, counts[name]) for name in ordered])
    else:
        text = f"an aerial image with objects of the kind {_listed(ordered)}." if ordered else "an aerial image."
    return Caption(text=text, kind="boxes", source=_SOURCE)


def caption_of_classes(names: Sequence[str]) -> Caption:
    """`names` of the classes that the mask shows, in the order to be told."""
    return Caption(text=_sentence([words_of_label(name) for name in names]), kind="mask", source=_SOURCE)


def _sentence(things: list[str]) -> str:
    return f"an aerial image with {_listed(things)}." if things else "an aerial image."


def _counted(name: str, count: int) -> str:
    number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    return f"{number} {name if count == 1 else plural(name)}"


def _listed(things: list[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def plural(name: str) -> str:
    """Of the last word: "storage tank" -> "storage tanks". Names that are plurals already ("storage tanks") stay."""
    if name.endswith(("s", "x", "z", "ch", "sh")):
        return name if name.endswith("s") and not name.endswith("ss") else f"{name}es"
    if name.endswith("y") and name[-2:-1] not in tuple("aeiou"):
        return f"{name[:-1]}ies"
    return f"{name}s"
