"""The largest batch that one GPU holds, in training steps of our trainer's objective and of open_clip's model and loss.

    python -m benchmarks.gpu_memory          # writes benchmarks/results/gpu_memory.json; two minutes at most

Started by gpu.sh. A batch fits when two whole steps in bf16 with AdamW's state end. Sizes double up to the first that does not fit, then
the gap is halved to an eighth of its lower end. Where the cap or the time ends the search, the number found is a lower bound.
"""

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import tyro

from benchmarks import measure
from benchmarks.remote_sensing_captions import captions
from benchmarks.trainers import OPTIM, Course, new_model, open_clip_optimizer
from rsvl_data.loader import Batch
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.optim import make_optimizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Callable[[int], None]
"""One training step with so many samples."""


@dataclass(frozen=True)
class Options:
    """The largest batch that fits, ours and open_clip's."""

    out: Path = Path(os.environ.get("OUT", Path(__file__).parent / "results")) / "gpu_memory.json"
    """the result file, written anew after each search"""
    models: tuple[str, ...] = ("ViT-B-32", "ViT-L-14")
    """open_clip architectures"""
    first: int = 256
    """samples of the first step"""
    cap: int = 32768
    """the largest number tried"""
    budget_s: float = 110
    """of all searches together; each gets an equal part of what is left"""
    smoke: bool = False
    """the tiny model with a few samples: shows on any machine that all of it runs"""


def largest_that_fits(fits: Callable[[int], bool], first: int, cap: int, deadline_s: float) -> dict[str, Any]:
    """`fails_at` is None when no size failed: then the search met the cap or the deadline (of `time.monotonic`)."""
    size, held, failed = first, 0, None
    while size <= cap and time.monotonic() < deadline_s:
        if fits(size):
            held = size
        else:
            failed = size
        if failed is None:
            size = size * 2 if size * 2 <= cap or size == cap else cap
            continue
        if failed - held <= max(held // 8, 1):
            break
        size = (held + failed) // 2
    return {"batch_size": held, "fails_at": failed}


def our_step(model: str, grad_checkpointing: bool) -> Step:
    encoder = DualEncoder.load(model, device=DEVICE)
    encoder.model.set_grad_checkpointing(grad_checkpointing)
    objective = ClipObjective(encoder).train()
    optimizer = make_optimizer(objective, OPTIM)
    tokens, size_px = encoder.tokenizer(captions(256)), encoder.preprocess.size

    def step(num: int) -> None:
        images = torch.zeros(num, 3, size_px, size_px, dtype=torch.uint8, device=DEVICE)
        own = tokens.repeat(-(-num // len(tokens)), 1)[:num]
        with torch.autocast(DEVICE, torch.bfloat16):
            losses = objective(Batch(0, 0, [], images, [], own, []))
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def open_clip_step(model: str, grad_checkpointing: bool) -> Step:
    course = Course(model, 1, 1, precision="amp_bf16", device=DEVICE, grad_checkpointing=grad_checkpointing)
    encoder = new_model(course).train()
    optimizer, loss_of = open_clip_optimizer(encoder, OPTIM), open_clip.ClipLoss()
    tokens, size_px = open_clip.get_tokenizer(model)(captions(256)), encoder.visual.image_size[0]

    def step(num: int) -> None:
        images = torch.zeros(num, 3, size_px, size_px, device=DEVICE)
        own = tokens.repeat(-(-num // len(tokens)), 1)[:num].to(DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = loss_of(**encoder(images, own))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def search(step: Step, first: int, cap: int, deadline_s: float) -> dict[str, Any]:
    def fits(num: int) -> bool:
        try:
            step(num)
            step(num)
            if DEVICE == "cuda":
                torch.cuda.synchronize()
        except torch.OutOfMemoryError:
            return False
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        return True

    return largest_that_fits(fits, first, cap, deadline_s)


def main(options: Options) -> int:
    models, first, cap = options.models, options.first, options.cap
    if options.smoke:
        models, first, cap = ("rsvl-tiny",), 2, 4
    cases = [(model, checkpointing, role) for checkpointing in (False, True) for model in models for role in ("peer", "ours")]
    end_s = time.monotonic() + options.budget_s
    rows: list[dict[str, Any]] = []
    for index, (model, checkpointing, role) in enumerate(cases):
        deadline_s = time.monotonic() + (end_s - time.monotonic()) / (len(cases) - index)
        step = (our_step if role == "ours" else open_clip_step)(model, checkpointing)
        row = {"model": model, "grad_checkpointing": checkpointing, "contender": role, **search(step, first, cap, deadline_s)}
        del step
        rows.append(row)
        print(row, flush=True)
        gpu = torch.cuda.get_device_name() if DEVICE == "cuda" else "none: on the CPU"
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if DEVICE == "cuda" else None
        head = {"gpu": gpu, "gpu_memory_gib": memory, "cap": cap, "versions": measure.versions("torch", "open_clip_torch")}
        measure.write_result(options.out, "gpu_memory", {**head, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
