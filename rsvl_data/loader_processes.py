"""What the training process and its loader processes do about signals and about each other's end.

Torch notices the death of a loader process by SIGCHLD, in whatever line the training process happens to be. Three things are added:
the message says what to do, a death that torch does not notice ends the run as well, and a signal meant for the run is not taken by its
loader processes.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.process import BaseProcess

from rsvl_data.errors import LoaderError

_MOST_SECONDS_TO_NOTICE = 60.0


@contextmanager
def worker_deaths_named() -> Iterator[None]:
    """Torch notices the death of a worker in whatever line the process happens to be, and says little about it."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise worker_gone(error) from error


def worker_gone(error: Exception) -> LoaderError:
    if threading.current_thread() is threading.main_thread():
        # Torch's handler raises again when the other workers are stopped, in whatever line that happens to be.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return LoaderError(_words(f"{type(error).__name__}: {error}"))


def _words(what: str) -> str:
    return (
        f"a process that loads batches is gone ({what}). Often memory ran out: set --workers or --prefetch lower. "
        "The run goes on with --resume latest."
    )


class DeathWatch:
    """Ends this process when it waits for `processes` of which one is dead, and torch does not see it.

    That happens: a process killed in the middle of a message leaves a pipe from which no read returns, since the others hold its
    other end; and an exception from a signal handler is lost in a destructor. Then no exception can reach the line that waits, so this
    process ends with status 1 and the message that `worker_deaths_named` would have given.
    """

    def __init__(self, processes: Sequence[BaseProcess], most_seconds: float = _MOST_SECONDS_TO_NOTICE):
        self._most_seconds = most_seconds
        self._waiting_since: float | None = None
        self._ended = threading.Event()
        if processes:
            sentinels = [process.sentinel for process in processes]  # looking at `exitcode` would hide the death from torch
            threading.Thread(target=self._watch, args=(sentinels,), daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around whatever may wait for the processes. Not while the caller computes: it may take its time to notice."""
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None

    def end(self) -> None:
        self._ended.set()

    def _watch(self, sentinels: Sequence[int]) -> None:
        connection.wait(sentinels)
        died = time.monotonic()
        while not self._ended.wait(0.2):
            since = self._waiting_since
            if since is not None and time.monotonic() - max(since, died) > self._most_seconds:
                print(f"rsvl: {_words('it died, and what it was handing over never came')}", file=sys.stderr, flush=True)  # noqa: T201
                os._exit(1)


def obey_parent_alone(_: int = 0) -> None:
    """For a loader process: SIGINT and SIGTERM, sent to all processes of a run, are the training process's to obey, and it still needs
    batches for the step it is in. SIGTERM from that process, which is how torch ends a loader process, is obeyed.

    That the parent is gone is noticed by torch, within 5 s.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS: who sent a signal is not known
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_await_parents_sigterm, args=(os.getppid(),), daemon=True).start()


def _await_parents_sigterm(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
