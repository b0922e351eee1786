"""Which of a sample's captions a batch gets."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rsvl_data.errors import DataError, OptionError
from rsvl_data.sample import Caption, CaptionKind


@dataclass(frozen=True)
class LanguageDraw:
    """A language is drawn first, then one of its captions, so that a language with many captions is not drawn more often.

    names          languages to draw from, ISO 639-1; a sample is drawn in those of them that it has captions in
    english_share  how often English is drawn where a sample has it and another; None: as often as any other
    """

    names: tuple[str, ...]
    english_share: float | None = None

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise OptionError(f"languages are {self.names}; give one or more, each once, such as en es zh")
        if self.english_share is not None and not ("en" in self.names and len(self.names) > 1 and 0 <= self.english_share <= 1):
            raise OptionError(
                f"the share of English is {self.english_share} of the languages {', '.join(self.names)}; "
                "it must be from 0 to 1, of languages that are English and others"
            )

    def draw(self, present: Sequence[str], rng: random.Random) -> str:
        """One of `present`, all of which are in `names`."""
        number = rng.random()
        others = [lang for lang in present if lang != "en"]
        if self.english_share is None or len(others) in (0, len(present)):
            return present[int(len(present) * number)]
        if number < self.english_share:
            return "en"
        return others[int(len(others) * (number - self.english_share) / (1 - self.english_share))]


def draw_caption(
    captions: Sequence[Caption],
    kinds: Sequence[CaptionKind] | None,
    lang: str | None,
    languages: LanguageDraw | None,
    rng: random.Random,
) -> Caption:
    """One of the `kinds` (None: any) in `lang` (None: any), or in a language drawn from `languages`.

    Raises DataError where there is none.
    """
    allowed = languages.names if languages else None if lang is None else (lang,)
    usable = [
        caption
        for caption in captions
        if (kinds is None or caption.kind in kinds) and (allowed is None or caption.lang in allowed)
    ]
    if not usable:
        has = ", ".join(sorted({f"{caption.kind} ({caption.lang})" for caption in captions})) or "none at all"
        wanted = "any kind" if kinds is None else " or ".join(kinds)
        raise DataError(
            f"no caption of {wanted} in {' or '.join(allowed) if allowed else 'any language'}; it has {has}. "
            "Set caption_kinds and lang to what the data have, or filter such samples out when building."
        )
    if languages:
        present = {caption.lang for caption in usable}
        drawn = languages.draw([name for name in languages.names if name in present], rng)
        usable = [caption for caption in usable if caption.lang == drawn]
    return usable[int(len(usable) * rng.random())]
