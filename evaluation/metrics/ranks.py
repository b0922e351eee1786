"""Exact search that counts instead of sorting: at which place the first right item of every query stands.

A rank with ties needs counts of scores, which a list of the k best does not give. Scores are computed in tiles of queries x gallery,
so memory is bounded by the tile and neither side is copied: both may be half-precision memory maps of millions of rows. One tile serves
both directions: along its rows queries look for items, along its columns items for queries.
"""

from collections.abc import Iterator, Sequence
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
_Tile = tuple[int, int]  # of queries, of items

_LARGEST_TILE_SIDE = {"cpu": 2**10, "cuda": 2**13}  # a tile of 4 MiB is counted before it leaves a CPU's cache
_SMALLEST_TILE_SIDE = 2**8
_KEPT_SCORES = 2**24  # 64 MiB as float32


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


class _Best:
    """The best right answer each asker has: its score, how many right ones reach it, and the first of these."""

    def __init__(self, num_askers: int):
        self.score = np.full(num_askers, -np.inf, dtype=np.float32)
        self.num = np.zeros(num_askers, dtype=np.int64)
        self.first = np.full(num_askers, np.iinfo(np.int64).max)

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
    """Best right scores and counts come from the same product, so that they are equal to the bit.

    Tiles with right items are computed first. They are counted as soon as the best right score of all their askers is known, and until then
    kept as far as there is room; what was let go of is computed again.
    """

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
        num_scores = len(query) * len(gallery)
        side = tile_side or _tile_side(num_scores, self._device)
        self._relevance = relevance
        self._longer = int(len(gallery) > len(query))
        self._sides = [UnitRows(rows, side, self._device, is_kept=i != self._longer) for i, rows in enumerate((query, gallery))]
        self._kept: dict[_Tile, Tensor] = {}
        self._num_kept = min(_KEPT_SCORES, num_scores // 8) // side**2

    def ranks(self, ties: Ties, ways: tuple[int, ...]) -> list[Ranks]:
        """Of the queries (0), the items (1), or both."""
        best = [_Best(len(side)) for side in self._sides]
        counts = [_Counts(way, self._sides[way], self._sides[1 - way], best[way], ties) for way in ways]
        last_of_column = self._last_tiles_of_columns() if 1 in ways else np.zeros(self._sides[1].num_tiles, dtype=int)
        done: set[_Tile] = set()
        for row_tile in range(self._sides[0].num_tiles):
            self._find_best(row_tile, best, ways)
            for tile in [tile for tile in self._kept if last_of_column[tile[1]] <= row_tile]:
                scores = self._kept.pop(tile)
                for each in counts:
                    each.add(tile, scores)
                done.add(tile)
        for tile in self._tiles():
            if tile not in done:
                scores = self._scores(tile)
                for each in counts:
                    each.add(tile, scores)
        return [each.ranks() for each in counts]

    def _last_tiles_of_columns(self) -> Int[np.ndarray, "c"]:
        """The last tile of queries with a right item in each tile of items."""
        last, has_query = np.zeros(self._sides[1].num_tiles, dtype=int), np.zeros(len(self._sides[1]), dtype=bool)
        for row_tile in range(self._sides[0].num_tiles):
            for _, item in self._pairs(row_tile):
                last[self._sides[1].number[item] // self._sides[1].tile_side] = row_tile
                has_query[item] = True
        if without := int((~has_query).sum()):
            raise ValueError(f"each gallery item needs a query it is right for; {without} of {len(has_query)} have none")
        return last

    def _pairs(self, row_tile: int) -> Iterator[tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]]:
        """Queries of a tile, and an item right for each."""
        for part in self._sides[0].members(row_tile):
            position, item = self._relevance.pairs(part.rows)
            yield part.rows[position], item

    def _find_best(self, row_tile: int, best: Sequence[_Best], ways: tuple[int, ...]) -> None:
        for query, item in self._pairs(row_tile):
            score = self._scores_of_pairs(row_tile, self._sides[0].number[query], self._sides[1].number[item])
            for way in ways:
                best[way].add(*((query, item), (item, query))[way], score)

    def _scores_of_pairs(self, row_tile: int, row: Int[np.ndarray, "p"], column: Int[np.ndarray, "p"]) -> Float[np.ndarray, "p"]:
        """`row` and `column` are numbers of distinct rows."""
        side = self._sides[0].tile_side
        scores = np.empty(len(row), dtype=np.float32)
        for column_tile in np.unique(column // side).tolist():
            pairs = np.flatnonzero(column // side == column_tile)
            found = self._scores((row_tile, column_tile), keep=True)
            where = (torch.from_numpy(index[pairs] % side).to(self._device) for index in (row, column))
            scores[pairs] = found[tuple(where)].cpu().numpy()
        return scores

    def _tiles(self) -> Iterator[_Tile]:
        """The longer side outside: its rows are made unit vectors once, those of the shorter side are kept."""
        for outer in range(self._sides[self._longer].num_tiles):
            for inner in range(self._sides[1 - self._longer].num_tiles):
                yield (inner, outer) if self._longer else (outer, inner)

    def _scores(self, tile: _Tile, keep: bool = False) -> Float[Tensor, "a b"]:
        if tile in self._kept:
            return self._kept[tile]
        scores = self._sides[0].tile(tile[0]) @ self._sides[1].tile(tile[1]).T
        if keep and len(self._kept) < self._num_kept:
            self._kept[tile] = scores
        return scores


def _tile_side(num_scores: int, device: torch.device) -> int:
    """A small search is cut into some sixty-four tiles: it needs no large ones, and few of them hold right items."""
    largest = _LARGEST_TILE_SIDE.get(device.type, _LARGEST_TILE_SIDE["cuda"])
    return max(_SMALLEST_TILE_SIDE, min(largest, 2 ** int(np.log2(max(1.0, num_scores / 64)) / 2)))


class _Counts:
    """Counts of one way, grown tile by tile. Its askers stand along dimension `way` of a tile."""

    def __init__(self, way: int, askers: UnitRows, answers: UnitRows, best: _Best, ties: Ties):
        self._way, self._askers, self._answers, self._best, self._ties = way, askers, answers, best, ties
        self._num_before = np.zeros(len(askers), dtype=np.int64)

    def ranks(self) -> Ranks:
        if self._ties == "pessimistic":  # what is right must not count against itself
            return 1 + self._num_before - self._best.num
        return 1 + self._num_before

    def add(self, tile: _Tile, scores: Float[Tensor, "a b"]) -> None:
        """`best` is known for all askers of the tile."""
        answer_tile = tile[1 - self._way]
        for part in self._askers.members(tile[self._way]):
            own = scores if part.position is None else scores.index_select(self._way, part.position)
            threshold = torch.from_numpy(self._best.score[part.rows]).to(scores.device).unsqueeze(1 - self._way)
            before = own >= threshold if self._ties == "pessimistic" else own > threshold
            self._num_before[part.rows] += self._num_answers(before, answer_tile)
            if self._ties == "lowest_index":
                self._num_before[part.rows] += self._ties_before(own == threshold, self._best.first[part.rows], answer_tile)

    def _num_answers(self, flags: Bool[Tensor, "a b"], answer_tile: int) -> Int[np.ndarray, "m"]:
        """How many answers the set flags stand for, of each asker."""
        counts = count_flags(flags, 1 - self._way).cpu().numpy()
        more = self._answers.copies[self._answers.span(answer_tile)] - 1
        if not more.any():
            return counts
        repeated = torch.from_numpy(np.flatnonzero(more)).to(flags.device)
        weights = torch.from_numpy(more[more > 0]).to(flags.device).double().unsqueeze(self._way)  # exact to 2^53
        return counts + (flags.index_select(1 - self._way, repeated) * weights).sum(1 - self._way).long().cpu().numpy()

    def _ties_before(self, ties: Bool[Tensor, "a b"], first: Int[np.ndarray, "m"], answer_tile: int) -> Int[np.ndarray, "m"]:
        """How many of the answers that tie stand before the first right one."""
        index = [each.cpu().numpy() for each in ties.nonzero(as_tuple=True)]
        asker, answer = index[self._way], index[1 - self._way]
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
