"""Any server that speaks OpenAI's chat completions: `vllm serve`, `transformers serve`, hosted ones; several of them share the requests.

A request goes to the server with the fewest open ones. What another try may mend (connection, timeout, 408, 409, 425, 429, 5xx, an
answer that is no answer) is tried again, if possible elsewhere; Retry-After holds for the server that said it. Every wait is bounded.
A server that fails time after time is left alone for the rest of the run; when none is left, EngineError ends the run: its finished
answers are in the store.

Easy to get wrong: a server that ignores `n` must be asked again, with other seeds; one that refuses `response_format` answers without;
the key stands in one environment variable and must not come back in an error message.
"""

import asyncio
import email.utils
import json
import logging
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from rsvl_data.captioning.engine import Answer, Failure, Reply, Request, user_message
from rsvl_data.errors import EngineError, OptionError
from rsvl_data.sample import TextSource

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MISCONFIGURED = frozenset({401, 403, 404})  # the next request would fare no better
_LOADING = frozenset({502, 503, 504})
_MAX_DETAIL_CHARS = 500
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenAIServer:
    model: str
    """name under which the servers know the model"""
    base_urls: tuple[str, ...] = ("http://127.0.0.1:8000/v1",)
    """one a server; they share the requests evenly"""
    dialect: Literal["vllm", "transformers", "openai"] = "vllm"
    """what the server takes beyond the standard: vllm top_k; transformers one answer a request, and no JSON schema; openai neither"""
    revision: str | None = None
    """of the model the servers loaded, for the record"""
    concurrency: int = 64
    """requests at once to one server"""
    tries: int = 4
    """for one request, where another try may help"""
    backoff_s: float = 1
    """before the second try; doubled before each further one"""
    max_wait_s: float = 60
    """longest wait before another try, also where Retry-After asks for more"""
    timeout_s: float = 300
    """for one try, to the last byte"""
    ready_s: float = 900
    """how long a server may take to come up; loading a large model takes minutes"""
    server_failures: int = 8
    """a server that failed so often in a row is left alone for the rest of the run"""
    max_answer_bytes: int = 1_000_000
    """of one HTTP answer"""
    api_key_variable: str = "OPENAI_API_KEY"
    """environment variable that holds the key, if the servers want one"""

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise OptionError("--base-urls needs the address of a server, such as http://127.0.0.1:8000/v1")
        for url in self.base_urls:
            parts = httpx.URL(url)
            if parts.scheme not in ("http", "https") or not parts.host or parts.userinfo or parts.query:
                raise OptionError(
                    f"--base-urls {parts.copy_with(userinfo=b'', query=None)}: expected http(s)://host[:port]/v1 without a key in it; "
                    f"the key goes into the environment variable {self.api_key_variable}"
                )
        counts = ("concurrency", "tries", "server_failures", "max_answer_bytes", "timeout_s")
        wrong = [f"--{name.replace('_', '-')} {getattr(self, name)}" for name in counts if getattr(self, name) <= 0]
        if wrong or min(self.backoff_s, self.max_wait_s, self.ready_s) < 0:
            raise OptionError(f"{', '.join(wrong) or '--backoff-s, --max-wait-s, --ready-s'}: must be above 0 (waits may be 0)")

    @property
    def source(self) -> TextSource:
        return TextSource(engine=f"{self.dialect} server", model=self.model, revision=self.revision)

    @property
    def num_parallel(self) -> int:
        return self.concurrency * len(self.base_urls)

    def start(self) -> "RunningServers":
        return RunningServers(self)


@dataclass
class _Server:
    url: str
    ready: bool = False
    num_open: int = 0
    num_asked: int = 0
    failures_in_a_row: int = 0
    rests_until_s: float = 0.0
    takes_schema: bool = True


class _Refused(Exception):
    """The server understood and says no; another try would hear the same."""

    def __init__(self, failure: Failure):
        super().__init__(failure.detail)
        self.failure = failure


class _TryAgain(Exception):
    """`wait_s` is what the server asked for."""

    def __init__(self, reason: str, detail: str, *, wait_s: float = 0.0, of_the_server: bool = True):
        super().__init__(detail)
        self.reason, self.wait_s, self.of_the_server = reason, wait_s, of_the_server


class RunningServers:
    """One event loop in a thread of its own, for any number of requests."""

    def __init__(self, options: OpenAIServer):
        self._options = options
        self._key = os.environ.get(options.api_key_variable, "")
        self._servers = [_Server(url.rstrip("/")) for url in options.base_urls]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="captioning requests", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def submit(self, request: Request) -> Future[Reply]:
        messages = json.dumps(user_message(request)).encode()  # coded here, in the caller's thread: the loop has many to serve
        return asyncio.run_coroutine_threadsafe(self._answer(request, messages), self._loop)

    def close(self) -> None:
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _open(self) -> None:
        self._changed = asyncio.Condition()
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._options.num_parallel)
        self._client = httpx.AsyncClient(headers=headers, limits=limits, timeout=httpx.Timeout(None, connect=10))
        self._probes = [asyncio.create_task(self._await_ready(server)) for server in self._servers]

    async def _shut(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _await_ready(self, server: _Server) -> None:
        """A server that is still loading refuses connections, and the gateway before it says 502 to 504; any other answer means that it
        is up (`transformers serve` says 500 where it has no cache of the Hub to list)."""
        deadline = time.monotonic() + self._options.ready_s
        while not server.ready:
            try:
                async with asyncio.timeout(10):
                    server.ready = (await self._client.get(f"{server.url}/models")).status_code not in _LOADING
            except (httpx.HTTPError, TimeoutError):
                pass
            if not server.ready and time.monotonic() >= deadline:
                log.warning("%s did not come up within %g s and is left alone", server.url, self._options.ready_s)
                server.failures_in_a_row = self._options.server_failures
                break
            await asyncio.sleep(0 if server.ready else min(1.0, self._options.ready_s))
        async with self._changed:
            self._changed.notify_all()

    async def _answer(self, request: Request, messages: bytes) -> Reply:
        """Servers give fewer answers than asked for, or one only: the rest is asked for with the seeds that are left."""
        wanted, answers = request.sampling.num_candidates, list[Answer]()
        while len(answers) < wanted:
            reply = await self._ask(request, messages, wanted - len(answers), request.sampling.seed + len(answers))
            if isinstance(reply, Failure):
                return answers or reply
            answers += reply
        return answers

    async def _ask(self, request: Request, messages: bytes, num: int, seed: int) -> Reply:
        options = self._options
        for attempt in range(options.tries):
            server = await self._slot()
            try:
                answers = await self._ask_server(server, request, messages, num, seed)
                server.failures_in_a_row = 0
                return answers
            except _Refused as refused:
                server.failures_in_a_row = 0
                return refused.failure
            except _TryAgain as trouble:
                failure = Failure(trouble.reason, f"{server.url}: {trouble}")
                pause_s = min(max(options.backoff_s * 2**attempt, trouble.wait_s), options.max_wait_s)
                self._note_trouble(server, trouble)
            finally:
                await self._give_back(server)
            if attempt + 1 < options.tries:
                await asyncio.sleep(pause_s)
        return failure

    def _note_trouble(self, server: _Server, trouble: _TryAgain) -> None:
        if trouble.wait_s:
            server.rests_until_s = time.monotonic() + min(trouble.wait_s, self._options.max_wait_s)
        if trouble.of_the_server:
            server.failures_in_a_row += 1
            if server.failures_in_a_row == self._options.server_failures:
                log.warning("%s failed %d times in a row and is left alone: %s", server.url, server.failures_in_a_row, trouble)

    async def _slot(self) -> _Server:
        """The alive server with the fewest open requests, as soon as one has room. Raises EngineError when none is alive."""
        while True:
            alive = [server for server in self._servers if server.failures_in_a_row < self._options.server_failures]
            if not alive:
                urls = ", ".join(server.url for server in self._servers)
                raise EngineError(f"none of the servers {urls} answers; start them and give the same command again")
            now = time.monotonic()
            up = [server for server in alive if server.ready and server.num_open < self._options.concurrency]
            free = [server for server in up if server.rests_until_s <= now]
            if free:
                server = min(free, key=lambda server: (server.num_open, server.num_asked))
                server.num_open += 1
                server.num_asked += 1
                return server
            rest_s = min((server.rests_until_s - now for server in up), default=self._options.timeout_s)
            async with self._changed:
                try:
                    async with asyncio.timeout(rest_s):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _give_back(self, server: _Server) -> None:
        server.num_open -= 1
        async with self._changed:
            self._changed.notify_all()

    async def _ask_server(self, server: _Server, request: Request, messages: bytes, num: int, seed: int) -> list[Answer]:
        fields = _fields(request, self._options, num, seed)
        schema = request.json_schema if self._options.dialect != "transformers" and server.takes_schema else None
        if schema is None:
            return await self._post(server, messages, fields, num)
        shape = {"type": "json_schema", "json_schema": {"name": "captions", "schema": schema, "strict": True}}
        try:
            return await self._post(server, messages, fields | {"response_format": shape}, num)
        except _Refused as refused:
            if refused.failure.reason not in ("http_400", "http_422"):
                raise
            answers = await self._post(server, messages, fields, num)  # if this is refused, too, the schema was not to blame
            server.takes_schema = False
            log.warning("%s takes no JSON schema and is asked without from now on: %s", server.url, refused.failure.detail)
            return answers

    async def _post(self, server: _Server, messages: bytes, fields: dict[str, Any], num: int) -> list[Answer]:
        content = b'{"messages":' + messages + b"," + json.dumps(fields).encode()[1:]
        try:
            async with (
                asyncio.timeout(self._options.timeout_s),
                self._client.stream("POST", f"{server.url}/chat/completions", content=content) as response,
            ):
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > self._options.max_answer_bytes:
                        raise _Refused(Failure("answer_too_large", f"above {self._options.max_answer_bytes} bytes"))
        except TimeoutError as error:
            raise _TryAgain("timeout", f"no whole answer within {self._options.timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise _TryAgain("connection", repr(error)) from error
        self._check_status(server, response, bytes(body))
        return _choices(bytes(body))[:num]

    def _check_status(self, server: _Server, response: httpx.Response, body: bytes) -> None:
        status = response.status_code
        if status == 200:
            return
        said = body.decode("utf-8", "replace")
        detail = f"HTTP {status}: {(said.replace(self._key, '***') if self._key else said)[:_MAX_DETAIL_CHARS]}"
        if status in _MISCONFIGURED:
            raise EngineError(
                f"{server.url} says {detail}; check --model, --base-urls and the key in ${self._options.api_key_variable}"
            )
        if status not in _AGAIN:
            raise _Refused(Failure(f"http_{status}", detail))
        wait_s = _retry_after_s(response.headers.get("Retry-After"))
        raise _TryAgain(f"http_{status}", detail, wait_s=wait_s, of_the_server=status >= 500)


def _fields(request: Request, options: OpenAIServer, num: int, seed: int) -> dict[str, Any]:
    sampling = request.sampling
    fields: dict[str, Any] = {"model": options.model, "max_tokens": sampling.max_tokens, "seed": seed}
    drawing: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    top_k = {} if sampling.top_k is None else {"top_k": sampling.top_k}
    if options.dialect == "transformers":
        # `transformers serve` draws only where the generation config says do_sample, and refuses fields that it does not know.
        drawn = {"do_sample": True, **drawing, "top_k": sampling.top_k or 0} if sampling.temperature > 0 else {"do_sample": False}
        return fields | {"generation_config": json.dumps(drawn)}
    if options.dialect == "openai" and top_k:
        raise OptionError("--top-k is unknown to servers of the dialect openai; leave it out, or give --dialect vllm")
    return fields | drawing | top_k | {"n": num}


def _choices(body: bytes) -> list[Answer]:
    try:
        answer = json.loads(body)
        choices = [(choice["message"].get("content"), choice.get("finish_reason")) for choice in answer["choices"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        start = body[:80].decode("utf-8", "replace")
        raise _TryAgain("malformed_answer", f"an answer that is no chat completion ({error!r}): {start!r}") from error
    if not choices:
        raise _TryAgain("malformed_answer", "an answer without choices")
    # A model that refuses, or only thinks, gives no content: an empty text, which the checks count.
    return [Answer(text if isinstance(text, str) else "", str(finish or "stop")) for text, finish in choices]


def _retry_after_s(header: str | None) -> float:
    """Seconds, or a date (RFC 9110, 10.2.3); 0 where there is none that can be read."""
    if not header:
        return 0.0
    if header.strip().isascii() and header.strip().isdigit():
        return float(header.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
