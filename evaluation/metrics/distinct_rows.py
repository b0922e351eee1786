"""Embeddings as unit rows, of which those that are equal to the bit are one."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK_ROWS = 2**8
_KEPT_VALUES = 2**22  # of unit rows: 16 MiB as float32


@dataclass(frozen=True)
class Members:
    """Rows whose distinct rows stand in one tile; `position` is where, None when row i of the tile is that of `rows[i]`."""

    rows: Int[np.ndarray, "m"]
    position: Int[Tensor, "m"] | None


class UnitRows:
    """The distinct unit rows of one side of a search, in tiles of `tile_side`.

    A matrix product may round two equal rows differently when they fall into different places: equal rows are multiplied once.
    `number[i]` is the distinct row that row i equals, counted in the order of their first appearance; distinct row j stands first at
    `first[j]`, and `copies[j]` times in all. The embeddings are not copied: they may be half-precision memory maps of millions of rows;
    `is_kept` holds on to unit rows, the first 16 MiB of them. Raises ValueError for embeddings that hold NaN or
    infinity.
    """

    def __init__(self, embeds: Float[Tensor, "n d"], tile_side: int, device: torch.device, *, is_kept: bool = False):
        self._embeds, self._device = embeds, device
        self.number, self.first = distinct_rows(embeds)
        self.copies = np.bincount(self.number, minlength=len(self.first))
        self.tile_side, self.num_tiles = tile_side, -(-len(self.first) // tile_side)
        later = np.flatnonzero(self.first[self.number] != np.arange(len(self.number)))
        self._later = later[np.argsort(self.number[later], kind="stable")]
        self._kept: dict[int, Tensor] = {}
        self._num_kept = _KEPT_VALUES // (tile_side * embeds.shape[1]) if is_kept else 0

    def __len__(self) -> int:
        return len(self.number)

    def span(self, tile: int) -> slice:
        """Where the rows of a tile are among the distinct ones."""
        return slice(tile * self.tile_side, min((tile + 1) * self.tile_side, len(self.first)))

    def tile(self, tile: int) -> Float[Tensor, "t d"]:
        if tile in self._kept:
            return self._kept[tile]
        span = self.span(tile)
        rows = _unit(self._embeds[span] if len(self.first) == len(self) else self._embeds[self.first[span]], self._device)
        if len(self._kept) < self._num_kept:
            self._kept[tile] = rows
        return rows

    def members(self, tile: int) -> list[Members]:
        """Every row that a tile speaks for, in parts no larger than a tile: those that stand first, then their copies."""
        span = self.span(tile)
        later = self._later[slice(*np.searchsorted(self.number[self._later], [span.start, span.stop]))]
        parts = [later[start : start + self.tile_side] for start in range(0, len(later), self.tile_side)]
        copies = [Members(part, torch.from_numpy(self.number[part] - span.start).to(self._device)) for part in parts]
        return [Members(self.first[span], None), *copies]


def distinct_rows(embeds: Float[Tensor, "n d"]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
    """For every row its number among the distinct unit rows, and where each of those stands first.

    A row whose key nobody shares is like no other. The rest is told apart by 128-bit digests: two of a million are confused with
    probability 1e-27. Raises ValueError for embeddings that hold NaN or infinity.
    """
    _, group, sizes = np.unique(_keys(embeds), return_inverse=True, return_counts=True)
    first_equal = np.arange(len(embeds))
    shared = np.flatnonzero(sizes[group] > 1)
    seen: dict[bytes, int] = {}
    for start in range(0, len(shared), _CHUNK_ROWS):
        chunk = shared[start : start + _CHUNK_ROWS]
        for index, row in zip(chunk.tolist(), _unit(embeds[chunk], torch.device("cpu")).numpy(), strict=True):
            first_equal[index] = seen.setdefault(hashlib.blake2b(row, digest_size=16).digest(), index)
    first, number = np.unique(first_equal, return_inverse=True)
    return number, first


def _keys(embeds: Float[Tensor, "n d"]) -> Int[np.ndarray, "n"]:
    """A number that depends on the unit row alone: a sum of its bits with random odd factors, modulo 2^64."""
    num_words = -(-embeds.shape[1] // 2)
    factors = torch.from_numpy(np.random.default_rng(0).integers(-(2**62), 2**62, num_words) * 2 + 1)
    keys, wrong = [np.zeros(0, np.int64)], 0
    for chunk in embeds.split(_CHUNK_ROWS):
        unit = _unit(chunk, torch.device("cpu"))
        if not all(end.isfinite() for end in unit.aminmax()):
            wrong += int((~unit.isfinite().all(1)).sum())
        even = F.pad(unit, (0, 1)) if unit.shape[1] % 2 else unit
        keys.append((even.view(torch.int64) @ factors).numpy())
    if wrong:
        raise ValueError(f"{wrong} of {len(embeds)} embeddings hold NaN or infinity")
    return np.concatenate(keys)


def _unit(embeds: Float[Tensor, "n d"], device: torch.device) -> Float[Tensor, "n d"]:
    return F.normalize(embeds.to(device).float(), dim=-1)
