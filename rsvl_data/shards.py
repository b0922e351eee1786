"""Tar shards with their sidecars: written atomically, read at random, checked to the byte.

    data/train-00000.tar      members of one sample adjacent: KEY.jpg, KEY.json, KEY.txt (and KEY.mask.png)
    data/train-00000.idx      where every member lies, in the text form of NVIDIA DALI's `wds2idx` (version v1.2)
    data/train-00000.parquet  one row a sample; written last, so a shard exists when its parquet exists

Tars are plain ustar without times or owners: equal samples make equal bytes.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, overload

import pyarrow as pa
import pyarrow.parquet as pq

from rsvl_data.errors import CorruptShard, DataError
from rsvl_data.sample import Sample
from rsvl_data.shard_cache import ShardCache, remote_address
from rsvl_data.tar_header import BLOCK_BYTES, tar_header

if TYPE_CHECKING:
    from rsvl_data.remote_shards import RemoteShards

INDEX_VERSION = "v1.2"
_DOWNLOADS = 8  # parquet files at a time
_WRITERS = 8

# img2dataset's column names where it has the column; https://github.com/rom1504/img2dataset#file-format
PARQUET_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "caption": pa.string(),
        "captions": pa.list_(pa.string()),
        "caption_langs": pa.list_(pa.string()),
        "caption_kinds": pa.list_(pa.string()),
        "label": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "original_width": pa.int32(),
        "original_height": pa.int32(),
        "sha256": pa.string(),
        "phash": pa.string(),
        "num_regions": pa.int32(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "crs": pa.string(),
        "gsd_m": pa.float64(),
        "acquired": pa.string(),
        "platform": pa.string(),
        "sensor": pa.string(),
        "country": pa.string(),
        "season": pa.string(),
        "source": pa.string(),
        "split": pa.string(),
        "original_id": pa.string(),
        "url": pa.string(),
        "licence": pa.string(),
        "attribution": pa.string(),
        "scores": pa.map_(pa.string(), pa.float64()),
        "member_crc32": pa.list_(pa.uint32()),  # of every member, in the order of the tar: finds the byte that turned
    }
)


def parquet_row(sample: Sample, members: dict[str, bytes]) -> dict[str, Any]:
    geo = sample.geo.model_dump() if sample.geo else {}
    provenance = sample.provenance
    return {
        **{name: geo.get(name) for name in ("lon", "lat", "crs", "gsd_m", "acquired", "platform", "sensor", "country", "season")},
        **{name: getattr(provenance, name) for name in ("split", "original_id", "url", "licence", "attribution")},
        **{name: getattr(sample, name) for name in ("key", "label", "width", "height", "sha256", "phash")},
        **{name: getattr(sample, name) for name in ("original_width", "original_height")},
        "source": provenance.dataset,
        "caption": sample.captions[0].text if sample.captions else None,
        "captions": [caption.text for caption in sample.captions],
        "caption_langs": [caption.lang for caption in sample.captions],
        "caption_kinds": [caption.kind for caption in sample.captions],
        "num_regions": len(sample.regions),
        "scores": sorted(sample.scores.items()),
        "member_crc32": [zlib.crc32(content) for content in members.values()],
    }


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, never a part of it; the bytes are on the disk before the name is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _aside(path) as file:
        file.write(content)


def write_all_atomically(contents: Mapping[Path, bytes]) -> None:
    """The same for files of which none needs another to be there first. A disk that is asked for all of them at once takes little longer
    than for one."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        for _ in pool.map(write_atomically, contents.keys(), contents.values()):
            pass


@contextmanager
def _aside(path: Path) -> Iterator[IO[bytes]]:
    """A file under a temporary name that takes its real name when the block ends without an error, and else is gone."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say whose
        raise


@dataclass(frozen=True)
class Member:
    suffix: str
    offset: int
    size: int
    name: str


def write_shard(folder: Path, name: str, samples: Iterator[Sample], *, image_suffix: str = "jpg") -> dict[str, Any] | None:
    """Write `name`.tar, .idx and .parquet under `folder` and return the shard's line for the manifest; None, and no file, for no samples.

    Raises DataError for a sample whose key repeats or whose members differ from those of the first.
    An OSError (a full disk) leaves no half-written file under a real name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    members: list[list[Member]] = []
    rows: list[dict[str, Any]] = []
    keys: set[str] = set()
    suffixes: list[str] | None = None
    path = folder / f"{name}.tar"
    with _aside(path) as file:
        for sample in samples:
            contents = _members(sample, image_suffix)
            suffixes = suffixes or list(contents)
            if list(contents) != suffixes:
                raise DataError(f"sample {sample.key} has members {list(contents)}, but shard {name} began with {suffixes}")
            if sample.key in keys:
                raise DataError(f"key {sample.key} occurs twice in shard {name}")
            keys.add(sample.key)
            members.append([_append(file, f"{sample.key}.{suffix}", content) for suffix, content in contents.items()])
            rows.append(parquet_row(sample, contents))
        if rows:
            file.write(bytes(2 * BLOCK_BYTES))  # the end mark of a tar
    if not rows:
        path.unlink()
        return None
    write_atomically(folder / f"{name}.idx", _format_index(members))
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=PARQUET_SCHEMA), parquet)
    write_atomically(folder / f"{name}.parquet", parquet.getvalue())
    return {
        "name": name,
        "samples": len(rows),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "idx_sha256": file_sha256(path.with_suffix(".idx")),
        "parquet_sha256": file_sha256(path.with_suffix(".parquet")),
    }


def _members(sample: Sample, image_suffix: str) -> dict[str, bytes]:
    default_caption = sample.captions[0].text if sample.captions else ""
    members = {image_suffix: sample.image, "json": sample.to_json().encode(), "txt": default_caption.encode()}
    if sample.mask is not None:
        members["mask.png"] = sample.mask
    return members


def _append(file: IO[bytes], name: str, content: bytes) -> Member:
    file.write(tar_header(name, len(content)))
    offset = file.tell()
    file.write(content)
    file.write(bytes(-len(content) % BLOCK_BYTES))
    return Member(name.split(".", 1)[1], offset, len(content), name)


def _format_index(members: list[list[Member]]) -> bytes:
    lines = [f"{INDEX_VERSION} {len(members)}"]
    lines += [" ".join(f"{m.suffix} {m.offset} {m.size} {m.name}" for m in sample) for sample in members]
    return ("\n".join(lines) + "\n").encode()


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Shard:
    """Random access to one tar through its index. Safe to hand to worker processes: the file is opened on first use.

    `tar` is a local file, or, with `remote`, only the name under which that knows it.
    """

    def __init__(self, tar: Path, remote: "RemoteShards | None" = None):
        self.tar, self.remote = tar, remote

    def __getstate__(self) -> dict[str, Any]:
        return {"tar": self.tar, "remote": self.remote}

    def __str__(self) -> str:
        """Where the tar lies, for messages."""
        return f"{self.remote.address}/data/{self.tar.name}" if self.remote else str(self.tar)

    def open(self, suffix: str) -> IO[bytes]:
        """The .tar, .idx or .parquet of this shard. Raises CorruptShard for one that is missing."""
        if self.remote:
            return self.remote.open(self.tar.stem, suffix)
        try:
            return open(self.tar.with_suffix(suffix), "rb", buffering=0)
        except FileNotFoundError:
            raise CorruptShard(f"{self.tar.with_suffix(suffix)} is missing. Build the dataset again.") from None

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The parquet rows, one a sample. Raises CorruptShard."""
        try:
            with self.open(".parquet") as file, pq.ParquetFile(file) as parquet:
                # A thread of Arrow that still holds a Python file aborts the process as it ends: apache/arrow#34314, #50482.
                return parquet.read(None if columns is None else list(columns), use_threads=False)
        except pa.ArrowException as error:
            raise CorruptShard(f"{self}: its .parquet cannot be read: {error}") from error

    @cached_property
    def members(self) -> "Members":
        """The members of every sample, in the order of the tar."""
        try:
            with self.open(".idx") as file:
                header, *lines = file.read().decode().splitlines()
            version, count = header.split()
            samples = Members(lines)
            if lines:
                samples[0]
        except (CorruptShard, ValueError, IndexError) as error:
            raise CorruptShard(f"{self}: its .idx cannot be read as an index ({error}). Build the dataset again.") from error
        if version != INDEX_VERSION or int(count) != len(samples):
            raise CorruptShard(
                f"{self}: its .idx says {header!r} but lists {len(samples)} samples; expected version {INDEX_VERSION}."
            )
        return samples

    @cached_property
    def file(self) -> IO[bytes]:
        """The tar, opened; raises CorruptShard."""
        return self.open(".tar")

    def close(self) -> None:
        """Gives the file back; it is opened again when it is needed."""
        if "file" in self.__dict__:
            self.__dict__.pop("file").close()

    def __del__(self) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.members)

    def read(self, index: int, *suffixes: str) -> dict[str, bytes]:
        """Members of sample `index` by suffix; all of them when none is named.

        Raises CorruptShard, naming the shard, for a member that is absent or cut.
        """
        found = {m.suffix: m for m in self.members[index]}
        contents = {}
        for suffix in suffixes or found:
            if suffix not in found:
                raise CorruptShard(f"{self}: sample {index} has no member .{suffix}; it has {', '.join(found)}")
            member = found[suffix]
            contents[suffix] = os.pread(self.file.fileno(), member.size, member.offset)
            if len(contents[suffix]) != member.size:
                raise CorruptShard(f"{self}: member {member.name} is cut after {len(contents[suffix])} of {member.size} bytes")
        return contents

    def image(self, index: int) -> bytes:
        """The encoded image of sample `index`."""
        suffix = self._image_suffix(index)
        return self.read(index, suffix)[suffix]

    def _image_suffix(self, index: int) -> str:
        for member in self.members[index]:
            if member.suffix not in ("json", "txt", "mask.png"):
                return member.suffix
        raise CorruptShard(f"{self}: sample {index} has no image")

    def sample(self, index: int) -> Sample:
        members = self.read(index)
        image = members[self._image_suffix(index)]
        try:
            return Sample.from_json(members["json"], image=image, mask=members.get("mask.png"))
        except (KeyError, ValueError) as error:
            raise CorruptShard(f"{self}: sample {index} has no sound record: {error}") from error


class Members(Sequence[list[Member]]):
    """A list of the members of every sample, parsed when asked for: a loader keeps many indexes and looks at each line once."""

    def __init__(self, lines: list[str]):
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> list[Member]: ...
    @overload
    def __getitem__(self, index: slice) -> "Members": ...
    def __getitem__(self, index: int | slice) -> "list[Member] | Members":
        if isinstance(index, slice):
            return Members(self._lines[index])
        line = self._lines[index]
        words = line.split(" ")
        try:
            return [Member(words[i], int(words[i + 1]), int(words[i + 2]), words[i + 3]) for i in range(0, len(words), 4)]
        except (ValueError, IndexError):
            raise CorruptShard(f"line {line[:80]!r} of an index names no members") from None


class Dataset:
    """A dataset folder as written by `rsvl_data.pipeline.build`, here or at an address."""

    def __init__(self, root: Path, manifest: dict[str, Any], remote: "RemoteShards | None" = None):
        self.root, self.manifest, self.remote = root, manifest, remote

    @classmethod
    def open(cls, root: Path | str, cache: ShardCache | None = None) -> Self:
        """`root` is a folder, or an address such as hf://datasets/ORG/NAME, whose files are kept in `cache` when they are used.

        Raises DataError when `root` holds no finished dataset.
        """
        if address := remote_address(root):
            # fsspec's network code takes half a second to import
            from rsvl_data.remote_shards import RemoteShards

            remote = RemoteShards(address, cache or ShardCache())
            return cls(Path(root), remote.manifest(), remote)
        path = Path(root) / "manifest.json"
        try:
            manifest = json.loads(path.read_text())
        except FileNotFoundError:
            raise DataError(
                f"{root} is not a finished dataset: it has no manifest.json. "
                "Build one with `rsvl run data/import --source YOUR_FOLDER --out DATASET`."
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        return cls(Path(root), manifest)

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def note(self) -> str | None:
        """A sentence that must stand beside every number measured on these data, such as that the scenes are procedural."""
        return self.manifest.get("note")

    def sha256(self, *splits: str) -> str:
        """The identity of these splits, all when none is named: of the manifest's lines for their shards, which hold checksums."""
        lines = [json.dumps(shard, sort_keys=True) for shard in self.manifest["shards"] if not splits or shard["split"] in splits]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def splits(self) -> dict[str, int]:
        """Samples by split, in the order train, val, test, then others."""
        return self.manifest["splits"]

    def shards(self, split: str) -> list[Shard]:
        """Raises DataError for a split the dataset does not have."""
        if split not in self.splits:
            raise DataError(f"{self.root} has no split {split!r}; it has {', '.join(self.splits)}")
        lines = [line for line in self.manifest["shards"] if line["split"] == split]
        return [Shard(self.root / "data" / f"{line['name']}.tar", self.remote) for line in lines]

    def table(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The parquet rows of a split, in shard order."""
        shards = self.shards(split)
        if self.remote is None:
            return pa.concat_tables([shard.table(columns) for shard in shards])
        with ThreadPoolExecutor(_DOWNLOADS) as pool:
            return pa.concat_tables(pool.map(lambda shard: shard.table(columns), shards))

    def samples(self, split: str) -> Iterator[Sample]:
        for shard in self.shards(split):
            for index in range(len(shard)):
                yield shard.sample(index)
            shard.close()
