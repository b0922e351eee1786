"""Time and memory of the CLIP loss on one GPU, forward and backward: ours in tiles against `open_clip.loss.ClipLoss`.

    python -m benchmarks.gpu_loss          # writes benchmarks/results/gpu_loss.json; under a minute

Started by gpu.sh. Unit vectors in float32, 512 wide, without TF32. Memory is the allocator's peak over what it held with the inputs made.
Losses and gradients must agree to 1e-5 of the largest.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from benchmarks import measure
from rsvl_pretrain.losses import clip_loss

TOLERANCE, LARGEST_MEMORY_RATIO = 1e-5, 0.5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Options:
    """The tiled CLIP loss against open_clip's on one GPU."""

    out: Path = Path(os.environ.get("OUT", Path(__file__).parent / "results")) / "gpu_loss.json"
    """the result file"""
    batch_sizes: tuple[int, ...] = (8192, 32768)
    """pairs"""
    dim: int = 512
    """width of the embeddings"""
    passes: int = 5
    """forward and backward; the quickest counts"""
    smoke: bool = False
    """few pairs: shows on any machine that all of it runs"""


def run(loss_of: Callable[..., Tensor], batch_size: int, dim: int, passes: int) -> tuple[dict[str, float | None], list[Tensor]]:
    """What it took, and the loss with the gradients of images, texts and scale."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    image, text = (
        F.normalize(torch.randn(batch_size, dim, generator=generator, device=DEVICE), dim=1).requires_grad_() for _ in range(2)
    )
    scale = torch.tensor(30.0, device=DEVICE, requires_grad=True)
    inputs = [image, text, scale]
    loss_of(image[:64], text[:64], scale).backward()
    image.grad = text.grad = scale.grad = None
    on_gpu = DEVICE == "cuda"
    before = torch.cuda.memory_allocated() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(passes):
        image.grad = text.grad = scale.grad = None
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        loss = loss_of(*inputs)
        loss.backward()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    grown = (torch.cuda.max_memory_allocated() - before) / 2**20 if on_gpu else None
    gradients = [each.grad for each in inputs if each.grad is not None]
    return {"seconds": min(seconds), "grown_mib": grown}, [loss.detach(), *gradients]


def largest_difference(peer: list[Tensor], ours: list[Tensor]) -> float:
    """Of loss and gradients, relative to the largest entry of each. Raises RuntimeError above 1e-5."""
    difference = max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(peer, ours, strict=True))
    if not difference <= TOLERANCE:
        raise RuntimeError(f"loss or gradients differ by {difference} of the largest; {TOLERANCE} is allowed")
    return difference


def main(options: Options) -> int:
    torch.backends.cuda.matmul.allow_tf32 = False
    cases: list[dict[str, Any]] = []
    for batch_size in (64,) if options.smoke else options.batch_sizes:
        peer, theirs = run(open_clip.ClipLoss(), batch_size, options.dim, options.passes)
        ours, own = run(clip_loss, batch_size, options.dim, options.passes)
        case = {"batch_size": batch_size, "peer": peer, "ours": ours, "largest_difference": largest_difference(theirs, own)}
        for name, quantity in (("time_ratio", "seconds"), ("memory_ratio", "grown_mib")):
            mine, other = ours[quantity], peer[quantity]
            case[name] = mine / other if mine is not None and other else None  # a CPU's memory is not counted
        cases.append(case)
        print(case, flush=True)
        del theirs, own
    missed = [case["batch_size"] for case in cases if case["memory_ratio"] and case["memory_ratio"] > LARGEST_MEMORY_RATIO]
    gpu = torch.cuda.get_device_name() if DEVICE == "cuda" else "none: on the CPU"
    head = {"gpu": gpu, "dim": options.dim, "missed": missed, "versions": measure.versions("torch", "open_clip_torch")}
    measure.write_result(options.out, "gpu_loss", {**head, "cases": cases})
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
