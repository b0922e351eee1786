"""One image over HTTP, with a bound on everything a server may do.

Built on aiohttp, whose resolver is handed in: a name is resolved once for a connection, every address it gave is judged, and the
connection goes to those very addresses while Host, SNI and the certificate stay those of the name. So a name that answers differently
the second time (DNS rebinding) gains nothing, and a redirect is judged like a first URL. There are no cookies, no proxies from the
environment, no passwords, and no decoder that unpacks without a bound.

Easy to get wrong: aiohttp asks no resolver for a host that is an address already. `fetch` judges each URL before it is asked for, and
`check_url` leaves no second spelling of an address.

Choices: a name with one private address among public ones is refused; a redirect from https to http is followed; certificates are
checked; what is not asked for (206) is refused; X-Robots-Tag is read as img2dataset reads it, and `none` counts as noindex.
"""

import asyncio
import email.utils
import re
import socket
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urljoin, urlsplit

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from rsvl_data.downloading.web_address import NotFetched, check_address, check_url, redacted

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Host name and port to addresses."""
Turn = Callable[[str], AbstractAsyncContextManager[None]]
"""`async with turn(host):` waits until that host may be asked."""

_REDIRECTS = (301, 302, 303, 307, 308)
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)  # states that another try may find gone
_NO_AI = ("noai", "noimageai", "noindex", "noimageindex", "none")
_DIRECTIVES_WITH_A_VALUE = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
_ADDRESSES_TRIED = 3
_HEADER_BYTES, _NUM_HEADERS = 16 * 1024, 100  # of one line; lines


class Sink(Protocol):
    """What a body is written into."""

    def write(self, piece: bytes, /) -> object: ...


@dataclass(frozen=True)
class Limits:
    timeout_s: float
    """for one try: all redirects, to the last byte"""
    idle_s: float
    """for the connection, and between two pieces of an answer"""
    max_bytes: int
    """of one image, as sent and unpacked"""
    max_redirects: int
    connections: int


async def system_resolver(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class _JudgedAddresses(AbstractResolver):
    """Gives aiohttp no address that was not judged."""

    def __init__(self, resolve: Resolver, allow_private: bool):
        self._resolve, self._allow_private = resolve, allow_private

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        try:
            found = await self._resolve(host, port)
        except socket.gaierror as error:
            raise NotFetched("dns", f"{host}: {error.strerror}", again=error.errno == socket.EAI_AGAIN) from error
        except UnicodeError as error:
            raise NotFetched("dns", f"{host} is not a name: {error}") from error
        addresses = [check_address(address, self._allow_private) for address in found]
        if not addresses:
            raise NotFetched("dns", f"{host} has no address")
        return [_as_aiohttp_wants(host, address, port) for address in addresses[:_ADDRESSES_TRIED]]

    async def close(self) -> None:
        pass


def _as_aiohttp_wants(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": socket.AI_NUMERICHOST}


@cache  # reading them takes longer than a hundred images
def _trusted_certificates() -> ssl.SSLContext:
    """Those of the system and those of certifi, because small containers have none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


class SafeClient:
    """`async with SafeClient(...) as client: await client.fetch(url, file, turn)`, all of it in one event loop."""

    def __init__(
        self,
        limits: Limits,
        *,
        user_agent: str,
        allow_private_hosts: bool = False,
        ignore_opt_out: bool = False,
        resolve: Resolver = system_resolver,
        ssl_context: ssl.SSLContext | None = None,
    ):
        self._limits, self._allow_private, self._ignore_opt_out = limits, allow_private_hosts, ignore_opt_out
        self._ssl_context = ssl_context
        self._agent_token = re.split(r"[/\s]", user_agent.lower())[0]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_JudgedAddresses(resolve, allow_private_hosts),
                use_dns_cache=False,  # or the address of a host would be used longer than its name server allows
                limit=limits.connections,
                keepalive_timeout=limits.idle_s,
            ),
            headers={"User-Agent": user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(sock_connect=limits.idle_s, sock_read=limits.idle_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            max_headers=_NUM_HEADERS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self._session.close()

    async def fetch(self, url: str, sink: Sink, turn: Turn) -> str:
        """Write the body into `sink` and answer the URL it came from at last. Raises NotFetched."""
        spent = 0.0
        for _ in range(self._limits.max_redirects + 1):
            url = check_url(url, allow_private=self._allow_private)
            async with turn(urlsplit(url).hostname or ""):
                started = time.monotonic()
                location = await self._exchange_in_time(url, sink, self._limits.timeout_s - spent)
                spent += time.monotonic() - started
            if location is None:
                return url
            url = location
        raise NotFetched("redirects", f"more than {self._limits.max_redirects} redirects")

    async def _exchange_in_time(self, url: str, sink: Sink, seconds: float) -> str | None:
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(url, sink)
        except TimeoutError as error:
            raise NotFetched("timeout", f"no end within the time allowed ({error or 'whole request'})", again=True) from error
        except aiohttp.ClientSSLError as error:
            raise NotFetched("tls", str(error.__cause__ or error)) from error
        except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
            raise NotFetched("http_error", str(error) or type(error).__name__, again=True) from error

    async def _exchange(self, url: str, sink: Sink) -> str | None:
        """One request. The target of a redirect, or None when `sink` holds the body."""
        trusted = self._ssl_context or _trusted_certificates() if url.startswith("https:") else True
        async with self._session.get(URL(url, encoded=True), allow_redirects=False, ssl=trusted) as response:
            headers = _Headers(response.raw_headers)
            location = headers.first("location") if response.status in _REDIRECTS else None
            if response.status != 200 and location is None:
                raise NotFetched(
                    "http_status",
                    f"HTTP {response.status}",
                    again=response.status in _MAY_PASS,
                    wait_s=_retry_after(headers.first("retry-after")),
                )
            if not self._ignore_opt_out and opted_out(headers.all("x-robots-tag"), self._agent_token):
                raise NotFetched("opt_out", f"X-Robots-Tag: {', '.join(headers.all('x-robots-tag'))[:200]}")
            if location is not None:
                return _target(url, location)
            await _read_body(response, headers, sink, self._limits.max_bytes)
            return None


class _Headers:
    def __init__(self, raw: Sequence[tuple[bytes, bytes]]):
        self._pairs = [(name.decode("latin-1").lower(), value.decode("utf-8", "replace").strip()) for name, value in raw]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]

    def first(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise NotFetched("bad_url", f"redirect to {redacted(location)!r}: {error}") from error


def opted_out(values: list[str], agent_token: str) -> bool:
    """Whether X-Robots-Tag forbids the use. A directive may begin with the one robot it is for: `otherbot: noindex` is not for us.

    The directives of https://github.com/rom1504/img2dataset/blob/main/img2dataset/downloader.py, and `none`, short for noindex.
    """
    for value in values:
        agent = "*"
        for directive in value.lower().split(","):
            before, colon, after = directive.partition(":")
            if colon and before.strip() not in _DIRECTIVES_WITH_A_VALUE:
                agent, directive = before.strip(), after
            if directive.strip() in _NO_AI and agent in ("*", agent_token):
                return True
    return False


def _retry_after(value: str | None) -> float | None:
    """Seconds or a date. None for what is neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


async def _read_body(response: aiohttp.ClientResponse, headers: _Headers, sink: Sink, max_bytes: int) -> None:
    length = headers.first("content-length") or ""
    if length.isdigit() and int(length[:20]) > max_bytes:
        raise NotFetched("too_large", f"Content-Length {length[:20]} is above {max_bytes} bytes")
    encoding = (headers.first("content-encoding") or "identity").lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise NotFetched("encoding", f"Content-Encoding {encoding[:40]} was not asked for")
    unpack = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
    received = written = 0
    try:
        async for chunk in response.content.iter_any():
            received += len(chunk)
            piece = chunk if unpack is None else unpack.decompress(chunk, max_bytes - written + 1)
            written += len(piece)
            if max(received, written) > max_bytes:
                raise NotFetched("too_large", f"the body is above {max_bytes} bytes")
            sink.write(piece)
    except aiohttp.ClientPayloadError as error:
        if (reset := _reset(response)) is not None:
            raise reset from error
        raise NotFetched("truncated", f"the body ended after {received} bytes: {error}", again=True) from error
    except zlib.error as error:
        raise NotFetched("corrupt", f"the body is not {encoding}: {error}") from error
    if unpack is not None and not unpack.eof:
        raise NotFetched("truncated", f"the {encoding} body ended after {received} bytes", again=True)
    if written == 0:
        raise NotFetched("empty", "the body holds no bytes")


def _reset(response: aiohttp.ClientResponse) -> aiohttp.ClientOSError | None:
    """aiohttp has one error for a body that was closed early and for a broken connection; the connection tells them apart."""
    connection = response.connection
    error = None if connection is None or connection.protocol is None else connection.protocol.exception()
    return error if isinstance(error, aiohttp.ClientOSError) else None
