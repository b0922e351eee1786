"""What the objectives are worth: each added to plain CLIP training from one common start, three seeds, two kinds of data.

python -m benchmarks.ablation                  # two cells side by side on two cores; goes on where it was stopped
python -m benchmarks.ablation --scale gpu      # a larger model, more data and steps, on one GPU

The learning rate is chosen for each family of arms and kind of data on val; test is reported. Writes benchmarks/results/ablation, from
which `python -m benchmarks.tables` makes docs/ablations.md; of the larger one results/ablation_gpu and docs/ablations_gpu.md.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import tyro

from benchmarks.ablation.arms import Arm, arms, representatives
from benchmarks.ablation.cells import SCALES, Cell, Place, Results, Scale, finish, make_start, one_thread, read_results
from benchmarks.ablation.data import mask_facts, object_facts, open_world
from benchmarks.ablation.measure import scores
from benchmarks.ablation.summary import BASELINE, summarise
from benchmarks.measure import write_result
from rsvl_pretrain.model import DualEncoder

WORLDS = ("scenes", "real")
RESULTS = Path(__file__).parents[1] / "results"
Plan = dict[str, list[Arm]]  # by world
Rates = dict[tuple[str, str], float]  # of a world and a family


@dataclass(frozen=True, kw_only=True)
class Options:
    scale: Literal["cpu", "gpu"] = "cpu"
    """cpu: two cores, within an hour; gpu: hours on one GPU"""
    work: Path | None = None
    """folder of data, start and finished cells; what is there is not made again. Remove cells/ when the code of an objective changed. Left
    out: runs/ablation, or runs/ablation_gpu"""
    shared: Path = Path(os.environ.get("RSVL_SHARED", "../shared")) / "data"
    """folder of the real sets"""
    out: Path | None = None
    """folder of the result files; left out: benchmarks/results/ablation, or ablation_gpu"""
    arms: tuple[str, ...] = ()
    """only these beside the baseline"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """of order, views and heads; the first one chooses the learning rates"""

    @property
    def folder_name(self) -> str:
        return "ablation" if self.scale == "cpu" else f"ablation_{self.scale}"


def main(options: Options) -> int:
    began, out = time.perf_counter(), options.out or RESULTS / options.folder_name
    place = Place(options.shared, options.work or Path("runs") / options.folder_name)
    scale = replace(SCALES[options.scale], seeds=options.seeds)
    print(f"start: {scale.start_steps} steps of {scale.model}", flush=True)
    start = DualEncoder.load(str(make_start(scale, place)))
    plan = {world: list(_arms_of(world, options.arms, scale, place)) for world in WORLDS}
    with ProcessPoolExecutor(scale.processes, get_context("spawn"), one_thread if scale.processes > 1 else None) as pool:
        rates, tried = _chosen_rates(pool, plan, scale, place)
        files = _finished(pool, list(_grid(plan, rates, scale.seeds)), scale, place, ("test",))
    grid = {
        "scale": scale.name,
        "setting": scale.facts(),
        "arms": list(dict.fromkeys(arm.name for arms_of_world in plan.values() for arm in arms_of_world)),
        "parameters": sum(parameter.numel() for parameter in start.parameters()),
        "train_images": {world: open_world(world, place.work, place.shared, scale.sizes).train.splits["train"] for world in plan},
        "tried": tried,
    }
    write_result(out / "grid.json", "ablation", grid)
    write_blind(out, scale, place)
    for world, arms_of_world in plan.items():
        for arm in arms_of_world:
            _write(out, world, arm, files, rates, scale)
    print(f"{(time.perf_counter() - began) / 60:.0f} minutes")
    return 0


def write_blind(out: Path, scale: Scale, place: Place) -> None:
    """What can be had on the test sets without looking, by world and then "task data"."""
    found: dict[str, dict[str, Any]] = {}
    for name in WORLDS:
        probes = open_world(name, place.work, place.shared, scale.sizes).test
        found[name] = {f"objects {objects.name}": object_facts(objects) for objects in probes.objects}
        found[name] |= {f"open_vocabulary {masked.name}": mask_facts(masked) for masked, _ in probes.dense}
    write_result(out / "blind.json", "ablation", {"worlds": found})


def _arms_of(name: str, asked_for: Sequence[str], scale: Scale, place: Place) -> Iterator[Arm]:
    """The arms of a world. Builds its data: here, before two processes want to."""
    world = open_world(name, place.work, place.shared, scale.sizes)
    for arm in arms(scale.crop_px).values():
        if name not in arm.worlds or (asked_for and arm.name not in (BASELINE, *asked_for)):
            continue
        if arm.languages <= {*world.languages}:
            yield arm
        else:
            print(f"{name}: without {arm.name}, whose captions need Apertium (benchmarks/translated_captions.py)")


def _chosen_rates(pool: ProcessPoolExecutor, plan: Plan, scale: Scale, place: Place) -> tuple[Rates, list[dict[str, Any]]]:
    """The rate with the best mean over tasks on val, for each world and family; and all that was tried."""
    choices = [
        (world, family, lr, Cell(world, arm.name, scale.seeds[0], (lr,)))
        for world, arms_of_world in plan.items()
        for (family, arm), lr in product(representatives(arms_of_world).items(), scale.lrs)
    ]
    files = _finished(pool, [cell for *_, cell in choices], scale, place, ("val", "test"))
    tried = [
        {"world": world, "family": family, "arm": cell.arm, "lr": lr, "val": scores(read_results(files[cell], "val"))}
        for world, family, lr, cell in choices
    ]
    rates: Rates = {}
    for each in sorted(tried, key=lambda each: (mean(each["val"].values()), -each["lr"])):
        rates[each["world"], each["family"]] = each["lr"]
    return rates, tried


def _grid(plan: Plan, rates: Rates, seeds: Sequence[int]) -> Iterator[Cell]:
    for seed, (world, arms_of_world) in product(seeds, plan.items()):
        for arm in arms_of_world:
            yield Cell(world, arm.name, seed, tuple(rates[world, stage.family] for stage in arm.stages))


def _finished(
    pool: ProcessPoolExecutor, cells: Sequence[Cell], scale: Scale, place: Place, splits: tuple[str, ...]
) -> dict[Cell, Path]:
    """Says after each cell where it is."""
    began = time.perf_counter()
    waiting = {pool.submit(finish, cell, scale, place, splits): cell for cell in cells}
    files: dict[Cell, Path] = {}
    for future in as_completed(waiting):
        files[waiting[future]], seconds = future.result()
        left = (time.perf_counter() - began) / len(files) * (len(cells) - len(files)) / 60
        took = f"{seconds:.0f} s" if seconds else "was there"
        print(f"{len(files)} of {len(cells)}: {waiting[future].name}, {took}; about {left:.0f} minutes left", flush=True)
    return files


def _write(out: Path, world: str, arm: Arm, files: dict[Cell, Path], rates: Rates, scale: Scale) -> None:
    def results(name: str) -> list[Results]:
        of_arm = sorted((cell.seed, path) for cell, path in files.items() if (cell.world, cell.arm) == (world, name))
        return [read_results(path, "test") for _, path in of_arm]

    seeds = results(arm.name)
    found = {
        "code": ", ".join(sorted({result.code for of_seed in seeds for result in of_seed.values()})),
        "scale": scale.name,
        "world": world,
        "arm": arm.name,
        "words": arm.words,
        "lrs": [rates[world, stage.family] for stage in arm.stages],
        "seeds": list(scale.seeds),
        "measured_on": summarise(seeds, results(BASELINE)),
    }
    write_result(out / world / f"{arm.name}.json", "ablation", found)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
