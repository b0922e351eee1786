"""One process at a time works on a folder.

The lock is the kernel's: it ends with the process that holds it, however that ends, and nothing stale is left behind. It is POSIX' kind
(`lockf`, not `flock`), which children do not inherit: a helper process that outlives its parent does not keep the next run out.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rsvl_data.errors import DataError


@contextmanager
def only_process(work: Path, out: Path) -> Iterator[None]:
    """Hold `work`/lock for the length of the block. `work` is made here, and may be removed in the block.

    Raises DataError at once when another process holds it; `out` is the folder its message names.
    """
    path = work / "lock"
    file = _opened(path)
    try:
        while not _is_ours(file, path, out):
            file.close()
            file = _opened(path)
        yield
    finally:
        file.close()


def _opened(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "wb")


def _is_ours(file: IO[bytes], path: Path, out: Path) -> bool:
    """False when the one that held the lock has removed the file in the meantime: then it is no longer the one others try."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # POSIX allows either
        raise DataError(f"another process is working on {out}. Wait until it is done, or give another --out") from error
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
