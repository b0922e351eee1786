import asyncio
import gzip
import io
import socket
import tracemalloc
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from rsvl_data.downloading.safe_http import Limits, SafeClient, _Headers, _read_body, opted_out
from rsvl_data.downloading.web_address import NotFetched


def test_a_gzip_bomb_takes_no_memory():
    bomb = gzip.compress(bytes(50_000_000))

    class Bomb:
        async def iter_any(self):
            yield bomb

    headers = _Headers([(b"Content-Encoding", b"gzip")])
    tracemalloc.start()
    with pytest.raises(NotFetched, match="above 1000 bytes"):
        asyncio.run(_read_body(SimpleNamespace(content=Bomb()), headers, io.BytesIO(), 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("tag", "forbidden"),
    [
        ("noai", True),
        ("NoImageAI", True),
        ("index, noimageindex", True),
        ("none", True),
        ("all", False),
        ("nofollow", False),
        ("rsvl: noindex", True),
        ("*: noai", True),
        ("otherbot: noindex", False),
        ("otherbot: nofollow, noindex", False),
        ("noai, unavailable_after: 25 Jun 2030 15:00:00 PST", True),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noai", True),
        ("max-snippet: 5", False),
    ],
)
def test_robots_tags(tag, forbidden):
    assert opted_out(["all", tag], "rsvl") is forbidden


LIMITS = Limits(timeout_s=5, idle_s=2, max_bytes=1000, max_redirects=2, connections=2)


def fetch_with_all_refusing(url, resolve, **words):
    """How the fetch ends where every machine refuses the connection, and the addresses that were tried, in their order."""
    tried = []

    class NobodyListens(asyncio.SelectorEventLoop):
        async def sock_connect(self, sock, address):
            tried.append(address[0])
            raise ConnectionRefusedError(f"{address[0]} refuses")

    async def fetch():
        async with SafeClient(LIMITS, user_agent="rsvl", resolve=resolve, **words) as client:
            with pytest.raises(NotFetched) as failure:
                await client.fetch(url, io.BytesIO(), lambda host: nullcontext())
            return failure.value

    with asyncio.Runner(loop_factory=NobodyListens) as runner:
        return runner.run(fetch()).reason, list(dict.fromkeys(tried))


async def nobody(host, port):
    raise AssertionError(f"{host} must not be looked up")


@pytest.mark.parametrize(
    ("answers", "connected", "reason"),
    [
        (["93.184.216.35"], ["93.184.216.35"], "http_error"),
        (["93.184.216.34", "2606:4700::1"], ["93.184.216.34", "2606:4700::1"], "http_error"),
        ([f"93.184.216.{last}" for last in range(9)], ["93.184.216.0", "93.184.216.1", "93.184.216.2"], "http_error"),
        (["127.0.0.1"], [], "private_address"),
        (["93.184.216.35", "10.0.0.5"], [], "private_address"),
        (["169.254.169.254"], [], "private_address"),
        (["::ffff:127.0.0.1"], [], "private_address"),
        ([], [], "dns"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_is_resolved_once_and_the_judged_addresses_are_connected(answers, connected, reason, scheme):
    asked = []

    async def resolve(host, port):
        asked.append((host, port))
        return answers if len(asked) == 1 else ["127.0.0.1"]  # the second answer rebinds

    assert fetch_with_all_refusing(f"{scheme}://images.example.org/a.jpg", resolve) == (reason, connected)
    assert asked == [("images.example.org", 443 if scheme == "https" else 80)]


@pytest.mark.parametrize(
    ("host", "connected", "reason"),
    [
        ("93.184.216.35", ["93.184.216.35"], "http_error"),
        ("0x5d.0xb8.0xd823", ["93.184.216.35"], "http_error"),
        ("[2606:4700::1]", ["2606:4700::1"], "http_error"),
        ("127.0.0.1", [], "private_address"),
        ("2130706433", [], "private_address"),
        ("127.1", [], "private_address"),
        ("[::1]", [], "private_address"),
        ("[::ffff:127.0.0.1]", [], "private_address"),
        ("169.254.169.254", [], "private_address"),
    ],
)
def test_an_address_in_the_url_is_judged_though_no_resolver_is_asked(host, connected, reason):
    assert fetch_with_all_refusing(f"http://{host}/a.jpg", nobody) == (reason, connected)


@pytest.mark.parametrize(("number", "again"), [(socket.EAI_AGAIN, True), (socket.EAI_NONAME, False)])
def test_a_name_that_leads_nowhere(number, again):
    async def resolve(host, port):
        raise socket.gaierror(number, "no such name")

    assert fetch_with_all_refusing("http://images.example.org/", resolve) == ("dns", [])
