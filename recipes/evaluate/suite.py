"""A suite of measurements of one model or several: `rsvl eval run SUITE --model M --root DATA --out FOLDER`.

quick (EuroSAT and UCM), georsclip and farslip (what their papers report: scenes, captions, masks, places), all. The same command goes on
where it stopped. Several processes share the encoding of images, and the numbers are the same; masks and places are left to the first:

torchrun --nproc_per_node 8 -m recipes.evaluate.suite georsclip --model M --root DATA --out FOLDER
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from evaluation.comparison import compare_all, save_comparisons
from evaluation.embed import EvalPrecision
from evaluation.embedding_cache import EmbeddingCache
from evaluation.report import write_report
from evaluation.report_groups import Missing, save_missing
from evaluation.suite import SuiteName, measurements
from evaluation.wording import comparison_table, summary_table
from recipes._suite_run import Outcome, Ranks, Rules, SuiteRun, outcome_table
from recipes.config import save_config
from rsvl_data.errors import DataError, OptionError
from rsvl_data.transforms import Engine


@dataclass(frozen=True, kw_only=True)
class Options:
    suite: Annotated[SuiteName, tyro.conf.Positional] = "quick"
    """which measurements"""
    model: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """run folder, export folder, hf-hub:org/name, or ARCHITECTURE,TAG; give it again for each model to compare"""
    root: Path = Path("data")
    """folder that holds the datasets; `rsvl eval ls --root` says which it finds"""
    out: Path = Path("runs/suite")
    """folder of results, comparisons and report"""
    trained_on: tuple[str, ...] = ()
    """datasets the models were trained on, where their folder does not say: rsicd, nwpu-captions, ...; looked up in known overlaps"""
    batch_size: int = 64
    """images or windows encoded at once; of images 32 at most on a CPU"""
    workers: int = 2
    """threads that read and decode ahead, each process"""
    precision: EvalPrecision = "fp32"
    """of the towers"""
    engine: Engine = "exact"
    """decoding of images: exact gives open_clip's own pixels, fast is within a grey level or two"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """where the models run; of several processes each takes its own GPU"""
    limit: int | None = None
    """only so many images of each split, queries where these are measured, spread over it; results say so"""
    seed: int = 0
    """of the bootstrap and of the examples shown"""
    num_bootstrap: int = 1000
    """resamples behind the 95 % intervals"""
    cache: Path | None = None
    """folder of image embeddings, which several runs may share; left out, OUT/embeddings"""
    no_cache: bool = False
    """keep no embeddings; every measurement encodes its images"""

    def __post_init__(self) -> None:
        if self.no_cache and self.cache is not None:
            raise OptionError("--cache names a folder of embeddings and --no-cache wants none; give one of them")
        if repeated := sorted({name for name in self.model if self.model.count(name) > 1}):
            raise OptionError(f"--model {repeated[0]} is given twice; models that are compared must differ")


def run(options: Options) -> list[Outcome]:
    """Raises DataError at the end when a measurement failed; what was measured is kept. An absent dataset is no failure."""
    if not options.model:
        raise OptionError("--model is needed: a run folder, an export folder, hf-hub:org/name, or ARCHITECTURE,TAG")
    if not options.root.is_dir():
        raise OptionError(f"--root {options.root} is no folder; give the one that holds the datasets")
    with Ranks.started() as ranks:
        outcomes = _measured(options, ranks)
        if ranks.rank > 0:
            return outcomes
    save_config(options.out, "evaluate/suite", options)
    _tell(options, outcomes)
    print(outcome_table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failed:
        name = f"{failed[0].measurement.name} of {failed[0].model}"
        raise DataError(
            f"{len(failed)} of {len(outcomes)} measurements failed, the rest is kept. The first: {name}: {failed[0].reason}"
        )
    return outcomes


def _measured(options: Options, ranks: Ranks) -> list[Outcome]:
    """Several processes hand each other embeddings through a cache; without one, through a folder that is removed again."""
    shared = ranks.world_size > 1
    folder = options.cache or options.out / ("embeddings" if not options.no_cache else "embeddings.tmp")
    suite = SuiteRun(
        measurements(options.suite),
        options.root,
        options.out,
        Rules(options.batch_size, options.precision, options.engine, options.limit, options.seed, options.num_bootstrap),
        EmbeddingCache(folder) if shared or not options.no_cache else None,
        ranks,
        options.workers,
        options.device,
        options.trained_on,
    )
    outcomes = [outcome for model in options.model for outcome in suite.of_model(model)]
    if options.no_cache and ranks.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def _tell(options: Options, outcomes: list[Outcome]) -> None:
    results = [outcome.result for outcome in outcomes if outcome.result]
    missing = [_missing(outcome) for outcome in outcomes if outcome.result is None]
    save_missing(options.out, missing)
    if not results:
        return
    comparisons = compare_all(results, num_bootstrap=options.num_bootstrap, seed=options.seed)
    save_comparisons(options.out / "comparisons.json", comparisons)
    title = f"rsvl eval run {options.suite}"
    write_report(options.out / "report.html", results, comparisons=comparisons, missing=missing, title=title)
    print(summary_table(results))
    if comparisons:
        print("\n" + comparison_table(comparisons))
    print(f"\nreport: {options.out / 'report.html'}")


def _missing(outcome: Outcome) -> Missing:
    wanted = outcome.measurement
    return Missing(wanted.task, wanted.dataset, wanted.protocol, outcome.model, outcome.state, outcome.reason or "")


def smoke(folder: Path) -> Options:
    """The quick suite on a flat image a class of EuroSAT and UCM, with fresh weights."""
    from PIL import Image

    from evaluation.datasets import catalogue

    for entry in (entry for entry in catalogue() if entry.name in ("eurosat", "ucm")):
        for number, label in enumerate(entry.classes):
            path = folder / "data" / entry.folders[0] / label / f"{label}_1.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (9 * number, 80, 255 - 9 * number)).save(path)
    return Options(model=("rsvl-tiny",), root=folder / "data", out=folder / "suite", num_bootstrap=20)


if __name__ == "__main__":
    from recipes.cli import main

    sys.exit(main(["run", "evaluate/suite", *sys.argv[1:]]))
