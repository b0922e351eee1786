"""A list of URLs to shards of 256 px: images a second of `rsvl run data/import` against img2dataset, from process start to end.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install img2dataset     # it pins pandas and much else: a place of its own
    python -m benchmarks.ingest --peer-python /tmp/peer/bin/python        # writes benchmarks/results/ingest.json

Both get the same list and ask the same server (`image_server.py`): 5 % of the answers are cut files, pages, empty or 404. Agreement is
checked in every round: the same images kept, the same sizes, pixels as far apart as `grey_levels_off` says. The total holds the start of
both programs; the steady rate is taken between this list and its first `startup_images`, so starting is left out.

Chosen for img2dataset: 2 processes of 32 threads and 4 shards, the quickest of those tried on 2 cores; no EXIF, which it would copy. For
ours: no delay between requests to one host, and private addresses allowed, since the one host is this machine. Our records hold a
checksum, and every shard is on the disk (fsync) before it has its name; img2dataset's has neither a sync nor a second name, so what a
SIGKILL leaves is looked at apart: tars under their real names that are cut, and whether the same command then ends in the same bytes.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from benchmarks import measure
from benchmarks.image_server import make_images, peak_rate, serving
from benchmarks.ingest_outputs import compare_outputs, cut_tars, images_by_path, tar_digests

SIZE_PX, QUALITY = 256, 95
SMALLEST_RATIO = 2.0  # from process start to end
_PACKAGES = ("img2dataset", "opencv-python-headless", "albumentations", "webdataset", "pyarrow", "numpy")


@dataclass(frozen=True)
class Options:
    """img2dataset against data/import."""

    peer_python: Path
    """python of an environment that has img2dataset"""
    data: Path = Path(tempfile.gettempdir()) / "rsvl-bench-ingest"
    """where the images are made, from a seed, and the outputs lie; images already there are used"""
    out: Path = Path(__file__).parent / "results" / "ingest.json"
    """the result file"""
    images: int = 2000
    """rows of the list"""
    startup_images: int = 40
    """rows of the short list that tells what starting costs"""
    rounds: int = 7
    """of both programs in turn"""
    resize: Literal["keep_ratio", "center_crop", "no"] = "keep_ratio"
    """to 256 px; no keeps the size"""
    shard_samples: int = 500
    """rows of a shard, for both"""
    processes: int = 2
    """of both"""
    peer_threads: int = 32
    """in each process of img2dataset"""
    per_host: int = 4
    """our requests at once; more than a few only cost time where the answer comes at once"""
    kills: int = 5
    """SIGKILLs of each program, at moments drawn from a seed"""


def write_list(options: Options, port: int, count: int) -> Path:
    """The first `count` rows."""
    path = options.data / f"list-{count}.parquet"
    names = [f"{number}.jpg" for number in range(count)]
    columns = {"url": [f"http://127.0.0.1:{port}/{name}" for name in names], "caption": [f"scene {name}" for name in names]}
    pq.write_table(pa.table(columns), path)
    return path


def peer_command(options: Options, table: Path, out: Path) -> list[str]:
    settings = {
        "url_list": table,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "webdataset",
        "output_folder": out,
        "image_size": SIZE_PX,
        "resize_mode": options.resize,
        "encode_quality": QUALITY,
        "extract_exif": False,
        "processes_count": options.processes,
        "thread_count": options.peer_threads,
        "number_sample_per_shard": options.shard_samples,
    }
    return [str(options.peer_python), "-m", "img2dataset.main", *(f"--{name}={value}" for name, value in settings.items())]


def our_command(options: Options, table: Path, out: Path) -> list[str]:
    polite = [f"--download.{name}" for name in ("delay-s=0", f"per-host={options.per_host}", f"concurrency={options.per_host}")]
    image = [] if options.resize == "no" else ["--image.size-px", str(SIZE_PX), "--image.resize", options.resize]
    shards = ["--val", "0", "--test", "0", "--samples-per-shard", str(options.shard_samples), "--workers", str(options.processes)]
    command = [sys.executable, "-m", "recipes.cli", "run", "data/import", "--source", str(table), "--out", str(out)]
    return [*command, *shards, *image, "--download.allow-private-hosts", *polite]


COMMANDS = {"peer": peer_command, "ours": our_command}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def environment_of(role: str) -> dict[str, str]:
    """The peer's must not see our packages."""
    return {name: value for name, value in ENVIRONMENT.items() if role == "ours" or name != "PYTHONPATH"}


def output_of(options: Options, role: str) -> Path:
    """An empty place for the output of one run."""
    for path in options.data.glob(f"{role}-out*"):
        shutil.rmtree(path)
    return options.data / f"{role}-out"


def run_once(options: Options, role: str, port: int) -> measure.Measured:
    """On the short list, then on the whole one, whose output is left for the comparison."""
    times: dict[int, measure.Measured] = {}
    for count in (options.startup_images, options.images):
        command = COMMANDS[role](options, write_list(options, port, count), output_of(options, role))
        times[count] = measure.measure_command(command, environment_of(role))
    short, whole = times[options.startup_images], times[options.images]
    more, seconds = options.images - options.startup_images, whole["seconds"] - short["seconds"]
    return {
        "images_per_s": options.images / whole["seconds"],
        "steady_images_per_s": more / max(seconds, 0.05 * whole["seconds"]),  # a short list is all start
        "images_per_cpu_s": options.images / whole["cpu_seconds"],
        "startup_s": short["seconds"],
        "peak_pss_mib": whole["peak_pss_mib"],
    }


def compare(options: Options, port: int) -> dict[str, Any]:
    agreements: list[dict[str, Any]] = []

    def contender(role: str) -> measure.Measured:
        measured = run_once(options, role, port)
        if all((options.data / f"{each}-out").exists() for each in COMMANDS):
            outputs = [sorted((options.data / f"{each}-out").rglob("*.tar")) for each in COMMANDS]
            agreements.append(compare_outputs(*outputs))
        return measured

    for role in COMMANDS:
        output_of(options, role)
    rounds = measure.alternate({role: lambda role=role: contender(role) for role in COMMANDS}, options.rounds)
    names = ("images_per_s", "steady_images_per_s", "images_per_cpu_s", "startup_s", "peak_pss_mib")
    return {
        "ratios": {
            name: measure.median_and_range([each["ours"][name] / each["peer"][name] for each in rounds]) for name in names[:3]
        },
        "rounds": len(rounds),
        "agreement": agreements[-1],
        **{role: {name: measure.median_and_range([each[role][name] for each in rounds]) for name in names} for role in COMMANDS},
    }


def kill_at_random(options: Options, role: str, port: int, seconds: float) -> dict[str, Any]:
    """Start it anew each time and kill all its processes at a moment drawn between 20 and 95 % of the run. Then run it to its end on
    what the last kill left: are its images, and its tars to the byte, those of a run that nobody disturbed? (The order of img2dataset's
    samples is that of the answers, so its bytes differ from run to run in any case.)
    """
    moments = random.Random(0)
    out = output_of(options, role)
    command = COMMANDS[role](options, write_list(options, port, options.images), out)
    measure.measure_command(command, environment_of(role))
    digests, images = tar_digests(out), images_by_path(sorted(out.rglob("*.tar")))
    left: list[list[str]] = []
    for _ in range(options.kills):
        output_of(options, role)
        kill_after(command, environment_of(role), seconds * moments.uniform(0.2, 0.95))
        left.append(cut_tars(out) if out.exists() else [])
    measure.measure_command(command, environment_of(role))
    still_cut = cut_tars(out)
    return {
        "kills": options.kills,
        "kills_that_left_a_cut_tar": sum(map(bool, left)),
        "cut_tars": sum(map(len, left)),
        "same_images_after_another_run": not still_cut and images_by_path(sorted(out.rglob("*.tar"))).keys() == images.keys(),
        "same_bytes_after_another_run": tar_digests(out) == digests,
    }


def kill_after(command: list[str], environment: dict[str, str], seconds: float) -> None:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    time.sleep(seconds)
    measure.kill_session(process)


def peer_versions(options: Options) -> dict[str, str]:
    code = f"import json; from importlib.metadata import version; print(json.dumps({{p: version(p) for p in {_PACKAGES}}}))"
    done = subprocess.run([options.peer_python, "-c", code], capture_output=True, text=True, env=environment_of("peer"))
    if done.returncode:
        raise SystemExit(
            f"--peer-python {options.peer_python} has no img2dataset; make it as the docstring says.\n{done.stderr[-500:]}"
        )
    return json.loads(done.stdout)


def main(options: Options) -> int:
    load, versions = os.getloadavg()[0], peer_versions(options)
    names = make_images(options.data / "images", options.images)
    with serving(options.data / "images") as port:
        server_rate = peak_rate(port, names)
        print(f"the server alone: {server_rate:.0f} answers/s", flush=True)
        compared = compare(options, port)
        killed = {
            role: kill_at_random(options, role, port, options.images / compared[role]["images_per_s"]["median"])
            for role in (COMMANDS if options.kills else ())
        }
    ratios = compared["ratios"]
    passed = ratios["images_per_s"]["median"] >= SMALLEST_RATIO
    if killed:
        passed = passed and killed["ours"]["cut_tars"] == 0 and killed["ours"]["same_bytes_after_another_run"]
    for name, ratio in ratios.items():
        print(f"{name}: ratio {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
    print(json.dumps({"agreement": compared["agreement"], "killed": killed}, indent=1))
    settings = ("images", "startup_images", "resize", "shard_samples", "processes", "peer_threads", "per_host")
    result = {
        "load_average_at_start": load,
        "versions": {"peer": versions, "ours": measure.versions("aiohttp", "simplejpeg", "pillow", "pyarrow", "numpy")},
        "setting": {name: getattr(options, name) for name in settings} | {"size_px": SIZE_PX, "quality": QUALITY},
        "server_answers_per_s": server_rate,
        "gate": {"smallest_ratio": SMALLEST_RATIO, "passed": passed},
        **compared,
        "killed": killed,
    }
    measure.write_result(options.out, "ingest", result)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
