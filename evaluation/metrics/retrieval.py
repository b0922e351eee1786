"""Image-text retrieval when an image has several captions and a caption may stand under several images.

Everything is derived from one number a query: the rank of the first right item. It is computed a block of queries at a time, so
memory is bounded by the block and never grows with queries x gallery.

Protocols, named after who defined them:
clip_benchmark   every caption is a query and a gallery item; right are an image's own captions and a caption's own image, even
                 when another image carries the very same words (also RemoteCLIP's and GeoRSCLIP's protocol)
skyscript        equal strings are merged into one query and one gallery item, right with every image that carries it (also
                 FarSLIP's)
rsvl             queries and gallery as clip_benchmark, but words decide: right are all captions that read the same after
                 `normalize_caption`, and all images that carry one of them
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rsvl_data.errors import OptionError

RetrievalProtocol = Literal["rsvl", "clip_benchmark", "skyscript"]
Ties = Literal["pessimistic", "optimistic", "lowest_index"]

_BLOCK_SCORES = 2**23  # scores held at once: 32 MiB as float32


@dataclass(frozen=True)
class Lists:
    """Many short lists of integers in two arrays: list i is `members[offsets[i]:offsets[i + 1]]`."""

    offsets: np.ndarray
    members: np.ndarray

    @classmethod
    def from_pairs(cls, owner: Int[np.ndarray, "p"], member: Int[np.ndarray, "p"], num_lists: int) -> "Lists":
        """List `owner[j]` holds `member[j]`; a pair that repeats counts once."""
        pairs = np.unique(np.stack([owner, member], 1), axis=0)
        return cls(np.searchsorted(pairs[:, 0], np.arange(num_lists + 1)), pairs[:, 1])

    def expand(self, which: Int[np.ndarray, "w"]) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m"]]:
        """The members of the lists `which`, one after the other, and beside each member its position in `which`."""
        starts, lengths = self.offsets[which], np.diff(self.offsets)[which]
        position = np.repeat(np.arange(len(which)), lengths)
        inside = np.arange(len(position)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return position, self.members[starts[position] + inside]


@dataclass(frozen=True)
class Relevance:
    """Which gallery items are right for which query: query -> phrases -> items.

    The detour over phrases keeps it small when thousands of captions read the same: the pairs are never all written out.
    """

    phrases_of_query: Lists
    items_of_phrase: Lists
    num_items: int

    def __len__(self) -> int:
        return len(self.phrases_of_query.offsets) - 1

    def pairs(self, queries: Int[np.ndarray, "b"]) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
        """Right items of the queries named, as positions in `queries` and gallery indices."""
        position, phrase = self.phrases_of_query.expand(queries)
        inner, item = self.items_of_phrase.expand(phrase)
        return position[inner], item

    def first_items(self) -> Int[np.ndarray, "q"]:
        """One right item of each query, the one with the lowest index among those of its first phrase."""
        phrase = self.phrases_of_query.members[self.phrases_of_query.offsets[:-1]]
        return self.items_of_phrase.members[self.items_of_phrase.offsets[phrase]]

    def num_right(self) -> Int[np.ndarray, "q"]:
        """How many items are right for each query."""
        lengths = np.diff(self.items_of_phrase.offsets)[self.phrases_of_query.members]
        totals = np.concatenate([[0], np.cumsum(lengths)])
        return np.diff(totals[self.phrases_of_query.offsets])


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
    if protocol == "clip_benchmark":
        phrase = np.arange(len(texts))
    else:
        phrase = _numbered([normalize_caption(text) for text in texts] if protocol == "rsvl" else texts)
    carriers = (phrase, image)
    if protocol == "skyscript":
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


def first_right_ranks(
    query: Float[Tensor, "q d"],
    gallery: Float[Tensor, "n d"],
    relevance: Relevance,
    *,
    ties: Ties = "pessimistic",
    block_size: int | None = None,
) -> Int[np.ndarray, "q"]:
    """Rank of the best right item of every query, from 1. Similarity is the cosine in float32; rows may have any length.

    `ties` says where the right item stands among wrong ones with exactly its score:
      pessimistic    after all of them: the order of the data plays no part and an encoder that cannot tell gains nothing
      optimistic     before all of them
      lowest_index   in gallery order, as the training metrics at the head of open_clip's repository
    Equal gallery rows tie exactly, wherever they stand. `block_size` queries are compared at a time; None picks what fits 32 MiB.
    Raises ValueError for embeddings that are not finite, no queries, or a query without a right item.
    """
    if len(query) != len(relevance) or len(gallery) != relevance.num_items:
        raise ValueError(
            f"got {len(query)} queries and {len(gallery)} gallery items, "
            f"but relevance speaks of {len(relevance)} and {relevance.num_items}"
        )
    if len(query) == 0 or not (relevance.num_right() > 0).all():
        raise ValueError(f"each query needs a right item; {(relevance.num_right() == 0).sum()} of {len(query)} queries have none")
    query, gallery = _unit_rows(query), _unit_rows(gallery)
    distinct, copy_of = _distinct_rows(gallery)
    block_size = block_size or max(1, _BLOCK_SCORES // len(gallery))
    ranks = np.empty(len(query), dtype=np.int64)
    for start in range(0, len(query), block_size):
        block = slice(start, start + block_size)
        scores = query[block] @ distinct.T
        if len(distinct) < len(gallery):
            scores = scores[:, copy_of]
        row, item = (torch.from_numpy(i).to(scores.device) for i in relevance.pairs(np.arange(len(query))[block]))
        ranks[block] = _ranks(scores, row, item, ties).cpu().numpy()
    return ranks


def _ranks(scores: Float[Tensor, "b n"], row: Int[Tensor, "p"], item: Int[Tensor, "p"], ties: Ties) -> Int[Tensor, "b"]:
    """Overwrites `scores`: what is right must not count against itself."""
    right = scores[row, item]
    best = scores.new_full((len(scores),), -torch.inf).scatter_reduce(0, row, right, "amax")
    scores[row, item] = -torch.inf
    if ties == "pessimistic":
        return 1 + (scores >= best[:, None]).sum(1)
    ranks = 1 + (scores > best[:, None]).sum(1)
    if ties == "lowest_index":
        is_best = right == best[row]
        first = torch.full_like(ranks, scores.shape[1]).scatter_reduce(0, row[is_best], item[is_best], "amin")
        ranks += ((scores == best[:, None]) & (torch.arange(scores.shape[1], device=scores.device) < first[:, None])).sum(1)
    return ranks


def _unit_rows(embeds: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    finite = embeds.isfinite().all(1)
    if not finite.all():
        raise ValueError(f"{int((~finite).sum())} of {len(embeds)} embeddings hold NaN or infinity")
    return F.normalize(embeds.float(), dim=-1)


def _distinct_rows(embeds: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "m d"], Int[Tensor, "n"]]:
    """The distinct rows and, for every row, where it is among them.

    A matrix product may round two equal columns differently when they fall into different tiles: equal rows are multiplied once.
    """
    numbers: dict[bytes, int] = {}
    of_row = [numbers.setdefault(row.tobytes(), len(numbers)) for row in embeds.cpu().numpy()]
    _, first = np.unique(of_row, return_index=True)
    return embeds[torch.from_numpy(first).to(embeds.device)], torch.tensor(of_row, device=embeds.device)


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
