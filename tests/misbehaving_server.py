"""A loopback HTTP server that does what servers do to downloaders. Each path is a way to behave; `asked` counts the requests."""

import asyncio
import gzip
import io
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image


def picture(colour=(40, 90, 60), form="JPEG", size=(24, 16)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form)
    return out.getvalue()


def claims_huge_png() -> bytes:
    """A sound header of 60000 x 60000 pixels, and nothing behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


JPEG = picture()


def answer(body=JPEG, status="200 OK", length=True, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def redirect(location: str) -> bytes:
    return answer(b"", "302 Found", Location=location)


PLAIN: dict[str, bytes] = {
    "/good.jpg": answer(),
    "/good.png": answer(picture(form="PNG")),
    "/text_plain": answer(Content_Type="text/plain"),
    "/no_length": answer(length=False),
    "/gzip": answer(gzip.compress(JPEG), Content_Encoding="gzip"),
    "/cookie": answer(Set_Cookie="a=b"),
    "/redirect_ok": redirect("/redirect_once_more"),
    "/redirect_once_more": redirect("good.jpg"),
    "/noindex_for_another_bot": answer(X_Robots_Tag="otherbot: noindex, noai"),
    "/404": answer(b"no", "404 Not Found"),
    "/206": answer(JPEG[:40], "206 Partial Content", Content_Range="bytes 0-39/99"),
    "/500": answer(b"no", "500 Oops"),
    "/429": answer(b"slow down", "429 Too Many Requests", Retry_After="3600"),
    "/no_location": answer(b"", "302 Found"),
    "/to_metadata": redirect("http://169.254.169.254/latest/meta-data/"),
    "/to_loopback_name": redirect("http://localhost:6379/"),
    "/to_file": redirect("file:///etc/passwd"),
    "/to_data": redirect("data:image/png;base64,iVBORw0KGgo="),
    "/to_decimal_loopback": redirect("//2130706433/x.jpg"),
    "/to_nonsense": redirect("http://[::1"),
    "/loop": redirect("/loop"),
    "/html": answer(b"<html><meta http-equiv='refresh' content='0; url=/good.jpg'>", Content_Type="image/jpeg"),
    "/empty": answer(b""),
    "/too_short": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + JPEG,
    "/claims_10_gb": b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n" + JPEG,
    "/gzip_bomb": answer(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip"),
    "/gzip_cut": answer(gzip.compress(JPEG)[:-20], Content_Encoding="gzip"),
    "/gzip_lie": answer(Content_Encoding="gzip"),
    "/brotli": answer(Content_Encoding="br"),
    "/huge_headers": answer(X_Filler="x" * 1_000_000),
    "/no_http": b"220 smtp.example.org ESMTP\r\n",
    "/noai": answer(X_Robots_Tag="noai, noimageai"),
    "/noindex_for_us": answer(X_Robots_Tag="rsvl: noindex"),
    "/too_many_pixels": answer(claims_huge_png()),
}


@dataclass
class Server:
    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    starts: dict[str, list[float]] = field(default_factory=dict)
    """when each path was asked for, monotonic seconds"""
    headers: dict[str, str] = field(default_factory=dict)
    """the head of the last request for a path"""
    open_now: int = 0
    open_most: int = 0
    extra: dict[str, Callable[[int], bytes]] = field(default_factory=dict)
    """paths a test adds: the number of the request, from 1, to the bytes to send"""

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split()[1]
            self.asked[path] += 1
            self.starts.setdefault(path, []).append(time.monotonic())
            self.headers[path] = head
            self.open_now += 1
            self.open_most = max(self.open_most, self.open_now)
            try:
                await self._behave(path, writer)
            finally:
                self.open_now -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _behave(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path in self.extra:
            writer.write(self.extra[path](self.asked[path]))
        elif path in PLAIN:
            writer.write(PLAIN[path])
        elif path.startswith("/slow_image"):
            await asyncio.sleep(0.05)
            writer.write(answer())
        elif path.startswith("/slow_header"):
            await asyncio.sleep(20)
        elif path == "/slow_body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        elif path == "/endless":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()
        elif path == "/reset":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nxxx")
            await writer.drain()
            await asyncio.sleep(0.05)
            linger = struct.pack("ii", 1, 0)  # close with a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.write(answer(b"", "404 Not Found"))
        if not writer.transport.is_closing():
            await writer.drain()


@contextmanager
def misbehaving_server(ssl_context: ssl.SSLContext | None = None) -> Iterator[Server]:
    served, started = Server(), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        listener = await asyncio.start_server(served.handle, "127.0.0.1", 0, ssl=ssl_context)
        served.port = listener.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        listener.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait(5)
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
