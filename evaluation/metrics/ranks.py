"""Exact search that counts instead of sorting: at which place the first right item of every query stands.

A rank with ties needs counts of scores, which a list of the k best does not give. Scores are computed in tiles of queries x gallery,
so memory is bounded by the tile and neither side is copied: both may be half-precision memory maps of millions of rows.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from evaluation.metrics.relevance import Lists, Relevance

Ties = Literal["pessimistic", "optimistic", "lowest_index"]

_TILE_SCORES = 2**23  # scores held at once: 32 MiB as float32
_SMALLEST_TILE_SCORES, _KEPT_SCORES, _BLOCK_QUERIES = 2**18, 2**22, 1024


def first_right_ranks(
    query: Float[Tensor, "q d"],
    gallery: Float[Tensor, "n d"],
    relevance: Relevance,
    *,
    ties: Ties = "pessimistic",
    block_size: int | None = None,
    device: torch.device | str | None = None,
) -> Int[np.ndarray, "q"]:
    """Rank of the best right item of every query, from 1. Similarity is the cosine in float32; rows may have any length.

    `ties` says where the right item stands among wrong ones with exactly its score:
      pessimistic    after all of them: the order of the data plays no part and an encoder that cannot tell gains nothing
      optimistic     before all of them
      lowest_index   in gallery order, as the training metrics at the head of open_clip's repository
    Equal gallery rows tie exactly, wherever they stand. `block_size` queries are compared at a time, None picks; `device` is where the
    products are taken, None where the queries are. Raises ValueError for embeddings that are not finite, no queries, an empty gallery, or a
    query without a right item.
    """
    _refuse_mismatch(len(query), len(gallery), relevance)
    device = query.device if device is None else torch.device(device)
    for embeds in (query, gallery):
        _refuse_non_finite(embeds)
    # A small search needs no large tile
    tile_scores = min(_TILE_SCORES, max(_SMALLEST_TILE_SCORES, len(query) * len(gallery) // 8))
    block_size = block_size or max(1, min(_BLOCK_QUERIES, int((tile_scores / 4) ** 0.5)))
    search = _Search(gallery, max(1, tile_scores // block_size), device)
    ranks = np.empty(len(query), dtype=np.int64)
    for start in range(0, len(query), block_size):
        block = slice(start, start + block_size)
        row, item = relevance.pairs(np.arange(len(query))[block])
        ranks[block] = search.ranks(_unit_rows(query[block], device), row, item, ties)
    return ranks


class _Search:
    """The distinct rows of a gallery in tiles.

    A matrix product may round two equal columns differently when they fall into different places: equal rows are multiplied once.
    """

    def __init__(self, gallery: Float[Tensor, "n d"], tile_size: int, device: torch.device):
        self._gallery, self._tile_size, self._device = gallery, tile_size, device
        self._number, self._first = _distinct_rows(gallery, tile_size)
        self._copies = np.bincount(self._number)

    @cached_property
    def _items_of(self) -> Lists:
        return Lists.from_pairs(self._number, np.arange(len(self._number)), len(self._first))

    def ranks(
        self, query: Float[Tensor, "b d"], row: Int[np.ndarray, "p"], item: Int[np.ndarray, "p"], ties: Ties
    ) -> Int[np.ndarray, "b"]:
        """Pairs `row`, `item` are right. Scores are computed twice, to find the best right one and to count those before it:
        by the same product, so that they are equal to the bit. Only tiles with right items take part the first time."""
        tiles = _Tiles(query, self._tile, max(1, _KEPT_SCORES // (len(query) * self._tile_size)))
        column = self._number[item]
        right = query.new_empty(len(item))
        for number in np.unique(column // self._tile_size):
            pairs = np.flatnonzero(column // self._tile_size == number)
            right[pairs] = tiles.scores(int(number))[row[pairs], column[pairs] - number * self._tile_size]
        best = right.new_full((len(query),), -torch.inf)
        best.scatter_reduce_(0, torch.from_numpy(row).to(self._device), right, "amax")
        is_best = (right == best[row]).cpu().numpy()
        first = np.full(len(query), len(self._number))
        np.minimum.at(first, row[is_best], item[is_best])
        ranks = np.ones(len(query), dtype=np.int64)
        for number, scores in tiles.all(-(-len(self._first) // self._tile_size)):
            before = scores >= best[:, None] if ties == "pessimistic" else scores > best[:, None]
            ranks += self._count(before, number)
            if ties == "lowest_index":
                ranks += self._ties_before(scores == best[:, None], first, number)
        if ties == "pessimistic":  # what is right must not count against itself
            ranks -= np.bincount(row[is_best], minlength=len(query))
        return ranks

    def _tile(self, number: int) -> Float[Tensor, "t d"]:
        rows = slice(number * self._tile_size, (number + 1) * self._tile_size)
        whole = len(self._first) == len(self._number)
        return _unit_rows(self._gallery[rows] if whole else self._gallery[self._first[rows]], self._device)

    def _count(self, mask: Tensor, number: int) -> Int[np.ndarray, "b"]:
        """How many gallery items the set columns of a tile stand for, by row."""
        counts = np.count_nonzero(mask.numpy(), axis=1) if mask.device.type == "cpu" else mask.sum(1).cpu().numpy()  # 8 x quicker
        more = self._copies[number * self._tile_size :][: mask.shape[1]] - 1
        repeated = np.flatnonzero(more)
        return counts + mask[:, repeated].cpu().numpy() @ more[repeated] if len(repeated) else counts

    def _ties_before(self, mask: Tensor, first: Int[np.ndarray, "b"], number: int) -> Int[np.ndarray, "b"]:
        """How many items of the set columns stand before the first right one."""
        row, column = (index.cpu().numpy() for index in mask.nonzero(as_tuple=True))
        position, item = self._items_of.expand(column + number * self._tile_size)
        return np.bincount(row[position], weights=item < first[row[position]], minlength=len(first)).astype(np.int64)


class _Tiles:
    """Scores of one block of queries; the first tiles asked for are kept, as far as there is room."""

    def __init__(self, query: Float[Tensor, "b d"], tile: Callable[[int], Tensor], num_kept: int):
        self._query, self._tile, self._num_kept = query, tile, num_kept
        self._kept: dict[int, Tensor] = {}

    def scores(self, number: int) -> Float[Tensor, "b t"]:
        if number not in self._kept:
            if len(self._kept) == self._num_kept:
                self._kept.popitem()  # let go of one tile before the next
            self._kept[number] = self._query @ self._tile(number).T
        return self._kept[number]

    def all(self, num_tiles: int) -> Iterator[tuple[int, Float[Tensor, "b t"]]]:
        """Beginning with those that are there."""
        for number in sorted(range(num_tiles), key=lambda number: number not in self._kept):
            yield number, self.scores(number)


def _unit_rows(embeds: Float[Tensor, "n d"], device: torch.device) -> Float[Tensor, "n d"]:
    return F.normalize(embeds.to(device).float(), dim=-1)


def _distinct_rows(embeds: Float[Tensor, "n d"], tile_size: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
    """For every row its number among the distinct unit rows, and where each of those stands first.

    Rows are told apart by 128-bit digests: two of a million are confused with probability 1e-27.
    """
    numbers: dict[bytes, int] = {}
    number = np.empty(len(embeds), dtype=np.int64)
    for start in range(0, len(embeds), tile_size):
        for index, row in enumerate(_unit_rows(embeds[start : start + tile_size], torch.device("cpu")).numpy(), start):
            number[index] = numbers.setdefault(hashlib.blake2b(row, digest_size=16).digest(), len(numbers))
    return number, np.unique(number, return_index=True)[1]


def _refuse_mismatch(num_queries: int, num_items: int, relevance: Relevance) -> None:
    if num_queries != len(relevance) or num_items != relevance.num_items:
        raise ValueError(
            f"got {num_queries} queries and {num_items} gallery items, "
            f"but relevance speaks of {len(relevance)} and {relevance.num_items}"
        )
    if num_items == 0:
        raise ValueError("the gallery is empty; retrieval needs at least one item to find")
    without = int((relevance.num_right() == 0).sum())
    if num_queries == 0 or without:
        raise ValueError(f"each query needs a right item; {without} of {num_queries} queries have none")


def _refuse_non_finite(embeds: Float[Tensor, "n d"]) -> None:
    parts = (part.abs().amax(1) for part in embeds.split(2**12))
    if wrong := sum(int((~part.isfinite()).sum()) for part in parts):
        raise ValueError(f"{wrong} of {len(embeds)} embeddings hold NaN or infinity")
