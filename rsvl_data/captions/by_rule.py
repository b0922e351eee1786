"""What all rule captions share: wording that is drawn by seed, templates chosen by the facts there are, and their place in the record."""

import hashlib
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from rsvl_data.captions.english import sentence, with_article
from rsvl_data.sample import Caption, CaptionKind, Sample, TextSource
from rsvl_data.stage import Outcome, Stage

RULE_SOURCE = TextSource(engine="rsvl rules", revision="2")  # another revision: another wording for the same seed
# Who wrote what a stage here may replace: the stages themselves, and the plain sentences of a source that has no others.
_REPLACED = frozenset({RULE_SOURCE.engine, "rsvl label templates", "rsvl object counts", "rsvl geo facts", "rsvl compose"})
Option = TypeVar("Option")


class Dice:
    """Draws that follow from the seed, the sample's key and a purpose alone: equal for any number of workers and any order."""

    def __init__(self, seed: int, key: str, purpose: str):
        self._start = f"{seed}/{purpose}/{key}".encode()
        self._refills = 0
        self._state = 0

    def below(self, bound: int) -> int:
        if self._state < 1 << 64:  # what is left is fair to one part in 2**64 / bound
            self._refills += 1
            digest = hashlib.blake2b(self._start, digest_size=32, salt=self._refills.to_bytes(8)).digest()
            self._state = int.from_bytes(digest)
        self._state, index = divmod(self._state, bound)
        return index

    def pick(self, options: Sequence[Option]) -> Option:
        return options[self.below(len(options))]

    def some(self, options: Sequence[Option], count: int) -> list[Option]:
        """`count` different ones in random order, or all there are."""
        left = list(options)
        return [left.pop(self.below(len(left))) for _ in range(min(count, len(left)))]


class Templates:
    """Sentences with slots in braces; `{a_season}` is the fact `season` with its article. `forms` are slots that are no facts: verbs
    and the like, filled whenever they stand there.

    Raises ValueError for a template without a fact.
    """

    def __init__(self, *texts: str, forms: Sequence[str] = ()):
        self._slots = {text: frozenset(name.removeprefix("a_") for name in _slots(text)) - set(forms) for text in texts}
        if not all(self._slots.values()):
            raise ValueError(f"a template tells no fact: {[text for text in texts if not self._slots[text]]}")
        self._choices: dict[frozenset[str], tuple[str, ...]] = {}

    def fitting(self, facts: Iterable[str]) -> tuple[str, ...]:
        """Of the templates that need none but these facts, those that tell the most of them."""
        known = frozenset(facts)
        if known not in self._choices:
            fit = {text: len(slots) for text, slots in self._slots.items() if slots <= known}
            most = max(fit.values(), default=0)
            self._choices[known] = tuple(text for text, count in fit.items() if count == most)
        return self._choices[known]

    def fill(self, dice: Dice, facts: Mapping[str, str], **forms: str) -> str:
        """One whole sentence. Raises ValueError when no template does with these facts."""
        choices = self.fitting(facts)
        if not choices:
            raise ValueError(f"no template tells {sorted(facts)}; write one for them")
        template = dice.pick(choices)
        with_articles = {f"a_{name}": with_article(words) for name, words in facts.items()} if "{a_" in template else {}
        return sentence(template.format(**facts, **with_articles, **forms))


def _slots(text: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]


def rule_stage(name: str, kind: CaptionKind, texts_of: Callable[[Sample], Sequence[str]]) -> Stage:
    """Samples with the sentences that `texts_of` finds; those without a fact pass as they are.

    What rules wrote of this kind before is replaced, so that running a stage again changes nothing.
    """

    def run(samples: Iterable[Sample]) -> Iterator[Outcome]:
        for sample in samples:
            texts = texts_of(sample)
            if texts:
                told = [Caption(text=text, kind=kind, source=RULE_SOURCE) for text in texts]
                sample.captions = without_rule_captions(sample.captions, kind) + told
            yield sample

    return Stage(name, run)


def without_rule_captions(captions: Sequence[Caption], kind: CaptionKind) -> list[Caption]:
    """Without those of `kind` that were written by rule, but for what others were made from; `parent` follows the captions."""
    parents = {caption.parent for caption in captions}
    kept = [
        index
        for index, caption in enumerate(captions)
        if caption.kind != kind or caption.source is None or caption.source.engine not in _REPLACED or index in parents
    ]
    if len(kept) == len(captions):
        return list(captions)
    places = {index: place for place, index in enumerate(kept)}
    return [_with_parent(captions[index], places) for index in kept]


def _with_parent(caption: Caption, places: Mapping[int, int]) -> Caption:
    if caption.parent is None or places.get(caption.parent) == caption.parent:
        return caption
    return caption.model_copy(update={"parent": places.get(caption.parent)})
