"""A source and a list of stages become a dataset folder.

    plan      list the source's entries, give each a split, mix them, cut them into shards; one file a shard under `.build/plan`
    map       one datatrove task a shard: read, stages, write; a task that finished is never run again
    finish    counts and checksums into manifest.json, which makes the folder a dataset

The plan depends on the source, the options and the seed alone, so the bytes do not depend on the number of workers, on the
executor, or on how often the build was killed.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rsvl_data.croissant import croissant
from rsvl_data.errors import DataError, OptionError
from rsvl_data.executor import Step, run_tasks
from rsvl_data.folder_lock import only_process
from rsvl_data.hub import dataset_readme
from rsvl_data.sample import Sample
from rsvl_data.shards import Dataset, write_all_atomically, write_atomically, write_shard
from rsvl_data.sources.base import Entry, Source
from rsvl_data.stage import Outcome, Stage, Tally, run_stages
from rsvl_data.version import code_version

FORMAT_VERSION = 1
_SPLIT_ORDER = ("train", "val", "test")
_DROPPED_SCHEMA = pa.schema(
    {"key": pa.string(), "stage": pa.string(), "reason": pa.string(), "detail": pa.string(), "score": pa.float64()}
)
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What every build takes; a recipe adds its own fields to it."""

    out: Path
    """folder of the new dataset; a killed build goes on when the same command is given again"""
    val: float = 0.1
    """fraction of the samples without a split of their own that becomes val"""
    test: float = 0.1
    """the same for test"""
    group_by: str | None = None
    """regular expression searched in a sample's id; what it matches (its first group) is never torn apart by a split:
    '^(.+)_[0-9]+$' keeps numbered crops of one scene together"""
    samples_per_shard: int = 1000
    """samples a tar holds at the most"""
    workers: int = 2
    """processes; the bytes written do not depend on it"""
    seed: int = 0
    """of the split and of the order of samples"""
    limit: int | None = None
    """only so many samples, chosen by the seed"""
    dry_run: bool = False
    """say what would be built, write nothing"""

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise OptionError(f"--val {self.val} and --test {self.test} must be fractions that leave something for train")
        if self.samples_per_shard < 1 or self.workers < 1 or (self.limit is not None and self.limit < 1):
            raise OptionError("--samples-per-shard, --workers and --limit must be 1 or more")
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except re.error as error:
                raise OptionError(f"--group-by {self.group_by!r} is not a regular expression: {error}") from error

    def facts(self) -> dict[str, Any]:
        """The options that decide the bytes, as JSON. Where the source lies and how many work on it do not."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("out", "workers", "dry_run", "source")}
        return json.loads(json.dumps(fields, default=str))


def build(
    source: Source,
    stages: Sequence[Stage],
    options: BuildOptions,
    *,
    recipe: str,
    image_suffix: str = "jpg",
) -> Dataset | None:
    """Write the dataset and return it opened; None for a dry run.

    A build that was killed goes on where it stopped when called again. Raises DataError when nothing is left to write, or when `out`
    holds a build of another source or other options.
    """
    entries = list(source.entries())
    if not entries:
        raise DataError(f"source {source.name} holds no image")
    plan = _plan(entries, options)
    if options.dry_run:
        _describe_plan(source, plan, options.out)
        return None
    out, work = options.out, options.out / ".build"
    facts = {"recipe": recipe, "config": options.facts(), "image": image_suffix, "mask": source.mask}
    was_there = (out / "manifest.json").exists()
    if not was_there:
        with only_process(work, out):
            if not (out / "manifest.json").exists():
                _map_and_finish(source, stages, plan, options, facts)
    dataset = Dataset.open(out)
    _check_same({**dataset.manifest, "entries": dataset.manifest["stages"][0]["in"]}, _identity(options, plan), out)
    shutil.rmtree(work, ignore_errors=True)  # of a build that was killed when it had just finished
    if was_there:
        log.info("%s is finished already", out)
    return dataset


def _map_and_finish(
    source: Source, stages: Sequence[Stage], plan: dict[str, bytes], options: BuildOptions, facts: dict[str, Any]
) -> None:
    out, work, names = options.out, options.out / ".build", list(plan)
    identity = _identity(options, plan)
    _begin(work, plan, identity, out)
    steps: list[Step] = [_Read(source, work, names), _Process(list(stages), out, names), _Write(out, names, facts["image"])]
    with _progress(work, identity["entries"]):
        run_tasks(steps, len(names), options.workers, work / "datatrove")
    _finish(source, out, names, {**facts, "plan_sha256": identity["plan_sha256"]})


# --- plan -----------------------------------------------------------------------------------------------------------------


def _plan(entries: list[Entry], options: BuildOptions) -> dict[str, bytes]:
    """Shard name to its entries, a JSON line each. Entries are mixed by a hash of (seed, id), so a shard is a fair sample of its
    split in whatever order the source lists them."""
    seed, per_shard = options.seed, options.samples_per_shard
    entries = sorted(entries, key=lambda entry: (_hash_fraction(f"{seed}/order/{entry.id}"), entry.id))[: options.limit]
    by_split: dict[str, list[Entry]] = {}
    for entry in entries:
        by_split.setdefault(entry.split or _hashed_split(entry.group or entry.id, options), []).append(entry)
    plan: dict[str, bytes] = {}
    for split in sorted(by_split, key=_split_rank):
        chosen = by_split[split]
        num_shards = -(-len(chosen) // per_shard)
        for index in range(num_shards):
            part = chosen[index * len(chosen) // num_shards : (index + 1) * len(chosen) // num_shards]
            plan[f"{split}-{index:05d}"] = "".join(json.dumps(vars(entry)) + "\n" for entry in part).encode()
    return plan


def _hashed_split(name: str, options: BuildOptions) -> str:
    match = re.search(options.group_by, name) if options.group_by else None
    group = name if match is None else match.group(1) if match.groups() else match.group()
    place = _hash_fraction(f"{options.seed}/split/{group}")
    return "test" if place < options.test else "val" if place < options.test + options.val else "train"


def _describe_plan(source: Source, plan: dict[str, bytes], out: Path) -> None:
    samples: Counter[str] = Counter()
    for name, lines in plan.items():
        samples[name.rpartition("-")[0]] += lines.count(b"\n")
    counts = ", ".join(f"{split} {count}" for split, count in samples.items())
    log.info("%s: would read %d images (%s) into %d shards under %s", source.name, samples.total(), counts, len(plan), out)


def _begin(work: Path, plan: dict[str, bytes], identity: dict[str, Any], out: Path) -> None:
    """Write the plan down, or find that a killed build wrote the same one."""
    (work / "progress").mkdir(exist_ok=True)
    mark = work / "identity.json"
    if mark.exists():
        _check_same(json.loads(mark.read_text()), identity, out)
        return
    write_all_atomically({work / "plan" / f"{name}.jsonl": content for name, content in plan.items()})
    write_atomically(mark, json.dumps(identity).encode())


def _identity(options: BuildOptions, plan: dict[str, bytes]) -> dict[str, Any]:
    """What tells one build from another, and what helps to say how they differ."""
    config = options.facts()
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, content in plan.items():
        digest.update(name.encode() + content)
    entries = sum(content.count(b"\n") for content in plan.values())
    return {"plan_sha256": digest.hexdigest(), "config": config, "entries": entries}


def _check_same(found: dict[str, Any], wanted: dict[str, Any], out: Path) -> None:
    if found.get("plan_sha256") == wanted["plan_sha256"]:
        return
    before, now = found.get("config", {}), wanted["config"]
    changed = [f"{name} was {before.get(name)}, now {now.get(name)}" for name in now if before.get(name) != now.get(name)]
    if changed:
        raise DataError(
            f"{out} was built with other options: {'; '.join(changed)}. "
            "Go on with the same ones, give another --out, or remove that folder."
        )
    raise DataError(
        f"{out} was built from another source, or its source has changed: it listed {found.get('entries')} images then and lists "
        f"{wanted['entries']} now. To build from what is there now, give another --out, or remove that folder and build again."
    )


def _split_rank(split: str) -> tuple[int, str]:
    return (_SPLIT_ORDER.index(split) if split in _SPLIT_ORDER else len(_SPLIT_ORDER), split)


def _hash_fraction(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


# --- map: one task a shard --------------------------------------------------------------------------------------------------


class _Read:
    def __init__(self, source: Source, work: Path, names: list[str]):
        self.source, self.work, self.names = source, work, names

    def __call__(self, data: Any, rank: int, num_tasks: int) -> Iterator[Outcome]:
        split = self.names[rank].rpartition("-")[0]
        name = self.names[rank]
        plan, progress = self.work / "plan" / f"{name}.jsonl", self.work / "progress" / name
        with open(plan) as lines, open(progress, "wb", buffering=0) as seen:
            for number, line in enumerate(lines, start=1):
                outcome = self.source.read(Entry(**json.loads(line)))
                if isinstance(outcome, Sample):
                    outcome.provenance.split = split
                yield outcome
                seen.truncate(number)  # the size tells the bar how far it is, and takes no room on the disk


class _Process:
    """Runs the stages and leaves beside the plan what they counted and dropped."""

    def __init__(self, stages: list[Stage], out: Path, names: list[str]):
        self.stages, self.out, self.names = stages, out, names

    def __call__(self, data: Iterable[Outcome], rank: int, num_tasks: int) -> Iterator[Sample]:
        dropped: list[dict[str, Any]] = []
        stream, tallies = run_stages(data, self.stages, lambda stage, drop: dropped.append({"stage": stage, **asdict(drop)}))
        yield from stream
        name = self.names[rank]
        counts = [{**tally.to_manifest(), "seconds": tally.seconds} for tally in tallies]
        write_atomically(self.out / ".build" / "counts" / f"{name}.json", json.dumps(counts).encode())
        if dropped:
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(dropped, schema=_DROPPED_SCHEMA), sink)
            write_atomically(self.out / "dropped" / f"{name}.parquet", sink.getvalue().to_pybytes())


class _Write:
    def __init__(self, out: Path, names: list[str], image_suffix: str):
        self.out, self.names, self.image_suffix = out, names, image_suffix

    def __call__(self, data: Iterable[Sample], rank: int, num_tasks: int) -> Iterator[Sample]:
        name = self.names[rank]
        facts: dict[str, Counter[str]] = {"languages": Counter(), "licences": Counter()}

        def watched() -> Iterator[Sample]:
            for sample in data:
                facts["languages"].update({caption.lang for caption in sample.captions})
                facts["licences"].update([sample.provenance.licence] if sample.provenance.licence else [])
                yield sample

        line = write_shard(self.out / "data", name, watched(), image_suffix=self.image_suffix)
        info = {"shard": line, **{fact: sorted(seen) for fact, seen in facts.items()}}
        write_atomically(self.out / ".build" / "shards" / f"{name}.json", json.dumps(info).encode())
        yield from ()


@contextmanager
def _progress(work: Path, num_entries: int) -> Iterator[None]:
    """A bar of samples, moved by looking at the folder: it works for any executor."""
    columns = (TextColumn("building"), BarColumn(), MofNCompleteColumn(), TextColumn("samples"), TimeRemainingColumn())
    done = threading.Event()
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("build", total=num_entries)

        def watch() -> None:
            while not done.wait(0.5):
                bar.update(task, completed=_num_read(work))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _num_read(work: Path) -> int:
    """Entries read so far, by all workers."""
    with os.scandir(work / "progress") as files:
        return sum(file.stat().st_size for file in files)


# --- finish -----------------------------------------------------------------------------------------------------------------


def _finish(source: Source, out: Path, names: list[str], facts: dict[str, Any]) -> None:
    work = out / ".build"
    infos = [json.loads((work / "shards" / f"{name}.json").read_text()) for name in names]
    tallies = _sum_tallies([json.loads((work / "counts" / f"{name}.json").read_text()) for name in names])
    shards = [{**info["shard"], "split": name.rpartition("-")[0]} for name, info in zip(names, infos) if info["shard"]]
    if not shards:
        shutil.rmtree(work)
        raise DataError(
            f"{source.name}: nothing is left to write. Dropped: {_describe_drops(tallies)}. Details: {out / 'dropped'}"
        )
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": source.name,
        "note": source.note,
        "code": code_version(),
        **facts,
        "languages": sorted({language for info in infos for language in info["languages"]}),
        "licences": sorted({licence for info in infos for licence in info["licences"]}),
        "splits": _count_splits(shards),
        "stages": [tally.to_manifest() for tally in tallies],
        "shards": shards,
    }
    _check_unique_keys(out, shards)
    sizes = json.dumps({f"{shard['name']}.tar": shard["samples"] for shard in shards}, indent=1).encode()
    timings = {tally.name: round(tally.seconds, 3) for tally in tallies}
    write_all_atomically(
        {
            out / "sizes.json": sizes,
            out / "data" / "sizes.json": sizes,  # open_clip looks for it beside the tars
            out / "README.md": dataset_readme(manifest).encode(),
            out / "croissant.json": json.dumps(croissant(manifest), indent=1).encode(),
            out / "timings.json": json.dumps(timings, indent=1).encode(),  # apart: the manifest of equal builds is equal
        }
    )
    write_atomically(out / "manifest.json", json.dumps(manifest, indent=1).encode())
    shutil.rmtree(work)


def _count_splits(shards: list[dict[str, Any]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for shard in shards:
        counts[shard["split"]] += shard["samples"]
    return {split: counts[split] for split in sorted(counts, key=_split_rank)}


def _check_unique_keys(out: Path, shards: list[dict[str, Any]]) -> None:
    home: dict[str, str] = {}
    for shard in shards:
        # Not `read_table`, which imports all of Arrow's datasets first.
        with pq.ParquetFile(out / "data" / f"{shard['name']}.parquet") as file:
            keys = file.read(columns=["key"])["key"].to_pylist()
        for key in keys:
            if key in home:
                raise DataError(
                    f"key {key} occurs in {home[key]} and in {shard['name']}: the source names one picture twice under one id"
                )
            home[key] = shard["name"]


def _describe_drops(tallies: list[Tally]) -> str:
    reasons = sum((tally.dropped for tally in tallies), Counter())
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "nothing"


def _sum_tallies(counts: list[list[dict[str, Any]]]) -> list[Tally]:
    total = [Tally(stage["name"]) for stage in counts[0]]
    for shard in counts:
        for tally, stage in zip(total, shard, strict=True):
            tally.seen += stage["in"]
            tally.kept += stage["kept"]
            tally.dropped.update(stage["dropped"])
            tally.left_out.update(stage.get("left_out", {}))
            tally.seconds += stage["seconds"]
    return total
