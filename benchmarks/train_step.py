"""Samples a second of training on a CPU: our trainer against open_clip 3.3.0's own `train_one_epoch`.

    pip install --no-deps --target /tmp/peer_wds 'webdataset<=0.2.86'    # open_clip 3.3.0's loader fails with newer ones
    python -m benchmarks.train_step --peer-path /tmp/peer_wds            # writes benchmarks/results/train_step.json; about 10 minutes

Same weights, AdamW settings, schedule, clipping, threads; fresh processes in turn. Three cases:

    memory fp32   the same batches on both sides, ready in memory; loss curves must agree to 1e-4
    memory bf16   the same under autocast; curves to 2e-2
    shards fp32   from the same tars with the same two workers, each with its own loader and random crop; every caption of an epoch must
                  come out once on both sides

Captions have the lengths of published ones. open_clip computes all 77 tokens of a text, all tokens of the last blocks, and updates AdamW
tensor by tensor.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import tyro

from benchmarks import measure
from benchmarks.image_server import jpeg
from benchmarks.remote_sensing_captions import captions
from rsvl_data.errors import OptionError
from rsvl_data.sample import Caption, Sample, content_key
from rsvl_data.scenes import render_scene
from rsvl_data.shards import Dataset, write_shard

Case = Literal["memory-fp32", "memory-bf16", "shards-fp32"]
SMALLEST_RATIO = {"memory-fp32": 1.2, "memory-bf16": 1.2, "shards-fp32": 1.5}
LARGEST_DIFFERENCE = {"memory-fp32": 1e-4, "memory-bf16": 2e-2}
NUM_SHARDS, NUM_WORKERS = 4, 2


@dataclass(frozen=True)
class Options:
    """Our trainer against open_clip's."""

    peer_path: Path
    """folder with webdataset <= 0.2.86, made by pip install --target"""
    data: Path = Path(tempfile.gettempdir()) / "rsvl-bench-train-step"
    """where the shards are made, from a seed; those already there are used"""
    out: Path = Path(__file__).parent / "results" / "train_step.json"
    """the result file"""
    model: str = "ViT-B-32"
    """any open_clip architecture"""
    batch_size: int = 16
    """samples a step"""
    steps: tuple[int, ...] = (4, 4, 4)
    """in each process, for each of `cases`; the first two are not timed"""
    curve_steps: int = 20
    """instead, in the first round of memory-fp32: the loss curve"""
    size_px: int = 512
    """side of the stored images of the shards"""
    cases: tuple[Case, ...] = ("memory-fp32", "memory-bf16", "shards-fp32")
    """what is compared; see above"""
    rounds: tuple[int, ...] = (3, 1, 3)
    """of both trainers in turn, for each of `cases`"""
    threads: int = os.cpu_count() or 1
    """of torch, in both trainers"""
    role: Literal["all", "peer", "ours"] = "all"
    """peer and ours are what the benchmark runs in processes of their own, on the first of `cases`"""

    def __post_init__(self) -> None:
        if not len(self.rounds) == len(self.steps) == len(self.cases):
            raise OptionError(
                f"--rounds {self.rounds} and --steps {self.steps} must give one number for each of --cases {self.cases}"
            )
        for steps in self.steps:
            if steps < 4 or steps % NUM_WORKERS or self.batch_size * steps % NUM_SHARDS:
                raise OptionError(
                    f"--steps {steps} of --batch-size {self.batch_size}: an epoch of this many steps must fill {NUM_SHARDS} equal shards "
                    f"and {NUM_WORKERS} workers, and 4 steps are the fewest"
                )


def make_dataset(options: Options, steps: int) -> Dataset:
    """Procedural scenes, one caption each: an epoch of this many steps."""
    per_shard = options.batch_size * steps // NUM_SHARDS
    root = options.data / f"{NUM_SHARDS}x{per_shard}-{options.size_px}px"
    if not (root / "manifest.json").is_file():
        texts = captions(NUM_SHARDS * per_shard)

        def samples(numbers: range) -> Iterator[Sample]:
            for number in numbers:
                image = jpeg(render_scene(0, number, options.size_px).image)
                sha256 = hashlib.sha256(image).hexdigest()
                yield Sample(
                    key=content_key(sha256, str(number)),
                    width=options.size_px,
                    height=options.size_px,
                    sha256=sha256,
                    image=image,
                    captions=[Caption(text=texts[number])],
                )

        starts = range(0, NUM_SHARDS * per_shard, per_shard)
        lines = [
            write_shard(root / "data", f"train-{index:05d}", samples(range(start, start + per_shard)))
            for index, start in enumerate(starts)
        ]
        shards = [{**(line or {}), "split": "train"} for line in lines]
        splits = {"train": NUM_SHARDS * per_shard}
        manifest = {"format_version": 1, "name": "bench", "note": None, "splits": splits, "shards": shards, "stages": []}
        (root / "manifest.json").write_text(json.dumps(manifest))
    return Dataset.open(root)


def open_clip_batches(options: Options, dataset: Dataset) -> Iterator[tuple[Any, Any]]:
    """Epoch after epoch of open_clip's loader."""
    import open_clip
    from open_clip_train.data import get_wds_dataset  # needs the old webdataset, which only the peer's process has

    args = SimpleNamespace(
        train_data=str(dataset.root / "data" / f"train-{{00000..{NUM_SHARDS - 1:05d}}}.tar"),
        train_num_samples=dataset.splits["train"],
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=options.batch_size,
        workers=NUM_WORKERS,
        world_size=1,
    )
    transform = open_clip.image_transform(open_clip.get_model_config(options.model)["vision_cfg"]["image_size"], is_train=True)
    info = get_wds_dataset(args, transform, True, tokenizer=open_clip.get_tokenizer(options.model))
    epoch = 0
    while True:
        info.set_epoch(epoch)
        yield from info.dataloader
        epoch += 1


def run_role(options: Options) -> None:
    import torch

    from benchmarks.trainers import Clock, Course, random_batches, train_with_open_clip, train_with_ours
    from rsvl_data.loader import LoaderConfig
    from rsvl_pretrain.model import DualEncoder

    torch.set_num_threads(options.threads)
    (case,), (steps,) = options.cases, options.steps
    source, precision = case.split("-")
    course = Course(options.model, options.batch_size, steps, precision="fp32" if precision == "fp32" else "amp_bf16")
    seen: list[torch.Tensor] = []
    clock = Clock(course, lambda batch: seen.append((batch[1] if options.role == "peer" else batch.tokens).clone()))
    encoder = DualEncoder.load(options.model)
    dataset = make_dataset(options, steps) if source == "shards" else None
    batches = [] if dataset else random_batches(course, encoder.tokenizer, steps, encoder.preprocess.size)
    if options.role == "peer":
        normalised = [(encoder.preprocess.normalize(batch.images), batch.tokens) for batch in batches]
        losses = train_with_open_clip(course, open_clip_batches(options, dataset) if dataset else normalised, clock)
    else:
        with tempfile.TemporaryDirectory() as out:
            loader = LoaderConfig(options.batch_size, NUM_WORKERS)
            losses = train_with_ours(course, Path(out), clock, batches or None, dataset=dataset, loader=loader)
    texts = sorted(torch.cat(seen).tolist())
    measure.report(
        {
            "samples_per_s": clock.samples_per_s,
            "losses": losses,
            "texts_sha256": hashlib.sha256(repr(texts).encode()).hexdigest(),
            "threads": torch.get_num_threads(),
            "versions": measure.versions("torch", "open_clip_torch", "accelerate", "webdataset"),
        }
    )


def compare(options: Options, case: Case, steps: int, rounds: int) -> dict[str, Any]:
    def contender(role: str, steps: int) -> measure.Measured:
        told = ("peer_path", "data", "model", "batch_size", "size_px", "threads")
        arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in told]
        path_first = options.peer_path if role == "peer" and case.startswith("shards") else None
        arguments += ["--role", role, "--cases", case, "--steps", str(steps), "--rounds", "1"]
        return measure.measure_in_fresh_process(__file__, arguments, path_first=path_first)

    def in_turn(steps: int, rounds: int) -> list[dict[str, measure.Measured]]:
        return measure.alternate({role: partial(contender, role, steps) for role in ("peer", "ours")}, rounds)

    first_steps = max(steps, options.curve_steps) if case == "memory-fp32" else steps
    found = in_turn(first_steps, 1) + in_turn(steps, rounds - 1)
    differences = [check_agreement(case, each["peer"], each["ours"]) for each in found]
    result: dict[str, Any] = {
        "case": case,
        "steps": [first_steps, *[steps] * (rounds - 1)],
        "ratio": measure.median_and_range([each["ours"]["samples_per_s"] / each["peer"]["samples_per_s"] for each in found]),
        "rounds": rounds,
        "smallest_ratio": SMALLEST_RATIO[case],
        "losses": {role: found[0][role]["losses"] for role in ("ours", "peer")},
    }
    if case in LARGEST_DIFFERENCE:
        result["largest_loss_difference"] = max(differences)
    for role in ("ours", "peer"):
        runs = [each[role] for each in found]
        result[role] = {
            "samples_per_s": measure.median_and_range([run["samples_per_s"] for run in runs]),
            "peak_rss_mib": max(run["peak_rss_mib"]["process"] for run in runs),
            "versions": runs[0]["versions"],
        }
    return result


def check_agreement(case: Case, peer: measure.Measured, ours: measure.Measured) -> float:
    """The largest difference of the loss curves, relative to the peer's. Raises RuntimeError when the two did different things."""
    if peer["texts_sha256"] != ours["texts_sha256"]:
        raise RuntimeError(f"{case}: the trainers saw different texts")
    difference = max(abs(a - b) / abs(a) for a, b in zip(peer["losses"], ours["losses"], strict=True))
    if difference > LARGEST_DIFFERENCE.get(case, float("inf")):
        raise RuntimeError(f"{case}: the loss curves differ by {difference}: {peer['losses']} and {ours['losses']}")
    return difference


def main(options: Options) -> int:
    if options.role != "all":
        run_role(options)
        return 0
    load = os.getloadavg()[0]
    for case, steps in zip(options.cases, options.steps, strict=True):
        if case.startswith("shards"):
            make_dataset(options, steps)
    cases = [compare(options, *told) for told in zip(options.cases, options.steps, options.rounds, strict=True)]
    for each in cases:
        print(f"{each['case']}: ratio {each['ratio']['median']:.2f} ({each['ratio']['low']:.2f} to {each['ratio']['high']:.2f})")
    missed = [each["case"] for each in cases if each["ratio"]["median"] < each["smallest_ratio"]]
    names = ("model", "batch_size", "size_px", "threads")
    setting = {name: getattr(options, name) for name in names} | {"workers": NUM_WORKERS}
    result = {"load_average_at_start": load, "setting": setting, "missed": missed, "cases": cases}
    measure.write_result(options.out, "train_step", result)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
