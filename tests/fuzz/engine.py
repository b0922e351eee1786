"""One fuzzing run: atheris mutates, a target reads, and what breaks the rule is written down. The run goes on after a find."""

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import atheris
import pyarrow as pa

from rsvl_data.errors import DataError
from rsvl_data.pipeline import _DROPPED_SCHEMA
from rsvl_data.sample import Sample
from rsvl_data.shards import PARQUET_SCHEMA, parquet_row
from rsvl_data.sources import Entry, Format, open_source

MAX_SECONDS = 5
MAX_GROWTH_BYTES = 1 << 30
MAX_DETAIL_CHARS = 20_000
Mutate = Callable[[bytes, int, int], bytes]


class BrokenRule(Exception):
    pass


def read_everything(location: Path, format: Format = "auto") -> None:
    """What a build does with a source, without its files: plan, read, and turn every answer into what would be stored."""
    files = set(location.rglob("*"))
    try:
        source = open_source(location, format)
        entries = list(source.entries())
    except DataError as error:
        _check_text(str(error), "the error")
        return
    keys: set[str] = set()
    for entry in entries:
        entry.id.encode()
        outcome = source.read(Entry(**json.loads(json.dumps(asdict(entry)))))
        _check_outcome(outcome)
        if isinstance(outcome, Sample) and outcome.key in keys:
            raise BrokenRule("a key twice: the build would end with an error after its last shard")
        keys.add(outcome.key)
    if set(location.rglob("*")) != files:
        raise BrokenRule("reading left a file")


def _check_outcome(outcome: object) -> None:
    if isinstance(outcome, Sample):
        if Sample.from_json(outcome.to_json().encode()).to_json() != outcome.to_json():
            raise BrokenRule("the record does not survive a round trip")
        pa.Table.from_pylist([parquet_row(outcome, {"jpg": outcome.image})], schema=PARQUET_SCHEMA)
    else:
        _check_text(outcome.detail, f"the detail of {outcome.reason}")
        pa.Table.from_pylist([{"stage": "read", **asdict(outcome)}], schema=_DROPPED_SCHEMA)


def _check_text(text: str, what: str) -> None:
    if not 0 < len(text) < MAX_DETAIL_CHARS:
        raise BrokenRule(f"{what} has {len(text)} characters")


def fuzz(target: Callable[[bytes], None], seeds: Iterable[bytes], mutate: Mutate | None = None) -> None:
    """Call `target` with mutated `seeds` until the time is over. `mutate` takes (content, most bytes, random seed)."""
    name = Path(sys.modules["__main__"].__file__ or "").stem
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-bytes", type=int, default=20_000, help="of one input")
    parser.add_argument("--finds", type=Path, default=Path(tempfile.gettempdir()) / "rsvl_fuzz" / name, help="folder of inputs")
    options = parser.parse_args()
    options.finds.mkdir(parents=True, exist_ok=True)
    known: set[str] = set()
    logging.disable()

    def one(content: bytes) -> None:
        place = _broken_rule(target, content)
        if place and place not in known:
            known.add(place)
            path = options.finds / f"{len(known):03d}"
            path.write_bytes(content)
            path.with_suffix(".txt").write_text(place, errors="backslashreplace")
            print(f"find {path}: {place.strip().splitlines()[-1][:200]}", flush=True)

    corpus = Path(tempfile.mkdtemp(prefix=f"rsvl_fuzz_{name}_"))
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={options.seconds}", f"-max_len={options.max_bytes}", "-timeout=60", "-rss_limit_mb=8192"]
    quiet = ["-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={options.finds}/stopped-"]
    atheris.Setup(
        [name, str(corpus), f"-seed={options.seed}", *limits, *quiet], one, **({"custom_mutator": mutate} if mutate else {})
    )
    atheris.Fuzz()


def _broken_rule(target: Callable[[bytes], None], content: bytes) -> str | None:
    """The traceback without line texts that vary, or which limit was passed."""
    started, memory = time.monotonic(), _peak_bytes()
    try:
        target(content)
    except Exception as error:  # every kind is a find
        frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        return "\n".join([*frames[-12:], f"{type(error).__name__}: {str(error)[:100] if isinstance(error, BrokenRule) else ''}"])
    if time.monotonic() - started > MAX_SECONDS:
        return f"slower than {MAX_SECONDS} s"
    if _peak_bytes() - memory > MAX_GROWTH_BYTES:
        return f"grew by more than {MAX_GROWTH_BYTES} bytes"
    return None


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def scratch_folder() -> Path:
    """In memory where the machine has that: thousands of files a minute."""
    return Path(tempfile.mkdtemp(prefix="rsvl_fuzz_", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def shared_fixtures(*patterns: str) -> list[bytes]:
    """Contents of the files of the shared sample data that match, none where the data are absent."""
    root = Path(os.environ.get("RSVL_SHARED", Path(__file__).parents[3] / "shared")) / "fixtures"
    return [path.read_bytes() for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_file()]
