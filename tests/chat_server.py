"""A loopback server that speaks chat completions and does what such servers do. The picture that is asked about decides how it behaves."""

import asyncio
import base64
import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from rsvl_data.sample import Sample

NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()


def picture(number: int, side_px: int = 16) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side_px, side_px), (number % 256, number // 256, 90)).save(out, "PNG")
    return out.getvalue()


def sample(number: int, **fields: Any) -> Sample:
    image = picture(number)
    made = Sample(key=f"k{number:04d}", width=16, height=16, sha256=hashlib.sha256(image).hexdigest(), **fields)
    made.image = image
    return made


def caption(number: int, seed: int = 0) -> str:
    return f"a flat field with {NUMBERS[number % 12]} roads and {NUMBERS[seed % 12]} trees near the water"


def completion(*texts: str | None, finish: str = "stop") -> bytes:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish} for i, text in enumerate(texts)
    ]
    return json.dumps({"object": "chat.completion", "choices": choices}).encode()


def http(body: bytes, status: str = "200 OK", *, length: int | None = None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    lines += [f"Content-Length: {len(body) if length is None else length}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


Behaviour = Callable[[dict[str, Any], int], "bytes | float"]
"""The body of the request, and how many came for this picture so far with it, to what is sent. A number: seconds of silence first."""


def good(number: int) -> Behaviour:
    def answer(body: dict[str, Any], _: int) -> bytes:
        return http(completion(*(caption(number, body["seed"] + i) for i in range(body.get("n", 1)))))

    return answer


def says(*texts: str | None, finish: str = "stop") -> Behaviour:
    return lambda body, _: http(completion(*(texts * body.get("n", 1))[: max(body.get("n", 1), len(texts))], finish=finish))


def sends(content: bytes | float) -> Behaviour:
    return lambda *_: content


def first(behaviour: Behaviour, then: Behaviour) -> Behaviour:
    return lambda body, count: behaviour(body, count) if count == 1 else then(body, count)


@dataclass
class ChatServer:
    port: int = 0
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    """sha256 of a picture to what its requests get; others get a good caption"""
    asked: Counter[str] = field(default_factory=Counter)
    """requests by sha256 of their picture"""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    moments_s: list[float] = field(default_factory=list)
    delay_s: float = 0.0
    probes: Iterator[str] = field(default_factory=lambda: iter(()))
    """what GET says, in turn; a server of transformers without a cache says 500"""
    open_now: int = 0
    open_most: int = 0
    loop: Any = None
    stop: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def behave(self, number: int, behaviour: Behaviour) -> str:
        key = hashlib.sha256(picture(number)).hexdigest()
        self.behaviours[key] = behaviour
        return key

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            if head.startswith("GET"):
                writer.write(http(b"", next(self.probes, "500 No cache")))
                return
            length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length"))
            await self._answer(head, json.loads(await reader.readexactly(length)), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        key = picture_of(body)
        self.asked[key] += 1
        self.bodies.append(body)
        self.headers.append(head)
        self.moments_s.append(asyncio.get_running_loop().time())
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            await asyncio.sleep(self.delay_s)
            answer = self.behaviours.get(key, good(0))(body, self.asked[key])
            if isinstance(answer, float):
                await asyncio.sleep(answer)
            elif answer:
                writer.write(answer)
                await writer.drain()
        finally:
            self.open_now -= 1


def picture_of(body: dict[str, Any]) -> str:
    parts = body["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return hashlib.sha256(base64.b64decode(urls[0].split(",", 1)[1])).hexdigest() if urls else ""


@contextmanager
def serve(port: int = 0, **fields: Any) -> Iterator[ChatServer]:
    server, ready = ChatServer(**fields), threading.Event()

    async def listen() -> None:
        server.stop = asyncio.Event()
        server.loop = asyncio.get_running_loop()
        listening = await asyncio.start_server(server.handle, "127.0.0.1", port, limit=2**24)
        server.port = listening.sockets[0].getsockname()[1]
        ready.set()
        await server.stop.wait()
        listening.close()  # asyncio.run cancels what still stalls

    thread = threading.Thread(target=asyncio.run, args=(listen(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(server.stop.set)
        thread.join(10)
