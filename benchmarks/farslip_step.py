"""A training step of FarSLIP on a CPU: our trainer against the released `train_one_epoch`.

    git clone https://github.com/NJU-LHRS/FarSLIP /tmp/farslip && git -C /tmp/farslip checkout d32ef2c
    python -m benchmarks.farslip_step --peer /tmp/farslip        # writes benchmarks/results/farslip_step.json; about 10 minutes

The same tower (OpenAI's, which FarSLIP starts from), weights, batches (ready in memory), AdamW settings and schedule, in fresh processes in
turn. Every loss of every step must agree to 1e-4. Two cases, and a step of each together:

    stage1   each picture with 4 crops at random: contrastive + 0.1 distillation, teacher shared
    stage2   each picture with 4 crops of objects of 20 categories: contrastive + regions

The released code embeds all 77 tokens of every text, the same category text once a region, both kinds of token for every crop, and updates
AdamW tensor by tensor. Stage 1 has little of that to leave out: most of its step is products of the image tower, which both must compute.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
import tyro
from safetensors.torch import save_file

from benchmarks import measure
from benchmarks.remote_sensing_captions import captions
from rsvl_data.crops import Crops, RandomCrops, category_number, draw_crops
from rsvl_data.loader import Batch, LoaderConfig
from rsvl_data.shards import Dataset
from rsvl_pretrain import train as trainer
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig, DistillConfig, FarSlipObjective, RegionConfig
from rsvl_pretrain.objectives.farslip import REGIONS, VIEWS
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig, train

Stage = Literal["stage1", "stage2"]
WARMUP_STEPS = 2  # those that farslip_peer.py does not time either
SMALLEST_RATIO, LARGEST_DIFFERENCE = 1.5, 1e-4
NAMES = {"global_itc": "contrastive", "distill": "distill", "region_itc": "regions", "loss": "total"}
CATEGORIES = (
    "airplane, airport, baseball diamond, basketball court, bridge, chimney, dam, golf course, ground track field, harbor, overpass, "
    "ship, stadium, storage tank, tennis court, train station, vehicle, windmill, helicopter, roundabout"
).split(", ")
"""DIOR's, and two of DOTA's"""


@dataclass(frozen=True)
class Options:
    """Our trainer against FarSLIP's."""

    peer: Path
    """checkout of https://github.com/NJU-LHRS/FarSLIP"""
    out: Path = Path(__file__).parent / "results" / "farslip_step.json"
    """the result file"""
    model: str = "ViT-B-32-quickgelu"
    """an architecture that both know"""
    batch_size: int = 8
    """pictures a step"""
    crops_per_image: int = 4
    """crops of each"""
    steps: int = 6
    """in each process; the first two are not timed"""
    stages: tuple[Stage, ...] = ("stage1", "stage2")
    """what is compared; see above"""
    rounds: int = 3
    """of both trainers in turn"""
    threads: int = os.cpu_count() or 1
    """of torch, in both trainers"""
    role: Literal["all", "ours"] = "all"
    """ours is what the benchmark runs in processes of its own, on the first of `stages`"""
    inputs: Path | None = None
    """where the batches of that process are"""

    @property
    def optim(self) -> OptimConfig:
        return OptimConfig(lr=1e-6, wd=1.0, warmup=1, grad_clip_norm=None)


def make_batch(encoder: DualEncoder, options: Options, stage: Stage, step: int) -> Batch:
    """Smooth coloured noise of the tower's size, crops of the sizes that the loader draws."""
    generator = torch.Generator().manual_seed(step)
    num_crops, size = options.batch_size * options.crops_per_image, encoder.preprocess.size

    def pictures(count: int) -> torch.Tensor:
        coarse = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        return F.interpolate(coarse, size=size)

    texts = captions((step + 1) * options.batch_size)[-options.batch_size :]
    rng = random.Random(step)
    drawn = [draw_crops(RandomCrops(options.crops_per_image), [], size, size, rng) for _ in range(options.batch_size)]
    boxes = torch.tensor([crop.box for crops in drawn for crop in crops]) / size
    names = [rng.choice(CATEGORIES) for _ in range(num_crops)]
    words = [f"a satellite image of {name}" for name in names] if stage == "stage2" else []
    categories = torch.tensor([category_number(name) for name in names])
    crops = Crops(
        images=pictures(num_crops),
        boxes=boxes,
        sample=torch.arange(options.batch_size).repeat_interleave(options.crops_per_image),
        texts=words,
        tokens=encoder.tokenizer(words) if words else torch.zeros(num_crops, 0, dtype=torch.int64),
        categories=categories,
        kinds=categories,
    )
    return Batch(
        step=step,
        epoch=0,
        keys=[f"{step}-{row}" for row in range(options.batch_size)],
        images=pictures(options.batch_size),
        texts=texts,
        tokens=encoder.tokenizer(texts),
        labels=[None] * options.batch_size,
        crops={VIEWS if stage == "stage1" else REGIONS: crops},
    )


def as_released(encoder: DualEncoder, batch: Batch, stage: Stage) -> dict[str, Any]:
    """The batch as FarSLIP's loaders give it."""
    (crops,) = batch.crops.values()
    per_image = len(crops) // len(batch.keys)
    standardised = encoder.preprocess.normalize(batch.images)
    of_crops = encoder.preprocess.normalize(crops.images).unflatten(0, (-1, per_image))
    boxes = torch.cat([crops.boxes, torch.ones(len(crops), 1)], 1).unflatten(0, (-1, per_image))
    if stage == "stage1":
        pairs = zip(standardised, of_crops, boxes)
        images = [{"global": picture, "locals": own, "bboxes": box} for picture, own, box in pairs]
        return {"images": images, "tokens": batch.tokens}
    return {
        "global_image": standardised,
        "global_text": batch.tokens,
        "local_images": of_crops,
        "local_texts": crops.tokens.unflatten(0, (-1, per_image)),
        "boxes": boxes,
        # Theirs are small numbers.
        "local_categories": torch.unique(crops.categories, return_inverse=True)[1].unflatten(0, (-1, per_image)),
    }


def new_encoder(options: Options) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder.load(options.model)


def write_inputs(options: Options, folder: Path) -> None:
    encoder = new_encoder(options)
    save_file({name: tensor.contiguous() for name, tensor in encoder.model.state_dict().items()}, folder / "weights.safetensors")
    setting = {
        "model": options.model,
        "batch_size": options.batch_size,
        "crops_per_image": options.crops_per_image,
        "lr": options.optim.lr,
        "wd": options.optim.wd,
        "warmup": options.optim.warmup,
        "planned_steps": options.steps + 1,
    }
    for stage in options.stages:
        batches = [as_released(encoder, make_batch(encoder, options, stage, step), stage) for step in range(options.steps)]
        torch.save({"setting": setting, "batches": batches}, folder / f"{stage}.pt")


class Finished(Exception):
    pass


def run_ours(options: Options) -> None:
    """The whole of `train` but its loader and its end."""
    torch.set_num_threads(options.threads)
    (stage,) = options.stages
    encoder, times = new_encoder(options), list[tuple[float, float]]()
    batches = [make_batch(encoder, options, stage, step) for step in range(options.steps)]

    def timed(*arguments: Any, **named: Any) -> Iterator[Batch]:
        for batch in batches:
            times.append((measure.cpu_seconds(), time.perf_counter()))
            yield batch
        times.append((measure.cpu_seconds(), time.perf_counter()))
        raise Finished

    term = {"distill": DistillConfig()} if stage == "stage1" else {"regions": RegionConfig()}
    objective = FarSlipObjective(encoder, ContrastiveConfig(), **term)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(trainer, "train_batches", timed):
        config = TrainConfig(steps=options.steps + 1, save_every=options.steps + 1, trackers=())
        try:
            dataset = Dataset(Path(folder), {"splits": {}, "shards": []})
            train(objective, dataset, Path(folder), config=config, optim=options.optim, loader=LoaderConfig(options.batch_size))
        except Finished:
            lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    losses = [{name.removeprefix("loss/"): value for name, value in line.items() if name.startswith("loss/")} for line in lines]
    (cpu_start, start), (cpu_end, end), num_timed = times[WARMUP_STEPS], times[-1], options.steps - WARMUP_STEPS
    measure.report(
        {"cpu_seconds_a_step": (cpu_end - cpu_start) / num_timed, "seconds_a_step": (end - start) / num_timed, "losses": losses}
    )


def largest_difference(peer: list[dict[str, float]], ours: list[dict[str, float]]) -> float:
    """Of any loss in any step. Raises RuntimeError where one side has a step or a loss that the other has not."""
    named = [{NAMES[name]: value for name, value in step.items()} for step in peer]
    if [step.keys() for step in named] != [step.keys() for step in ours]:
        raise RuntimeError(f"the released code reports {named[0].keys()}, ours {ours[0].keys()}")
    return max(abs(step[name] - own[name]) for step, own in zip(named, ours, strict=True) for name in step)


Rounds = list[dict[str, dict[str, Any]]]  # one a round: what "peer" and "ours" measured


def measure_stage(options: Options, stage: Stage, inputs: Path) -> Rounds:
    words = ["--peer", str(options.peer), "--role", "ours", "--stages", stage, "--model", options.model, "--inputs", str(inputs)]
    for name in ("batch_size", "crops_per_image", "steps", "threads"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    peer_script = str(Path(__file__).with_name("farslip_peer.py"))
    return measure.alternate(
        {
            "peer": lambda: measure.measure_in_fresh_process(
                peer_script, [str(inputs), stage, str(options.threads)], path_first=options.peer
            ),
            "ours": lambda: measure.measure_in_fresh_process(__file__, words),
        },
        options.rounds,
    )


def summary(stage: str, rounds: Rounds) -> dict[str, Any]:
    case: dict[str, Any] = {"stage": stage}
    for name, unit in (("cpu_ratio", "cpu_seconds_a_step"), ("ratio", "seconds_a_step")):
        case[name] = measure.median_and_range([each["peer"][unit] / each["ours"][unit] for each in rounds])
        for role in ("peer", "ours"):
            case.setdefault(role, {})[unit] = measure.median_and_range([each[role][unit] for each in rounds])
    return case


def with_losses(case: dict[str, Any], rounds: Rounds) -> dict[str, Any]:
    for role in ("peer", "ours"):
        case[role]["peak_rss_mib"] = max(each[role]["peak_rss_mib"]["process"] for each in rounds)
    difference = max(largest_difference(each["peer"]["losses"], each["ours"]["losses"]) for each in rounds)
    return {**case, "largest_loss_difference": difference, "losses": rounds[0]["ours"]["losses"]}


def together(by_stage: list[Rounds]) -> dict[str, Any]:
    """A step of each stage: both are part of training FarSLIP."""
    units = ("cpu_seconds_a_step", "seconds_a_step")
    summed: Rounds = [
        {role: {unit: sum(stage[role][unit] for stage in stages) for unit in units} for role in ("peer", "ours")}
        for stages in zip(*by_stage, strict=True)
    ]
    return summary("together", summed)


def main(options: Options) -> int:
    """1 where a ratio or a difference is not what is claimed; the result is written all the same."""
    if options.role == "ours":
        run_ours(options)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(options, Path(folder))
        by_stage = {stage: measure_stage(options, stage, Path(folder)) for stage in options.stages}
    cases = [with_losses(summary(stage, rounds), rounds) for stage, rounds in by_stage.items()]
    whole = together(list(by_stage.values()))
    setting = {name: getattr(options, name) for name in ("model", "batch_size", "crops_per_image", "steps", "threads", "rounds")}
    measure.write_result(
        options.out,
        "farslip_step",
        {
            "setting": setting,
            "versions": measure.versions("torch", "torchvision", "open_clip_torch"),
            "cases": cases,
            "together": whole,
        },
    )
    missed = [case["stage"] for case in cases if not case["largest_loss_difference"] < LARGEST_DIFFERENCE]
    if whole["cpu_ratio"]["median"] < SMALLEST_RATIO:
        missed.append("the time of both")
    if missed:
        print(f"not as claimed (ratio {SMALLEST_RATIO}, difference {LARGEST_DIFFERENCE}): {', '.join(missed)}")
    return len(missed) and 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
