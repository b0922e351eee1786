import asyncio
import gzip
import io
import tracemalloc

import httpcore
import pytest

from rsvl_data.downloading.safe_http import _CheckedBackend, _Headers, _read_body, opted_out
from rsvl_data.downloading.web_address import NotFetched


def test_a_gzip_bomb_takes_no_memory():
    bomb = gzip.compress(bytes(50_000_000))

    class Bomb:
        async def aiter_stream(self):
            yield bomb

    headers = _Headers([(b"Content-Encoding", b"gzip")])
    tracemalloc.start()
    with pytest.raises(NotFetched, match="above 1000 bytes"):
        asyncio.run(_read_body(Bomb(), headers, io.BytesIO(), 1000))
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


class FakeNetwork(httpcore.AsyncMockBackend):
    def __init__(self):
        super().__init__([])
        self.connected = []

    async def connect_tcp(self, host, port, *rest):
        self.connected.append(host)
        if host == "93.184.216.34":
            raise httpcore.ConnectError("refused")
        return await super().connect_tcp(host, port, *rest)


@pytest.mark.parametrize(
    ("answers", "connected", "reason"),
    [
        ([["93.184.216.35"]], ["93.184.216.35"], None),
        ([["93.184.216.34", "2606:4700::1"]], ["93.184.216.34", "2606:4700::1"], None),
        ([["127.0.0.1"]], [], "private_address"),
        ([["93.184.216.35", "10.0.0.5"]], [], "private_address"),
        ([["169.254.169.254"]], [], "private_address"),
        ([["::ffff:127.0.0.1"]], [], "private_address"),
        ([[]], [], "dns"),
    ],
)
def test_a_name_is_resolved_once_and_the_judged_address_is_connected(answers, connected, reason):
    answers = list(answers)

    async def resolve(host, port):
        return answers.pop(0) if answers else ["127.0.0.1"]  # the second answer rebinds

    backend = _CheckedBackend(resolve, allow_private=False)
    backend._inner = network = FakeNetwork()
    if reason is None:
        asyncio.run(backend.connect_tcp("images.example.org", 80))
    else:
        with pytest.raises(NotFetched) as failure:
            asyncio.run(backend.connect_tcp("images.example.org", 80))
        assert failure.value.reason == reason
    assert network.connected == connected
