"""Table of image URLs and captions -> a folder of images and a table, which data/import continues with.

rsvl run data/download --table urls.parquet --out FOLDER
rsvl run data/import --source FOLDER --out DATASET

The same command again asks only for what failed or is missing.
"""

import json
import threading
from dataclasses import dataclass
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

from PIL import Image

from recipes.config import save_config
from rsvl_data.downloading.download import DownloadReport, describe, download
from rsvl_data.downloading.fetch_many import DownloadOptions


@dataclass(frozen=True, kw_only=True)
class Options(DownloadOptions):
    table: Path
    """.csv, .tsv, .jsonl, .json (each also .gz) or .parquet with a column of URLs and one of captions"""
    out: Path
    """folder for images/ and table.jsonl; a killed run goes on when the same command is given again"""
    dry_run: bool = False
    """say what would be asked for; ask nobody, write nothing"""


def run(options: Options) -> DownloadReport | None:
    if options.dry_run:
        print(describe(options.table, options))
        return None
    report = download(options.table, options.out, options)
    save_config(options.out, "data/download", options)
    return report


def smoke(folder: Path) -> Options:
    """Six images from a server of our own, which ends after the sixth answer."""
    for index in range(6):
        path = folder / "served" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (40 * index, 80, 120)).save(path)
    server = HTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder / "served")))
    server.timeout = 60
    threading.Thread(target=_answer, args=(server, 6), daemon=True).start()
    rows = [{"url": f"http://127.0.0.1:{server.server_port}/{index}.png", "caption": f"field {index}"} for index in range(6)]
    table = folder / "urls.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Options(table=table, out=folder / "downloaded", allow_private_hosts=True, delay_s=0)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _answer(server: HTTPServer, times: int) -> None:
    with server:
        for _ in range(times):
            server.handle_request()
