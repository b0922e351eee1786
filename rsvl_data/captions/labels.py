"""Sentences that say the scene class and nothing else."""

from collections.abc import Callable, Iterable

from rsvl_data.captions.by_rule import Dice, Templates, rule_stage
from rsvl_data.captions.english import noun_of_label, sentence
from rsvl_data.errors import OptionError
from rsvl_data.sample import Caption, Sample, TextSource
from rsvl_data.stage import Stage

# Revision 2: with articles and plurals. What a source writes by itself when it has nothing but a label.
_LABEL_SOURCE = TextSource(engine="rsvl label templates", revision="2")
LABEL_TEMPLATES = (
    "a satellite image of {what}.",
    "an aerial photo showing {what}.",
    "an overhead view of {what}.",
    "a remote sensing image of {what}.",
    "{what}, seen from above.",
)
# Camera and height are not known from a label: "satellite" is not said.
_SENTENCES = Templates(
    "An overhead image of {what}",
    "An overhead view of {what}",
    "A remote sensing image of {what}",
    "A remote sensing image showing {what}",
    "A top-down view of {what}",
    "A bird's-eye view of {what}",
    "{what}, seen from above",
    "{what} as seen from overhead",
    "{what} in a remote sensing image",
    "This overhead image shows {what}",
    "This remote sensing image shows {what}",
    "The scene in this overhead image is {what}",
    "Seen from above: {what}",
    "A view from above of {what}",
    "Looking straight down on {what}",
    "{what}, viewed from directly above",
)


def label_captions(label: str, label_words: Callable[[str], str] | None = None) -> list[Caption]:
    """Five captions that say the scene class and nothing else. Raises ValueError for a label without a word.

    `label_words` makes words of a label as they are to stand there; None: English, with an article.
    """
    what = label_words(label) if label_words else noun_of_label(label).phrase
    return [Caption(text=template.format(what=what), kind="label", source=_LABEL_SOURCE) for template in LABEL_TEMPLATES]


def label_texts(label: str, dice: Dice, count: int = 1) -> list[str]:
    """`count` differently worded sentences, fewer when there are no more. Raises ValueError for a label without a word."""
    what = noun_of_label(label).phrase
    return [sentence(template.format(what=what)) for template in dice.some(_SENTENCES.fitting(["what"]), count)]


def label_sentences(*, count: int = 1, seed: int = 0) -> Stage:
    """Adds `count` sentences to every sample with a label, in place of the plain ones that its source wrote.

    Raises OptionError for a count that is not from 1 to the number of templates.
    """
    most = len(_SENTENCES.fitting(["what"]))
    if not 1 <= count <= most:
        raise OptionError(f"count is {count}; allowed are 1 to {most} sentences a label")

    def texts_of(sample: Sample) -> list[str]:
        if sample.label is None or not has_words(sample.label):
            return []
        return label_texts(sample.label, Dice(seed, sample.key, "label"), count)

    return rule_stage("label_sentences", "label", texts_of)


def has_words(label: str) -> bool:
    return any(character.isalnum() for character in label)


def label_vocabulary(labels: Iterable[str]) -> dict[str, str]:
    """How each class will be named, to be read before a build: {"SeaLake": "a sea or lake", ...}."""
    return {label: noun_of_label(label).phrase for label in labels}
