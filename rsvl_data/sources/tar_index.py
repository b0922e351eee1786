"""Where the members of a tar lie that others wrote, found without trusting a byte of it.

webdataset's rule: the key is the folder and the base name up to its first dot, the suffix is the rest. Nothing is extracted and no data
is read, only headers. What is easy to get wrong, and what is done:

  links, devices, sparse files     refused with their whole sample (`unsafe_member`), as are absolute and parent paths (`unsafe_path`)
  members of one key apart         joined
  a member name twice              the first copy wins, the other is counted (`duplicate_key` when all of its members repeat, else
                                   `duplicate_member`); a new member after a repeat could be of either copy: the key is left out
  an archive that breaks           `truncated` or `corrupt`, with the place; whole samples before it are kept. Python's tarfile ends
                                   silently at a bad header, so headers are walked here
  a claimed size                   is compared with the file before anything is allocated
  compressed tars                  are expanded first (`tar_files`); offsets are those of the plain archive
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rsvl_data.sources.base import MAX_FILE_BYTES
from rsvl_data.sources.tar_files import BadArchive, TarBytes, tar_bytes

_MAX_EXTENDED_HEADER_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LONG_LINK, _PAX_GLOBAL = tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_HEAD_BYTES = 1 << 26  # the first sample lies in it, or the format is not told by it
_DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


class Problem(NamedTuple):
    name: str
    reason: str
    detail: str


class _Header(NamedTuple):
    name: str
    type: bytes
    offset: int  # of the data
    size: int


class _Broken(Exception):
    """The archive cannot be followed further; `member` is whose data or header it was."""

    def __init__(self, reason: str, detail: str, member: str | None = None):
        super().__init__(detail)
        self.reason, self.member = reason, member


class TarIndex:
    """`samples`: key -> suffix (lower case) -> (offset, size). `problems`: what was left out."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, tuple[int, int]]] = {}
        self.problems: list[Problem] = []
        self._spoiled: set[str] = set()
        self._repeats: dict[str, set[str]] = {}

    def add(self, header: _Header) -> None:
        name = re.sub(r"^(\./+)+", "", header.name)
        parts = re.split(r"[/\\]", name)
        key, suffix = _split_name(name)
        if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name):
            self._spoil(name, "unsafe_path", f"the name {name!r} leads out of the folder")
        elif header.type == tarfile.DIRTYPE or any(p.startswith(".") or p.lower() in _DESKTOP_FILES for p in parts):
            return
        elif header.type not in _REGULAR:
            self._spoil(key, "unsafe_member", f"{name} is of type {header.type!r}, not a plain file")
        elif not suffix:
            self._spoil(name, "not_a_member", f"{name} has no suffix; a member is KEY.SUFFIX")
        elif header.size > MAX_FILE_BYTES:
            self._spoil(key, "too_large", f"{name} has {header.size} bytes; the limit is {MAX_FILE_BYTES}")
        else:
            self._add_member(key, suffix, (header.offset, header.size))

    def _add_member(self, key: str, suffix: str, place: tuple[int, int]) -> None:
        members = self.samples.setdefault(key, {})
        if suffix in members:
            self._repeats.setdefault(key, set()).add(suffix)
        elif key in self._repeats:
            self._spoil(key, "duplicate_member", f"{key} holds members twice, and nobody can tell to which copy {suffix} belongs")
        else:
            members[suffix] = place

    def _spoil(self, key: str, reason: str, detail: str) -> None:
        if key not in self._spoiled:
            self._spoiled.add(key)
            self.problems.append(Problem(key, reason, detail))

    def end(self, broken: _Broken | None) -> None:
        """Leave out what is spoiled, and the sample that was being written when the archive broke."""
        if broken:
            name = re.sub(r"^(\./+)+", "", broken.member or "")
            self._spoil(_split_name(name)[0] or "archive", broken.reason, str(broken))
            first, last = next(iter(self.samples), None), next(reversed(self.samples), None)
            if first is not None and last is not None and set(self.samples[last]) < set(self.samples[first]):
                self._spoil(last, broken.reason, f"{last} was cut: it holds only {', '.join(self.samples[last])}")
        for key in self._spoiled:
            self.samples.pop(key, None)
        for key, repeated in self._repeats.items():
            if key not in self._spoiled:
                reason = "duplicate_key" if repeated == set(self.samples[key]) else "duplicate_member"
                self.problems.append(Problem(key, reason, f"{key} holds {', '.join(sorted(repeated))} twice; the first is used"))
        if not self.samples and not self.problems:
            self.problems.append(Problem("archive", "empty_shard", "it holds no member"))


def index_tar(tar: Path) -> TarIndex:
    """Of one archive: every header is read, no data. Raises OSError for a file that cannot be opened."""
    index = TarIndex()
    broken = None
    try:
        with tar_bytes(tar) as archive:
            for header in _walk(archive):
                index.add(header)
    except _Broken as error:
        broken = error
    except BadArchive as error:
        broken = _Broken(error.reason, str(error))
    index.end(broken)
    return index


def first_suffixes(tar: Path) -> set[str]:
    """The suffixes of the first key, found from the first headers; empty for what is no tar."""
    index = TarIndex()
    try:
        with tar_bytes(tar, head_bytes=_HEAD_BYTES) as archive:
            for header in _walk(archive):
                index.add(header)
                if len(index.samples) > 1:
                    break
    except (_Broken, BadArchive, OSError):
        pass
    return set(next(iter(index.samples.values()), {}))


def _split_name(name: str) -> tuple[str, str]:
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, suffix.lower()


def _walk(archive: TarBytes) -> Iterator[_Header]:
    """Every header, extended names applied. Raises _Broken."""
    end = archive.size
    if end == 0:
        raise _Broken("empty_file", "the file holds no bytes")
    offset = 0
    extended: dict[str, str] = {}
    while offset < end:  # an archive without end blocks just stops
        block = archive.read(offset, _BLOCK)
        if not block.strip(b"\0"):
            return
        info = _parse_header(block, offset)
        name = extended.get("path", info.name)
        size = _size(extended, info, offset)
        data = _skip_sparse_map(archive, block, offset) if info.type == tarfile.GNUTYPE_SPARSE else offset + _BLOCK
        stored = 0 if info.type in _WITHOUT_DATA else size
        if data + stored > end:
            raise _Broken("truncated", f"{name} claims {size} bytes at {data}, but the file ends at {end}", name)
        offset = data + -(-stored // _BLOCK) * _BLOCK
        if info.type in (_LONG_LINK, _PAX_GLOBAL):
            continue
        if info.type in (tarfile.GNUTYPE_LONGNAME, *_PAX):
            extended |= _read_extended(archive, info.type, data, size)
            continue
        sparse = any(key.startswith("GNU.sparse") for key in extended)
        yield _Header(name, tarfile.GNUTYPE_SPARSE if sparse else info.type, data, size)
        extended = {}
    if offset > end:
        raise _Broken("truncated", f"the file ends at {end}, before the last member is filled up to a whole block")


def _parse_header(block: bytes, offset: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    except (tarfile.HeaderError, ValueError) as error:
        if offset == 0:
            raise _Broken("not_a_tar", f"it does not begin with a tar header: {error}") from error
        cut = len(block) < _BLOCK
        raise _Broken("truncated" if cut else "corrupt", f"bad header at byte {offset}: {error}; what follows is lost") from error


def _size(extended: dict[str, str], info: tarfile.TarInfo, offset: int) -> int:
    try:
        size = int(extended.get("size", info.size))
    except ValueError:
        size = -1
    if size < 0:
        raise _Broken("corrupt", f"{info.name} at byte {offset} has no sound size; what follows is lost", info.name)
    return size


def _skip_sparse_map(archive: TarBytes, block: bytes, offset: int) -> int:
    """Where the data begins after a GNU sparse header and the blocks that continue its map."""
    more = block[482]
    offset += _BLOCK
    while more:
        block = archive.read(offset, _BLOCK)
        if len(block) < _BLOCK:
            raise _Broken("truncated", f"a sparse map ends at byte {offset}")
        more = block[504]
        offset += _BLOCK
    return offset


def _read_extended(archive: TarBytes, type: bytes, offset: int, size: int) -> dict[str, str]:
    """What a GNU long name or a pax header says of the member after it."""
    if size > _MAX_EXTENDED_HEADER_BYTES:
        raise _Broken("corrupt", f"the extended header at byte {offset} has {size} bytes")
    content = archive.read(offset, size)
    if type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")}
    records: dict[str, str] = {}
    place = 0
    try:
        while place < len(content) and content[place]:
            blank = content.index(b" ", place, place + 20)
            length = int(content[place:blank])
            if not blank + 1 - place < length <= len(content) - place:
                raise ValueError(f"a record of {length} bytes")
            name, _, value = content[blank + 1 : place + length - 1].partition(b"=")
            records[name.decode("utf-8", "backslashreplace")] = value.decode("utf-8", "backslashreplace")
            place += length
    except ValueError as error:
        raise _Broken("corrupt", f"bad pax header at byte {offset}: {error}") from error
    return records
