"""Seconds until the first batch of a run that goes on at step k: our loader against `accelerate.skip_first_batches`.

    python -m benchmarks.resume_time          # writes benchmarks/results/resume_time.json; about a minute

At 10, 50 and 90 % of an epoch, with one worker, each contender in fresh processes in turn. The peer is a DataLoader over the same
shards with the same decoder, in two forms: `peer-stream` hands samples out in order, as open_clip's and webdataset's loaders do, so that
`skip_first_batches` has to read, decode and throw away; `peer-map` can be asked for any sample, and skips numbers alone.
Ours is also resumed in the sixth epoch. The next 100 keys of ours must be those of a run that never stopped, with one worker and with two.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import measure
from benchmarks.image_server import jpeg
from rsvl_data.errors import OptionError
from rsvl_data.sample import Caption, Sample, content_key
from rsvl_data.scenes import render_scene
from rsvl_data.shards import Dataset, Shard, write_shard

SHARES = (0.1, 0.5, 0.9)
CHECKED_SAMPLES = 100
LARGEST_GROWTH = 1.5
NUM_SHARDS = 4
CONTENDERS = ("ours", "peer-stream", "peer-map")
LATER_EPOCHS = 5


@dataclass(frozen=True)
class Options:
    """Resuming our loader against accelerate.skip_first_batches."""

    data: Path = Path(tempfile.gettempdir()) / "rsvl-bench-resume"
    """where the shards are made, from a seed; those already there are used"""
    out: Path = Path(__file__).parent / "results" / "resume_time.json"
    """the result file"""
    shard_samples: int = 250
    """in each of the four tars"""
    size_px: int = 256
    """side of the stored images"""
    batch_size: int = 20
    """samples a step"""
    rounds: int = 3
    """of all contenders in turn"""
    role: Literal["all", "ours", "peer-stream", "peer-map"] = "all"
    """the others are what the benchmark runs in processes of their own"""

    @property
    def steps_per_epoch(self) -> int:
        return NUM_SHARDS * self.shard_samples // self.batch_size

    @property
    def starts(self) -> dict[str, int]:
        """Steps at which a run goes on, by name."""
        within = {f"{share:.0%}": round(share * self.steps_per_epoch) for share in SHARES}
        if self.role != "ours":
            return within
        return within | {
            f"{name} of epoch {LATER_EPOCHS + 1}": LATER_EPOCHS * self.steps_per_epoch + k for name, k in within.items()
        }

    @property
    def checked_steps(self) -> int:
        return -(-CHECKED_SAMPLES // self.batch_size)

    def __post_init__(self) -> None:
        if self.steps_per_epoch - round(SHARES[-1] * self.steps_per_epoch) < self.checked_steps:
            raise OptionError(
                f"--shard-samples {self.shard_samples} and --batch-size {self.batch_size}: fewer than {CHECKED_SAMPLES} samples are left "
                f"after {SHARES[-1]:.0%} of an epoch; give more samples"
            )


def make_dataset(options: Options) -> Dataset:
    """One scene, with a black corner of another size in each image: quick to make, no two alike."""
    root = options.data / f"{NUM_SHARDS}x{options.shard_samples}-{options.size_px}px"
    if not (root / "manifest.json").is_file():
        scene = render_scene(0, 0, options.size_px).image

        def samples(shard: int) -> Iterator[Sample]:
            for number in range(shard * options.shard_samples, (shard + 1) * options.shard_samples):
                picture = scene.copy()
                picture[: number // options.size_px + 1, : number % options.size_px + 1] = 0
                image = jpeg(picture)
                sha256 = hashlib.sha256(image).hexdigest()
                yield Sample(
                    key=content_key(sha256, str(number)),
                    width=options.size_px,
                    height=options.size_px,
                    sha256=sha256,
                    image=image,
                    captions=[Caption(text=f"scene {number}")],
                )

        lines = [write_shard(root / "data", f"train-{shard:05d}", samples(shard)) for shard in range(NUM_SHARDS)]
        shards = [{**(line or {}), "split": "train"} for line in lines]
        splits = {"train": NUM_SHARDS * options.shard_samples}
        manifest = {"format_version": 1, "name": "bench", "note": None, "splits": splits, "shards": shards, "stages": []}
        (root / "manifest.json").write_text(json.dumps(manifest))
    return Dataset.open(root)


def our_keys(dataset: Dataset, options: Options, start_step: int, workers: int, num_steps: int) -> Iterator[list[str]]:
    """`num_steps` batches from `start_step` on."""
    from open_clip import get_tokenizer

    from rsvl_data.loader import LoaderConfig, train_batches
    from rsvl_data.transforms import Preprocess

    config, tokenizer = LoaderConfig(options.batch_size, workers), get_tokenizer("ViT-B-32")
    for batch in train_batches(dataset, "train", Preprocess(), tokenizer, config, start_step=start_step, num_steps=num_steps):
        yield batch.keys


def peer_keys(dataset: Dataset, options: Options, start_step: int) -> Iterator[list[str]]:
    """One epoch, shuffled by seed 0, after `start_step` batches."""
    import torch
    from accelerate import skip_first_batches
    from torch.utils.data import DataLoader, IterableDataset

    from rsvl_data.transforms import Preprocess

    shards = [Shard(entry.tar) for entry in dataset.shards("train")]
    order = torch.randperm(NUM_SHARDS * options.shard_samples, generator=torch.Generator().manual_seed(0)).tolist()
    preprocess = Preprocess()

    def load(number: int) -> tuple[str, torch.Tensor]:
        sample = shards[number // options.shard_samples].sample(number % options.shard_samples)
        return sample.key, preprocess.decode(sample.image, "fast")

    class Rows(torch.utils.data.Dataset[tuple[str, torch.Tensor]]):
        def __len__(self) -> int:
            return len(order)

        def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
            return load(order[index])

    class Stream(IterableDataset[tuple[str, torch.Tensor]]):
        def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
            return map(load, order)

    loader = DataLoader(Stream() if options.role == "peer-stream" else Rows(), batch_size=options.batch_size, num_workers=1)
    for keys, _ in skip_first_batches(loader, start_step):
        yield list(keys)


def run_role(options: Options) -> None:
    import torch

    torch.set_num_threads(1)
    dataset = make_dataset(options)
    keys_from = {
        "ours": lambda step: our_keys(dataset, options, step, 1, options.steps_per_epoch),
        "peer-stream": lambda step: peer_keys(dataset, options, step),
        "peer-map": lambda step: peer_keys(dataset, options, step),
    }[options.role]
    next(keys_from(0))  # imports, and the tars come into the page cache
    seconds = {}
    for name, step in options.starts.items():
        begin = time.perf_counter()
        next(keys_from(step))
        seconds[name] = time.perf_counter() - begin
    found: dict[str, Any] = {"seconds": seconds, "versions": measure.versions("torch", "accelerate")}
    if options.role == "ours":
        for workers in (1, 2):
            found[f"keys_{workers}"] = {
                name: list(chain.from_iterable(our_keys(dataset, options, step, workers, options.checked_steps)))
                for name, step in options.starts.items()
            }
    measure.report(found)


def keys_of_an_unbroken_run(options: Options) -> dict[str, list[str]]:
    """What comes after each start in a run from step 0 through the last of them."""
    dataset, starts = make_dataset(options), replace(options, role="ours").starts
    keys = list(our_keys(dataset, options, 0, 1, max(starts.values()) + options.checked_steps))
    return {name: list(chain.from_iterable(keys[step : step + options.checked_steps])) for name, step in starts.items()}


def check_keys(expected: dict[str, list[str]], ours: measure.Measured) -> None:
    for workers in (1, 2):
        wrong = [name for name, keys in expected.items() if ours[f"keys_{workers}"][name] != keys]
        if wrong:
            raise RuntimeError(
                f"with {workers} workers other samples came after {', '.join(wrong)} than in a run that never stopped"
            )


def compare(options: Options) -> dict[str, Any]:
    def contender(role: str) -> measure.Measured:
        told = ("data", "shard_samples", "size_px", "batch_size")
        arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in told]
        return measure.measure_in_fresh_process(__file__, ["--role", role, *arguments])

    expected = keys_of_an_unbroken_run(options)
    rounds = measure.alternate({role: partial(contender, role) for role in CONTENDERS}, options.rounds)
    for each in rounds:
        check_keys(expected, each["ours"])
    contenders = {
        role: {
            "seconds": {
                name: measure.median_and_range([each[role]["seconds"][name] for each in rounds])
                for name in rounds[0][role]["seconds"]
            },
            "peak_rss_mib": max(each[role]["peak_rss_mib"]["process"] for each in rounds),
        }
        for role in CONTENDERS
    }

    def growth(role: str) -> dict[str, float]:
        """Of the seconds from the first to the last start, within a round."""
        first, *_, last = (f"{share:.0%}" for share in SHARES)
        return measure.median_and_range([each[role]["seconds"][last] / each[role]["seconds"][first] for each in rounds])

    last = f"{SHARES[-1]:.0%}"
    ratios = {
        role: measure.median_and_range([each[role]["seconds"][last] / each["ours"]["seconds"][last] for each in rounds])
        for role in CONTENDERS
        if role != "ours"
    }
    return {
        "rounds": options.rounds,
        "versions": rounds[0]["ours"]["versions"],
        "growth": {role: growth(role) for role in CONTENDERS},
        "peer_over_ours_at_the_last": ratios,
        "same_keys_after": list(expected),
        "contenders": contenders,
    }


def main(options: Options) -> int:
    if options.role != "all":
        run_role(options)
        return 0
    load = os.getloadavg()[0]
    result = compare(options)
    passed = result["growth"]["ours"]["median"] <= LARGEST_GROWTH
    setting = {name: getattr(options, name) for name in ("shard_samples", "size_px", "batch_size")} | {"shards": NUM_SHARDS}
    gate = {"largest_growth": LARGEST_GROWTH, "passed": passed}
    measure.write_result(options.out, "resume_time", {"load_average_at_start": load, "setting": setting, "gate": gate, **result})
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
