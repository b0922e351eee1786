"""Several captions of a picture -> one that fits a text encoder's context, what tells most of the picture first.

CLIP cuts a text after 77 tokens without a word. RS5M's captions of fMoW put the metadata first: the machine caption, the only part that
saw the picture, lies behind the cut in every one of them (budget_report measures it). Here whole sentences are taken in the order of
what they are worth, as long as they fit, and the rest is left out and counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rsvl_data.captions.by_rule import without_rule_captions
from rsvl_data.captions.clip_tokens import CLIP_CONTEXT_TOKENS, SPECIAL_TOKENS, count_pieces, count_tokens, is_plain
from rsvl_data.captions.english import noun_of_label
from rsvl_data.captions.labels import has_words
from rsvl_data.captions.sentences import as_sentences
from rsvl_data.errors import OptionError
from rsvl_data.sample import Caption, CaptionKind, Sample, TextSource
from rsvl_data.stage import Outcome, Stage

_SOURCE = TextSource(engine="rsvl compose", revision="1")
# Who looked at the picture; one of these comes first. Then what was annotated, then what the metadata say.
MAIN_KINDS: tuple[CaptionKind, ...] = ("human", "vlm", "long", "short", "alt")
FACT_KINDS: tuple[CaptionKind, ...] = ("boxes", "mask", "label", "meta")


@dataclass(frozen=True)
class Composed:
    """`main` is the index of the caption that comes first; None where the record has none of these kinds, or none that fits.

    The two counts are sentences that found no room: of the best caption of the main kinds, and of the facts.
    """

    text: str
    main: int | None
    main_left_out: int
    facts_left_out: int


def compose(
    captions: Sequence[Caption], *, budget_tokens: int = CLIP_CONTEXT_TOKENS, lang: str = "en", label: str | None = None
) -> Composed | None:
    """None where not even one sentence fits.

    First the best caption that saw the picture (people before models, then by rank), then each sentence of boxes, masks, labels and
    metadata, in the order of the record. Of the first one sentences are kept from its beginning without a gap; of the facts, which
    stand alone, a shorter one may follow one that did not fit. What was said is not said again: sentences on `label` are left out
    where the first caption or the metadata name it.
    """
    room = budget_tokens - SPECIAL_TOKENS
    main, chosen, main_left_out = _best_main(captions, lang, room)
    room -= sum(map(count_pieces, chosen))
    facts_left_out = 0
    for text in _facts(captions, lang, chosen, label):
        size = count_pieces(text)
        if size <= room:
            chosen.append(text)
            room -= size
        else:
            facts_left_out += 1
    # The parts were counted one by one. Cleaning may find something else in the whole: then the last sentence gives way.
    while chosen and not all(map(is_plain, chosen)) and count_tokens(" ".join(chosen)) > budget_tokens:
        chosen.pop()
        facts_left_out += 1
    return Composed(" ".join(chosen), main, main_left_out, facts_left_out) if chosen else None


def main_captions(captions: Sequence[Caption], lang: str) -> list[int]:
    """Indices of those that saw the picture, best first."""
    kinds = {index: _kind(caption, captions) for index, caption in enumerate(captions) if caption.lang == lang}
    found = [index for index, kind in kinds.items() if kind in MAIN_KINDS]
    return sorted(found, key=lambda index: (MAIN_KINDS.index(kinds[index]), captions[index].rank or 0, index))


def _kind(caption: Caption, captions: Sequence[Caption]) -> CaptionKind:
    """Of a translation: what was translated."""
    has_original = caption.kind == "translation" and caption.parent is not None and 0 <= caption.parent < len(captions)
    return captions[caption.parent].kind if has_original and caption.parent is not None else caption.kind


def _best_main(captions: Sequence[Caption], lang: str, room: int) -> tuple[int | None, list[str], int]:
    """Index, the sentences that fit, and how many do not, of the first caption that begins with one that fits."""
    order = main_captions(captions, lang)
    for index in order:
        told = as_sentences(captions[index].text)
        taken = _prefix(told, room)
        if taken:
            return index, taken, len(told) - len(taken)
    return None, [], len(as_sentences(captions[order[0]].text)) if order else 0


def _prefix(told: Sequence[str], room: int) -> list[str]:
    taken: list[str] = []
    for text in told:
        room -= count_pieces(text)
        if room < 0:
            break
        taken.append(text)
    return taken


def _facts(captions: Sequence[Caption], lang: str, chosen: Sequence[str], label: str | None) -> list[str]:
    """In the order of FACT_KINDS. Of sentences on the label, which all say the same, the first."""
    by_kind: dict[str, list[str]] = {kind: [] for kind in FACT_KINDS}
    for caption in captions:
        kind = _kind(caption, captions)
        if caption.lang == lang and kind in by_kind:
            by_kind[kind].append(caption.text)
    by_kind["label"] = [] if _is_named(label, [*chosen, *by_kind["meta"]]) else by_kind["label"][:1]
    facts = [text for told in by_kind.values() for caption in told for text in as_sentences(caption)]
    said = {text.casefold() for text in chosen}
    return list({text.casefold(): text for text in facts if text.casefold() not in said}.values())


def _is_named(label: str | None, texts: Sequence[str]) -> bool:
    if label is None or not has_words(label):
        return False
    noun = noun_of_label(label)
    return any(form in text.lower() for text in texts for form in (noun.one.lower(), noun.many.lower()))


def compose_captions(*, budget_tokens: int = CLIP_CONTEXT_TOKENS, lang: str = "en", first: bool = True) -> Stage:
    """Adds a caption of kind `composed` to every sample. Where sentences found no room, the score `sentences_left_out` says how many.

    budget_tokens   of CLIP's tokenizer, start and end included: 77, or 248 for long-text encoders
    lang            of the captions to join, ISO 639-1
    first           put it before the others: the first caption is the one that KEY.txt holds

    `parent` is the caption that it begins with. A sample of which nothing fits keeps its captions as they are.
    Raises OptionError for a budget that holds no word.
    """
    if budget_tokens <= SPECIAL_TOKENS:
        raise OptionError(
            f"budget_tokens is {budget_tokens}; allowed is {SPECIAL_TOKENS + 1} or more: start and end count as well"
        )

    def run(samples: Iterable[Sample]) -> Iterator[Outcome]:
        for sample in samples:
            sample.captions = without_rule_captions(sample.captions, "composed")
            answer = compose(sample.captions, budget_tokens=budget_tokens, lang=lang, label=sample.label)
            sample.scores.pop("sentences_left_out", None)
            if answer is not None:
                sample.captions = _joined(sample.captions, answer, lang, first)
                left_out = answer.main_left_out + answer.facts_left_out
                sample.scores |= {"sentences_left_out": float(left_out)} if left_out else {}
            yield sample

    return Stage("compose_captions", run)


def _joined(captions: Sequence[Caption], answer: Composed, lang: str, first: bool) -> list[Caption]:
    composed = Caption(text=answer.text, lang=lang, kind="composed", source=_SOURCE, parent=answer.main)
    if not first:
        return [*captions, composed]
    return [_moved_down(composed), *map(_moved_down, captions)]


def _moved_down(caption: Caption) -> Caption:
    return caption if caption.parent is None else caption.model_copy(update={"parent": caption.parent + 1})
