"""Image embeddings kept on disk, so that ten tasks on the same pictures encode each of them once.

    CACHE/1a2b3c4d5e6f7890/       one folder for each way to encode: model, preprocessing, precision, versions
      encoding.json               all that the numbers depend on; its sha256 is the folder's name
      embeddings.f16              unit vectors in half precision, one row after the other: a memory map
      index                       40 bytes a row: sha256 of the image file, crc32 and length of the row

A row counts when its index entry is whole. Rows are written before their entries, by one process at a time; what a killed writer left
behind is written over by the next. A row that does not fit its crc32, as after a crash of the machine, is as good as absent.
"""

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16

from rsvl_data.shards import write_atomically

_ENTRY = np.dtype([("sha256", "V32"), ("crc32", "<u4"), ("dim", "<u4")])
_ROW = np.dtype("<f2")


@dataclass(frozen=True)
class EmbeddingCache:
    """A folder that any number of models, datasets and processes share."""

    root: Path

    def part(self, encoding: Mapping[str, Any]) -> "CachedEmbeddings":
        """The embeddings made in exactly this way. `encoding` must name all that a number depends on but the image itself."""
        text = json.dumps(encoding, sort_keys=True, indent=1)
        return CachedEmbeddings(self.root / hashlib.sha256(text.encode()).hexdigest()[:16], text)


@dataclass
class CachedEmbeddings:
    folder: Path
    encoding: str
    _places: dict[bytes, tuple[int, int]] = field(default_factory=dict, repr=False)  # image sha256 -> row and its crc32
    _num_read: int = 0
    _dim: int = 0

    def find(self, sha256s: Sequence[str]) -> dict[str, Float16[np.ndarray, "d"]]:
        """Rows of those images that have one, written by whatever process."""
        self._read_index()
        if not self._places:
            return {}
        path = self.folder / "embeddings.f16"
        num_rows = path.stat().st_size // (self._dim * _ROW.itemsize) if path.exists() else 0
        if not num_rows:
            return {}
        rows = np.memmap(path, _ROW, "r", shape=(num_rows, self._dim))
        found = {}
        for sha256 in dict.fromkeys(sha256s):
            place, crc32 = self._places.get(bytes.fromhex(sha256), (num_rows, 0))
            if place < num_rows and zlib.crc32(rows[place].tobytes()) == crc32:
                found[sha256] = np.array(rows[place])
        return found

    def append(self, sha256s: Sequence[str], embeds: Float16[np.ndarray, "n d"]) -> None:
        """An image that another process has added in the meantime gets a second row, equal to the first."""
        entries = np.empty(len(sha256s), _ENTRY)
        entries["sha256"] = [np.void(bytes.fromhex(sha256)) for sha256 in sha256s]
        entries["crc32"] = [zlib.crc32(row.tobytes()) for row in embeds]
        entries["dim"] = embeds.shape[1]
        with self._only_writer():
            num_rows = self._num_whole_entries()
            _write_at(self.folder / "embeddings.f16", num_rows * embeds[0].nbytes, embeds.astype(_ROW).tobytes())
            _write_at(self.folder / "index", num_rows * _ENTRY.itemsize, entries.tobytes())

    def _read_index(self) -> None:
        """What was added since the last look."""
        count = self._num_whole_entries()
        if count == self._num_read:
            return
        with open(self.folder / "index", "rb") as file:
            file.seek(self._num_read * _ENTRY.itemsize)
            entries = np.frombuffer(file.read((count - self._num_read) * _ENTRY.itemsize), _ENTRY)
        self._dim = int(entries["dim"][0])
        for row, entry in enumerate(entries, self._num_read):
            self._places[entry["sha256"].tobytes()] = (row, int(entry["crc32"]))
        self._num_read = count

    def _num_whole_entries(self) -> int:
        index = self.folder / "index"
        return index.stat().st_size // _ENTRY.itemsize if index.exists() else 0

    @contextmanager
    def _only_writer(self) -> Iterator[None]:
        """Waits for its turn, which is short. The kernel frees the lock of a process that ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "wb") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            if not (self.folder / "encoding.json").exists():
                write_atomically(self.folder / "encoding.json", self.encoding.encode())
            yield


def _write_at(path: Path, offset_bytes: int, content: bytes) -> None:
    """In place, over what a killed writer left at the end."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
        file.seek(offset_bytes)
        file.write(content)
