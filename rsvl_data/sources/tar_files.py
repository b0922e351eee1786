"""The bytes of a tar on disk, which may be compressed: gzip, bzip2, xz or zstd, told by its first bytes and never by its name.

A compressed archive has no random access, so it is expanded once into a temporary file that has no name and is gone with its process:
for the index and again in every process that reads samples. The room for that is taken where TMPDIR says, else under /var/tmp, since
/tmp is memory on many systems. An archive that does not expand to its end gives nothing: the checksum stands at the end.

A bomb stops: at `MAX_EXPANDED_BYTES`, and beyond `_FREE_BYTES` at `_MAX_RATIO` times the compressed size (images hardly shrink).
"""

import bz2
import gzip
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from rsvl_data.errors import DataError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
MAX_EXPANDED_BYTES = 32 << 30
_FREE_BYTES = 64 << 20
_MAX_RATIO = 100
_MAX_XZ_BYTES = 256 << 20  # of memory; a header may ask for 4 GiB
_CHUNK_BYTES = 1 << 20


class BadArchive(Exception):
    """`reason` is a short word for counting: truncated, corrupt, too_large."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class TarBytes:
    """A plain archive, wherever it lies in an open file."""

    def __init__(self, fd: int, start: int, size: int):
        self._fd, self._start, self.size = fd, start, size

    def read(self, offset: int, size: int) -> bytes:
        """Fewer than `size` bytes at the end of the archive."""
        return os.pread(self._fd, max(0, min(size, self.size - offset)), self._start + offset)


@contextmanager
def tar_bytes(path: Path, *, keep: bool = False, head_bytes: int | None = None) -> Iterator[TarBytes]:
    """`keep` saves what was expanded for the next call in this process; `head_bytes` expands hardly more than so many.

    Raises BadArchive; OSError for a file that cannot be opened; DataError when there is no room to expand it.
    """
    with open(path, "rb", buffering=0) as file:
        if _decompressor(file) is None:
            yield TarBytes(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        elif keep:
            yield _kept(path, file)
        else:
            with tempfile.TemporaryFile(dir=_roomy_folder(), buffering=0) as expanded:
                yield TarBytes(expanded.fileno(), 0, _expand(file, expanded, path, head_bytes))


def without_tar_suffix(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in TAR_SUFFIXES if name.endswith(suffix)), name)


def find_tar(folder: Path, stem: str) -> str:
    """The name of the tar of this stem, compressed or not; `stem`.tar when there is none."""
    return next((stem + suffix for suffix in TAR_SUFFIXES if (folder / (stem + suffix)).is_file()), f"{stem}.tar")


# --- one file a process for all that was expanded

_scratch: dict[str, Any] = {"pid": None}  # file: IO[bytes], places: {(path, size, time): (start, size)}


def _kept(path: Path, file: IO[bytes]) -> TarBytes:
    if _scratch["pid"] != os.getpid():  # a fork must not write into its parent's file
        file_of_all = tempfile.TemporaryFile(dir=_roomy_folder(), buffering=0)  # noqa: SIM115  # lives as long as the process
        _scratch.update(pid=os.getpid(), file=file_of_all, places={})
    expanded, places = _scratch["file"], _scratch["places"]
    facts = os.fstat(file.fileno())
    known = (str(path), facts.st_size, facts.st_mtime_ns)
    if known not in places:
        start = expanded.seek(0, os.SEEK_END)
        try:
            places[known] = (start, _expand(file, expanded, path))
        except BaseException:
            expanded.truncate(start)
            raise
    return TarBytes(expanded.fileno(), *places[known])


def _roomy_folder() -> str | None:
    return os.environ.get("TMPDIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else None)


def _expand(file: IO[bytes], expanded: IO[bytes], path: Path, head_bytes: int | None = None) -> int:
    """Append the plain archive and return its size."""
    limit = min(MAX_EXPANDED_BYTES, max(_FREE_BYTES, _MAX_RATIO * os.fstat(file.fileno()).st_size))
    size = 0
    for chunk in (_decompressor(file) or _plain)(file):
        size += len(chunk)
        if size > limit:
            raise BadArchive("too_large", f"it expands to more than {limit} bytes; unpack it to a plain tar if you trust it")
        try:
            while chunk:
                chunk = chunk[expanded.write(chunk) :]  # a disk that fills up takes a part first
        except OSError as error:
            raise DataError(
                f"{path} cannot be expanded under {_roomy_folder()}: {error}. Set TMPDIR to a folder with room, or unpack it"
            ) from error
        if head_bytes is not None and size >= head_bytes:
            break
    return size


# --- decompression


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


_Decompressor = Callable[[IO[bytes]], Iterator[bytes]]


def _decompressor(file: IO[bytes]) -> _Decompressor | None:
    """None for what is not compressed. The file is at its begin then."""
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    return next((open for magic, open in _DECOMPRESSORS.items() if start.startswith(magic)), None)


def _plain(file: _Readable) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _checked(name: str, opened: _Readable) -> Iterator[bytes]:
    """Raises BadArchive for whatever the library says of damage."""
    try:
        yield from _plain(opened)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        cut = isinstance(error, EOFError) or "Truncated" in str(error)
        raise BadArchive("truncated" if cut else "corrupt", f"{name} cannot be expanded: {error}") from error


class _Xz:
    """Streams of xz one after the other, with a limit on memory, which lzma.open does not have."""

    def __init__(self, file: IO[bytes]):
        self._file, self._stream, self._waiting = file, lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES), b""

    def read(self, size: int) -> bytes:
        while True:
            if self._stream.eof:
                self._waiting = self._stream.unused_data.lstrip(b"\0") or self._file.read(_CHUNK_BYTES).lstrip(b"\0")
                if not self._waiting:
                    return b""
                self._stream = lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES)
            elif self._stream.needs_input and not self._waiting:
                self._waiting = self._file.read(_CHUNK_BYTES)
                if not self._waiting:
                    raise EOFError("the file ends before its end mark")
            chunk = self._stream.decompress(self._waiting, size)
            self._waiting = b""
            if chunk:
                return chunk


_DECOMPRESSORS: dict[bytes, _Decompressor] = {
    b"\x1f\x8b": lambda file: _checked("gzip", gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: _checked("bzip2", bz2.BZ2File(file)),
    b"\xfd7zXZ\0": lambda file: _checked("xz", _Xz(file)),
    b"\x28\xb5\x2f\xfd": lambda file: _checked("zstd", pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")),
}
