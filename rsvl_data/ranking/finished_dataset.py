"""A dataset folder of ours as the source of another one: its records go through new stages, keys, splits and images stay."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rsvl_data.errors import CorruptShard
from rsvl_data.shards import Dataset, Shard
from rsvl_data.sources.base import Entry
from rsvl_data.stage import Dropped, Outcome


@dataclass(frozen=True)
class FinishedDataset:
    """Every record with all its captions, scores and unknown fields. Its splits stay as they are."""

    dataset: Dataset

    @property
    def name(self) -> str:
        return self.dataset.name

    @property
    def note(self) -> str | None:
        return self.dataset.note

    @property
    def mask(self) -> dict[str, Any] | None:
        return self.dataset.manifest.get("mask")

    def entries(self) -> Iterator[Entry]:
        """By key. The checksum of the shard is among the facts: a build must not go on when the source has changed."""
        for shard in self.dataset.manifest["shards"]:
            keys = pq.read_table(self.dataset.root / "data" / f"{shard['name']}.parquet", columns=["key"])["key"].to_pylist()
            for index, key in enumerate(keys):
                facts = {"shard": shard["name"], "index": index, "sha256": shard["sha256"][:16]}
                yield Entry(key, split=shard["split"], facts=facts)

    def read(self, entry: Entry) -> Outcome:
        shard = _open(self.dataset.root / "data" / f"{entry.facts['shard']}.tar")
        try:
            return shard.sample(entry.facts["index"])
        except CorruptShard as error:
            return Dropped(entry.id, "corrupt_record", str(error))


@lru_cache(maxsize=256)
def _open(tar: Path) -> Shard:
    """The plan mixes samples of all shards; opening one for every sample would read its index every time."""
    return Shard(tar)
