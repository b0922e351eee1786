"""Image-text retrieval when an image has several captions and a caption may stand under several images.

Everything is derived from one number a query: the rank of the first right item (`evaluation.metrics.ranks`).

Protocols, named after who defined them:
clip_benchmark   every caption is a query and a gallery item; right are an image's own captions and a caption's own image, even
                 when another image carries the very same words
georsclip        the same: RS5M's `retrieval_evaluation` calls CLIP_benchmark's recall. It prints percent with two decimals
skyscript        equal strings are merged into one query and one gallery item, right with every image that carries it
farslip          the same, by FarSLIP's `tests/test_retrieval.py`
rsvl             queries and gallery as clip_benchmark, but words decide: right are all captions that read the same after
                 `normalize_caption`, and all images that carry one of them
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from evaluation.metrics.relevance import Lists, Relevance
from rsvl_data.errors import OptionError

RetrievalProtocol = Literal["rsvl", "clip_benchmark", "georsclip", "skyscript", "farslip"]
MERGED = ("skyscript", "farslip")  # protocols in which equal strings are one


@dataclass(frozen=True)
class RetrievalTask:
    """What is asked, under one protocol.

    texts           the text queries, which are also the gallery the image queries search in
    image_of_text   the image the text belongs to, the first of them when equal texts are merged
    """

    texts: list[str]
    image_of_text: np.ndarray
    text_to_image: Relevance
    image_to_text: Relevance


def retrieval_task(captions: Sequence[Sequence[str]], protocol: str) -> RetrievalTask:
    """`captions[i]` are the captions of image i.

    Raises ValueError when there is no image, or an image without a caption, OptionError for a protocol nobody knows.
    """
    if protocol not in get_args(RetrievalProtocol):
        raise OptionError(f"no retrieval protocol is called {protocol!r}; allowed: {', '.join(get_args(RetrievalProtocol))}")
    if not captions or not all(captions):
        without = [i for i, own in enumerate(captions) if not own]
        raise ValueError(f"each image needs a caption; got {len(captions)} images, without captions: {without[:5]}")
    texts = [text for own in captions for text in own]
    image = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    if protocol in ("clip_benchmark", "georsclip"):
        phrase = np.arange(len(texts))
    else:
        phrase = _numbered([normalize_caption(text) for text in texts] if protocol == "rsvl" else texts)
    carriers = (phrase, image)
    if protocol in MERGED:
        first = np.unique(phrase, return_index=True)[1]
        texts, phrase, image = [texts[i] for i in first], phrase[first], image[first]
    num_phrases, each = int(phrase.max()) + 1, np.arange(len(texts))
    return RetrievalTask(
        texts,
        image,
        Relevance(Lists.from_pairs(each, phrase, len(texts)), Lists.from_pairs(*carriers, num_phrases), len(captions)),
        Relevance(Lists.from_pairs(*carriers[::-1], len(captions)), Lists.from_pairs(phrase, each, num_phrases), len(texts)),
    )


def normalize_caption(text: str) -> str:
    """What makes two captions the same sentence: Unicode NFKC, case folded, white space joined, no stop at the end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .!")


def _numbered(strings: Sequence[str]) -> Int[np.ndarray, "n"]:
    """The index of each string among the distinct ones, in the order of their first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(string, len(numbers)) for string in strings])


def recall_at_k(ranks: Int[np.ndarray, "q"], k: int) -> float:
    """Share of queries with a right item among the first k; 1 when k reaches the size of the gallery."""
    if len(ranks) == 0:
        raise ValueError("recall of no queries has no value; give at least one")
    return float((ranks <= k).mean())


def median_rank(ranks: Int[np.ndarray, "q"]) -> float:
    """Lies between the two middle ranks when their number is even (open_clip rounds it down)."""
    if len(ranks) == 0:
        raise ValueError("the median rank of no queries has no value; give at least one")
    return float(np.median(ranks))


def mean_rank(ranks: Int[np.ndarray, "q"]) -> float:
    """Counted from 1, as open_clip's."""
    if len(ranks) == 0:
        raise ValueError("the mean rank of no queries has no value; give at least one")
    return float(ranks.mean())


def mean_recall(
    text_query_ranks: Int[np.ndarray, "t"], image_query_ranks: Int[np.ndarray, "i"], ks: Sequence[int] = (1, 5, 10)
) -> float:
    """mR of the remote-sensing papers: the mean of the recalls at 1, 5 and 10 in both directions."""
    return float(np.mean([recall_at_k(ranks, k) for ranks in (text_query_ranks, image_query_ranks) for k in ks]))


def chance_recall_at_k(num_right: Int[np.ndarray, "q"], num_items: int, k: int) -> float:
    """Expected recall@k of a random order of the gallery: mean over queries of 1 - C(n-r, k) / C(n, k), r right items of n.

    An encoder that knows nothing can fall below it for k > 1 when right items look alike: they stand together in its order.
    """
    return float(1 - _random_misses(num_right, num_items)[min(k, num_items)])


def chance_median_rank(num_right: Int[np.ndarray, "q"], num_items: int) -> float:
    """The rank within which a random order finds something right for half of the queries."""
    return float(np.argmax(_random_misses(num_right, num_items) <= 0.5 + 1e-12))  # products of fractions round


def _random_misses(num_right: Int[np.ndarray, "q"], num_items: int) -> Float[np.ndarray, "{num_items}+1"]:
    """[k]: probability that the first k of a random order hold nothing right, mean over queries."""
    drawn = np.arange(num_items)  # items seen before the draw
    misses = np.zeros(num_items + 1)
    for right, queries in zip(*np.unique(num_right, return_counts=True), strict=True):
        wrong_again = np.clip(num_items - right - drawn, 0, None) / (num_items - drawn)
        misses += queries * np.concatenate([[1.0], np.cumprod(wrong_again)])
    return misses / len(num_right)
