"""Many URLs at once, politely, each to its end: a file or a reason.

What we owe to the servers: few requests at once to one host, with a delay between them; Retry-After; a host that only fails is left
alone. What we owe to the person who waits: every try, wait and redirect is bounded, so the run ends.

Easy to get wrong: a table sorted by host must not make all workers wait for one host; a file that is not whole must never stand under
its real name; Retry-After holds for the host and not only for the URL that was told.
"""

import asyncio
import hashlib
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rsvl_data.downloading.arriving_image import ArrivingImage
from rsvl_data.downloading.safe_http import Limits, Resolver, SafeClient, system_resolver
from rsvl_data.downloading.web_address import NotFetched
from rsvl_data.errors import OptionError

_OF_THE_HOST = ("timeout", "http_error", "dns", "tls")  # with these the next URL of the host will most likely fail, too


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    url_column: str | None = None
    """name of the column of URLs, where it is none of the usual ones"""
    caption_column: str | None = None
    """the same for the captions"""
    limit: int | None = None
    """only the first so many rows"""
    concurrency: int = 32
    """requests at once"""
    per_host: int = 4
    """requests at once to one host"""
    delay_s: float = 0.05
    """between the starts of two requests to one host"""
    tries: int = 3
    """for one URL, where another try may help"""
    backoff_s: float = 1
    """before the second try; doubled before each further one"""
    max_wait_s: float = 60
    """longest wait before another try; a server whose Retry-After asks for more is not asked again in this run"""
    host_failures: int = 10
    """a host that failed for so many URLs in a row is left alone for the rest of the run"""
    timeout_s: float = 60
    """for one try: all redirects, to the last byte"""
    idle_s: float = 15
    """for a connection to come about, and between two pieces of an answer"""
    max_seconds: float | None = None
    """for the whole run; what is then left is the next run's"""
    max_bytes: int = 64 * 1024 * 1024
    """of one image, also after unpacking"""
    max_pixels: int = 100_000_000
    """of one image, as its header says"""
    max_redirects: int = 5
    """of one URL"""
    allow_private_hosts: bool = False
    """also ask hosts of your own network and machine, which a table made by strangers must not reach"""
    ignore_opt_out: bool = False
    """take images whose X-Robots-Tag says noai, noimageai, noindex or noimageindex, if you have the right to"""
    user_agent: str = "rsvl (image dataset download)"
    """how to name yourself; some hosts (Wikimedia) want an address to write to in it"""

    def __post_init__(self) -> None:
        counts = ("concurrency", "per_host", "tries", "host_failures", "max_bytes", "max_pixels")
        wrong = [f"{name} {getattr(self, name)}" for name in counts if getattr(self, name) < 1]
        wrong += [f"{name} {getattr(self, name)}" for name in ("timeout_s", "idle_s") if getattr(self, name) <= 0]
        wrong += [
            f"{name} {value}" for name in ("limit", "max_seconds") if (value := getattr(self, name)) is not None and value <= 0
        ]
        if wrong:
            raise OptionError(f"--{', --'.join(wrong).replace('_', '-')}: must be above 0")
        if min(self.delay_s, self.backoff_s, self.max_wait_s, self.max_redirects) < 0:
            raise OptionError("--delay-s, --backoff-s, --max-wait-s and --max-redirects must not be negative")
        if not (self.user_agent.isascii() and self.user_agent.isprintable() and self.user_agent.strip()):
            raise OptionError(f"--user-agent {self.user_agent!r} must be plain ASCII on one line")


@dataclass(frozen=True)
class End:
    """How one URL ended: with a file, or with a reason."""

    url: str
    file: str = ""
    bytes: int = 0
    reason: str = ""
    detail: str = ""


async def fetch_all(
    urls: list[str],
    out: Path,
    options: DownloadOptions,
    record: Callable[[End], None],
    *,
    resolve: Resolver = system_resolver,
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    """`record` is told how each URL ended, as it ends; not of those for which `max_seconds` left no time. Images go to `out/images`."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(16, "resolver"))
    async with SafeClient(
        Limits(options.timeout_s, options.idle_s, options.max_bytes, options.max_redirects, options.concurrency),
        user_agent=options.user_agent,
        allow_private_hosts=options.allow_private_hosts,
        ignore_opt_out=options.ignore_opt_out,
        resolve=resolve,
        ssl_context=ssl_context,
    ) as client:
        await _Run(client, out, options, record).all(urls)


@dataclass
class _Host:
    """What we owe to one host, and what we have left to ask it."""

    slots: asyncio.Semaphore
    waiting: deque[str] = field(default_factory=deque)
    next_start: float = 0.0
    failures_in_a_row: int = 0


class _Run:
    def __init__(self, client: SafeClient, out: Path, options: DownloadOptions, record: Callable[[End], None]):
        self._client, self._out, self._options, self._record = client, out, options, record
        self._parts = out / ".download" / "parts"
        self._hosts: dict[str, _Host] = {}

    async def all(self, urls: list[str]) -> None:
        """Workers go round the hosts, so a table sorted by host does not make everybody wait for one."""
        options = self._options
        for url in urls:
            self._host(urlsplit(url).hostname or "").waiting.append(url)
        lanes = deque(host for turn in range(options.per_host) for host in self._hosts.values() if len(host.waiting) > turn)
        workers = [asyncio.create_task(self._work(lanes)) for _ in range(min(options.concurrency, len(lanes)))]
        try:
            async with asyncio.timeout(options.max_seconds) as overall:
                await asyncio.gather(*workers)
        except TimeoutError:
            if not overall.expired():
                raise
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, lanes: deque[_Host]) -> None:
        while lanes:
            host = lanes.popleft()
            if host.waiting:
                self._record(await self._ask(host, host.waiting.popleft()))
                lanes.append(host)

    async def _ask(self, host: _Host, url: str) -> End:
        options = self._options
        for attempt in range(options.tries):
            if host.failures_in_a_row >= options.host_failures:
                return End(url, reason="host_given_up", detail=f"{host.failures_in_a_row} URLs of this host failed in a row")
            try:
                end = await self._try(url)
            except NotFetched as failure:
                end = End(url, reason=failure.reason, detail=str(failure))
                pause = max(options.backoff_s * 2**attempt, failure.wait_s or 0)
                if not failure.again or attempt + 1 == options.tries or pause > options.max_wait_s:
                    of_the_host = failure.reason in _OF_THE_HOST or (failure.again and failure.reason == "http_status")
                    host.failures_in_a_row = host.failures_in_a_row + 1 if of_the_host else 0
                    return end
                if failure.wait_s:
                    host.next_start = max(host.next_start, time.monotonic() + failure.wait_s)
                await asyncio.sleep(pause)
            else:
                host.failures_in_a_row = 0
                return end
        raise AssertionError("the last try returns")

    async def _try(self, url: str) -> End:
        name = hashlib.sha256(url.encode()).hexdigest()
        with ArrivingImage(self._parts / name) as image:
            await self._client.fetch(url, image, self._turn)
            file = f"images/{name[:2]}/{name}.{image.suffix(self._options.max_pixels)}"
            image.keep(self._out / file)
        return End(url, file, image.num_bytes)

    def _host(self, name: str) -> _Host:
        if name not in self._hosts:
            self._hosts[name] = _Host(asyncio.Semaphore(self._options.per_host))
        return self._hosts[name]

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        host = self._host(name)
        async with host.slots:
            while (wait_s := host.next_start - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            host.next_start = time.monotonic() + self._options.delay_s
            yield
