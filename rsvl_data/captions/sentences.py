"""Text into sentences, where captions are careless: lower-case beginnings, "St. Louis", "Washington, D.C.", "2.60m"."""

import re

from rsvl_data.captions.english import sentence

_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])\s*")
_ABBREVIATIONS = frozenset(
    "approx. ave. blvd. ca. cf. co. dept. dr. e.g. est. etc. fig. ft. gov. hwy. i.e. inc. jr. lat. lon. ltd. mr. mrs. ms. mt. no. nr. pop. "
    "prof. rd. sq. sr. st. ste. vs.".split()
)
_LOOSE_MARK = re.compile(r"\s+([.,;:!?])(?=\s|$)")  # UCM-Captions and its kin part words from marks
_INITIALS = re.compile(r"(?:^|[^a-z0-9])[a-z]\.$", re.IGNORECASE)  # "J. Smith", "D.C. United"; not "zone 18T." or "2.60m."


def sentences(text: str) -> list[str]:
    """Without white space at their ends; a joint after an abbreviation or an initial is none. Empty for blank text."""
    parts: list[str] = []
    start = 0
    for joint in _END.finditer(text):
        before = text[start : joint.start()].rstrip()
        last = before.rpartition(" ")[2].lstrip("(\"'")
        if last.lower() in _ABBREVIATIONS or _INITIALS.search(last):
            continue
        parts.append(text[start : joint.end()].strip())
        start = joint.end()
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def as_sentences(text: str) -> list[str]:
    """The same with capitals, a full stop where there is no mark, and no space before one ("the airport ."): fit to stand beside others."""
    return [sentence(_LOOSE_MARK.sub(r"\1", part)) for part in sentences(text)]
