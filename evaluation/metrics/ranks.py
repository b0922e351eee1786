"""Exact search that counts instead of sorting: at which place the first right item of every query stands.

A rank with ties needs counts of scores, which a list of the k best does not give. Scores are computed in tiles of queries x gallery,
so memory is bounded by the tile and neither side is copied: both may be half-precision memory maps of millions of rows. One tile serves
both directions: along its rows queries look for items, along its columns items for queries.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from evaluation.metrics.distinct_rows import UnitRows
from evaluation.metrics.relevance import Lists, Relevance

Ties = Literal["pessimistic", "optimistic", "lowest_index"]
Ranks = Int[np.ndarray, "n"]

_TILE_SIDE = {"cpu": 2**10}  # a tile of 4 MiB is counted before it leaves the cache
_TILE_SIDE_ELSEWHERE = 2**13
_KEPT_SCORES = 2**24  # 64 MiB as float32
_CHUNK_QUERIES = 2**10


def first_right_ranks(
    query: Float[Tensor, "q d"],
    gallery: Float[Tensor, "n d"],
    relevance: Relevance,
    *,
    ties: Ties = "pessimistic",
    tile_side: int | None = None,
    device: torch.device | str | None = None,
) -> Int[np.ndarray, "q"]:
    """Rank of the best right item of every query, from 1. Similarity is the cosine in float32; rows may have any length.

    `ties` says where the right item stands among wrong ones with exactly its score:
      pessimistic    after all of them: the order of the data plays no part and an encoder that cannot tell gains nothing
      optimistic     before all of them
      lowest_index   in gallery order, as the training metrics at the head of open_clip's repository
    Equal rows tie exactly, wherever they stand. Tiles have `tile_side` rows of both sides, None picks; `device` is where the products
    are taken, None where the queries are. Raises ValueError for embeddings that are not finite, no queries, an empty gallery, or a query
    without a right item.
    """
    return _Search(query, gallery, relevance, tile_side, device).ranks(ties, ways=(0,))[0]


def ranks_both_ways(
    query: Float[Tensor, "q d"],
    gallery: Float[Tensor, "n d"],
    relevance: Relevance,
    *,
    ties: Ties = "pessimistic",
    tile_side: int | None = None,
    device: torch.device | str | None = None,
) -> tuple[Int[np.ndarray, "q"], Int[np.ndarray, "n"]]:
    """The ranks of `first_right_ranks`, and those of the items when they ask among the queries: what is right for whom stays the same.

    Raises ValueError for an item that is right for no query, too.
    """
    of_queries, of_items = _Search(query, gallery, relevance, tile_side, device).ranks(ties, ways=(0, 1))
    return of_queries, of_items


@dataclass
class _Best:
    """The best right answer each asker has: its score, how many right ones reach it, and the first of these."""

    score: np.ndarray
    num: np.ndarray = field(init=False)
    first: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.num = np.zeros(len(self.score), dtype=np.int64)
        self.first = np.full(len(self.score), np.iinfo(np.int64).max)

    def add(self, asker: Int[np.ndarray, "p"], answer: Int[np.ndarray, "p"], score: Float[np.ndarray, "p"]) -> None:
        before = self.score[asker]
        np.maximum.at(self.score, asker, score)
        best = self.score[asker]
        risen = asker[best > before]
        self.num[risen], self.first[risen] = 0, np.iinfo(np.int64).max
        is_best = score == best
        np.add.at(self.num, asker[is_best], 1)
        np.minimum.at(self.first, asker[is_best], answer[is_best])


class _Search:
    """Scores are computed twice, to find the best right one of each asker and to count those before it: by the same product, so that
    they are equal to the bit. Only tiles with right items take part the first time, and some are kept."""

    def __init__(
        self,
        query: Float[Tensor, "q d"],
        gallery: Float[Tensor, "n d"],
        relevance: Relevance,
        tile_side: int | None,
        device: torch.device | str | None,
    ):
        _refuse_mismatch(len(query), len(gallery), relevance)
        self._device = query.device if device is None else torch.device(device)
        tile_side = tile_side or _TILE_SIDE.get(self._device.type, _TILE_SIDE_ELSEWHERE)
        self._relevance = relevance
        self._sides = (UnitRows(query, tile_side, self._device), UnitRows(gallery, tile_side, self._device))
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._num_kept = _KEPT_SCORES // tile_side**2

    def ranks(self, ties: Ties, ways: tuple[int, ...]) -> list[Ranks]:
        """Of the queries (0), the items (1), or both."""
        best = self._best_right(ways)
        for way in ways:
            if without := int((best[way].num == 0).sum()):
                raise ValueError(f"each gallery item needs a query it is right for; {without} of {len(best[way].num)} have none")
        counts = [_Counts(way, self._sides[way], self._sides[1 - way], best[way], ties, self._device) for way in ways]
        for number, scores in self._tiles():
            for each in counts:
                each.add(number[each.way], number[1 - each.way], scores)
        return [each.ranks for each in counts]

    def _best_right(self, ways: tuple[int, ...]) -> dict[int, _Best]:
        best = {way: _Best(np.full(len(self._sides[way]), -np.inf, dtype=np.float32)) for way in ways}
        num_queries, (query_rows, item_rows) = len(self._relevance), self._sides
        for start in range(0, num_queries, _CHUNK_QUERIES):
            chunk = np.arange(start, min(start + _CHUNK_QUERIES, num_queries))
            position, item = self._relevance.pairs(chunk)
            query = chunk[position]
            score = self._scores_of_pairs(query_rows.number[query], item_rows.number[item])
            for way in ways:
                best[way].add(*((query, item), (item, query))[way], score)
        return best

    def _scores_of_pairs(self, row: Int[np.ndarray, "p"], column: Int[np.ndarray, "p"]) -> Float[np.ndarray, "p"]:
        """`row` and `column` are numbers of distinct rows."""
        side, across = self._sides[0].tile_side, self._sides[1].num_tiles
        tile = row // side * across + column // side
        scores = np.empty(len(row), dtype=np.float32)
        for number in np.unique(tile):
            pairs = np.flatnonzero(tile == number)
            found = self._scores(*divmod(int(number), across), keep=True)
            where = (torch.from_numpy(index[pairs] % side).to(self._device) for index in (row, column))
            scores[pairs] = found[tuple(where)].cpu().numpy()
        return scores

    def _tiles(self) -> Iterator[tuple[tuple[int, int], Float[Tensor, "a b"]]]:
        """The longer side outside: its rows are made unit vectors once, those of the shorter side may be kept."""
        longer = int(self._sides[1].num_tiles > self._sides[0].num_tiles)
        for outer in range(self._sides[longer].num_tiles):
            for inner in range(self._sides[1 - longer].num_tiles):
                number = (inner, outer) if longer else (outer, inner)
                yield number, self._scores(*number)
                self._kept.pop(number, None)

    def _scores(self, row_tile: int, column_tile: int, keep: bool = False) -> Float[Tensor, "a b"]:
        number = (row_tile, column_tile)
        if number in self._kept:
            return self._kept[number]
        scores = self._sides[0].tile(row_tile) @ self._sides[1].tile(column_tile).T
        if keep and len(self._kept) < self._num_kept:
            self._kept[number] = scores
        return scores


class _Counts:
    """Ranks of one way, grown tile by tile. Its askers stand along dimension `way` of a tile."""

    def __init__(self, way: int, askers: UnitRows, answers: UnitRows, best: _Best, ties: Ties, device: torch.device):
        self.way, self._askers, self._answers, self._best, self._ties = way, askers, answers, best, ties
        self._threshold = torch.from_numpy(best.score).to(device)
        # What is right must not count against itself
        self.ranks = 1 - best.num if ties == "pessimistic" else np.ones(len(askers), dtype=np.int64)

    def add(self, asker_tile: int, answer_tile: int, scores: Float[Tensor, "a b"]) -> None:
        for part in self._askers.members(asker_tile):
            own = scores if part.position is None else scores.index_select(self.way, part.position)
            threshold = self._threshold[torch.from_numpy(part.rows).to(scores.device)].unsqueeze(1 - self.way)
            before = own >= threshold if self._ties == "pessimistic" else own > threshold
            self.ranks[part.rows] += self._num_answers(before, answer_tile)
            if self._ties == "lowest_index":
                self.ranks[part.rows] += self._ties_before(own == threshold, self._best.first[part.rows], answer_tile)

    def _num_answers(self, flags: Bool[Tensor, "a b"], answer_tile: int) -> Int[np.ndarray, "m"]:
        """How many answers the set flags stand for, of each asker."""
        counts = count_flags(flags, 1 - self.way).cpu().numpy()
        more = self._answers.copies[self._answers.span(answer_tile)] - 1
        if not more.any():
            return counts
        repeated = torch.from_numpy(np.flatnonzero(more)).to(flags.device)
        weights = torch.from_numpy(more[more > 0]).to(flags.device).double().unsqueeze(self.way)  # exact to 2^53
        return counts + (flags.index_select(1 - self.way, repeated) * weights).sum(1 - self.way).long().cpu().numpy()

    def _ties_before(self, ties: Bool[Tensor, "a b"], first: Int[np.ndarray, "m"], answer_tile: int) -> Int[np.ndarray, "m"]:
        """How many of the answers that tie stand before the first right one."""
        index = [each.cpu().numpy() for each in ties.nonzero(as_tuple=True)]
        asker, answer = index[self.way], index[1 - self.way]
        position, row = self._rows_of_answer.expand(answer + self._answers.span(answer_tile).start)
        return np.bincount(asker[position], weights=row < first[asker[position]], minlength=len(first)).astype(np.int64)

    @cached_property
    def _rows_of_answer(self) -> Lists:
        return Lists.from_pairs(self._answers.number, np.arange(len(self._answers)), len(self._answers.first))


def count_flags(flags: Bool[Tensor, "a b"], dim: int) -> Int[Tensor, "n"]:
    """`flags.sum(dim)`, eight flags at a time: 255 words of eight bytes can be added before a byte runs over."""
    width = flags.shape[1]
    whole = F.pad(flags, (0, -width % 8)) if width % 8 else flags
    sums = [part.sum(dim).view(torch.uint8) for part in whole.view(torch.int64).split(255, dim)]
    counts = [each.view(-1, 8).sum(1) if dim else each[:width].long() for each in sums]
    return torch.stack(counts).sum(0)


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
