"""Images a second of our loader against open_clip's own, on the same shards, with the same two workers and the same random crop.

    pip install --no-deps --target /tmp/peer_wds 'webdataset<=0.2.86'    # open_clip 3.3.0's loader fails with newer ones
    python benchmarks/loader.py --peer-path /tmp/peer_wds

Both give normalised float batches and tokens in the main process: open_clip's workers normalise, ours send bytes that the main process
normalises. Agreement is checked three ways: every text of an epoch comes out once on both sides, the mean grey levels match, and the
exact engine equals open_clip's evaluation transform to the bit. What the fast engine changes is reported as parity.

Peak memory of our main process is that of the 30 MB float batches it normalises, not of the loader (0 MB more over 60 steps without
them): glibc before 2.38 may spread such blocks over its heap, so that it reads 0.96 or 2.1 GB by chance.
"""

import hashlib
import io
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import measure
import numpy as np
import open_clip
import torch
import tyro
from PIL import Image

from rsvl_data.loader import LoaderConfig, train_batches
from rsvl_data.sample import Caption, Sample, content_key
from rsvl_data.shards import Dataset, write_shard
from rsvl_data.transforms import Augment, Preprocess

NUM_SHARDS, SHARD_SAMPLES, NUM_EPOCHS = 4, 200, 2
BATCH_SIZE, NUM_WORKERS = 50, 2
# About 90 KB and 22 KB an image, as photographs of these sizes have
JPEG_QUALITY = {256: 90, 512: 93, 1024: 93}
SMALLEST_RATIO = 2.0
NUM_PARITY_IMAGES, NUM_PARITY_CLASSES = 64, 32


@dataclass(frozen=True)
class Options:
    """Our loader against open_clip's."""

    peer_path: Path
    """folder with webdataset <= 0.2.86, made by pip install --target"""
    data: Path = Path(tempfile.gettempdir()) / "rsvl-bench-loader"
    """where the shards are made, from a seed; those already there are used"""
    out: Path = Path(__file__).parent / "results" / "loader.json"
    sizes_px: tuple[int, ...] = (512, 256)
    rounds: int = 7
    role: Literal["all", "peer", "ours"] = "all"
    """peer and ours are what the benchmark runs in processes of their own, on the first of sizes_px"""


def picture(side: int, seed: int) -> bytes:
    """A JPEG with shades at every scale, sharp-edged blocks and sensor noise: as hard to decode as an aerial photograph."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3), np.float32)
    for octave in range(2, 8):
        coarse = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        channels = [Image.fromarray(coarse[..., c]).resize((side, side), Image.Resampling.BICUBIC) for c in range(3)]
        pixels += 0.6 ** (octave - 2) * np.stack([np.asarray(channel) for channel in channels], axis=-1)
    pixels = pixels * 30 + 110
    for _ in range(60):
        (x, y), (width, height) = rng.integers(0, side - 20, 2), rng.integers(6, side // 10, 2)
        pixels[y : y + height, x : x + width] = rng.integers(30, 230, 3)
    pixels += rng.normal(0, 6, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=JPEG_QUALITY[side])
    return file.getvalue()


def shard_samples(side: int, shard: int) -> Iterator[Sample]:
    for number in range(shard * SHARD_SAMPLES, (shard + 1) * SHARD_SAMPLES):
        image = picture(side, number)
        sha256 = hashlib.sha256(image).hexdigest()
        text = f"an aerial image of a harbour with {number} ships, two piers and a row of storage tanks beside the railway"
        key = content_key(sha256, str(number))
        yield Sample(key=key, width=side, height=side, sha256=sha256, image=image, captions=[Caption(text=text)])


def make_dataset(root: Path, side: int) -> Dataset:
    if not (root / "manifest.json").is_file():
        print(f"making {NUM_SHARDS} shards of {SHARD_SAMPLES} images of {side} px in {root}", flush=True)
        shards = [write_shard(root / "data", f"train-{i:05d}", shard_samples(side, i)) or {} for i in range(NUM_SHARDS)]
        lines = [{**shard, "split": "train"} for shard in shards]
        splits = {"train": NUM_SHARDS * SHARD_SAMPLES}
        manifest = {"format_version": 1, "name": f"bench{side}", "note": None, "splits": splits, "shards": lines, "stages": []}
        (root / "manifest.json").write_text(json.dumps(manifest))
    return Dataset.open(root)


def peer_batches(root: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    from open_clip_train.data import get_wds_dataset  # needs the old webdataset, which only the peer's process has

    args = SimpleNamespace(
        train_data=str(root / "data" / f"train-{{00000..{NUM_SHARDS - 1:05d}}}.tar"),
        train_num_samples=NUM_SHARDS * SHARD_SAMPLES,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=BATCH_SIZE,
        workers=NUM_WORKERS,
        world_size=1,
    )
    transform = open_clip.image_transform(224, is_train=True)
    info = get_wds_dataset(args, transform, True, tokenizer=open_clip.get_tokenizer("ViT-B-32"))
    for epoch in range(NUM_EPOCHS):
        info.set_epoch(epoch)
        yield from info.dataloader


def our_batches(root: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    config = LoaderConfig(BATCH_SIZE, NUM_WORKERS, augment=Augment("open_clip"), engine="fast")
    preprocess, tokenizer = Preprocess(), open_clip.get_tokenizer("ViT-B-32")
    num_steps = NUM_EPOCHS * NUM_SHARDS * SHARD_SAMPLES // BATCH_SIZE
    for batch in train_batches(Dataset.open(root), "train", preprocess, tokenizer, config, num_steps=num_steps):
        yield preprocess.normalize(batch.images), batch.tokens


def run_role(role: str, root: Path) -> None:
    """Time one loader from its first worker to its last batch. The sums are taken from every tenth pixel, a like cost for both."""
    torch.set_num_threads(1)
    batches = peer_batches(root) if role == "peer" else our_batches(root)
    start, cpu_start = time.perf_counter(), measure.cpu_seconds()
    tokens, means = [], []
    for images, batch_tokens in batches:
        tokens.append(batch_tokens.clone())
        means.append(images[:, :, ::10, ::10].mean((0, 2, 3)))
    seconds = time.perf_counter() - start
    rows = torch.cat(tokens)
    del batches  # ends the workers, so that their time and memory are counted
    measure.report(
        {
            "images_per_s": len(rows) / seconds,
            "images_per_cpu_s": len(rows) / (measure.cpu_seconds() - cpu_start),
            "num_images": len(rows),
            "texts_sha256": hashlib.sha256(repr(sorted(rows.tolist())).encode()).hexdigest(),
            "mean": torch.stack(means).mean(0).tolist(),
            "versions": measure.versions("open_clip_torch", "webdataset", "torch", "torchvision", "pillow", "simplejpeg"),
        }
    )


def compare(options: Options, side: int) -> dict[str, Any]:
    """Throughput of both on images of one size."""
    make_dataset(options.data / str(side), side)

    def contender(role: str) -> measure.Measured:
        arguments = ["--role", role, "--sizes-px", str(side), "--data", str(options.data), "--peer-path", str(options.peer_path)]
        return measure.measure_in_fresh_process(__file__, arguments, path_first=options.peer_path if role == "peer" else None)

    rounds = measure.alternate({"peer": lambda: contender("peer"), "ours": lambda: contender("ours")}, options.rounds)
    for each in rounds:
        check_agreement(each["peer"], each["ours"])
    return {
        "image_px": side,
        "ratio": ratio(rounds, "images_per_s"),
        "cpu_ratio": ratio(rounds, "images_per_cpu_s"),
        "rounds": len(rounds),
        **{role: summary([each[role] for each in rounds]) for role in ("peer", "ours")},
    }


def ratio(rounds: list[dict[str, measure.Measured]], name: str) -> dict[str, float]:
    return measure.median_and_range([each["ours"][name] / each["peer"][name] for each in rounds])


def check_agreement(peer: measure.Measured, ours: measure.Measured) -> None:
    if peer["num_images"] != ours["num_images"] or peer["texts_sha256"] != ours["texts_sha256"]:
        raise RuntimeError(f"the loaders gave different texts: {peer} and {ours}")
    if not np.allclose(peer["mean"], ours["mean"], atol=0.02):
        raise RuntimeError(
            f"the mean grey levels differ: {peer['mean']} and {ours['mean']} (normalised; random crops allow 0.02)"
        )


def summary(runs: list[measure.Measured]) -> dict[str, Any]:
    peaks = {name: max(run["peak_rss_mib"][name] for run in runs) for name in runs[0]["peak_rss_mib"]}
    rates = {name: measure.median_and_range([run[name] for run in runs]) for name in ("images_per_s", "images_per_cpu_s")}
    return {**rates, "peak_rss_mib": peaks, "versions": runs[0]["versions"]}


def parity(side: int) -> dict[str, Any]:
    """What the fast engine changes for an encoder: a ViT-B-32 with random weights of seed 0.

    The classes are the embeddings of other images; all embeddings are centred, because random weights put every image close to every
    other. So the numbers are stricter than those of a trained encoder.
    """
    torch.manual_seed(0)
    model, preprocess = open_clip.create_model("ViT-B-32").eval(), Preprocess()
    transform = open_clip.image_transform(224, is_train=False)
    contents = [picture(side, 10_000 + number) for number in range(NUM_PARITY_IMAGES + NUM_PARITY_CLASSES)]
    exact = torch.stack([preprocess.decode(content, "exact") for content in contents])
    fast = torch.stack([preprocess.decode(content, "fast") for content in contents[:NUM_PARITY_IMAGES]])
    theirs = torch.stack([transform(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents])
    with torch.no_grad():
        embeds = model.encode_image(preprocess.normalize(exact), normalize=True)
        centre = embeds.mean(0)
        images, classes = torch.nn.functional.normalize(embeds - centre).split([NUM_PARITY_IMAGES, NUM_PARITY_CLASSES])
        fast_images = torch.nn.functional.normalize(model.encode_image(preprocess.normalize(fast), normalize=True) - centre)
    same_class = (images @ classes.T).argmax(1) == (fast_images @ classes.T).argmax(1)
    difference = (fast.int() - exact[:NUM_PARITY_IMAGES].int()).abs()
    return {
        "image_px": side,
        "num_images": NUM_PARITY_IMAGES,
        "exact_equals_open_clip": bool(torch.allclose(preprocess.normalize(exact), theirs, atol=1e-5)),
        "fast_mean_cosine": (images * fast_images).sum(1).mean().item(),
        "fast_same_nearest_class": same_class.float().mean().item(),
        "fast_grey_levels_off": {"mean": difference.float().mean().item(), "max": difference.max().item()},
    }


def main(options: Options) -> None:
    if options.role != "all":
        run_role(options.role, options.data / str(options.sizes_px[0]))
        return
    cases = [compare(options, side) for side in options.sizes_px]
    parities = [parity(side) for side in JPEG_QUALITY]
    for case in cases:
        for name in ("ratio", "cpu_ratio"):
            print(
                f"{case['image_px']} px: {name} {case[name]['median']:.2f} ({case[name]['low']:.2f} to {case[name]['high']:.2f})"
            )
    for each in parities:
        print(each)
    passed = all(case["ratio"]["median"] >= SMALLEST_RATIO for case in cases) and all(
        each["exact_equals_open_clip"] for each in parities
    )
    gate = {"smallest_ratio": SMALLEST_RATIO, "passed": passed}
    setting = {"batch_size": BATCH_SIZE, "workers": NUM_WORKERS, "epochs": NUM_EPOCHS, "images": NUM_SHARDS * SHARD_SAMPLES}
    measure.write_result(options.out, "loader", {"setting": setting, "gate": gate, "cases": cases, "parity": parities})
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main(tyro.cli(Options))
