"""Images over HTTP from a process of its own, out of memory: quick enough not to be what a downloader waits for.

    python -m benchmarks.image_server FOLDER     # prints its port, answers until its input ends

`make_images` fills such a folder from a seed: procedural scenes of 512 px and, in between, what the web gives instead of images.
"""

import asyncio
import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from rsvl_data.scenes import render_scene

SIDE_PX, NARROW_PX = 512, 384
ORIENTATIONS = 8
FAULT_EVERY = 20  # rows: 5 %
FAULTS = ("truncated", "html", "empty", "missing")
_PAGE = b"<!DOCTYPE html><html><head><title>Moved</title></head><body>The image is gone.</body></html>"


def fault_of(number: int) -> str | None:
    """What is wrong with image `number`: half of the file, a page in its place, no byte, no file. None for most."""
    return FAULTS[number // FAULT_EVERY % len(FAULTS)] if number % FAULT_EVERY == FAULT_EVERY // 2 else None


def make_images(folder: Path, count: int, seed: int = 0) -> list[str]:
    """The names 0 to `count`, of which the missing ones have no file. Each scene is used in its eight orientations, every other
    one cut to 384 x 512, so that all images differ at an eighth of the rendering. Files already there are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, count, ORIENTATIONS):
        numbers = range(first, min(first + ORIENTATIONS, count))
        if all((folder / f"{number}.jpg").exists() or fault_of(number) == "missing" for number in numbers):
            continue
        scene = render_scene(seed, first // ORIENTATIONS, SIDE_PX).image
        for number in numbers:
            turned = np.rot90(scene, number % 4)[:, :: -1 if number % ORIENTATIONS >= 4 else 1]
            content = faulty(number, jpeg(turned[:, : NARROW_PX if number % 2 else SIDE_PX]))
            if content is not None:
                (folder / f"{number}.jpg").write_bytes(content)
    return [f"{number}.jpg" for number in range(count)]


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=92)
    return file.getvalue()


def faulty(number: int, content: bytes) -> bytes | None:
    whole = {None: content, "truncated": content[: len(content) // 2], "html": _PAGE, "empty": b"", "missing": None}
    return whole[fault_of(number)]


class Answers(asyncio.Protocol):
    """Answers GET from a table of whole responses. Connections stay open unless the client wants them closed."""

    def __init__(self, responses: dict[bytes, bytes]):
        self._responses, self._received = responses, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._transport.write(self._responses.get(head.split(b" ", 2)[1], _NOT_FOUND))
            if b"connection: close" in head.lower():
                self._transport.close()


def response(status: str, content_type: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


_NOT_FOUND = response("404 Not Found", "text/plain", b"not here")


async def serve(folder: Path) -> None:
    responses = {
        f"/{path.name}".encode(): response("200 OK", "image/jpeg", path.read_bytes()) for path in sorted(folder.iterdir())
    }
    server = await asyncio.get_running_loop().create_server(lambda: Answers(responses), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # ends with the process that started us


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The port of a server on 127.0.0.1, in a process that ends with the block."""
    command = [sys.executable, "-m", "benchmarks.image_server", str(folder)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as server:
        assert server.stdin and server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.stdin.close()


def peak_rate(port: int, names: list[str], seconds: float = 2) -> float:
    """Answers a second that one bare socket gets when it asks for one after the other: what no downloader can exceed by much."""
    requests = [f"GET /{name} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for name in names]
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        start, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            connection.sendall(requests[count % len(requests)])
            received = connection.recv_into(buffer)
            head = bytes(buffer[: min(received, 1024)]).partition(b"\r\n\r\n")[0]
            left = int(head.rpartition(b":")[2]) + len(head) + 4 - received
            while left:
                left -= connection.recv_into(buffer, min(left, len(buffer)))
            count += 1
    return count / elapsed


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
