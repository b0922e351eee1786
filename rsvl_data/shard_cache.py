"""A bounded folder of files that were fetched, shared by every process of a machine.

    CACHE/SHA256        a whole file, checked before it got this name; the modification time is that of its last use
    CACHE/SHA256.part   on its way, locked by the process that fetches it; truncated to its full size, so that the room is taken
    CACHE/lock          held while room is made

A file is fetched once, whoever asks: the others wait for the lock. All locks are the kernel's and end with their process, so a killed
one leaves at most a `.part` that the next removes. Readers hold a shared lock on what they have open, and room is made from files that
nobody holds, those used longest ago first. When all are held, a held one loses its name all the same: POSIX keeps an open file (or a
mapped one) readable without it, and gives its room back when the last reader closes it. Only then does the disk hold more than the bound.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rsvl_data.errors import OptionError

_GIB = 1 << 30
_POLL_S = 0.05
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)")


def remote_address(place: Path | str) -> str | None:
    """`place` as an address, without a slash at its end; None for a local folder.

    A Path has made one slash of the two behind the colon: `hf:/datasets/x` is understood, too.
    """
    parts = _ADDRESS.fullmatch(str(place))
    if parts is None or parts[1] in ("file", "local"):
        return None
    return f"{parts[1]}://{parts[2].rstrip('/')}"


def default_cache_folder() -> Path:
    return Path(os.environ.get("RSVL_DATA_CACHE", "~/.cache/rsvl/shards")).expanduser()


@dataclass(frozen=True)
class ShardCache:
    folder: Path = field(default_factory=default_cache_folder)
    """where fetched shards are kept; $RSVL_DATA_CACHE when it is set"""
    size_gib: float = 100.0
    """the most they take together"""

    def __post_init__(self) -> None:
        if not self.size_gib > 0:
            raise OptionError(f"the size of the data cache is {self.size_gib} GiB; it must be above 0")

    @property
    def size_bytes(self) -> int:
        return int(self.size_gib * _GIB)

    def open(self, sha256: str, num_bytes: int, fetch: Callable[[IO[bytes]], None]) -> IO[bytes]:
        """The file of this checksum, opened for reading.

        Where it is not there yet, `fetch(file)` writes it, and answers for its content. Its errors pass through, and no file is left.
        `num_bytes` is the room it will need; 0 when that is not known and small.
        Raises OptionError when the cache is too small for this file alone.
        """
        if num_bytes > self.size_bytes:
            raise OptionError(
                f"a file of {num_bytes / _GIB:.3g} GiB does not fit into the data cache of {self.size_gib:g} GiB at {self.folder}. "
                "Give --data-cache-gib more, best some dozens of shards."
            )
        path = self.folder / sha256
        part = self.folder / f"{sha256}.part"
        while True:
            with suppress(FileNotFoundError):
                return _held(path)
            self.folder.mkdir(parents=True, exist_ok=True)
            with _being_written(part) as file:
                if file is not None and not path.exists():
                    self._take_room(file, num_bytes)
                    _write(file, part, fetch)
                    part.replace(path)

    def _take_room(self, file: IO[bytes], num_bytes: int) -> None:
        """Waits for other processes where what they are fetching leaves no room."""
        file.truncate(0)  # what a killed process left
        while True:
            with open(self.folder / "lock", "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._make_room(num_bytes):
                    file.truncate(num_bytes)
                    return
            time.sleep(_POLL_S)

    def _make_room(self, num_bytes: int) -> bool:
        used, removable = 0, []
        for path in self.folder.iterdir():
            try:
                stat, is_held = path.stat(), _is_held(path)
            except FileNotFoundError:
                return False  # a file got its name while we looked
            used += stat.st_size
            if path.name != "lock" and not (is_held and path.suffix == ".part"):
                removable.append((is_held, stat.st_mtime_ns, stat.st_size, path))
        for _, _, size, path in sorted(removable):
            # A `.part` that nobody holds was left by a killed process.
            if path.suffix == ".part" or used + num_bytes > self.size_bytes:
                path.unlink(missing_ok=True)
                used -= size
        return used + num_bytes <= self.size_bytes


def _held(path: Path) -> IO[bytes]:
    file = path.open("rb", buffering=0)
    fcntl.flock(file, fcntl.LOCK_SH)
    os.utime(file.fileno())
    return file


def _is_held(path: Path) -> bool:
    with open(path, "r+b") as file:  # NFS gives an exclusive lock only to who may write
        return not _try_lock(file)


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _has_name(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _being_written(part: Path) -> Iterator[IO[bytes] | None]:
    """`part`, for this process alone; None when it got its final name, or was removed, while we waited."""
    with open(part, "ab", buffering=0) as file:
        # Not a lock that blocks: under its final name the file is held by readers, for as long as they like.
        while not (is_locked := _try_lock(file)) and _has_name(file, part):
            time.sleep(_POLL_S)
        try:
            yield file if is_locked and _has_name(file, part) else None
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _write(file: IO[bytes], part: Path, fetch: Callable[[IO[bytes]], None]) -> None:
    with open(part, "r+b") as content:
        try:
            fetch(content)
            content.truncate()
            content.flush()
            os.fsync(content.fileno())
        except OSError as error:
            if error.errno is not None and error.filename is None:
                error.filename = str(part)  # a full disk does not say whose
            raise
