"""Sentences by rule."""

from collections.abc import Callable

from rsvl_data.sample import Caption, TextSource
from rsvl_data.words import words_of_label

# No article before the label: class names are countable ("airport") and not ("farmland"), and these read well with both.
LABEL_TEMPLATES = (
    "a satellite image of {}.",
    "an aerial photo showing {}.",
    "an overhead view of {}.",
    "a remote sensing image of the scene class {}.",
    "{}, seen from above.",
)


def label_captions(label: str, label_words: Callable[[str], str] = words_of_label) -> list[Caption]:
    """Five captions that say the scene class and nothing else. `label_words` makes words of a label."""
    words = label_words(label)
    source = TextSource(engine="rsvl label templates", revision="1")
    return [Caption(text=template.format(words), kind="label", source=source) for template in LABEL_TEMPLATES]
