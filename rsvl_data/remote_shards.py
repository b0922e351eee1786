"""Datasets at an address: hf://datasets/ORG/NAME, s3://BUCKET/PATH, https://HOST/PATH, and whatever else fsspec opens.

The manifest is read when the dataset is opened. Each tar, index and parquet is fetched whole when it is first used, into a `ShardCache`
under the checksum the manifest gives it, so what is read is what was built. Nothing that comes from there is executed or unpickled.
Who may read is the filesystem's matter: HF_TOKEN and HF_ENDPOINT, the AWS configuration and AWS_ENDPOINT_URL, fsspec's own configuration.
"""

import hashlib
import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import IO, Any

import aiohttp
import fsspec
import httpx
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from rsvl_data.errors import CorruptShard, DataError, OptionError, RemoteError
from rsvl_data.shard_cache import ShardCache

log = logging.getLogger(__name__)

# Waits between attempts, about a minute in all: as long as a server takes to start again.
_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_BLOCK_BYTES = 16 << 20
_MAX_MANIFEST_BYTES = 1 << 28
# An index says less than its tar and a parquet holds a part of it, but a file of no samples has a size, too.
_SIDECAR_BYTES = 1 << 20
_WORTH_ANOTHER_TRY = {408, 425, 429}
# Not a bound on a whole file, as aiohttp's own is: on a server that has fallen silent.
_HTTP_OPTIONS = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)}}


class _ShardLine(BaseModel):
    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    split: str
    samples: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    idx_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    parquet_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Manifest(BaseModel):
    """What must be sound before anything is done with a manifest that somebody else serves."""

    name: str
    splits: dict[str, NonNegativeInt]
    shards: list[_ShardLine]
    stages: list[dict[str, Any]]


class RemoteShards:
    """The files of one dataset at an address. Safe to hand to worker processes: each makes its own connections."""

    def __init__(self, address: str, cache: ShardCache):
        self.address, self.cache = address, cache
        self._lines: dict[str, _ShardLine] = {}

    def manifest(self) -> dict[str, Any]:
        """Raises DataError when there is none or it is not sound."""
        url = f"{self.address}/manifest.json"
        try:
            content = b"".join(_read(url, _MAX_MANIFEST_BYTES, _DELAYS_S[:3]))  # a mistyped host is answered soon
        except FileNotFoundError:
            raise DataError(
                f"{self.address} is not a finished dataset: it has no manifest.json, or may not be read by you."
            ) from None
        try:
            self._lines = {line.name: line for line in _Manifest.model_validate_json(content).shards}
            return json.loads(content)
        except (ValidationError, ValueError) as error:
            raise DataError(f"{url} is not the manifest of a dataset: {error}") from error

    def open(self, name: str, suffix: str) -> IO[bytes]:
        """The .tar, .idx or .parquet of the shard `name`.

        Raises CorruptShard for one that is absent or not what the manifest says, RemoteError for a server that does not answer.
        """
        line, url = self._lines[name], f"{self.address}/data/{name}{suffix}"
        if suffix == ".tar":
            sha256, room, most_bytes = line.sha256, line.bytes, line.bytes
        else:
            sha256 = line.idx_sha256 if suffix == ".idx" else line.parquet_sha256
            room, most_bytes = 0, line.bytes + _SIDECAR_BYTES
        return self.cache.open(sha256, room, lambda file: _fetch(url, file, sha256, most_bytes))


def _fetch(url: str, file: IO[bytes], sha256: str, most_bytes: int) -> None:
    """Write what lies at `url`. A file that arrives with other bytes is asked for once more: transfers do break."""
    for _ in range(2):
        file.seek(0)
        digest = hashlib.sha256()
        try:
            for block in _read(url, most_bytes, _DELAYS_S):
                digest.update(block)
                file.write(block)
        except FileNotFoundError:
            raise CorruptShard(f"{url} is missing, but manifest.json lists it") from None
        if digest.hexdigest() == sha256:
            return
    raise CorruptShard(f"{url} is not the file that manifest.json describes: sha256 {digest.hexdigest()}, expected {sha256}")


def _read(url: str, most_bytes: int, delays_s: Sequence[float]) -> Iterator[bytes]:
    """The bytes at `url`, in blocks; after a transient error it goes on where it stopped.

    It stops behind `most_bytes`: a checksum then tells that there was more. Raises FileNotFoundError, or RemoteError.
    """
    done = 0
    for attempt in range(len(delays_s) + 1):
        try:
            with closing(_opened(url)) as file:
                _skip(file, done)
                while done <= most_bytes and (block := file.read(_BLOCK_BYTES)):
                    done += len(block)
                    yield block
            return
        except OptionError:
            raise
        except Exception as error:  # every filesystem raises the types of its own libraries
            if _is_missing(error):
                raise FileNotFoundError(url) from error
            cause = f"{type(error).__name__}: {error}"
            if attempt == len(delays_s) or not _is_transient(error):
                raise RemoteError(
                    f"{url} cannot be fetched (attempt {attempt + 1}). {cause}. Check the address, the network and your credentials."
                ) from error
            log.warning("%s: %s; trying again in about %g s", url, cause, delays_s[attempt])
            time.sleep(delays_s[attempt] * random.uniform(0.5, 1.5))  # not all ranks at once


def _opened(url: str) -> IO[bytes]:
    """Raises OptionError for an address that no installed filesystem opens."""
    is_http = url.startswith(("http:", "https:"))
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **(_HTTP_OPTIONS if is_http else {}))
    except ImportError as error:
        raise OptionError(f"{url} cannot be opened: {error}. For s3:// it is `pip install 'rsvl[s3]'`.") from error
    except ValueError as error:
        raise OptionError(f"{url} cannot be opened: {error}. Allowed: a folder, hf://, s3://, https://, http://, ...") from error
    # Not every HTTP server answers ranges. 0 asks for the file in one piece, as a stream.
    return filesystem.open(path, "rb", block_size=0 if is_http else _BLOCK_BYTES, cache_type="none")


def _skip(file: IO[bytes], num_bytes: int) -> None:
    try:
        file.seek(num_bytes)
    except ValueError:  # a stream
        while num_bytes and (block := file.read(min(num_bytes, _BLOCK_BYTES))):
            num_bytes -= len(block)


def _is_missing(error: BaseException) -> bool:
    """fsspec's HTTP calls a file not found when the server cannot be reached, too: its cause tells them apart."""
    cause = error.__cause__
    return isinstance(error, FileNotFoundError) and (cause is None or _is_missing(cause) or not _is_transient(cause))


def _is_transient(error: BaseException) -> bool:
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status >= 500 or status in _WORTH_ANOTHER_TRY
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    # botocore's errors of the network have no class in common
    is_of_network = any(word in type(error).__name__ for word in ("Connect", "Timeout"))
    return is_of_network or isinstance(error, OSError | aiohttp.ClientError | httpx.TransportError)
