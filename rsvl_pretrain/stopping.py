"""How a run ends before its last step: it is asked to, a process of it is gone, or the disk is full."""

import errno
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rsvl_data.errors import DataError, RsvlError

# gloo's words come in a plain RuntimeError; NCCL's in a DistBackendError, which is one too.
_LOST = re.compile(
    r"closed by peer|reset by peer|broken pipe|socket closed|timed ?out|timeout|pair closure|remote process|connection refused",
    re.I,
)


class StopRequest:
    """SIGTERM, as a cluster sends it before it takes a node away, is noted and not obeyed: `asked` turns True, and the run stops between
    two steps. A second one ends the process at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = signal.SIG_DFL

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # no other thread may set a handler
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGTERM, self._before)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)


@contextmanager
def naming_lost_processes(num_processes: int) -> Iterator[None]:
    """Turns what gloo or NCCL say when another process was killed, or did not answer in time, into an RsvlError that says so."""
    try:
        yield
    except RuntimeError as error:
        if num_processes > 1 and _LOST.search(str(error)):
            raise RsvlError(
                f"another process of this run was killed or does not answer (--train.timeout-s): {str(error).splitlines()[0]} "
                "Why is in that process's own output. Go on with --resume latest."
            ) from error
        raise


@contextmanager
def naming_full_disk() -> Iterator[None]:
    """Turns the OSError of a disk without room into a DataError that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"the run could not write: {error}. Its last checkpoint is whole: make room and go on with --resume latest."
        ) from error
