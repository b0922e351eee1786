"""Samples a second of training on one GPU in bf16: our trainer against open_clip's `train_one_epoch`, on the same batches.

    python -m benchmarks.gpu_train          # writes benchmarks/results/gpu_train.json; five minutes at most

Started by gpu.sh, within one process: starting a process costs more than a measurement. The batches wait in pinned memory, open_clip's as
normalised floats, ours as bytes; so loaders are left out and copying to the GPU is not. The variants:

    peer              open_clip's trainer
    ours              our trainer
    ours_compiled     each transformer block compiled
    ours_padded       with all the padding of texts
    ours_checkpointed activations computed again in the backward pass
    peer_compiled     the whole model compiled, as `--torchcompile` does

`share_of_ceiling` is the arithmetic of the towers (matrix products counted by torch on the batch as each variant computes it, times three
for the backward pass) over the rate of one large bf16 matrix product measured first. The loss curves of all variants must agree to
2e-2. What the time does not allow is left out and named.
"""

import gc
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.trainers import (
    Clock,
    Course,
    largest_difference,
    new_model,
    random_batches,
    repeated,
    train_with_open_clip,
    train_with_ours,
)
from rsvl_data.loader import Batch
from rsvl_pretrain.blocks import compile_blocks
from rsvl_pretrain.model import DualEncoder

LARGEST_DIFFERENCE = 2e-2
VARIANTS = ("peer", "ours", "ours_compiled", "ours_padded", "ours_checkpointed", "peer_compiled")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Options:
    """Our trainer against open_clip's on one GPU."""

    out: Path = Path(os.environ.get("OUT", Path(__file__).parent / "results")) / "gpu_train.json"
    """the result file, written anew after each measurement"""
    models: tuple[str, ...] = ("ViT-B-32", "ViT-B-16", "ViT-L-14")
    """open_clip architectures"""
    batch_sizes: tuple[int, ...] = (1024, 512, 192)
    """samples a step, for each of `models`"""
    steps: int = 14
    """of each variant; the first four are not timed"""
    budget_s: float = 240
    """no variant is begun after this time"""
    smoke: bool = False
    """the tiny model and nothing of note: shows on any machine that all of it runs"""


def matrix_ceiling_tflops(side: int) -> float:
    """The best of ten bf16 products of random square matrices, in 1e12 operations a second."""
    left, right = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(12):
        synchronize()
        start = time.perf_counter()
        left @ right
        synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[2:]) / 1e12


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def padded() -> Any:
    """Our encoder computes all tokens of the context, as open_clip does."""
    return mock.patch(
        "rsvl_pretrain.model.encode_packed", lambda model, tokens: model.encode_text(tokens.to(model.logit_scale.device))
    )


def train_variant(variant: str, course: Course, batches: list[Batch], floats: list[Any], backend: str) -> dict[str, Any]:
    """Rate, memory and losses of one variant."""
    clock = Clock(course)
    torch._dynamo.reset()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if variant.startswith("peer"):
        model = new_model(course)
        if variant == "peer_compiled":
            model = torch.compile(model, backend=backend)
        pairs = (floats[batch.step % len(floats)] for batch in repeated(batches))
        losses = train_with_open_clip(course, pairs, clock, model=model)
    else:
        compiled = partial(compile_blocks, backend=backend) if variant == "ours_compiled" else None
        with padded() if variant == "ours_padded" else nullcontext(), tempfile.TemporaryDirectory() as out:
            losses = train_with_ours(course, Path(out), clock, repeated(batches), prepare=compiled)
    peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else None
    return {"samples_per_s": clock.samples_per_s, "peak_gpu_gib": peak, "losses": losses}


def tower_gflop_per_pair(course: Course, batch: Batch) -> dict[str, float]:
    """Matrix products of one forward pass in our training, whose texts share rows, and in open_clip's, which computes all tokens."""
    encoder = DualEncoder.load(course.model, device=course.device)

    def gflop(encode_image: Callable[[Any], Any], encode_tokens: Callable[[Any], Any]) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as of_images:
            encode_image(batch.images[:8])
        with torch.no_grad(), FlopCounterMode(display=False) as of_texts:
            encode_tokens(batch.tokens)
        return (of_images.get_total_flops() / min(8, course.batch_size) + of_texts.get_total_flops() / course.batch_size) / 1e9

    # In evaluation mode torch's own attention would not be counted.
    encoder.train()
    ours = gflop(encoder.encode_image, encoder.encode_tokens)
    with padded():
        ours_padded = gflop(encoder.encode_image, encoder.encode_tokens)
    model, normalize = encoder.model, encoder.preprocess.normalize
    peer = gflop(
        lambda images: model.encode_image(normalize(images.to(course.device))),
        lambda tokens: model.encode_text(tokens.to(course.device)),
    )
    return {"ours": ours, "ours_padded": ours_padded, "peer": peer}


def measure_model(course: Course, variants: tuple[str, ...], backend: str, deadline_s: float, tell: Callable[..., None]) -> None:
    """`tell(variant, what was found)` after each; a string says why nothing was."""
    encoder = DualEncoder.load(course.model)
    batches = random_batches(course, encoder.tokenizer, 2, encoder.preprocess.size)
    floats = [(encoder.preprocess.normalize(batch.images), batch.tokens) for batch in batches]
    if DEVICE == "cuda":
        floats = [(images.pin_memory(), tokens) for images, tokens in floats]
    del encoder
    gflop = tower_gflop_per_pair(course, batches[0])
    for variant in variants:
        if time.monotonic() > deadline_s:
            tell(variant, "left out: no time")
            continue
        own = replace(course, grad_checkpointing=variant == "ours_checkpointed")
        try:
            found = train_variant(variant, own, batches, floats, backend)
        except torch.OutOfMemoryError:
            tell(variant, "does not fit into the GPU's memory")
        else:
            of_towers = gflop[variant if variant in gflop else variant.split("_")[0]]
            tell(variant, found | {"gflop_per_pair_forward": of_towers})
        gc.collect()
        torch.cuda.empty_cache()


def main(options: Options) -> int:
    deadline_s = time.monotonic() + options.budget_s
    models = dict(zip(options.models, options.batch_sizes, strict=True))
    steps, side, backend = options.steps, 8192, "inductor"
    if options.smoke:
        models, steps, side, backend = {"rsvl-tiny": 4}, 6, 256, "aot_eager"
    ceiling = matrix_ceiling_tflops(side)
    print(f"one bf16 product of {side} x {side}: {ceiling:.0f} TFLOP/s", flush=True)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    gpu = torch.cuda.get_device_name() if DEVICE == "cuda" else "none: on the CPU"
    head = {"gpu": gpu, "matrix_ceiling_tflops": ceiling, "steps": steps, "largest_loss_difference_allowed": LARGEST_DIFFERENCE}

    def tell(model: str, batch_size: int, variant: str, found: Any) -> None:
        row: dict[str, Any] = {"model": model, "batch_size": batch_size, "variant": variant}
        row |= {"left_out": found} if isinstance(found, str) else found
        if "samples_per_s" in row:
            row["share_of_ceiling"] = row["samples_per_s"] * 3 * row["gflop_per_pair_forward"] / 1000 / ceiling
            peer = next((each for each in rows if each["model"] == model and each["variant"] == "peer"), row)
            row["ratio"] = row["samples_per_s"] / peer["samples_per_s"]
            row["largest_loss_difference"] = largest_difference(peer["losses"], row["losses"])
            if not row["largest_loss_difference"] <= LARGEST_DIFFERENCE:
                problems.append(f"{model} {variant}: its losses differ by {row['largest_loss_difference']} from open_clip's")
        rows.append(row)
        print({name: value for name, value in row.items() if name != "losses"}, flush=True)
        found_versions = measure.versions("torch", "open_clip_torch", "accelerate")
        measure.write_result(options.out, "gpu_train", {**head, "problems": problems, "versions": found_versions, "rows": rows})

    # What matters first of every model, then the rest.
    for variants in (VARIANTS[:3], VARIANTS[3:]):
        for model, batch_size in models.items():
            course = Course(model, batch_size, steps, warmup_steps=4, precision="amp_bf16", device=DEVICE)
            measure_model(course, variants, backend, deadline_s, lambda *found, told=(model, batch_size): tell(*told, *found))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
