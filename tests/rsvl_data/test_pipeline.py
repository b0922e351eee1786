import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from colour_source import ColourSource, build_colours

from rsvl_data.errors import DataError, OptionError, RsvlError
from rsvl_data.pipeline import BuildOptions, _num_read, build
from rsvl_data.shards import Dataset
from rsvl_data.sources.base import Entry
from rsvl_data.stage import Dropped, keep_if

# What tells how long it took is apart from what was made.
TIMINGS = "timings.json"


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != TIMINGS}


def test_same_bytes_for_any_number_of_workers_and_any_listing_order(tmp_path):
    class Backwards(ColourSource):
        def entries(self):
            return reversed(list(super().entries()))

    one = build_colours(tmp_path / "one", workers=1)
    build_colours(tmp_path / "two", workers=2)
    options = BuildOptions(out=tmp_path / "three", samples_per_shard=10, workers=1)
    build(Backwards(), [], options, recipe="test")
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "two") == all_bytes(tmp_path / "three")
    assert sorted(one.splits.values()) != [] and sum(one.splits.values()) == 40


def test_seed_limit_and_shard_size_change_the_outcome(tmp_path):
    base = build_colours(tmp_path / "base")
    assert build_colours(tmp_path / "seed", seed=1).manifest["shards"] != base.manifest["shards"]
    assert sum(build_colours(tmp_path / "limit", limit=15).splits.values()) == 15
    assert len(build_colours(tmp_path / "size", samples_per_shard=3).manifest["shards"]) > len(base.manifest["shards"])


def test_a_finished_build_is_left_alone_and_another_one_refused(tmp_path, colours):
    before = all_bytes(colours.root)
    assert build_colours(colours.root).manifest == colours.manifest
    with pytest.raises(DataError, match="with other options"):
        build_colours(colours.root, seed=3)
    with pytest.raises(DataError, match="another source"):
        build(ColourSource(num=12), [], BuildOptions(out=colours.root, samples_per_shard=10), recipe="test")
    assert all_bytes(colours.root) == before


def test_dry_run_writes_nothing(tmp_path):
    assert build(ColourSource(), [], BuildOptions(out=tmp_path / "out", dry_run=True), recipe="test") is None
    assert not (tmp_path / "out").exists()


def test_groups_are_never_torn_apart(tmp_path):
    class Crops(ColourSource):
        def entries(self):
            return (Entry(f"scene{n // 5}_{n % 5}", facts={"number": n}) for n in range(self.num))

    options = BuildOptions(out=tmp_path / "out", val=0.3, test=0.3, group_by="^(.+)_[0-9]+$")
    dataset = build(Crops(), [], options, recipe="test")
    homes: dict[str, set[str]] = {}
    for split in dataset.splits:
        for sample in dataset.samples(split):
            homes.setdefault(sample.provenance.original_id.split("_")[0], set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert len(dataset.splits) == 3


def test_given_splits_are_kept(tmp_path):
    class Given(ColourSource):
        def entries(self):
            return (Entry(f"c{n}", "test" if n < 4 else "train", {"number": n}) for n in range(self.num))

    assert build(Given(), [], BuildOptions(out=tmp_path / "out"), recipe="test").splits == {"train": 36, "test": 4}


def test_drops_are_counted_and_named(tmp_path):
    class Holed(ColourSource):
        def read(self, entry):
            return Dropped(entry.id, "truncated", "cut") if entry.facts["number"] % 10 == 0 else super().read(entry)

    stages = [keep_if("no_snow", lambda s: True if s.label != "snow" else "is_snow")]
    dataset = build(Holed(), stages, BuildOptions(out=tmp_path / "out", samples_per_shard=10), recipe="test")
    assert dataset.manifest["stages"] == [
        {"name": "read", "in": 40, "kept": 36, "dropped": {"truncated": 4}},
        {"name": "no_snow", "in": 36, "kept": 26, "dropped": {"is_snow": 10}},
    ]
    rows = [row for path in (tmp_path / "out" / "dropped").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 14
    assert {(row["stage"], row["reason"]) for row in rows} == {("read", "truncated"), ("no_snow", "is_snow")}
    assert {row["key"] for row in rows if row["stage"] == "read"} == {"colour-0", "colour-10", "colour-20", "colour-30"}


def test_nothing_left_is_an_error_that_counts(tmp_path):
    with pytest.raises(DataError, match=r"nothing is left to write. Dropped: 40 never"):
        build(ColourSource(), [keep_if("never", lambda s: False)], BuildOptions(out=tmp_path / "out"), recipe="test")
    with pytest.raises(DataError, match="holds no image"):
        build(ColourSource(num=0), [], BuildOptions(out=tmp_path / "none"), recipe="test")


def test_two_entries_of_one_id_are_refused(tmp_path):
    class Twice(ColourSource):
        def entries(self):
            return (Entry("same", facts={"number": 1}) for _ in range(2))

    with pytest.raises(DataError, match="occurs twice"):
        build(Twice(), [], BuildOptions(out=tmp_path / "out", workers=1), recipe="test")


@pytest.mark.parametrize("bad", [{"val": 0.6, "test": 0.5}, {"test": -0.1}, {"workers": 0}, {"limit": 0}, {"group_by": "("}])
def test_bad_options(tmp_path, bad):
    with pytest.raises(OptionError, match="--"):
        BuildOptions(out=tmp_path, **bad)


SLOW_BUILD = """
import sys, time
sys.path.insert(0, {tests!r})
from colour_source import ColourSource
from rsvl_data.pipeline import BuildOptions, build
class Slow(ColourSource):
    def read(self, entry):
        time.sleep(0.02)
        return super().read(entry)
if __name__ == "__main__":
    from pathlib import Path
    build(Slow(), [], BuildOptions(out=Path(sys.argv[1]), samples_per_shard=5, workers={workers}), recipe="test")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_ends_with_the_same_bytes(tmp_path, workers):
    """Killed with SIGKILL at random moments until it is through; no half-written file ever has a real name."""
    script = tmp_path / "build.py"
    script.write_text(SLOW_BUILD.format(tests=str(Path(__file__).parents[1]), workers=workers))
    build_colours(tmp_path / "whole", samples_per_shard=5, workers=1)
    out, kills, moments = tmp_path / "killed", 0, random.Random(workers)
    while not (out / "manifest.json").exists() and kills < 4:
        process = subprocess.Popen([sys.executable, str(script), str(out)], start_new_session=True, stderr=subprocess.DEVNULL)
        _wait_for_start(process, out)
        time.sleep(moments.uniform(0.2, 0.9) if kills < 3 else 0)
        if kills < 3:
            os.killpg(process.pid, signal.SIGKILL)
        kills += 1
        process.wait(timeout=60)
        for parquet in (out / "data").glob("*.parquet"):
            assert all_bytes(tmp_path / "whole")[f"data/{parquet.name}"] == parquet.read_bytes()
    assert kills > 1
    assert all_bytes(out) == all_bytes(tmp_path / "whole")
    assert not list(out.rglob("*.tmp"))


def test_a_worker_killed_by_the_kernel_is_said_and_the_next_run_goes_on(tmp_path):
    """datatrove's own pool would wait for its answer for ever."""

    class Murderous(ColourSource):
        def read(self, entry):
            if entry.facts["number"] == 17 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(entry)

    options = BuildOptions(out=tmp_path / "out", samples_per_shard=10, workers=2)
    with pytest.raises(RsvlError, match="a worker process died .* with fewer --workers"):
        build(Murderous(), [], options, recipe="test")
    assert not (tmp_path / "out" / "manifest.json").exists()
    build(Murderous(), [], options, recipe="test")
    build_colours(tmp_path / "whole", samples_per_shard=10)
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")


def test_a_second_build_is_refused_at_once_and_workers_end_with_their_parent(tmp_path):
    script, out = tmp_path / "build.py", tmp_path / "out"
    script.write_text(SLOW_BUILD.format(tests=str(Path(__file__).parents[1]), workers=2).replace("0.02", "3"))
    first = subprocess.Popen([sys.executable, str(script), str(out)], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        while not list(out.glob(".build/progress/*")):
            assert first.poll() is None
            time.sleep(0.02)
        with pytest.raises(DataError, match="another process is working on"):
            build(ColourSource(), [], BuildOptions(out=out, samples_per_shard=5), recipe="test")
        os.kill(first.pid, signal.SIGKILL)  # alone: nobody tells its workers
        first.wait()
        end = time.monotonic() + 10
        while _is_alive(first.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert not _is_alive(first.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    build(ColourSource(), [], BuildOptions(out=out, samples_per_shard=5), recipe="test")
    build_colours(tmp_path / "whole", samples_per_shard=5)
    assert all_bytes(out) == all_bytes(tmp_path / "whole")


def _is_alive(group: int) -> bool:
    """Whether a process of that group runs; one that is dead but unread does not count."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended in between
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state != "Z":
                return True
    return False


def test_what_differs_is_said(colours):
    with pytest.raises(DataError, match="seed was 0, now 3"):
        build_colours(colours.root, seed=3)
    with pytest.raises(DataError, match="it listed 40 images then and lists 12 now"):
        build(ColourSource(num=12), [], BuildOptions(out=colours.root, samples_per_shard=10), recipe="test")


def test_the_remains_of_a_finished_build_are_removed(colours):
    (colours.root / ".build").mkdir()
    build_colours(colours.root)
    assert not (colours.root / ".build").exists()


def test_samples_read_so_far_are_counted(tmp_path):
    seen = []

    class Watched(ColourSource):
        def read(self, entry):
            seen.append(_num_read(tmp_path / "out" / ".build"))
            return super().read(entry)

    build(Watched(), [], BuildOptions(out=tmp_path / "out", samples_per_shard=10, workers=1), recipe="test")
    assert seen == list(range(40))


def _wait_for_start(process: subprocess.Popen, out: Path):
    end = time.monotonic() + 60
    while process.poll() is None and not (out / ".build").exists():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_manifest_tells_what_was_built(colours):
    manifest = json.loads((colours.root / "manifest.json").read_text())
    assert manifest["format_version"] == 1 and manifest["recipe"] == "test" and manifest["config"]["samples_per_shard"] == 10
    assert not (colours.root / ".build").exists()
    assert set(json.loads((colours.root / TIMINGS).read_text())) == {"read"}
    assert Dataset.open(colours.root).manifest["languages"] == ["en"]
