"""The benchmark of downloads, small: the server, the comparison, and one whole run against a stand-in for img2dataset."""

import http.client
import io
import json
import shlex
import sys
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import ingest, tables
from benchmarks.image_server import FAULTS, fault_of, make_images, peak_rate, serving
from benchmarks.ingest_outputs import LARGEST_MEAN_DIFFERENCE, compare_outputs, cut_tars, images_by_path
from rsvl_data.shards import Dataset
from rsvl_data.tar_header import tar_header

# As img2dataset does with `resize_mode no`: what decodes is encoded anew, and a record says where it came from.
STAND_IN = """
import io, json, sys, tarfile, urllib.request
from pathlib import Path
import pyarrow.parquet as pq
from PIL import Image

if sys.argv[1] == "-c":
    print(json.dumps({"img2dataset": "0.0"}))
    raise SystemExit
options = dict(argument[2:].split("=", 1) for argument in sys.argv[3:])
out = Path(options["output_folder"])
out.mkdir()
with tarfile.open(out / "00000.tar", "w") as tar:
    for number, row in enumerate(pq.read_table(options["url_list"]).to_pylist()):
        try:
            image = Image.open(io.BytesIO(urllib.request.urlopen(row["url"]).read())).convert("RGB")
        except OSError:
            continue
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=int(options["encode_quality"]))
        for suffix, content in (("jpg", encoded.getvalue()), ("json", json.dumps(row).encode())):
            info = tarfile.TarInfo(f"{number:09d}.{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """40 rows, of which one is cut and one a page."""
    folder = tmp_path_factory.mktemp("ingest") / "images"
    make_images(folder, 40)
    return folder


def get(port: int, path: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_five_percent_are_faulty_in_four_ways():
    faults = [fault_of(number) for number in range(2000)]
    assert {fault: faults.count(fault) for fault in FAULTS} == dict.fromkeys(FAULTS, 25)


def test_the_server_gives_the_files_and_404(images):
    with serving(images) as port:
        assert get(port, "/0.jpg") == (200, (images / "0.jpg").read_bytes())
        assert get(port, "/30.jpg")[1].startswith(b"<!DOCTYPE html>")
        assert get(port, "/none.jpg")[0] == 404
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            for number in range(3):  # the connection stays open
                connection.request("GET", f"/{number}.jpg")
                assert connection.getresponse().read() == (images / f"{number}.jpg").read_bytes()
        assert peak_rate(port, ["0.jpg", "none.jpg"], seconds=0.1) > 10
    with pytest.raises(ConnectionRefusedError):
        get(port, "/0.jpg")


def test_images_come_from_the_seed(images, tmp_path):
    make_images(tmp_path / "again", 8)
    make_images(tmp_path / "other", 8, seed=1)
    first = (images / "0.jpg").read_bytes()
    assert (tmp_path / "again" / "0.jpg").read_bytes() == first != (tmp_path / "other" / "0.jpg").read_bytes()
    assert len({(images / f"{number}.jpg").read_bytes() for number in range(16) if number != 10}) == 15
    with Image.open(images / "1.jpg") as image:
        assert image.size == (384, 512)


def test_the_commands_follow_the_options(tmp_path):
    options = ingest.Options(peer_python=Path("python"), data=tmp_path)
    others = {"resize": "center_crop", "shard_samples": 7, "processes": 5}
    for name, value in others.items():
        changed = replace(options, **{name: value})
        for command in ingest.COMMANDS.values():
            arguments = [command(each, tmp_path / "list.parquet", tmp_path / "out") for each in (options, changed)]
            assert arguments[0] != arguments[1] and str(value) in " ".join(arguments[1])
    assert "--thread_count=9" in ingest.peer_command(replace(options, peer_threads=9), tmp_path, tmp_path)
    assert "--download.per-host=9" in ingest.our_command(replace(options, per_host=9), tmp_path, tmp_path)


# --- the comparison ---------------------------------------------------------------------------------------------------------


def write_tar(path: Path, images: dict[str, np.ndarray]) -> Path:
    with open(path, "wb") as file:
        for number, (name, pixels) in enumerate(images.items()):
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "JPEG", quality=95)
            record = json.dumps({"url": f"http://127.0.0.1/{name}"}).encode()
            for suffix, content in (("jpg", encoded.getvalue()), ("json", record)):
                file.write(tar_header(f"{number}.{suffix}", len(content)) + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    return path


def flat(grey: int, side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), grey, np.uint8)


def test_equal_outputs_agree(tmp_path):
    one = write_tar(tmp_path / "1.tar", {"a": flat(10), "b": flat(99)})
    other = write_tar(tmp_path / "2.tar", {"b": flat(99), "a": flat(11)})  # order and one grey level
    found = compare_outputs([one], [other])
    assert found["images"] == 2
    assert found["grey_levels_off"] == {"mean": 0.5, "largest_of_an_image": 1.0}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"a": flat(10)}, r"kept by the peer alone: \['b'\]"),
        ({"a": flat(10), "b": flat(99), "c": flat(1)}, r"by ours alone: \['c'\]"),
        ({"a": flat(20), "b": flat(99)}, "differ by 5.00 grey levels"),
        ({"a": flat(10), "b": flat(99, 8)}, r"b is \(16, 16, 3\) for the peer and \(8, 8, 3\)"),
    ],
)
def test_outputs_that_differ_end_the_benchmark(tmp_path, images, message):
    peer = write_tar(tmp_path / "1.tar", {"a": flat(10), "b": flat(99)})
    with pytest.raises(RuntimeError, match=message):
        compare_outputs([peer], [write_tar(tmp_path / "2.tar", images)])


def test_a_tar_cut_anywhere_is_found(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {"a": flat(10), "b": flat(99)})
    content = whole.read_bytes()
    assert cut_tars(tmp_path) == []
    with tarfile.open(whole) as archive:
        second = archive.getmembers()[1].offset  # a cut there reads as a shorter tar and no error
    for place in (0, 100, 700, second, len(content) - 1024, len(content) - 512):
        (tmp_path / "cut.tar").write_bytes(content[:place])
        assert cut_tars(tmp_path) == ["cut.tar"], place


# --- the whole run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def options(images, tmp_path) -> ingest.Options:
    script, python = tmp_path / "stand_in.py", tmp_path / "python"
    script.write_text(STAND_IN)
    python.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(script)])} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "images").symlink_to(images)
    return ingest.Options(
        python, tmp_path, tmp_path / "ingest.json", images=40, startup_images=4, rounds=1, resize="no", shard_samples=15, kills=0
    )


def test_the_whole_benchmark_writes_what_the_tables_show(options, monkeypatch):
    ingest.main(options)
    result = json.loads(options.out.read_text())
    assert result["agreement"]["images"] == 38
    assert 0 < result["agreement"]["grey_levels_off"]["mean"] < LARGEST_MEAN_DIFFERENCE
    assert result["versions"]["peer"] == {"img2dataset": "0.0"}
    ours = Dataset.open(options.data / "ours-out")
    assert ours.splits == {"train": 38} and len(ours.shards("train")) == 3
    assert set(images_by_path(sorted((options.data / "ours-out").rglob("*.tar")))) >= {"0.jpg", "39.jpg"}
    monkeypatch.setattr(tables, "RESULTS", options.out.parent)
    assert "Both kept the same 38 images" in tables.ingest_section()


@pytest.mark.slow
def test_a_killed_build_of_ours_ends_in_the_same_bytes(options):
    with serving(options.data / "images") as port:
        found = ingest.kill_at_random(replace(options, kills=3), "ours", port, seconds=6)
    assert found == {
        "kills": 3,
        "kills_that_left_a_cut_tar": 0,
        "cut_tars": 0,
        "same_images_after_another_run": True,
        "same_bytes_after_another_run": True,
    }


def test_a_python_without_the_peer_is_said(options):
    with pytest.raises(SystemExit, match="has no img2dataset; make it as the docstring says"):
        ingest.peer_versions(replace(options, peer_python=Path(sys.executable)))
