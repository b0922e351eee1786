"""The only file that knows an executor: datatrove's, for tasks on this machine."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path

import loguru
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from multiprocess.reduction import ForkingPickler

from rsvl_data.errors import RsvlError

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"  # of NumPy's wheels, read when NumPy is loaded
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def start_importing(*modules: str) -> None:
    """Tell the process that workers are forked from to import these now, beside whatever comes before the work, and once for all of
    them."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["__main__", "rsvl_data.pipeline", *modules])
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


def run_tasks(steps: list[PipelineStep], tasks: int, workers: int, logging_dir: Path) -> None:
    """Each of the tasks 0 to `tasks` - 1 to its end; those that `logging_dir` knows as finished are left out.

    Raises the error of the first task that fails, RsvlError when the kernel killed a worker process.
    """
    loguru.logger.disable("datatrove")
    try:
        _LocalExecutor(steps, tasks=tasks, workers=min(workers, tasks), logging_dir=str(logging_dir)).run()
    except BrokenProcessPool as error:
        raise RsvlError(
            "a worker process died before its shard was done, most likely killed by the kernel for lack of memory. "
            "What is finished is kept: give the same command again, with fewer --workers"
        ) from error
    except OSError as error:
        error.filename = error.filename or str(logging_dir)  # a full disk does not say where it is full
        raise
    finally:
        loguru.logger.enable("datatrove")


class _LocalExecutor(LocalPipelineExecutor):
    """Datatrove's, with the standard library's pool of processes, which notices when the kernel kills one of them: datatrove's
    would wait for its answer for ever."""

    def run(self) -> None:
        ranks = self.get_incomplete_ranks()
        if self.workers == 1:
            for rank in ranks:
                deepcopy(self)._run_for_rank(rank)
            return
        task = bytes(ForkingPickler.dumps(self))  # datatrove's own way: stages are closures, which pickle cannot send
        with ProcessPoolExecutor(self.workers, mp_context=_forkserver_context(), initializer=_begin_worker) as pool:
            try:
                for finished in as_completed([pool.submit(_run_task, task, rank) for rank in ranks]):
                    finished.result()
            except BaseException:
                for worker in list(pool._processes.values()):  # else the pool would wait for the ends of their shards
                    worker.terminate()
                raise

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        # Its log would go to the terminal and to a file, and on a full disk say so in pages; errors reach the caller of `build`.
        loguru.logger.disable("datatrove")
        return super()._run_for_rank(rank, local_rank=1)


def _run_task(executor: bytes, rank: int) -> None:
    ForkingPickler.loads(executor)._run_for_rank(rank)


def _begin_worker() -> None:
    """A worker ends with its parent, however that ends: else it would go on writing beside the workers of the next run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _keep_freed_memory()
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
