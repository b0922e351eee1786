"""One arm, one seed, one world: trained from the common start, measured, and kept in a file. What is kept is not made again."""

import json
import logging
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablation.arms import CONTRASTIVE, Arm, Stage, arms
from benchmarks.ablation.data import Sizes, World, open_world, start_scenes
from benchmarks.ablation.measure import measure
from evaluation.result import Metric, Result
from rsvl_data.caption_draw import LanguageDraw
from rsvl_data.loader import LoaderConfig
from rsvl_data.shards import Dataset, write_atomically
from rsvl_data.transforms import Augment
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective, Objective
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig, train

Results = dict[str, Result]


@dataclass(frozen=True)
class Scale:
    """How large everything is. Learning rates are tried from `lrs`, on val, with the first seed."""

    name: str
    model: str
    steps: int
    batch_size: int
    start_steps: int
    start_batch_size: int
    start_lr: float
    crop_px: int
    lrs: tuple[float, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    processes: int = 2  # cells side by side
    workers: int = 0  # of the loader, each process
    sizes: Sizes = field(default_factory=Sizes)

    def start_facts(self) -> dict[str, Any]:
        facts = {name: value for name, value in self.facts().items() if name.startswith("start_")}
        return {**facts, "model": self.model, "scenes": self.sizes.start, "scene_px": self.sizes.scene_px}

    def facts(self) -> dict[str, Any]:
        """What decides the numbers of a cell, beside the cell itself."""
        return {name: value for name, value in asdict(self).items() if name not in ("lrs", "seeds", "processes", "workers")}


CPU = Scale(
    name="cpu",
    model="rsvl-tiny",
    steps=40,
    batch_size=32,
    start_steps=300,
    start_batch_size=64,
    start_lr=1e-3,
    crop_px=32,
    lrs=(1e-4, 3e-4, 1e-3),
)
GPU = Scale(
    name="gpu",
    model="ViT-B-32",
    steps=2000,
    batch_size=256,
    start_steps=4000,
    start_batch_size=512,
    start_lr=5e-4,
    crop_px=96,
    lrs=(1e-6, 1e-5, 1e-4),
    processes=1,
    workers=12,
    sizes=Sizes(scene_px=448, start=50000, train=20000, val=1000, test=2000, dense=500),
)
SCALES = {scale.name: scale for scale in (CPU, GPU)}


@dataclass(frozen=True)
class Cell:
    """`lrs` has the peak learning rate of each stage."""

    world: str
    arm: str
    seed: int
    lrs: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.world}-{self.arm}-lr{'-'.join(f'{lr:g}' for lr in self.lrs)}-seed{self.seed}"


@dataclass(frozen=True)
class Place:
    """Where the real sets lie, and where everything is kept that is made on the way."""

    shared: Path
    work: Path


def make_start(scale: Scale, place: Place) -> Path:
    """The folder of the checkpoint that every cell begins with: CLIP alone, on scenes of another seed."""
    out, settings = place.work / "start", place.work / "start" / "settings.json"
    facts = json.loads(json.dumps(scale.start_facts()))
    if not settings.exists() or json.loads(settings.read_text()) != facts:
        torch.manual_seed(0)
        objective = ClipObjective(DualEncoder.load(scale.model), CONTRASTIVE)
        optim = OptimConfig(lr=scale.start_lr)
        loader = LoaderConfig(scale.start_batch_size, workers=scale.workers, augment=Augment("stretch"))
        _train(objective, start_scenes(place.work, scale.sizes), out, scale.start_steps, optim, loader, seed=0)
        shutil.rmtree(out / "checkpoints")
        settings.write_text(json.dumps(facts))
    return out


def one_thread() -> None:
    """For processes side by side."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


def finish(cell: Cell, scale: Scale, place: Place, splits: tuple[str, ...]) -> tuple[Path, float]:
    """The file of the cell, measured on these splits, and the seconds it took now: 0 when it was there."""
    path, began = place.work / "cells" / f"{cell.name}.json", time.perf_counter()
    settings = json.loads(json.dumps({**asdict(cell), **scale.facts()}))
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("settings") == settings and all(split in known for split in splits):
        return path, 0.0
    arm, world = arms(scale.crop_px)[cell.arm], _world(cell.world, place, scale.sizes)
    encoder = DualEncoder.load(str(place.work / "start"), "cuda" if torch.cuda.is_available() else "cpu")
    for stage, lr in zip(arm.stages, cell.lrs, strict=True):
        encoder = _trained(encoder, stage, lr, world.train, cell.seed, arm, scale)
    trained_s = time.perf_counter() - began
    kept = {
        "settings": settings,
        "trained_s": trained_s,
        **{
            split: _kept(measure(encoder, getattr(world, split), num_bootstrap=1 if split == "val" else 1000)) for split in splits
        },
    }
    write_atomically(path, json.dumps(kept).encode())
    return path, time.perf_counter() - began


def read_results(path: Path, split: str) -> Results:
    found: dict[str, dict[str, Any]] = json.loads(path.read_text())[split]
    return {
        name: Result(metrics={metric: Metric(**value) for metric, value in fields.pop("metrics").items()}, **fields)
        for name, fields in found.items()
    }


def _kept(results: Results) -> dict[str, Any]:
    """Without what only a report shows."""
    return {name: asdict(replace(result, details={"items": result.details["items"]})) for name, result in results.items()}


@cache
def _world(name: str, place: Place, sizes: Sizes) -> World:
    return open_world(name, place.work, place.shared, sizes)


def _trained(encoder: DualEncoder, stage: Stage, lr: float, data: Dataset, seed: int, arm: Arm, scale: Scale) -> DualEncoder:
    torch.manual_seed(seed)  # of heads
    loader = LoaderConfig(
        scale.batch_size,
        workers=scale.workers,
        seed=seed,
        augment=Augment("stretch"),
        crops=stage.crops,
        languages=LanguageDraw(stage.languages),
    )
    steps = scale.steps // len(arm.stages)
    with tempfile.TemporaryDirectory() as out:
        return _train(stage.objective(encoder, steps), data, Path(out), steps, OptimConfig(lr=lr), loader, seed)


def _train(
    objective: Objective, data: Dataset, out: Path, steps: int, optim: OptimConfig, loader: LoaderConfig, seed: int
) -> DualEncoder:
    config = TrainConfig(steps=steps, save_every=steps, trackers=())
    return train(objective, data, out, config=config, optim=optim, loader=loader, seed=seed)
