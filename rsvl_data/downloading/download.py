"""A table of image URLs becomes a folder of images and a table of what arrived, which `data/import` continues with.

    OUT/images/ab/ab12...f.jpg    named by the SHA-256 of the URL and by the form the bytes have; never by the URL's path
    OUT/table.jsonl               one line a row whose image is there, in the order of the input: filepath, captions, url, licence, ...
    OUT/dropped.jsonl             one line a row left out: row, url, reason, detail
    OUT/download.json             counts of both, and what was asked for; written last, so it stands for a finished download
    OUT/.download/state.jsonl     one line a finished URL, written as it ends; the next run asks only for what failed or is missing

Every URL ends in an image or in a reason, a killed run goes on, one bad URL ends nothing. Who asks, and how politely, is in
`fetch_many.py`; what a server may do to us is bounded in `safe_http.py`; what may be asked at all is judged in `web_address.py`.
"""

import asyncio
import json
import logging
import os
import ssl
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rsvl_data.downloading.fetch_many import DownloadOptions, End, fetch_all
from rsvl_data.downloading.safe_http import Resolver, system_resolver
from rsvl_data.downloading.url_tables import UrlRow, read_url_table
from rsvl_data.downloading.web_address import NotFetched, check_url, redacted
from rsvl_data.errors import DataError
from rsvl_data.folder_lock import only_process
from rsvl_data.shards import file_sha256, write_atomically
from rsvl_data.version import code_version

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DownloadReport:
    """rows = images + the sum of dropped. `asked` counts the URLs this run had to ask for; `joined` the rows whose URL stood in an
    earlier row already, whose words go to the same image."""

    rows: int
    images: int
    asked: int
    joined: int
    dropped: dict[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items())) or "nothing"
        return f"{self.images} of {self.rows} rows have their image ({self.joined} share one); dropped: {reasons}"


def download(
    table: Path,
    out: Path,
    options: DownloadOptions,
    *,
    resolve: Resolver = system_resolver,
    ssl_context: ssl.SSLContext | None = None,
) -> DownloadReport:
    """Raises DataError for a file that is no such table, or when not one image is there in the end."""
    urls = _urls(table, options)
    with _named(out), only_process(out / ".download", out):
        (out / "download.json").unlink(missing_ok=True)  # it says that the three files belong together
        parts = out / ".download" / "parts"
        parts.mkdir(exist_ok=True)
        for leftover in parts.iterdir():
            leftover.unlink()
        ends = _read_state(out)
        missing = [url for url in urls if not (url in ends and _is_there(out, ends[url]))]
        if missing:
            with _recorder(out, ends) as record, _progress(missing, record) as noted:
                asyncio.run(fetch_all(missing, out, options, noted, resolve=resolve, ssl_context=ssl_context))
        report = _write_results(table, out, options, set(urls), ends, len(missing))
    log.info("%s: %s", out, report)
    if report.images == 0:
        raise DataError(f"{table}: no image could be downloaded; {report}. Details: {out / 'dropped.jsonl'}")
    return report


def is_downloaded(table: Path, out: Path, options: DownloadOptions) -> bool:
    """Whether `out` holds the finished download of this very table under options that ask for the same, with an image at least.

    Rows that failed are no reason to say no: they stay as they are until somebody asks for them again.
    """
    try:
        found = json.loads((out / "download.json").read_text())
    except (OSError, ValueError):
        return False
    return all(found.get(name) == value for name, value in _request(table, options).items()) and found["images"] > 0


def _request(table: Path, options: DownloadOptions) -> dict[str, Any]:
    """What was asked for, as JSON; not how fast."""
    names = [field.name for field in fields(DownloadOptions) if field.name not in _PACE]
    wanted = {name: getattr(options, name) for name in names}
    name = Path(table.name[:-3] if table.name.lower().endswith(".gz") else table.name).stem
    return {"name": name, "table_sha256": file_sha256(table), "options": wanted}


_PACE = (
    *("concurrency", "per_host", "delay_s", "tries", "backoff_s", "max_wait_s", "host_failures"),
    *("timeout_s", "idle_s", "max_seconds", "user_agent"),
)


def describe(table: Path, options: DownloadOptions) -> str:
    """What a run would ask for, found without asking anybody."""
    urls = _urls(table, options)
    hosts = Counter(urlsplit(url).hostname for url in urls)
    refused: Counter[str] = Counter()
    rows = 0
    for row in _rows(table, options):
        rows += 1
        url = _judged(row, options)
        if isinstance(url, NotFetched):
            refused[url.reason] += 1
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items())) or "none"
    return f"{table}: {rows} rows, {len(urls)} URLs on {len(hosts)} hosts would be asked for; refused by form: {reasons}"


# --- the table ------------------------------------------------------------------------------------------------------------


def _rows(table: Path, options: DownloadOptions) -> Iterator[UrlRow]:
    for seen, row in enumerate(read_url_table(table, options.url_column, options.caption_column)):
        if options.limit is not None and seen == options.limit:
            return
        yield row


def _judged(row: UrlRow, options: DownloadOptions, known: Container[str] = ()) -> str | NotFetched:
    """The URL to ask for, or why there is none. `known` are URLs this function gave before: judging one again changes nothing."""
    if row.fault:
        return NotFetched(*row.fault)
    if row.url in known:
        return row.url
    try:
        return check_url(row.url, allow_private=options.allow_private_hosts)
    except NotFetched as refusal:
        return refusal


def _urls(table: Path, options: DownloadOptions) -> list[str]:
    """Each once, in the order of the table."""
    judged = (_judged(row, options) for row in _rows(table, options))
    return list(dict.fromkeys(url for url in judged if isinstance(url, str)))


def _write_results(
    table: Path, out: Path, options: DownloadOptions, urls: set[str], ends: dict[str, End], asked: int
) -> DownloadReport:
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    rows = images = joined = 0
    with _renamed(out / "table.jsonl") as kept, _renamed(out / "dropped.jsonl") as left_out:
        for row in _rows(table, options):
            rows += 1
            url = _judged(row, options, known=urls)
            end = End("", reason=url.reason, detail=str(url)) if isinstance(url, NotFetched) else ends.get(url, _NOT_REACHED)
            if end.reason:
                dropped[end.reason] += 1
                line = {"row": row.number, "url": redacted(row.url), "reason": end.reason, "detail": end.detail}
                left_out.write(json.dumps(line, ensure_ascii=False) + "\n")
                continue
            images += 1
            joined += end.url in seen
            seen.add(end.url)
            line = {"filepath": end.file, "captions": row.captions, "url": end.url, **row.facts}
            kept.write(json.dumps(line, ensure_ascii=False) + "\n")
    report = DownloadReport(rows, images, asked, joined, dict(sorted(dropped.items())))
    if asked:
        os.sync()  # all images at once, not each: what download.json calls finished must outlive a power cut
    content = {"code": code_version(), **_request(table, options), **asdict(report)}
    write_atomically(out / "download.json", (json.dumps(content, indent=1) + "\n").encode())
    return report


_NOT_REACHED = End("", reason="not_reached", detail="the time for the whole run was over; the next run asks for it")


@contextmanager
def _renamed(path: Path) -> Iterator[IO[str]]:
    """Lines go to a temporary file that takes the name at the end: a table may be too long for the memory."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _named(out: Path) -> Iterator[None]:
    """A full disk does not say where it is full."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(out)
        raise


# --- what earlier runs did --------------------------------------------------------------------------------------------------


def _read_state(out: Path) -> dict[str, End]:
    """The last word on each URL. A line that a kill cut short is as if it were not there."""
    ends: dict[str, End] = {}
    path = out / ".download" / "state.jsonl"
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    end = End(**json.loads(line))
                except (ValueError, TypeError):
                    continue
                ends[end.url] = end
    return ends


def _is_there(out: Path, end: End) -> bool:
    path = out / end.file
    return not end.reason and path.is_file() and path.stat().st_size == end.bytes


@contextmanager
def _recorder(out: Path, ends: dict[str, End]) -> Iterator[Callable[[End], None]]:
    with open(out / ".download" / "state.jsonl", "a", encoding="utf-8") as file:
        if file.tell():
            file.write("\n")  # a line that a kill cut short must not spoil the next one

        def record(end: End) -> None:
            file.write(json.dumps(vars(end)) + "\n")
            file.flush()
            ends[end.url] = end

        yield record


@contextmanager
def _progress(urls: list[str], record: Callable[[End], None]) -> Iterator[Callable[[End], None]]:
    columns = (
        TextColumn("downloading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    failed = 0
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=len(urls))

        def noted(end: End) -> None:
            nonlocal failed
            record(end)
            failed += bool(end.reason)
            bar.update(task, advance=1, description=f"{failed} failed")

        yield noted
