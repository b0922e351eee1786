"""The processes that the tasks of a build run in, on this machine. What happens in each of them is datatrove's (`datatrove_tasks.py`),
which is imported there alone: it takes as long as some hundred images.
"""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from rsvl_data.errors import RsvlError

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"  # of NumPy's wheels, read when NumPy is loaded
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

Step = Callable[[Any, int, int], Any]
"""What came before, the number of the task and how many there are, to what goes on from here."""


def start_importing(*modules: str) -> None:
    """Tell the process that workers are forked from to import these now, beside whatever comes before the work, and once for all of
    them."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["__main__", "rsvl_data.pipeline", "rsvl_data.datatrove_tasks", *modules]
    )
    _forkserver_context()


def _forkserver_context() -> ForkServerContext:
    """Of workers that share no matrix product among threads: the other cores have workers of their own."""
    before = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = before or "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ[_BLAS_THREADS]
    return multiprocessing.get_context("forkserver")


def run_tasks(steps: Sequence[Step], tasks: int, workers: int, logging_dir: Path) -> None:
    """Each of the tasks 0 to `tasks` - 1 to its end; those that `logging_dir` knows as finished are left out.

    Raises the error of the first task that fails, RsvlError when the kernel killed a worker process.
    """
    try:
        if min(workers, tasks) == 1:
            _in_this_process(steps, tasks, logging_dir)
        else:
            _in_workers(steps, tasks, min(workers, tasks), logging_dir)
    except BrokenProcessPool as error:
        raise RsvlError(
            "a worker process died before its shard was done, most likely killed by the kernel for lack of memory. "
            "What is finished is kept: give the same command again, with fewer --workers"
        ) from error
    except OSError as error:
        error.filename = error.filename or str(logging_dir)  # a full disk does not say where it is full
        raise


def _in_this_process(steps: Sequence[Step], tasks: int, logging_dir: Path) -> None:
    from rsvl_data.datatrove_tasks import run_task

    _keep_freed_memory()
    for rank in range(tasks):
        run_task(steps, rank, tasks, logging_dir)


def _in_workers(steps: Sequence[Step], tasks: int, workers: int, logging_dir: Path) -> None:
    """The standard library's pool notices when the kernel kills a process of it; datatrove's would wait for its answer for ever."""
    from multiprocess.reduction import ForkingPickler  # datatrove's own way: stages are closures, which pickle cannot send

    sent = bytes(ForkingPickler.dumps(steps))
    with ProcessPoolExecutor(workers, mp_context=_forkserver_context(), initializer=_begin_worker) as pool:
        try:
            for finished in as_completed([pool.submit(_run_sent, sent, rank, tasks, logging_dir) for rank in range(tasks)]):
                finished.result()
        except BaseException:
            for worker in list(pool._processes.values()):  # else the pool would wait for the ends of their shards
                worker.terminate()
            raise


def _run_sent(steps: bytes, rank: int, tasks: int, logging_dir: Path) -> None:
    from multiprocess.reduction import ForkingPickler

    from rsvl_data.datatrove_tasks import run_task

    run_task(ForkingPickler.loads(steps), rank, tasks, logging_dir)


def _begin_worker() -> None:
    """A worker ends with its parent, however that ends: else it would go on writing beside the workers of the next run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _keep_freed_memory()
    gc.freeze()  # what was imported stays: a collector that walks over it copies every page that the workers share
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _keep_freed_memory() -> None:
    """Pixels of one image after the other: giving their memory back to the kernel each time costs as much as decoding them.

    glibc's mallopt (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD); other systems have none, or another meaning of its numbers.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 1024 * 1024)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024)
