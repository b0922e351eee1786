"""`BatchThread`, and engines that start once a process."""

import threading
from dataclasses import dataclass, field

import pytest

from rsvl_data.captioning.engine import Answer, BatchThread, Request, Sampling, close_engines, running
from rsvl_data.errors import OptionError
from rsvl_data.sample import TextSource


def request(text="a") -> Request:
    return Request(None, text, Sampling())


def test_each_caller_gets_its_own_answer_and_batches_are_bounded():
    sizes = []

    def answer(requests):
        sizes.append(len(requests))
        return [[Answer(r.text.upper(), "stop")] for r in requests]

    batches = BatchThread(answer, 4, linger_s=0.2)
    futures = [batches.submit(request(f"t{number}")) for number in range(10)]
    assert [future.result(5)[0].text for future in futures] == [f"T{number}" for number in range(10)]
    batches.close()
    assert max(sizes) == 4 and sum(sizes) == 10 and len(sizes) == 3


def test_an_error_reaches_all_who_wait_and_the_thread_goes_on():
    def answer(requests):
        if requests[0].text == "bad":
            raise MemoryError("no room")
        return [[Answer("ok", "stop")] for _ in requests]

    batches = BatchThread(answer, 2, linger_s=0.2)
    futures = [batches.submit(request("bad")) for _ in range(2)]
    for future in futures:
        with pytest.raises(MemoryError):
            future.result(5)
    assert batches.submit(request()).result(5) == [Answer("ok", "stop")]
    batches.close()


def test_closing_answers_what_was_submitted():
    go = threading.Event()

    def answer(requests):
        go.wait(5)
        return [[Answer("ok", "stop")] for _ in requests]

    batches = BatchThread(answer, 3, linger_s=0.01)
    futures = [batches.submit(request()) for _ in range(7)]
    go.set()
    batches.close()
    assert all(future.done() for future in futures)


@dataclass(frozen=True)
class Counting:
    name: str
    started: list[str] = field(default_factory=list, hash=False, compare=False)
    num_parallel: int = 1
    source: TextSource = field(default_factory=lambda: TextSource(engine="x"), hash=False)

    def start(self):
        self.started.append(self.name)
        return self

    def submit(self, request): ...

    def close(self):
        self.started.append("closed")


def test_an_engine_starts_once_a_process():
    one = Counting("one")
    assert running(one) is running(Counting("one")) is one
    assert one.started == ["one"]
    close_engines()
    assert one.started == ["one", "closed"]
    running(one)
    assert one.started == ["one", "closed", "one"]
    close_engines()


@pytest.mark.parametrize(
    "wrong", [{"num_candidates": 0}, {"max_tokens": 0}, {"top_k": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}]
)
def test_bad_sampling(wrong):
    with pytest.raises(OptionError):
        Sampling(**wrong)
