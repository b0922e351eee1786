import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from misbehaving_server import JPEG, answer, misbehaving_server, picture, redirect

from recipes.data import download as recipe
from rsvl_data.downloading.arriving_image import IN_MEMORY_BYTES, ArrivingImage
from rsvl_data.downloading.download import describe, download
from rsvl_data.downloading.fetch_many import DownloadOptions
from rsvl_data.errors import DataError, OptionError
from rsvl_data.sample import Sample
from rsvl_data.sources import open_source

QUICK = DownloadOptions(
    allow_private_hosts=True,
    delay_s=0,
    backoff_s=0.01,
    max_wait_s=2,
    timeout_s=0.6,
    idle_s=0.3,
    max_bytes=1_000_000,
    host_failures=99,
)


@pytest.fixture
def server():
    with misbehaving_server() as running:
        yield running


def table_of(folder: Path, *urls: str, **facts: str) -> Path:
    path = folder / "urls.jsonl"
    path.write_text("".join(json.dumps({"url": url, "caption": f"caption {i}", **facts}) + "\n" for i, url in enumerate(urls)))
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def reasons(out: Path) -> dict[str, str]:
    return {line["url"].rpartition("/")[2]: line["reason"] for line in lines(out / "dropped.jsonl")}


async def nobody(host, port):
    raise AssertionError(f"{host} must not be looked up")


# --- one server, all its ways -----------------------------------------------------------------------------------------------

GOOD = "good.jpg good.png text_plain no_length gzip cookie redirect_ok noindex_for_another_bot".split()
BAD = {
    "404": "http_status",
    "206": "http_status",
    "500": "http_status",
    "429": "http_status",
    "no_location": "http_status",
    "to_file": "scheme",
    "to_data": "scheme",
    "to_nonsense": "bad_url",
    "loop": "redirects",
    "html": "not_an_image",
    "empty": "empty",
    "too_short": "truncated",
    "gzip_cut": "truncated",
    "claims_10_gb": "too_large",
    "gzip_bomb": "too_large",
    "endless": "too_large",
    "gzip_lie": "corrupt",
    "brotli": "encoding",
    "huge_headers": "http_error",
    "no_http": "http_error",
    "reset": "http_error",
    "slow_header": "timeout",
    "slow_body": "timeout",
    "noai": "opt_out",
    "noindex_for_us": "opt_out",
    "too_many_pixels": "too_many_pixels",
}


def test_every_url_ends_in_an_image_or_a_reason(server, tmp_path):
    table = table_of(tmp_path, *(server.url(f"/{path}") for path in [*GOOD, *BAD]))
    out = tmp_path / "out"
    report = download(table, out, QUICK, resolve=nobody)
    assert reasons(out) == BAD
    kept = lines(out / "table.jsonl")
    assert [line["url"].rpartition("/")[2] for line in kept] == GOOD
    assert report.images == len(GOOD) and sum(report.dropped.values()) == len(BAD) and report.rows == len(GOOD) + len(BAD)
    for line in kept:
        assert (out / line["filepath"]).read_bytes() == (picture(form="PNG") if "png" in line["url"] else JPEG)
        assert Path(line["filepath"]).suffix == (".png" if "png" in line["url"] else ".jpg")
    assert not list((out / ".download" / "parts").iterdir())
    assert sum(path.is_file() for path in (out / "images").rglob("*")) == len(GOOD)
    # asked again where it may help, and only there
    assert {path: server.asked[f"/{path}"] for path in ("404", "500", "429", "noai", "too_short", "html")} == {
        "404": 1,
        "500": QUICK.tries,
        "429": 1,  # it asks for an hour
        "noai": 1,
        "too_short": QUICK.tries,
        "html": 1,
    }
    assert server.asked["/loop"] == QUICK.max_redirects + 1
    assert "Cookie" not in server.headers["/good.jpg"] and f"Host: 127.0.0.1:{server.port}" in server.headers["/good.jpg"]


def test_data_import_goes_on_with_the_folder(server, tmp_path):
    facts = {"licence": "CC-BY-4.0", "attribution": "A. Person", "split": "val", "label": "farmland", "lat": "48.5", "lon": "2.2"}
    table = table_of(tmp_path, server.url("/good.jpg"), server.url("/good.png"), server.url("/good.jpg#top"), **facts)
    report = download(table, tmp_path / "out", QUICK)
    assert (report.images, report.joined, report.asked, server.asked["/good.jpg"]) == (3, 1, 2, 1)
    source = open_source(tmp_path / "out")
    entries = list(source.entries())
    samples = [source.read(entry) for entry in entries]
    assert [entry.split for entry in entries] == ["val", "val"] and all(isinstance(sample, Sample) for sample in samples)
    assert [[caption.text for caption in sample.captions] for sample in samples] == [["caption 0", "caption 2"], ["caption 1"]]
    for sample in samples:
        provenance = sample.provenance
        assert (provenance.licence, provenance.attribution, sample.label) == ("CC-BY-4.0", "A. Person", "farmland")
        assert provenance.url.startswith("http://127.0.0.1") and (sample.geo.lat, sample.geo.lon) == (48.5, 2.2)


def test_a_large_image_waits_on_the_disk_and_arrives_the_same(server, tmp_path):
    large = picture(form="BMP", size=(800, 700))
    assert len(large) > IN_MEMORY_BYTES
    server.extra["/large"] = lambda n: answer(large)
    server.extra["/large_page"] = lambda n: answer(b"<html>" + bytes(2_000_000))
    server.extra["/large_cut"] = lambda n: answer(large)[:-1]
    table = table_of(tmp_path, *(server.url(path) for path in ("/large", "/large_page", "/large_cut", "/good.jpg")))
    download(table, tmp_path / "out", replace(QUICK, max_bytes=3_000_000, timeout_s=5))
    assert reasons(tmp_path / "out") == {"large_page": "not_an_image", "large_cut": "truncated"}
    files = [tmp_path / "out" / line["filepath"] for line in lines(tmp_path / "out" / "table.jsonl")]
    assert [path.read_bytes() for path in files] == [large, JPEG] and files[0].suffix == ".bmp"
    assert not list((tmp_path / "out" / ".download" / "parts").iterdir())


def test_no_more_than_a_megabyte_of_an_image_is_in_memory(tmp_path):
    part, piece = tmp_path / "part", bytes(IN_MEMORY_BYTES // 2)
    with ArrivingImage(part) as image:
        for expected in (False, False, True):
            image.write(piece)
            assert part.exists() is expected
    assert not part.exists() and image.num_bytes == 3 * len(piece)


def test_no_cookie_is_sent_back(server, tmp_path):
    async def resolve(host, port):
        return ["127.0.0.1"]

    server.extra["/set"] = lambda n: answer(b"", "302 Found", Location="/good.jpg", Set_Cookie="a=b")
    download(table_of(tmp_path, server.url("/set", "images.test")), tmp_path / "out", QUICK, resolve=resolve)
    assert "cookie" not in server.headers["/good.jpg"].lower()


def test_a_cut_chunked_body_and_header_text_that_is_no_text(server, tmp_path):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(JPEG) + JPEG + b"\r\n"
    server.extra |= {
        "/whole": lambda n: chunked + b"0\r\n\r\n",
        "/cut": lambda n: chunked,
        "/no_chunk": lambda n: chunked + b"zz\r\n",
        "/many_headers": lambda n: answer(**{f"X_{number}": "x" for number in range(500)}),
        "/no_text": lambda n: answer(X_Robots_Tag="no\xffindex, noai"),
        "/odd_target": lambda n: redirect("ftp://\xff/"),
    }
    table = table_of(tmp_path, *map(server.url, server.extra))
    download(table, tmp_path / "out", QUICK)
    assert reasons(tmp_path / "out") == {
        "cut": "truncated",
        "no_chunk": "http_error",
        "many_headers": "http_error",
        "no_text": "opt_out",
        "odd_target": "scheme",
    }


def test_retry_after_is_honoured_and_503_passes(server, tmp_path):
    server.extra["/busy"] = lambda n: answer(b"", "429 Too Many", Retry_After="1") if n == 1 else answer()
    server.extra["/flaky"] = lambda n: answer(b"", "503 No") if n < 3 else answer()
    report = download(table_of(tmp_path, server.url("/busy"), server.url("/flaky")), tmp_path / "out", QUICK)
    assert report.images == 2 and server.asked == {"/busy": 2, "/flaky": 3}
    first, second = server.starts["/busy"]
    assert 0.99 <= second - first < 2


def test_opt_out_can_be_overridden(server, tmp_path):
    table = table_of(tmp_path, server.url("/noai"))
    with pytest.raises(DataError, match="no image could be downloaded; .*1 opt_out"):
        download(table, tmp_path / "out", QUICK)
    assert download(table, tmp_path / "out", replace(QUICK, ignore_opt_out=True)).images == 1


# --- where we may go --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/to_metadata", "/to_loopback_name", "/to_decimal_loopback", "/to_name_that_resolves_privately", "/good.jpg"]
)
def test_private_addresses_are_refused_also_after_a_redirect(server, tmp_path, path, monkeypatch):
    """The server stands for a public one: for it alone the judgement is put out of action."""
    judged = []

    def pretend(address, allow_private=False):
        judged.append(address)
        if address == "127.0.0.1" and judged.count(address) == 1 and path != "/good.jpg":
            return address
        return real(address, allow_private)

    from rsvl_data.downloading import safe_http

    real = safe_http.check_address
    monkeypatch.setattr(safe_http, "check_address", pretend)
    server.extra["/to_name_that_resolves_privately"] = lambda n: redirect("http://inside.example.org/x.jpg")

    async def resolve(host, port):
        return {"images.example.org": ["127.0.0.1"], "inside.example.org": ["10.0.0.5"]}[host]

    table = table_of(tmp_path, f"http://images.example.org:{server.port}{path}")
    with pytest.raises(DataError, match="1 private_address"):
        download(table, tmp_path / "out", replace(QUICK, allow_private_hosts=False), resolve=resolve)
    assert server.asked.total() == (path != "/good.jpg")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_certificate_and_host_are_those_of_the_name(tmp_path):
    names = ["-subj", "/CN=images.test", "-addext", "subjectAltName=DNS:images.test"]
    words = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 2".split()
    )
    subprocess.run([*words, *names], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))

    async def resolve(host, port):
        return ["127.0.0.1"]

    with misbehaving_server(context) as server:
        urls = [f"https://{name}:{server.port}/good.jpg" for name in ("images.test", "other.test")]
        table = table_of(tmp_path, *urls)
        with pytest.raises(DataError, match="2 tls"):
            download(table, tmp_path / "out", QUICK, resolve=resolve)
        assert server.asked.total() == 0
        assert download(table, tmp_path / "out", QUICK, resolve=resolve, ssl_context=trusting).dropped == {"tls": 1}
        assert f"Host: images.test:{server.port}" in server.headers["/good.jpg"]


def test_no_password_is_written_down(tmp_path, server):
    table = table_of(tmp_path, "http://user:secret@images.example.org/x.jpg", server.url("/good.jpg"))
    download(table, tmp_path / "out", QUICK)
    assert reasons(tmp_path / "out") == {"x.jpg": "userinfo"}
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


# --- runs and their ends ------------------------------------------------------------------------------------------------------


def test_next_run_asks_only_for_what_failed_or_is_missing(server, tmp_path):
    server.extra["/later"] = lambda n: answer() if n > 1 else answer(b"", "404 Not Found")
    table = table_of(tmp_path, *(server.url(path) for path in ("/later", "/good.jpg", "/good.png")))
    out = tmp_path / "out"
    assert download(table, out, QUICK).dropped == {"http_status": 1}
    with open(out / ".download" / "state.jsonl", "a") as state:
        state.write('{"url": "http://cut sho')
    (out / ".download" / "parts" / "leftover").write_bytes(b"part")
    (out / lines(out / "table.jsonl")[1]["filepath"]).write_bytes(b"cut")
    assert download(table, out, replace(QUICK, concurrency=1)).images == 3
    assert server.asked == {"/good.jpg": 1, "/good.png": 2, "/later": 2}
    before = (out / "table.jsonl").read_bytes()
    assert download(table, out, QUICK).asked == 0 and server.asked.total() == 5
    assert (out / "table.jsonl").read_bytes() == before and not list((out / ".download" / "parts").iterdir())


def test_a_killed_run_goes_on(server, tmp_path):
    urls = [server.url(f"/slow_image{index}") for index in range(40)]
    table, out = table_of(tmp_path, *urls), tmp_path / "out"
    words = ["--table", str(table), "--out", str(out), "--allow-private-hosts", "--per-host", "2", "--delay-s", "0"]
    running = subprocess.Popen(
        [sys.executable, "-m", "recipes.cli", "run", "data/download", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 15
    while len(server.asked) < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert 10 <= len(server.asked) < 40 and not (out / "table.jsonl").exists()
    report = download(table, out, QUICK)
    assert report.images == 40 and 0 < report.asked <= 32
    assert sum(server.asked.values()) <= 42  # the two under way were asked for again
    assert [line["url"] for line in lines(out / "table.jsonl")] == urls


def test_few_requests_at_once_to_one_host_and_a_delay(server, tmp_path):
    table = table_of(tmp_path, *(server.url(f"/slow_image{index}") for index in range(8)))
    download(table, tmp_path / "a", replace(QUICK, per_host=2, concurrency=8))
    assert server.open_most == 2
    server.starts.clear()
    download(table, tmp_path / "b", replace(QUICK, per_host=8, delay_s=0.1))
    starts = sorted(start for times in server.starts.values() for start in times)
    assert all(later - earlier > 0.08 for earlier, later in pairwise(starts))


def test_redirects_to_one_host_are_as_polite(server, tmp_path):
    async def resolve(host, port):
        return ["127.0.0.1"]

    for index in range(8):
        server.extra[f"/to{index}"] = lambda n, index=index: redirect(server.url(f"/slow_image{index}", "images.test"))
    table = table_of(tmp_path, *(server.url(f"/to{index}", f"host{index}.test") for index in range(8)))
    assert download(table, tmp_path / "out", replace(QUICK, per_host=2), resolve=resolve).images == 8
    starts = sorted(times[0] for path, times in server.starts.items() if path.startswith("/slow"))
    assert all(third - first > 0.04 for first, third in zip(starts, starts[2:]))


def test_total_concurrency(server, tmp_path):
    async def resolve(host, port):
        return ["127.0.0.1"]

    urls = [server.url(f"/slow_image{index}", f"host{index}.test") for index in range(12)]
    report = download(table_of(tmp_path, *urls), tmp_path / "out", replace(QUICK, concurrency=3), resolve=resolve)
    assert report.images == 12 and server.open_most == 3


def test_a_host_that_only_fails_is_left_alone(server, tmp_path):
    urls = [server.url(f"/bad{index}") for index in range(10)]
    for index in range(10):
        server.extra[f"/bad{index}"] = lambda n: answer(b"", "503 No")
    options = replace(QUICK, per_host=1, host_failures=3, tries=2)
    with pytest.raises(DataError, match="7 host_given_up, 3 http_status"):
        download(table_of(tmp_path, *urls), tmp_path / "out", options)
    assert server.asked.total() == 6


def test_the_whole_run_ends_in_time(server, tmp_path):
    table = table_of(tmp_path, server.url("/good.jpg"), server.url("/slow_header"), server.url("/slow_header_2"))
    started = time.monotonic()
    report = download(table, tmp_path / "out", replace(QUICK, max_seconds=0.5, timeout_s=30, idle_s=30))
    assert time.monotonic() - started < 3 and report.dropped == {"not_reached": 2}


def test_a_full_disk_ends_the_run_and_the_next_goes_on(server, tmp_path, small_disk):
    server.extra["/large"] = lambda n: answer(picture(form="BMP", size=(500, 600)))
    table, out = table_of(tmp_path, server.url("/good.jpg"), server.url("/large")), tmp_path / "out"
    out.mkdir()
    with small_disk(out, "256k") as resize:
        with pytest.raises(OSError, match="No space left"):
            download(table, out, replace(QUICK, concurrency=1))
        resize("9m")
        assert download(table, out, QUICK).images == 2


def test_faults_of_rows_are_counted_and_a_table_of_another_form_is_refused(server, tmp_path):
    table = tmp_path / "urls.csv"
    table.write_text(f"url,caption\n{server.url('/good.jpg')},field\nnan,x\nhttp://a.test/1,\nhttp://a.test/2\n")
    report = download(table, tmp_path / "out", QUICK)
    assert report.dropped == {"bad_url": 1, "no_caption": 1, "ragged_row": 1} and report.rows == 4
    table.write_text("address,caption\nx,y\n")
    with pytest.raises(DataError, match="no column of URLs; it has 'address', 'caption'"):
        download(table, tmp_path / "out", QUICK)
    table.write_text(f"address,words\n{server.url('/good.jpg')},y\n")
    options = replace(QUICK, url_column="address", caption_column="words", limit=1)
    assert download(table, tmp_path / "out", options).images == 1 and server.asked.total() == 1


def test_a_dry_run_asks_nobody(server, tmp_path, capsys):
    table = table_of(tmp_path, server.url("/good.jpg"), "ftp://x.test/1", server.url("/good.png"))
    recipe.run(recipe.Options(table=table, out=tmp_path / "out", dry_run=True, allow_private_hosts=True))
    assert "3 rows, 2 URLs on 1 hosts would be asked for; refused by form: 1 scheme" in capsys.readouterr().out
    assert not (tmp_path / "out").exists() and server.asked.total() == 0
    assert "1 rows" in describe(table, replace(QUICK, limit=1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tries": 0}, "--tries 0: must be above 0"),
        ({"max_seconds": -1}, "--max-seconds -1: must"),
        ({"delay_s": -1}, "must not be negative"),
        ({"user_agent": "a\r\nb"}, "plain ASCII"),
    ],
)
def test_options_are_checked(options, text):
    with pytest.raises(OptionError, match=text):
        DownloadOptions(**options)
