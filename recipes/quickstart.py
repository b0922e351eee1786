"""The whole chain in minutes on a laptop: build -> pretrain -> evaluate -> card and report.

`rsvl run quickstart` runs on procedural scenes, with nothing to download.

`rsvl run quickstart --data MY_IMAGES --out OUT` runs on class folders or a captioned set.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards.model_card import write_model_card
from evaluation.benchmarks.retrieval import retrieval
from evaluation.benchmarks.zero_shot import zero_shot
from evaluation.data import ShardSet
from evaluation.report import write_report
from evaluation.result import Result
from evaluation.wording import summary_table
from recipes.cli import recipe_module
from recipes.config import save_config
from rsvl_data.errors import DataError
from rsvl_data.shards import Dataset
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    out: Path = Path("runs/quickstart")
    """folder of everything that is made"""
    data: str | None = None
    """a folder of class folders, a captioned set, or hub:org/name; left out: procedural scenes"""
    scenes: int = 5000
    """scenes to render when no data are given"""
    size_px: int = 128
    """side of a scene"""
    steps: int = 320
    """training steps of 64 samples"""
    workers: int = 2
    """processes that render, decode and load"""
    seed: int = 0
    """of scenes, splits, weights and order"""


def run(options: Options) -> None:
    started = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    save_config(options.out, "quickstart", options)
    dataset = _build(options)
    encoder = _pretrain(options, dataset)
    results = _evaluate(options, dataset, encoder)
    write_model_card(options.out / "run", results)
    page = options.out / "report.html"
    write_report(page, results, dataset=dataset, runs=[options.out / "run"], title=f"rsvl quickstart: {dataset.name}")
    print(summary_table(results))
    print(f"dataset  {options.out / 'dataset'}   ({', '.join(f'{split} {count}' for split, count in dataset.splits.items())})")
    print(f"model    {options.out / 'run' / 'export'}   (open_clip local-dir)")
    print(f"report   {page.resolve().as_uri()}")
    print(f"{time.perf_counter() - started:.0f} s in all")


def _build(options: Options) -> Dataset:
    common: dict[str, Any] = {"out": options.out / "dataset", "workers": options.workers, "seed": options.seed}
    if options.data is None:
        recipe = recipe_module("data/scenes")
        log.info("1/4 build: rendering %d scenes", options.scenes)
        return recipe.run(recipe.Options(num=options.scenes, size_px=options.size_px, samples_per_shard=500, **common))
    recipe = recipe_module("data/import")
    log.info("1/4 build: importing %s", options.data)
    return recipe.run(recipe.Options(source=options.data, samples_per_shard=500, **common))


def _pretrain(options: Options, dataset: Dataset) -> DualEncoder:
    """A tiny ViT from scratch. Captions of small sets repeat, so equal captions are no negatives of each other here."""
    recipe = recipe_module("pretrain/clip")
    log.info("2/4 pretrain: %d steps", options.steps)
    if "train" not in dataset.splits:
        raise DataError(f"{dataset.root} has no train split, only {', '.join(dataset.splits)}")
    train = recipe.Options(
        data=dataset.root,
        out=options.out / "run",
        model="rsvl-tiny",
        batch_size=min(64, dataset.splits["train"]),
        workers=options.workers,
        contrastive=ContrastiveConfig(duplicates="excluded"),
        seed=options.seed,
        resume="latest",
        optim=OptimConfig(lr=1e-3, warmup=40),
        train=TrainConfig(steps=options.steps, save_every=100, eval_every=max(options.steps // 5, 1)),
    )
    return recipe.run(train).eval()


def _evaluate(options: Options, dataset: Dataset, encoder: DualEncoder) -> list[Result]:
    """On test; a set without one is measured on val, and its results say so."""
    split = next(name for name in ("test", "val", "train") if name in dataset.splits)
    data = ShardSet(dataset, split)
    encoder.name = "rsvl-tiny"
    results = []
    if any(item.label for item in data.items):
        log.info("3/4 evaluate: zero-shot classification on %s", split)
        results.append(zero_shot(encoder, data, workers=options.workers, seed=options.seed))
    if {kind for kinds in dataset.table(split, ["caption_kinds"])["caption_kinds"].to_pylist() for kind in kinds} == {"label"}:
        log.info("4/4 evaluate: no retrieval, the captions only repeat the labels")
    else:
        log.info("4/4 evaluate: retrieval on %s", split)
        results.append(retrieval(encoder, data, workers=options.workers, seed=options.seed))
    for result in results:
        result.save(options.out / "results" / f"{result.task}.json")
    return results


def smoke(folder: Path) -> Options:
    return Options(out=folder, scenes=120, size_px=64, steps=6)
