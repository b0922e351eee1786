"""How much of the captions a text encoder never sees, before and after composing: run it before a training.

report = budget_report([captions_of_rs5m_text(text) for text in texts])
report.before.main_lost / report.before.captions     # share of records whose machine caption lies behind the cut
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rsvl_data.captions.clip_tokens import CLIP_CONTEXT_TOKENS, count_pieces, count_tokens
from rsvl_data.captions.compose import FACT_KINDS, compose, main_captions
from rsvl_data.captions.sentences import sentences
from rsvl_data.sample import Caption

# Words that only RS5M's metadata templates have (fMoW, BigEarthNet).
_RS5M_METADATA = re.compile(r"utm zone|o'clock|off-nadir|azimuth|ground sample distance|\d% cloud", re.IGNORECASE)
_LOST_DEGREE_SIGN = re.compile(r"(?<=\d)\?")


@dataclass(frozen=True)
class Cuts:
    """Counts of captions, but for the tokens.

    over_budget       longer than the context
    tokens, tokens_cut    in all, and those behind the cut
    with_main         records with a caption that saw the picture
    main_lost         none of it is left
    main_cut          a part of it is left
    facts_left_out    sentences of facts left out on purpose
    """

    captions: int = 0
    over_budget: int = 0
    tokens: int = 0
    tokens_cut: int = 0
    with_main: int = 0
    main_lost: int = 0
    main_cut: int = 0
    facts_left_out: int = 0

    def __add__(self, other: "Cuts") -> "Cuts":
        return Cuts(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values())))


@dataclass(frozen=True)
class BudgetReport:
    budget_tokens: int
    before: Cuts
    after: Cuts

    def lines(self) -> list[str]:
        """A table to read."""
        rows = [f"{f'of {self.budget_tokens} tokens':28} {'before':>8} {'after':>8}"]
        for name in ("over_budget", "main_lost", "main_cut"):
            shares = (
                getattr(cuts, name) / max(cuts.captions if name == "over_budget" else cuts.with_main, 1) for cuts in self._both
            )
            rows.append(f"{name.replace('_', ' '):28} " + " ".join(f"{share:8.1%}" for share in shares))
        rows.append(f"{'tokens cut, mean':28} " + " ".join(f"{c.tokens_cut / max(c.captions, 1):8.1f}" for c in self._both))
        rows.append(f"{'tokens, mean':28} " + " ".join(f"{c.tokens / max(c.captions, 1):8.1f}" for c in self._both))
        return rows

    @property
    def _both(self) -> tuple[Cuts, Cuts]:
        return self.before, self.after


def budget_report(
    records: Iterable[Sequence[Caption]], *, budget_tokens: int = CLIP_CONTEXT_TOKENS, lang: str = "en"
) -> BudgetReport:
    """`records` are the captions of one sample each. Before: all facts, then the caption that saw the picture, as RS5M joins them."""
    before, after = Cuts(), Cuts()
    for captions in records:
        before += _cuts_before(captions, budget_tokens, lang)
        after += _cuts_after(captions, budget_tokens, lang)
    return BudgetReport(budget_tokens, before, after)


def _cuts_before(captions: Sequence[Caption], budget_tokens: int, lang: str) -> Cuts:
    facts = " ".join(c.text for kind in reversed(FACT_KINDS) for c in captions if c.kind == kind and c.lang == lang)
    main = [captions[index].text for index in main_captions(captions, lang)[:1]]
    text = " ".join(part for part in (facts, *main) if part)
    if not text:
        return Cuts()
    tokens = count_tokens(text)
    room = budget_tokens - 1 - (1 + count_pieces(facts))  # the first token is the start, the last one kept is the end
    lost = bool(main) and room <= 0
    return Cuts(
        captions=1,
        over_budget=int(tokens > budget_tokens),
        tokens=tokens,
        tokens_cut=max(tokens - budget_tokens, 0),
        with_main=len(main),
        main_lost=int(lost),
        main_cut=int(bool(main) and not lost and count_pieces(main[0]) > room),
    )


def _cuts_after(captions: Sequence[Caption], budget_tokens: int, lang: str) -> Cuts:
    has_main = bool(main_captions(captions, lang))
    answer = compose(captions, budget_tokens=budget_tokens, lang=lang)
    if answer is None:
        return Cuts(with_main=int(has_main), main_lost=int(has_main))
    tokens = count_tokens(answer.text)
    return Cuts(
        captions=1,
        over_budget=int(tokens > budget_tokens),
        tokens=tokens,
        tokens_cut=max(tokens - budget_tokens, 0),
        with_main=int(has_main),
        main_lost=int(has_main and answer.main is None),
        main_cut=int(answer.main is not None and answer.main_left_out > 0),
        facts_left_out=answer.facts_left_out,
    )


def captions_of_rs5m_text(text: str) -> list[Caption]:
    """A text of RS5M's RS3 part taken apart: the metadata sentences, then the machine caption that follows the last one of them.

    In tables where the degree sign became "?" it is put back.
    """
    parts = sentences(_LOST_DEGREE_SIGN.sub("°", text))
    after = max((index + 1 for index, part in enumerate(parts) if _RS5M_METADATA.search(part)), default=0)
    captions = [Caption(text=part, kind="meta") for part in parts[:after]]
    machine = " ".join(parts[after:])
    return [*captions, Caption(text=machine, kind="vlm")] if machine else captions
