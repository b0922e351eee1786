"""From what a model wrote to captions that can be kept, or why not. The checks are pure: stored answers can be judged again at no cost."""

import json
import re
from dataclasses import dataclass
from typing import Any

from rsvl_data.caption_text import BadCaption, clean_caption
from rsvl_data.captioning.claims import undocumented_claim, undocumented_place
from rsvl_data.captioning.engine import Answer
from rsvl_data.captioning.languages import KNOWN_LANGUAGES, UNSPACED_LANGUAGES, is_written_in
from rsvl_data.captioning.prompts import PromptTemplate
from rsvl_data.errors import OptionError
from rsvl_data.sample import Sample


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """What an answer must be to become a caption. Language and length are the prompt's where they are left out."""

    check_language: bool = True
    """the caption must be in the prompt's language, by script and common words; languages that cannot be checked pass"""
    min_words: int | None = None
    """fewest words of a caption (characters in Chinese and Japanese); left out, what the prompt asks for"""
    max_words: int | None = None
    """most words of a caption"""
    allow_cut: bool = False
    """take answers that max_tokens cut in the middle"""
    allow_claims: bool = False
    """take dates, coordinates, percentages of cloud and pixel sizes that the record does not hold"""
    allow_places: bool = True
    """take names of places that the record does not hold; they are known by their capital letters"""
    copied_words: int = 12
    """an answer that repeats so many words of the prompt in a row is a copy of it"""
    alike: float = 0.8
    """two captions of one answer that share more than this fraction of their words say the same"""

    def __post_init__(self) -> None:
        low, high = self.min_words, self.max_words
        if (low is not None and low < 1) or (high is not None and high < (low or 1)) or self.copied_words < 1:
            raise OptionError("--min-words and --copied-words must be 1 or more, --max-words not below --min-words")
        if not 0 < self.alike <= 1:
            raise OptionError(f"--alike {self.alike} must be above 0 and at most 1")


@dataclass(frozen=True)
class BadAnswer:
    """`reason` is a word for counting, `detail` the text in question."""

    reason: str
    detail: str


_CANNOT = r"(?:can(?:no|['’]|)t|am (?:unable|not able)|['’]?m (?:unable|not able)|do(?: not|n['’]t))"
_REFUSALS = (
    r"^\W*(?:i(?:['’]m| am) (?:very |really )?)?sorry\b",
    r"^\W*i apologi[sz]e",
    rf"^\W*(?:unfortunately,? )?i {_CANNOT}",
    r"^\W*as an? (?:ai|artificial|language|large|vision)\b|\bas an ai\b",
    r"^\W*(?:there is )?no image (?:was |is |has been )?(?:provided|attached|given|shown|visible)",
    r"^\W*(?:please )?(?:provide|upload|attach|share) (?:an|the|your) image",
    r"\bi(?:['’]m| am) (?:unable|not able) to\b",
    r"\bi can(?:no|['’]|)t (?:see|view|access|assist|help|describe|determine|identify)",
)
_INSTRUCTIONS = (
    r"\b(?:ignore|disregard|forget|override)\b[^.]{0,30}\b(?:instructions?|prompts?|rules|above|previous)\b",
    r"\bsystem prompt\b|\bnew instructions?\b",
    r"\byou (?:must|should|are to) (?:now |always |never )?(?:answer|reply|respond|say|write|output|print|ignore|act)\b",
    r"\b(?:click|visit|subscribe|buy) (?:here|now|at|our|this)\b|https?://|\bwww\.",
    r"<\|?\w+\|?>|</?data>|\[/?INST\]|```",
    r"^\W*(?:assistant|user|system|human|caption|answer)\s*:",
)
_REFUSAL = re.compile("|".join(_REFUSALS), re.IGNORECASE)
_INSTRUCTION = re.compile("|".join(_INSTRUCTIONS), re.IGNORECASE | re.MULTILINE)


def captions_of_answer(answer: Answer, prompt: PromptTemplate, sample: Sample, rules: AnswerRules) -> list[str] | BadAnswer:
    """The captions an answer holds: one, or `prompt.num_captions`.

    An answer counts as a whole: of five captions that were asked for, one bad one rejects all. Reasons: answer_cut, answer_shape,
    answer_alike, those of `clean_caption`, answer_refusal, answer_instruction, answer_copies_prompt, answer_too_short,
    answer_too_long, answer_language, and the claims of `undocumented_claim`.
    """
    if answer.finish_reason == "length" and not rules.allow_cut:
        return BadAnswer("answer_cut", answer.text)
    texts = [answer.text] if prompt.num_captions is None else _texts_of_json(answer.text, prompt)
    if isinstance(texts, BadAnswer):
        return texts
    captions: list[str] = []
    for text in texts:
        caption = _checked(text, prompt, sample, rules)
        if isinstance(caption, BadAnswer):
            return caption
        captions.append(caption)
    return _without_repetition(captions, rules.alike)


def _texts_of_json(text: str, prompt: PromptTemplate) -> list[str] | BadAnswer:
    """A fence of Markdown around the JSON is a habit of chat models, and is taken off."""
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip())
    try:
        given: Any = json.loads(bare)
    except (ValueError, RecursionError):
        return BadAnswer("answer_shape", text)
    captions = given.get("captions") if isinstance(given, dict) else None
    if not isinstance(captions, list) or len(captions) != prompt.num_captions or not all(isinstance(c, str) for c in captions):
        return BadAnswer("answer_shape", text)
    if not all(caption.strip().casefold().startswith(prompt.lead_in.casefold()) for caption in captions):
        return BadAnswer("answer_shape", text)
    bodies = [caption.strip()[len(prompt.lead_in) :].strip() for caption in captions]
    return [body[:1].upper() + body[1:] for body in bodies]


def _checked(text: str, prompt: PromptTemplate, sample: Sample, rules: AnswerRules) -> str | BadAnswer:
    # Marks of mark-up and roles are looked for before cleaning, which takes tags away.
    if _INSTRUCTION.search(text):
        return BadAnswer("answer_instruction", text)
    caption = clean_caption(text)
    if isinstance(caption, BadCaption):
        return BadAnswer(caption.reason, text)
    caption = _unquoted(caption)
    if _REFUSAL.search(caption):
        return BadAnswer("answer_refusal", caption)
    if _copies(caption, prompt.instructions, rules.copied_words):
        return BadAnswer("answer_copies_prompt", caption)
    num_words = len(re.findall(r"\w", caption)) if prompt.lang in UNSPACED_LANGUAGES else len(caption.split())
    if num_words < (rules.min_words or prompt.min_words):
        return BadAnswer("answer_too_short", caption)
    if num_words > (rules.max_words or prompt.max_words):
        return BadAnswer("answer_too_long", caption)
    if rules.check_language and prompt.lang in KNOWN_LANGUAGES and not is_written_in(caption, prompt.lang):
        return BadAnswer("answer_language", caption)
    claim = None if rules.allow_claims else undocumented_claim(caption, sample.geo)
    claim = claim or (None if rules.allow_places else undocumented_place(caption, sample.geo))
    return BadAnswer(claim[0], f"{claim[1]!r} in: {caption}") if claim else caption


def _unquoted(caption: str) -> str:
    """Without the quotation marks that models put around a whole caption."""
    if len(caption) > 2 and (caption[0], caption[-1]) in (('"', '"'), ("“", "”"), ("'", "'")) and caption[0] not in caption[1:-1]:
        return caption[1:-1].strip() or caption
    return caption


def _copies(caption: str, instructions: str, num_words: int) -> bool:
    """Whether so many words stand in a row in both. The facts laid before a model are no instructions: it may use their words."""
    asked, said = _words(instructions), _words(caption)
    runs = {tuple(asked[i : i + num_words]) for i in range(len(asked) - num_words + 1)}
    return any(tuple(said[i : i + num_words]) in runs for i in range(len(said) - num_words + 1))


def _without_repetition(captions: list[str], alike: float) -> list[str] | BadAnswer:
    words = [set(_words(caption)) for caption in captions]
    for i in range(len(captions)):
        for j in range(i):
            if len(words[i] & words[j]) > alike * len(words[i] | words[j]):
                return BadAnswer("answer_alike", f"{captions[j]} | {captions[i]}")
    return captions


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
