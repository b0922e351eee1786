"""Which sample comes when: every position of every epoch is known without walking to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def _permutation(count: int, *seed: int) -> np.ndarray:
    """NumPy promises Philox's raw numbers to stay as they are, and promises nothing for `Generator.permutation`."""
    return np.argsort(np.random.Philox(seed).random_raw(count), kind="stable")


@dataclass(frozen=True)
class _Window:
    """Shards that are shuffled together: their samples fill the positions [start, stop) of an epoch."""

    shards: np.ndarray
    start: int
    stop: int


class SampleOrder:
    """A seeded order of all samples, new in each epoch.

    The shards are permuted, then taken in windows of `shuffle_shards`; within a window all samples are permuted. So the shards of
    one window are open at a time, and finding a position costs one window's permutation, wherever the position lies.
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, shuffle_shards: int):
        """`shard_sizes[i]` is the number of samples in shard i; `shuffle_shards` at or above their number shuffles everything."""
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.seed, self.shuffle_shards = seed, shuffle_shards
        # The newest first. A batch may straddle two windows; steps only go forward, so older ones are never asked for again.
        self._epochs: dict[int, list[_Window]] = {}
        self._permuted: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return int(self.shard_sizes.sum())

    def samples(self, epoch: int, start: int, stop: int) -> list[tuple[int, int]]:
        """Shard and row of each sample at the positions [start, stop) of an epoch."""
        found: list[tuple[int, int]] = []
        for index, window in enumerate(self._windows(epoch)):
            if window.start < stop and start < window.stop:
                rows = self._window_samples(epoch, index, window)
                part = rows[max(start - window.start, 0) : stop - window.start]
                found += [(int(shard), int(row)) for shard, row in part]
        return found

    def place(self, number: int) -> tuple[int, int]:
        """Shard and row of the sample `number`, counted as the shards lie, before any order."""
        ends = np.cumsum(self.shard_sizes)
        shard = int(np.searchsorted(ends, number, side="right"))
        return shard, int(number - (ends[shard] - self.shard_sizes[shard]))

    def window(self, epoch: int, position: int) -> np.ndarray:
        """Shard and row of all samples that are shuffled together with the one at `position`, [n, 2]."""
        index, window = next((i, w) for i, w in enumerate(self._windows(epoch)) if w.start <= position < w.stop)
        return self._window_samples(epoch, index, window)

    def _windows(self, epoch: int) -> list[_Window]:
        if epoch not in self._epochs:
            # The third number tells this seed from those of the windows, which count from 1.
            shards = _permutation(len(self.shard_sizes), self.seed, epoch, 0)
            ends = np.cumsum(self.shard_sizes[shards])
            windows, start = [], 0
            for first in range(0, len(shards), self.shuffle_shards):
                members = shards[first : first + self.shuffle_shards]
                stop = int(ends[first + len(members) - 1])
                windows.append(_Window(members, start, stop))
                start = stop
            self._epochs = {epoch: windows}
        return self._epochs[epoch]

    def _window_samples(self, epoch: int, index: int, window: _Window) -> np.ndarray:
        """Shard and row by position in the window, [n, 2]."""
        if (epoch, index) not in self._permuted:
            sizes = self.shard_sizes[window.shards]
            shards = np.repeat(window.shards, sizes)
            rows = np.concatenate([np.arange(size) for size in sizes])
            shuffled = _permutation(len(rows), self.seed, epoch, 1 + index)
            newest = dict(list(self._permuted.items())[-1:])
            self._permuted = newest | {(epoch, index): np.stack([shards[shuffled], rows[shuffled]], axis=1)}
        return self._permuted[epoch, index]
