"""`rsvl run data/import` on a table of URLs, as typed by a person, and what kills, a full disk and a second process do to it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from misbehaving_server import answer, misbehaving_server, picture
from PIL import Image

from recipes.cli import main
from rsvl_data.errors import DataError
from rsvl_data.shards import Dataset
from rsvl_data.sources import open_source
from rsvl_data.sources.url_table import UrlTable

QUICK = ["--download.allow-private-hosts", "--download.delay-s", "0", "--download.backoff-s", "0.01"]


@pytest.fixture
def server():
    with misbehaving_server() as running:
        for number in range(60):
            body = picture((4 * number, 90, 250 - 4 * number), size=(64, 48))
            running.extra[f"/{number}.jpg"] = lambda n, body=body: answer(body)
        yield running


def laion_table(folder: Path, server, num=8, bad=("/404", "/html")) -> Path:
    urls = [server.url(f"/{number}.jpg") for number in range(num)] + [server.url(path) for path in bad]
    rows = [{"URL": url, "TEXT": f"field {i}", "WIDTH": 64, "HEIGHT": 48, "similarity": 0.3} for i, url in enumerate(urls)]
    rows = [{**row, "LICENSE": "CC-BY-4.0", "attribution": "A. Person"} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), folder / "laion.parquet")
    return folder / "laion.parquet"


def words(source: Path, out: Path, *more: str) -> list[str]:
    return ["run", "data/import", "--source", str(source), "--out", str(out), "--samples-per-shard", "5", *more]


def start(command: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "recipes.cli", *command],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def built(folder: Path) -> dict[str, bytes]:
    """Every byte but those that tell the time or where the source lay."""
    apart = ("timings.json", "config.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in apart}


def downloaded(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in built(folder).items() if name.startswith(("images/", "table.jsonl", "dropped"))}


# --- one command and two ----------------------------------------------------------------------------------------------------


def test_one_command_makes_the_bytes_of_two_and_every_row_is_accounted_for(server, tmp_path):
    table = laion_table(tmp_path, server)
    assert main(words(table, tmp_path / "one", *QUICK)) == 0
    quick = [word.replace("--download.", "--") for word in QUICK]
    assert main(["run", "data/download", "--table", str(table), "--out", str(tmp_path / "folder"), *quick]) == 0
    assert main(words(tmp_path / "folder", tmp_path / "two")) == 0
    assert built(tmp_path / "one") == built(tmp_path / "two")
    assert downloaded(tmp_path / "one.downloads") == downloaded(tmp_path / "folder")
    dataset = Dataset.open(tmp_path / "one")
    assert dataset.manifest["stages"][0] == {
        "name": "read",
        "in": 10,
        "kept": 8,
        "dropped": {"http_status": 1, "not_an_image": 1},
    }
    rows = [row for path in (tmp_path / "one" / "dropped").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["key"]: row["reason"] for row in rows} == {"laion:9": "http_status", "laion:10": "not_an_image"}
    for split in dataset.splits:
        for sample in dataset.samples(split):
            facts = sample.provenance
            assert (facts.dataset, facts.licence, facts.attribution) == ("laion", "CC-BY-4.0", "A. Person")
            assert facts.url == facts.original_id == server.url(f"/{sample.captions[0].text.split()[1]}.jpg")


def test_failures_are_asked_for_again_by_data_download_alone(server, tmp_path, capsys):
    server.extra["/later"] = lambda n: answer() if n > 1 else answer(b"", "404 Not Found")
    table = laion_table(tmp_path, server, 4, ["/later"])
    command = words(table, tmp_path / "out", *QUICK, "--downloads", str(tmp_path / "elsewhere"))
    assert main(command) == 0 and main(command) == 0
    assert server.asked.total() == 5
    quick = [word.replace("--download.", "--") for word in QUICK]
    assert main(["run", "data/download", "--table", str(table), "--out", str(tmp_path / "elsewhere"), *quick]) == 0
    assert server.asked.total() == 6
    rows = pq.read_table(table).to_pylist()
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "URL": server.url("/50.jpg")}]), table)
    capsys.readouterr()
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "it listed 5 images then and lists 6 now" in said and "give another --out, or remove that folder" in said
    assert server.asked.total() == 7
    assert main([*words(table, tmp_path / "new", *QUICK, "--downloads", str(tmp_path / "elsewhere"))]) == 0
    assert server.asked.total() == 7 and sum(Dataset.open(tmp_path / "new").splits.values()) == 6


def test_options_of_the_download_reach_it(server, tmp_path, capsys):
    table = laion_table(tmp_path, server)
    assert main(words(table, tmp_path / "refused")) == 1
    assert "10 private_address" in capsys.readouterr().err and server.asked.total() == 0
    assert main(words(table, tmp_path / "refused", *QUICK, "--download.limit", "3")) == 0
    assert server.asked.total() == 3 and sum(Dataset.open(tmp_path / "refused").splits.values()) == 3
    inside = words(table, tmp_path / "x", "--downloads", str(tmp_path / "x" / "y"))
    assert main(inside) == 2 and "lies inside of --out" in capsys.readouterr().err


def test_a_dry_run_asks_nobody(server, tmp_path, capsys):
    table = laion_table(tmp_path, server)
    assert main(words(table, tmp_path / "out", *QUICK, "--dry-run")) == 0
    assert "10 rows, 10 URLs on 1 hosts would be asked for" in capsys.readouterr().out
    assert server.asked.total() == 0 and [path.name for path in tmp_path.iterdir()] == ["laion.parquet"]


# --- what is such a table ---------------------------------------------------------------------------------------------------


def test_every_form_of_the_official_fixture_is_found(shared):
    folder = shared / "fixtures" / "formats" / "07_tables"
    for name in [*json.loads((folder / "expected.json").read_text())["files"], "laion_columns.parquet"]:
        source = open_source(folder / name)
        assert isinstance(source, UrlTable), name
        with pytest.raises(DataError, match="Download them with `rsvl run data/download"):
            source.entries()


def test_gb18030_and_columns_of_other_names(server, tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(f"address;words\n{server.url('/1.jpg')};机场旁边有许多飞机\n".encode("gb18030"))
    columns = ["--download.url-column", "address", "--download.caption-column", "words", "--format", "url-table"]
    assert main(words(table, tmp_path / "out", *QUICK, *columns, "--val", "0", "--test", "0")) == 0
    [sample] = Dataset.open(tmp_path / "out").samples("train")
    assert sample.captions[0].text == "机场旁边有许多飞机"


def test_image_files_that_are_there_win_over_their_urls(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "t.json").write_text(json.dumps([{"filepath": "a.png", "url": "http://x.test/a.png", "caption": "a road"}]))
    [entry] = open_source(tmp_path / "t.json").entries()
    assert entry.id == "a.png"
    (tmp_path / "a.png").unlink()
    assert isinstance(open_source(tmp_path / "t.json"), UrlTable)


def test_a_download_that_is_not_finished_is_refused(tmp_path):
    (tmp_path / ".download").mkdir()
    with pytest.raises(DataError, match="does not hold a finished download"):
        open_source(tmp_path)


# --- kills, a full disk, a second process -------------------------------------------------------------------------------------


def kill_until_it_ends(command: list[str], num_kills: int, run_s: float, seed: int) -> int:
    """SIGKILL to the whole group at random moments of the run, then let it end; the number of kills that met it alive."""
    moments, met = random.Random(seed), 0
    for _ in range(num_kills):
        process = start(command)
        try:
            process.communicate(timeout=moments.uniform(0.4, 1.0) * run_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            met += 1
        else:
            assert process.returncode == 0
    status, err = ended(start(command))
    assert status == 0, err
    return met


@pytest.mark.parametrize("num_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bytes(server, tmp_path, num_kills):
    slow = [*QUICK[:1], "--download.per-host", "1", "--download.delay-s", "0.02"]
    table = laion_table(tmp_path, server, 60)
    started = time.monotonic()
    assert ended(start(words(table, tmp_path / "whole", *slow)))[0] == 0
    run_s = time.monotonic() - started
    assert kill_until_it_ends(words(table, tmp_path / "killed", *slow), num_kills, run_s, num_kills) > 0
    assert built(tmp_path / "killed") == built(tmp_path / "whole")
    assert downloaded(tmp_path / "killed.downloads") == downloaded(tmp_path / "whole.downloads")
    left = [path for name in ("killed", "killed.downloads") for path in (tmp_path / name).rglob("*.tmp")]
    assert not left and not (tmp_path / "killed" / ".build").exists()


@pytest.mark.slow
def test_killed_imports_of_a_folder_end_with_the_same_bytes(tmp_path):
    for number in range(200):
        path = tmp_path / "images" / ("forest", "river")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 200), (number, 80, 9)).save(path)
    started = time.monotonic()
    assert ended(start(words(tmp_path / "images", tmp_path / "whole")))[0] == 0
    run_s = time.monotonic() - started
    assert kill_until_it_ends(words(tmp_path / "images", tmp_path / "killed"), 20, run_s, 1) > 0
    assert built(tmp_path / "killed") == built(tmp_path / "whole")


@pytest.mark.parametrize("full", ["downloads", "out"])
def test_a_full_disk_is_said_and_the_next_run_goes_on(server, tmp_path, small_disk, full):
    for number in range(12):
        body = picture((4 * number, 90, 90), form="BMP", size=(200, 200))  # 120 kB, and a lot less as JPEG
        server.extra[f"/{number}.jpg"] = lambda n, body=body: answer(body)
    table, disk = laion_table(tmp_path, server, 12), tmp_path / "disk"
    disk.mkdir()
    folders = {"downloads": tmp_path / "downloads", "out": tmp_path / "out", full: disk / "folder"}
    command = words(table, folders["out"], *QUICK, "--image.suffix", "png", "--downloads", str(folders["downloads"]))
    with small_disk(disk, {"downloads": "600k", "out": "60k"}[full]) as resize:
        status, err = ended(start(command))
        assert status == 1 and "No space left on device" in err and str(disk) in err and "give the same command again" in err
        assert "Traceback" not in err and len(err.strip().splitlines()) <= 3, err
        assert not (folders["out"] / "manifest.json").exists()
        resize("40m")
        assert ended(start(command))[0] == 0
        assert main(words(table, tmp_path / "whole", *QUICK, "--image.suffix", "png")) == 0
        assert built(folders["out"]) == built(tmp_path / "whole")
        assert downloaded(folders["downloads"]) == downloaded(tmp_path / "whole.downloads")


def test_a_second_download_into_one_folder_is_refused_at_once(server, tmp_path):
    table = laion_table(tmp_path, server, 30)
    command = words(table, tmp_path / "out", *QUICK[:1], "--download.per-host", "1", "--download.delay-s", "0.3")
    first = start(command)
    try:
        while not server.asked:
            assert first.poll() is None
            time.sleep(0.02)
        status, err = ended(start(command))
        assert status == 1 and f"another process is working on {tmp_path / 'out.downloads'}" in err and "Traceback" not in err
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    assert ended(start(words(table, tmp_path / "out", *QUICK)))[0] == 0  # the lock ended with its process
