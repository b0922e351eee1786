import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from rsvl_data.errors import OptionError
from rsvl_data.shard_cache import ShardCache

KIB = 1 / 2**20  # in GiB


def writer(content: bytes, calls: list[bytes] | None = None):
    def fetch(file):
        if calls is not None:
            calls.append(content)
        file.write(content)

    return fetch


def put(cache: ShardCache, name: str, kib: int = 10, calls: list[bytes] | None = None):
    return cache.open(name, kib * 1024, writer(name.encode() * (kib * 1024 // len(name)), calls))


def names(cache: ShardCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir()} - {"lock"}


def test_a_file_is_fetched_once_and_read_often(tmp_path):
    cache, calls = ShardCache(tmp_path, 100 * KIB), []
    for _ in range(3):
        with put(cache, "a", calls=calls) as file:
            assert file.read() == b"a" * 10240
    assert len(calls) == 1 and names(cache) == {"a"}


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache, calls = ShardCache(tmp_path, 35 * KIB), []
    for name in ("a", "b", "c", "a", "d"):
        put(cache, name, calls=calls).close()
        time.sleep(0.01)
    assert names(cache) == {"a", "c", "d"}
    put(cache, "b", calls=calls).close()
    assert names(cache) == {"a", "d", "b"}
    assert [call[:1] for call in calls] == [b"a", b"b", b"c", b"d", b"b"]


def test_what_is_open_stays_longest_and_can_be_read_when_it_went(tmp_path):
    cache = ShardCache(tmp_path, 25 * KIB)
    with put(cache, "a") as held:
        time.sleep(0.01)
        put(cache, "b").close()
        put(cache, "c").close()
        assert names(cache) == {"a", "c"}  # b was used later, but nobody reads it
        with put(cache, "d", kib=20):
            assert names(cache) == {"d"}
            assert held.read() == b"a" * 10240


def test_a_cache_smaller_than_one_file(tmp_path):
    cache = ShardCache(tmp_path, 5 * KIB)
    with pytest.raises(OptionError, match=r"a file of .* GiB does not fit into the data cache of .* Give --data-cache-gib more"):
        put(cache, "a")
    with pytest.raises(OptionError, match="is 0 GiB; it must be above 0"):
        ShardCache(tmp_path, 0)


def test_an_error_leaves_no_file_and_the_next_one_fetches(tmp_path):
    cache = ShardCache(tmp_path, 100 * KIB)

    def broken(file):
        file.write(b"half")
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError, match="cut"):
        cache.open("a", 10240, broken)
    assert names(cache) == set()
    with put(cache, "a") as file:
        assert file.read() == b"a" * 10240


def _fetch_slowly(folder: Path, log: Path, seconds: float, name: str = "a") -> None:
    def fetch(file):
        with log.open("a") as calls:
            calls.write("fetched\n")
        file.write(b"a" * 5000)
        file.flush()
        time.sleep(seconds)
        file.write(b"a" * 5240)

    with ShardCache(folder, 15 * KIB).open(name, 10240, fetch) as file:
        assert file.read() == b"a" * 10240


def start(*arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=_fetch_slowly, args=arguments)
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*fork")
def test_processes_share_one_download(tmp_path):
    log = tmp_path / "log"
    processes = [start(tmp_path / "cache", log, 0.3) for _ in range(4)]
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "fetched\n"


@pytest.mark.filterwarnings("ignore:.*fork")
def test_who_waited_does_not_wait_for_the_readers(tmp_path):
    """They hold the file that was being written for as long as they like."""
    log = tmp_path / "log"
    writers = [start(tmp_path / "cache", log, 0.5) for _ in range(2)]
    while not log.exists():
        time.sleep(0.01)
    with ShardCache(tmp_path / "cache", 15 * KIB).open("a", 10240, writer(b"")):
        for process in writers:
            process.join(10)
            assert process.exitcode == 0


@pytest.mark.filterwarnings("ignore:.*fork")
def test_downloads_under_way_wait_for_one_another_when_room_is_short(tmp_path):
    """Room for one and a half: three at a time would be twice the bound."""
    processes = [start(tmp_path / "cache", tmp_path / "log", 0.2, name) for name in "abc"]
    most = 0
    while any(process.is_alive() for process in processes):
        for path in (tmp_path / "cache").glob("*"):
            try:
                most = max(most, sum(p.stat().st_size for p in path.parent.iterdir()))
            except FileNotFoundError:
                continue
    assert [process.exitcode for process in processes] == [0] * 3
    assert 0 < most <= 15 * 1024


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_kill_leaves_no_whole_name_and_its_rest_goes(tmp_path):
    log, cache = tmp_path / "log", ShardCache(tmp_path / "cache", 15 * KIB)
    process = start(cache.folder, log, 60)
    while not log.exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert names(cache) == {"a.part"}
    put(cache, "b").close()  # there is no room for both
    assert names(cache) == {"b"}
    with put(cache, "a") as file:
        assert file.read() == b"a" * 10240
