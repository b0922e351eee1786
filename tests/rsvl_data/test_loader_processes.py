"""Signals to loader processes, and their deaths."""

import multiprocessing
import os
import signal
import subprocess
import time

import psutil
import pytest
from tiny_dataset import PREPROCESS, make_sample, tokenize, write_dataset

from rsvl_data.errors import LoaderError
from rsvl_data.loader import LoaderConfig, train_batches
from rsvl_data.loader_processes import DeathWatch, obey_parent_alone, worker_deaths_named

FORK = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork")


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path, [[make_sample(number) for number in range(8)]])


def endless(dataset, workers: int):
    return train_batches(dataset, "train", PREPROCESS, tokenize, LoaderConfig(4, workers), num_steps=100_000)


def _first_then_die(dataset, workers: int, answer) -> None:
    try:
        with worker_deaths_named():
            for number, _ in enumerate(endless(dataset, workers)):
                if number == 3:
                    os.kill(psutil.Process().children()[0].pid, signal.SIGKILL)
    except LoaderError as error:
        answer.send(str(error))


def test_a_killed_worker_is_a_clear_end(dataset):
    ours, theirs = multiprocessing.Pipe()
    process = FORK.Process(target=_first_then_die, args=(dataset, 2, theirs))
    process.start()
    theirs.close()
    assert ours.poll(60)
    assert ours.recv().startswith("a process that loads batches is gone (")
    process.join(20)
    assert process.exitcode == 0


def test_other_runtime_errors_pass():
    with pytest.raises(RuntimeError, match="CUDA error"), worker_deaths_named():
        raise RuntimeError("CUDA error")


def _wait_for_a_dead_process(is_waiting: bool) -> None:
    dead = FORK.Process(target=os._exit, args=(9,))
    dead.start()
    watch = DeathWatch([dead], most_seconds=0.3)
    if is_waiting:
        with watch.waiting():
            time.sleep(30)
    time.sleep(1.5)
    os._exit(5)


@pytest.mark.parametrize(("is_waiting", "status"), [(True, 1), (False, 5)])
def test_a_death_that_torch_does_not_see_ends_whoever_waits(capfd, is_waiting, status):
    process = FORK.Process(target=_wait_for_a_dead_process, args=(is_waiting,))
    process.start()
    process.join(20)
    assert process.exitcode == status
    assert ("a process that loads batches is gone (it died" in capfd.readouterr().err) == is_waiting


def send(name: str, pid: int) -> None:
    """From a process that is not the parent."""
    subprocess.run(["kill", f"-{name}", str(pid)], check=True)


def test_signals_to_the_whole_run_leave_its_workers_at_work(dataset):
    running = endless(dataset, 2)
    first = next(running)
    before = {each.pid for each in psutil.Process().children() if each.name() != "kill"}
    for pid in before:
        send("TERM", pid)
        send("INT", pid)
    assert [next(running).step for _ in range(12)] == list(range(first.step + 1, first.step + 13))
    assert before <= {each.pid for each in psutil.Process().children()}
    started = time.monotonic()
    running.close()
    assert time.monotonic() - started < 4  # it need not be forced to end


def _obey(answer) -> None:
    obey_parent_alone()
    answer.send("ready")
    time.sleep(60)


def test_sigterm_of_the_parent_is_obeyed():
    ours, theirs = multiprocessing.Pipe()
    process = FORK.Process(target=_obey, args=(theirs,))
    process.start()
    assert ours.poll(10) and ours.recv() == "ready"
    send("TERM", process.pid)
    process.join(0.5)
    assert process.exitcode is None
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


def _load_until_killed(dataset, answer) -> None:
    running = endless(dataset, 2)
    next(running)
    answer.send([each.pid for each in psutil.Process().children()])
    time.sleep(60)


@pytest.mark.slow  # torch looks every 5 s
def test_workers_end_with_their_parent(dataset):
    ours, theirs = multiprocessing.Pipe()
    process = FORK.Process(target=_load_until_killed, args=(dataset, theirs))
    process.start()
    assert ours.poll(20)
    workers = [psutil.Process(pid) for pid in ours.recv()]
    process.kill()
    assert len(workers) == 2 and not psutil.wait_procs(workers, timeout=30)[1]
