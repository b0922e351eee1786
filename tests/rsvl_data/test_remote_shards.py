import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from test_loader import assert_same, batches
from tiny_dataset import make_sample, write_dataset

from rsvl_data import remote_shards
from rsvl_data.errors import CorruptShard, DataError, OptionError, RemoteError
from rsvl_data.loader import LoaderConfig
from rsvl_data.shard_cache import ShardCache, remote_address
from rsvl_data.shards import Dataset
from rsvl_data.validate import problems


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Dataset:
    numbers = iter(range(19))
    return write_dataset(tmp_path_factory.mktemp("local"), [[make_sample(next(numbers)) for _ in range(n)] for n in (7, 4, 8)])


@pytest.fixture
def memory(local):
    """`memory://bucket/set` holds the dataset."""
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(local.root), "/bucket/set", recursive=True)
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def cache(tmp_path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 0.01)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(remote_shards, "_DELAYS_S", (0.0,) * 7)


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("hf://datasets/org/name", "hf://datasets/org/name"),
        (Path("hf://datasets/org/name"), "hf://datasets/org/name"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("http://127.0.0.1:80/x", "http://127.0.0.1:80/x"),
        ("runs/mine/dataset", None),
        (Path("/data/a:b"), None),
        ("file:///data", None),
    ],
)
def test_what_is_an_address(place, address):
    assert remote_address(place) == address


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder(local, memory, cache, workers):
    remote = Dataset.open("memory://bucket/set", cache)
    assert remote.sha256("train") == local.sha256("train")
    assert_same(batches(remote, LoaderConfig(4, workers)), batches(local))


def test_tables_come_without_tars_and_each_file_once(local, memory, cache):
    remote = Dataset.open(Path("memory://bucket/set"), cache)
    assert remote.table("train").equals(local.table("train"))
    assert {file.name for file in cache.folder.iterdir()} - {"lock"} == {
        line["parquet_sha256"] for line in local.manifest["shards"]
    }
    keys = [sample.key for sample in remote.samples("train")]
    memory.rm("/bucket/set/data", recursive=True)
    assert keys == [sample.key for sample in Dataset.open("memory://bucket/set", cache).samples("train")]


def test_validate_names_what_is_wrong_there(memory, cache):
    manifest = json.loads(memory.cat("/bucket/set/manifest.json")) | {"image": "jpg"}
    memory.pipe("/bucket/set/manifest.json", json.dumps(manifest).encode())
    assert list(problems(Dataset.open("memory://bucket/set", cache))) == []
    memory.pipe("/bucket/set/data/train-00001.idx", b"v1.2 0\n")
    memory.rm("/bucket/set/data/train-00002.tar")
    shutil.rmtree(cache.folder)
    first, second = problems(Dataset.open("memory://bucket/set", cache))
    assert first.startswith("train-00001: memory://bucket/set/data/train-00001.idx is not the file that manifest.json describes")
    assert second == "train-00002: memory://bucket/set/data/train-00002.tar is missing, but manifest.json lists it"


@pytest.mark.parametrize("damage", [lambda tar: tar[:-700], lambda tar: tar[:600] + b"\1" + tar[601:], lambda tar: tar * 3])
def test_other_bytes_than_the_manifest_says_are_never_read(memory, cache, damage):
    path = "/bucket/set/data/train-00000.tar"
    memory.pipe(path, damage(memory.cat(path)))
    shard = Dataset.open("memory://bucket/set", cache).shards("train")[0]
    with pytest.raises(CorruptShard, match=r"memory://bucket/set/data/train-00000\.tar is not the file that manifest"):
        shard.sample(0)
    assert not [file for file in cache.folder.iterdir() if file.suffix == ".part"]


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["shards"][0].update(name="../../../etc/passwd"),
        lambda manifest: manifest["shards"][0].update(sha256="../../x"),
        lambda manifest: manifest["shards"][0].update(samples=-1),
        lambda manifest: manifest.pop("shards"),
    ],
)
def test_a_manifest_is_not_trusted(memory, cache, change):
    manifest = json.loads(memory.cat("/bucket/set/manifest.json"))
    change(manifest)
    memory.pipe("/bucket/set/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DataError, match=r"memory://bucket/set/manifest\.json is not the manifest of a dataset"):
        Dataset.open("memory://bucket/set", cache)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("memory://bucket/nothing", DataError, "memory://bucket/nothing is not a finished dataset: it has no manifest.json"),
        ("nonsense://x/y", OptionError, "nonsense://x/y/manifest.json cannot be opened: Protocol not known: nonsense"),
        ("oci://x/y", OptionError, "Install ocifs"),
        ("http://127.0.0.1:9/x", RemoteError, r"manifest.json cannot be fetched \(attempt 4\).*Check the address, the network"),
    ],
)
def test_addresses_that_hold_no_dataset(cache, address, error, message):
    with pytest.raises(error, match=message):
        Dataset.open(address, cache)


class Flaky(MemoryFileSystem):
    """Memory, but reading fails `failures` times, each time after some bytes."""

    protocol = "flaky"
    failures = 0
    error: Exception = TimeoutError("slow")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("flaky:/"))

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        read = file.read
        if mode != "rb" or not path.endswith(".tar"):
            return file

        def fail(size):
            if type(self).failures and file.tell():
                type(self).failures -= 1
                raise type(self).error
            return read(min(size, 5000))

        file.read = fail
        file.seek(0)
        return file


@pytest.fixture
def flaky(memory, monkeypatch):
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(Flaky, "store", memory.store)
    return Flaky


def test_transient_errors_are_outlived(local, flaky, cache, monkeypatch, caplog):
    monkeypatch.setattr(flaky, "failures", 7)
    remote = Dataset.open("flaky://bucket/set", cache)
    assert remote.shards("train")[0].sample(3) == local.shards("train")[0].sample(3)
    assert flaky.failures == 0
    assert caplog.text.count("TimeoutError: slow; trying again") == 7


@pytest.mark.parametrize(("error", "attempts"), [(TimeoutError("slow"), 8), (PermissionError("not yours"), 1)])
def test_lasting_errors_end(flaky, cache, monkeypatch, error, attempts):
    monkeypatch.setattr(flaky, "failures", 100)
    monkeypatch.setattr(flaky, "error", error)
    with pytest.raises(RemoteError, match=rf"train-00000.tar cannot be fetched \(attempt {attempts}\). {type(error).__name__}"):
        Dataset.open("flaky://bucket/set", cache).shards("train")[0].sample(0)
    assert flaky.failures == 100 - attempts


class Server(http.server.SimpleHTTPRequestHandler):
    """A folder, without ranges. The first answers of `refusals` are 503; a .tar breaks off at its first time."""

    refusals = 2
    broken: set[str]

    def do_GET(self):
        if type(self).refusals:
            type(self).refusals -= 1
            self.send_error(503)
        elif self.path.endswith(".tar") and self.path not in self.broken:
            self.broken.add(self.path)
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(handler) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_web_server_that_refuses_and_breaks_off(local, serve, cache, workers):
    handler = type("Handler", (Server,), {"broken": set(), "refusals": 2})
    address = serve(functools.partial(handler, directory=str(local.root)))
    assert_same(batches(Dataset.open(address, cache), LoaderConfig(4, workers)), batches(local))
    assert handler.refusals == 0 and len(handler.broken) == 3


class Hub(http.server.BaseHTTPRequestHandler):
    """What of the Hub's API HfFileSystem asks for: the repository, its files, their bytes by range. Everything else is 501."""

    root: Path
    asked: list[str]

    def answer(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(f"POST {self.path}")
        if not self.path.startswith("/api/datasets/org/name/paths-info/main"):
            return self.answer(b"", 501)
        paths = json.loads(body)["paths"] if body.startswith("{") else [part.split("=")[1] for part in body.split("&")]
        paths = [path.replace("%2F", "/") for path in ([paths] if isinstance(paths, str) else paths)]
        found = [
            {"type": "file", "path": path, "size": (self.root / path).stat().st_size, "oid": "0" * 40}
            for path in paths
            if (self.root / path).is_file()
        ]
        return self.answer(json.dumps(found).encode())

    def do_GET(self):
        self.asked.append(f"GET {self.path}")
        if self.path.startswith("/api/datasets/org/name/tree/main"):
            folder = self.root / self.path.split("?")[0].removeprefix("/api/datasets/org/name/tree/main").lstrip("/")
            return self.answer(
                json.dumps(
                    [
                        {
                            "type": "directory" if path.is_dir() else "file",
                            "path": str(path.relative_to(self.root)),
                            "size": path.stat().st_size,
                            "oid": "0" * 40,
                        }
                        for path in sorted(folder.iterdir())
                    ]
                ).encode()
            )
        if self.path.startswith("/api/datasets/org/name"):
            return self.answer(json.dumps({"id": "org/name", "sha": "1" * 40, "siblings": [], "tags": []}).encode())
        if self.path.startswith("/datasets/org/name/resolve/main/"):
            content = (self.root / self.path.removeprefix("/datasets/org/name/resolve/main/")).read_bytes()
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            return self.answer(content[first : last + 1], 206)
        return self.answer(b"", 501)

    def log_message(self, *_):
        pass


READ = """
import hashlib, sys
from rsvl_data.shards import Dataset
from rsvl_data.shard_cache import ShardCache
dataset = Dataset.open("{address}", ShardCache(__import__("pathlib").Path("{folder}"), 1))
print(hashlib.sha256("".join(s.to_json() + str(hash(s.image)) for s in dataset.samples("train")).encode()).hexdigest())
"""


def read_elsewhere(address: str, folder: Path, **environment: str) -> str:
    """In a process of its own: huggingface_hub reads HF_ENDPOINT when it is imported."""
    code = READ.format(address=address, folder=folder).replace("str(hash(s.image))", "hashlib.sha256(s.image).hexdigest()")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def identity(dataset: Dataset) -> str:
    samples = dataset.samples("train")
    return hashlib.sha256("".join(s.to_json() + hashlib.sha256(s.image).hexdigest() for s in samples).encode()).hexdigest()


def test_the_hub(local, serve, cache):
    asked: list[str] = []
    endpoint = serve(type("Handler", (Hub,), {"root": local.root, "asked": asked}))
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "", "HF_HOME": str(cache.folder / "home")}
    assert read_elsewhere("hf://datasets/org/name", cache.folder, **settings) == identity(local)
    assert any("/resolve/main/data/train-00002.tar" in path for path in asked)


def test_a_bucket(local, tmp_path):
    """moto stands in for S3."""
    moto = pytest.importorskip("moto.server", reason="pip install 'moto[server,s3]' s3fs")
    pytest.importorskip("s3fs")
    import boto3

    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        s3 = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        s3.create_bucket(Bucket="bucket")
        for path in filter(Path.is_file, local.root.rglob("*")):
            s3.upload_file(str(path), "bucket", f"set/{path.relative_to(local.root)}")
        found = read_elsewhere("s3://bucket/set", tmp_path / "cache", AWS_ENDPOINT_URL=endpoint, **keys)
        assert found == identity(local)
    finally:
        server.stop()
