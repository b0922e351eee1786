"""What a stage asks of a vision-language model, and what it gets: a `Request` goes in, a future of `Answer`s or a `Failure` comes out.

An engine has two lives. Its options are a small frozen dataclass that travels to worker processes and names the model in every record;
`start` turns them into the thing that holds connections or weights, in the process that needs it and not before.
"""

import atexit
import base64
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rsvl_data.errors import OptionError
from rsvl_data.sample import TextSource


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn."""

    num_candidates: int = 1
    """answers wanted for one image"""
    temperature: float = 0.7
    """0 takes the likeliest token always"""
    top_p: float = 0.95
    """tokens are drawn from the likeliest ones that have this probability together"""
    top_k: int | None = None
    """tokens are drawn from so many likeliest ones; left out, from all"""
    max_tokens: int = 256
    """an answer is cut after so many"""
    seed: int = 0
    """the seed of each request follows from it, the image and the number of the try"""

    def __post_init__(self) -> None:
        if self.num_candidates < 1 or self.max_tokens < 1 or (self.top_k is not None and self.top_k < 1):
            raise OptionError("--num-candidates, --max-tokens and --top-k must be 1 or more")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise OptionError(f"temperature {self.temperature} must be 0 or more, top_p {self.top_p} above 0 and at most 1")


@dataclass(frozen=True)
class Request:
    """`image` is an encoded JPEG or PNG; None asks about the text alone. Answer i is drawn with the seed `sampling.seed + i`."""

    image: bytes | None
    text: str
    sampling: Sampling
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """`finish_reason` is "stop", or "length" where `max_tokens` cut the text, or another word of the engine."""

    text: str
    finish_reason: str


@dataclass(frozen=True)
class Failure:
    """There is no answer to this request. `reason` is a word for counting."""

    reason: str
    detail: str


Reply = list[Answer] | Failure
"""At least one answer, and at most as many as asked for."""


def user_message(request: Request) -> list[dict[str, Any]]:
    """In the form of OpenAI's chats: one turn of the user, the image before the text; every chat template knows that."""
    content: list[dict[str, Any]] = [{"type": "text", "text": request.text}]
    if request.image is not None:
        kind = "png" if request.image.startswith(b"\x89PNG") else "jpeg"
        url = f"data:image/{kind};base64,{base64.b64encode(request.image).decode()}"
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return [{"role": "user", "content": content}]


class RunningEngine(Protocol):
    def submit(self, request: Request) -> Future[Reply]:
        """Any thread may call it. The future ends within a bounded time. It raises EngineError when no request can be answered any more."""

    def close(self) -> None: ...


@runtime_checkable
class Engine(Protocol):
    """Options of an engine: hashable, and small enough to be sent to other processes."""

    @property
    def source(self) -> TextSource:
        """Engine, model and revision, as they stand in every caption."""

    @property
    def num_parallel(self) -> int:
        """Requests that keep it busy."""

    def start(self) -> RunningEngine: ...


_running: dict[Engine, RunningEngine] = {}
_starting = threading.Lock()


def running(engine: Engine) -> RunningEngine:
    """The engine, started once a process: the tasks of a worker share the weights."""
    with _starting:
        if engine not in _running:
            _running[engine] = engine.start()
        return _running[engine]


@atexit.register
def close_engines() -> None:
    """Give back weights and connections of all engines of this process; they start again when needed."""
    with _starting:
        while _running:
            _running.popitem()[1].close()


class BatchThread:
    """Gathers the requests of many callers for a function that answers a batch of them.

    A batch is what has come in while the last one was answered. An engine that has been idle waits `linger_s` for company.
    """

    def __init__(self, answer_batch: Callable[[Sequence[Request]], Sequence[Reply]], batch_size: int, linger_s: float = 0.05):
        self._answer_batch, self._batch_size, self._linger_s = answer_batch, batch_size, linger_s
        self._queue: queue.SimpleQueue[tuple[Request, Future[Reply]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="captioning batches", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Future[Reply]:
        future: Future[Reply] = Future()
        self._queue.put((request, future))
        return future

    def close(self) -> None:
        """What has been submitted is still answered."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        is_open = True
        while is_open and (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < self._batch_size:
                try:
                    item = self._queue.get(timeout=self._linger_s)
                except queue.Empty:
                    break
                if item is None:
                    is_open = False
                    break
                batch.append(item)
            self._answer([pair for pair in batch if pair[1].set_running_or_notify_cancel()])

    def _answer(self, batch: list[tuple[Request, Future[Reply]]]) -> None:
        try:
            replies = self._answer_batch([request for request, _ in batch]) if batch else []
        except Exception as error:  # it belongs to those who wait, in whose threads it is raised
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), reply in zip(batch, replies, strict=True):
                future.set_result(reply)
