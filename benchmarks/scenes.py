"""How many built-in scenes a second: one process and two, at 256 and at 64 pixels.

python -m benchmarks.scenes                     # writes benchmarks/results/scenes.json
python -m benchmarks.scenes --sheet sheet.png   # also a contact sheet to look at
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from benchmarks import measure
from rsvl_data.scenes import render_scene


@dataclass(frozen=True)
class Options:
    """`sheet` is the PNG to write `sheet_scenes` scenes of 256 pixels to; without it none is drawn."""

    out: Path = Path(__file__).parent / "results" / "scenes.json"
    seed: int = 0
    scenes: int = 270  # a multiple of the number of types, so every type weighs the same
    repeats: int = 3
    sheet: Path | None = None
    sheet_scenes: int = 64


def render_range(seed: int, first: int, stop: int, size_px: int) -> float:
    """CPU seconds of this process for scenes [first, stop)."""
    start = time.process_time()
    for index in range(first, stop):
        render_scene(seed, index, size_px)
    return time.process_time() - start


def scenes_per_second(options: Options, size_px: int, processes: int) -> dict[str, float]:
    """The best and the worst of several runs on the wall clock, and what a core would do alone (CPU seconds)."""
    share = options.scenes // processes
    jobs = [(options.seed, i * share, (i + 1) * share, size_px) for i in range(processes)]
    rates, cpu_s = [], []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(render_range, [(options.seed, 0, 27, size_px)] * processes, chunksize=1)  # tiles and caches
        for _ in range(options.repeats):
            start = time.perf_counter()
            cpu_s.append(sum(pool.starmap(render_range, jobs, chunksize=1)))
            rates.append(share * processes / (time.perf_counter() - start))
    return {
        "scenes_per_s": max(rates),
        "scenes_per_s_lowest": min(rates),
        "cpu_ms_per_scene": 1000 * min(cpu_s) / (share * processes),
    }


def write_sheet(path: Path, render: Callable[[int], np.ndarray], count: int, columns: int = 8, gap_px: int = 4) -> None:
    images = [Image.fromarray(render(i)) for i in range(count)]
    cell = images[0].width + gap_px
    sheet = Image.new("RGB", (columns * cell - gap_px, -(-count // columns) * cell - gap_px), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * cell, i // columns * cell))
    sheet.save(path)


def main(options: Options) -> None:
    load = os.getloadavg()[0]
    values = {
        f"{size_px}px_{processes}_process{'es' * (processes > 1)}": scenes_per_second(options, size_px, processes)
        for size_px in (256, 64)
        for processes in (1, 2)
    }
    result = {
        "load_average_at_start": load,
        "versions": measure.versions("numpy", "pillow"),
        "settings": {"seed": options.seed, "scenes": options.scenes, "repeats": options.repeats},
        "values": values,
        "peak_rss_mib_of_a_process": measure.peak_rss_mib()["largest_child"],
    }
    print(json.dumps(result, indent=1))
    measure.write_result(options.out, "scenes", result)
    if options.sheet is not None:
        write_sheet(options.sheet, lambda i: render_scene(options.seed, i).image, options.sheet_scenes)


if __name__ == "__main__":
    main(tyro.cli(Options))
