"""Samples a second when shards are only read, nothing decoded: our reader against `for sample in webdataset.WebDataset(tars)`.

    python -m benchmarks.shard_read          # writes benchmarks/results/shard_read.json; about a minute

Both get the same tars, made from a seed, out of the page cache, each in fresh processes of one thread on one core. Both hand out the key
and every member of a sample as bytes of its own. It is timed in two ways: `read` asks each member for its length; `touched` also
adds up one byte of each 4,096, so nobody gains by pages that were mapped and never looked at. Ours copies with pread, so both ways read
the same bytes. A digest of every key and byte in order, taken after the clock has stopped, must be equal.

What differs: webdataset walks the tar's headers; ours knows from the .idx where members lie, and notices a tar that is cut but not a
header that was changed (`rsvl data validate` does). Peak memory of the peer is mostly torch, which webdataset imports.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import measure
from rsvl_data.sample import Caption, Sample, content_key
from rsvl_data.shards import Shard, write_shard

NUM_SHARDS = 4
SMALLEST_RATIO = 2.0
_PAGE_BYTES = 4096

Raw = tuple[str, dict[str, bytes]]
"""The key of a sample and its members by suffix."""


@dataclass(frozen=True)
class Options:
    """Our reader of shards against webdataset's."""

    data: Path = Path(tempfile.gettempdir()) / "rsvl-bench-shard-read"
    """where the shards are made, from a seed; those already there are used"""
    out: Path = Path(__file__).parent / "results" / "shard_read.json"
    """the result file"""
    shard_samples: int = 500
    """in each of the four tars"""
    image_bytes: int = 95_000
    """of one image member; with record, caption and tar headers 96 KB a sample"""
    passes: int = 8
    """over all shards, in each process"""
    rounds: int = 7
    """of both readers in turn"""
    role: Literal["all", "peer", "ours"] = "all"
    """peer and ours are what the benchmark runs in processes of their own"""


def shard_samples(options: Options, shard: int) -> Iterator[Sample]:
    """Noise stands for the images: nobody looks into them."""
    for number in range(shard * options.shard_samples, (shard + 1) * options.shard_samples):
        image = np.random.default_rng(number).bytes(options.image_bytes)
        sha256 = hashlib.sha256(image).hexdigest()
        text = f"an aerial image of a harbour with {number} ships, two piers and a row of storage tanks beside the railway"
        yield Sample(
            key=content_key(sha256, str(number)), width=512, height=512, sha256=sha256, image=image, captions=[Caption(text=text)]
        )


def make_shards(options: Options) -> list[Path]:
    folder = options.data / f"{options.shard_samples}x{options.image_bytes}"
    tars = [folder / f"train-{shard:05d}.tar" for shard in range(NUM_SHARDS)]
    for shard, tar in enumerate(tars):
        if not tar.with_suffix(".parquet").exists():  # the last file of a shard to be written
            write_shard(folder, tar.stem, shard_samples(options, shard))
    return tars


def our_samples(tars: list[Path]) -> Iterator[Raw]:
    for tar in tars:
        shard = Shard(tar)
        for index in range(len(shard)):
            yield shard.members[index][0].name.split(".", 1)[0], shard.read(index)


def peer_samples(tars: list[Path]) -> Iterator[Raw]:
    import webdataset

    for sample in webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False):
        yield sample["__key__"], {name: content for name, content in sample.items() if not name.startswith("__")}


def look_at_lengths(members: dict[str, bytes]) -> int:
    return sum(map(len, members.values()))


def touch_pages(members: dict[str, bytes]) -> int:
    return sum(sum(content[::_PAGE_BYTES]) for content in members.values())


LOOKS: dict[str, Callable[[dict[str, bytes]], int]] = {"read": look_at_lengths, "touched": touch_pages}


def digest(samples: Iterator[Raw]) -> str:
    """Of every key, suffix and byte, in the order they come."""
    found = hashlib.sha256()
    for key, members in samples:
        for suffix, content in members.items():
            found.update(f"{key}.{suffix} {len(content)}\n".encode() + content)
    return found.hexdigest()


def run_role(options: Options) -> None:
    tars = make_shards(options)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    samples = {"peer": peer_samples, "ours": our_samples}[options.role]
    for _ in samples(tars):  # imports, and the tars come into the page cache
        pass
    rates, sums = {}, {}
    for name, look in LOOKS.items():
        start, count, total = time.perf_counter(), 0, 0
        for _ in range(options.passes):
            for _, members in samples(tars):
                count += 1
                total += look(members)
        rates[f"samples_per_s_{name}"] = count / (time.perf_counter() - start)
        sums[name] = total
    measure.report(
        rates
        | {
            "bytes_per_sample": sums["read"] / count,
            "num_samples": count,
            "sums": sums,
            "sha256": digest(samples(tars)),
            "versions": measure.versions("webdataset"),
        }
    )


def compare(options: Options) -> list[dict[str, Any]]:
    make_shards(options)

    def contender(role: str) -> measure.Measured:
        sizes = ("data", "shard_samples", "image_bytes", "passes")
        arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in sizes]
        return measure.measure_in_fresh_process(__file__, ["--role", role, *arguments])

    rounds = measure.alternate({"peer": lambda: contender("peer"), "ours": lambda: contender("ours")}, options.rounds)
    for each in rounds:
        check_agreement(each["peer"], each["ours"])
    return [case(rounds, name) for name in LOOKS]


def case(rounds: list[dict[str, measure.Measured]], look: str) -> dict[str, Any]:
    def of(role: str) -> dict[str, Any]:
        runs = [each[role] for each in rounds]
        return {
            "samples_per_s": measure.median_and_range([run[f"samples_per_s_{look}"] for run in runs]),
            "peak_rss_mib": max(run["peak_rss_mib"]["process"] for run in runs),
        }

    ratios = [each["ours"][f"samples_per_s_{look}"] / each["peer"][f"samples_per_s_{look}"] for each in rounds]
    return {
        "look": look,
        "ratio": measure.median_and_range(ratios),
        "rounds": len(rounds),
        "peer": of("peer"),
        "ours": of("ours"),
    }


def check_agreement(peer: measure.Measured, ours: measure.Measured) -> None:
    for name in ("num_samples", "sums", "sha256"):
        if peer[name] != ours[name]:
            raise RuntimeError(
                f"the readers gave different samples: {name} is {peer[name]} for webdataset, {ours[name]} for ours"
            )


def main(options: Options) -> int:
    if options.role != "all":
        run_role(options)
        return 0
    load = os.getloadavg()[0]
    cases = compare(options)
    passed = all(each["ratio"]["median"] >= SMALLEST_RATIO for each in cases)
    for each in cases:
        ratio = each["ratio"]
        print(f"{each['look']}: ratio {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
    setting = {"shards": NUM_SHARDS, "shard_samples": options.shard_samples, "passes": options.passes, "cores": 1, "threads": 1}
    result = {
        "load_average_at_start": load,
        "versions": measure.versions("webdataset"),
        "setting": setting | {"tar_bytes": sum(tar.stat().st_size for tar in make_shards(options))},
        "gate": {"smallest_ratio": SMALLEST_RATIO, "passed": passed},
        "cases": cases,
    }
    measure.write_result(options.out, "shard_read", result)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
