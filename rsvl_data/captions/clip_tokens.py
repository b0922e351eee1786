"""How many tokens a text has for CLIP, with open_clip's own tokenizer: start and end included, as they take up the context."""

from functools import lru_cache
from typing import Any

CLIP_CONTEXT_TOKENS = 77

SPECIAL_TOKENS = 2  # start and end of text


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer  # with torch behind it: seconds, and nobody else here needs it

    return SimpleTokenizer()


def count_tokens(text: str) -> int:
    """Of the text alone, before truncation, with start and end."""
    return SPECIAL_TOKENS + count_pieces(text)


def is_plain(text: str) -> bool:
    """Whether the cleaning before the tokens (ftfy, HTML entities) changes nothing: it takes most of the time. Then the pieces of
    texts that are joined by a space add up."""
    return text.isprintable() and "&" not in text and text.replace("°", "").isascii()


@lru_cache(maxsize=65536)
def count_pieces(text: str) -> int:
    """The same without start and end. Equal to `len(SimpleTokenizer().encode(text))`, and kept: metadata sentences return."""
    tokenizer = _tokenizer()
    clean = text.lower() if is_plain(text) else tokenizer.clean_fn(text)
    return sum(map(_count_of_word, tokenizer.pat.findall(clean)))


@lru_cache(maxsize=262144)
def _count_of_word(word: str) -> int:
    tokenizer = _tokenizer()
    return tokenizer.bpe("".join(tokenizer.byte_encoder[byte] for byte in word.encode())).count(" ") + 1
