"""Which gallery items are right for which query, without a table of queries x gallery."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


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
