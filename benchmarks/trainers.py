"""Two trainers on the same batches with the same clock: open_clip 3.3.0's `train_one_epoch`, and ours.

Each takes its batches from an iterator of ours, which reads the clock whenever the trainer asks for the next one: the time between two
questions is a whole step, waiting for data and logging included. After the last step the trainer is left where it asks for more, before it
writes a checkpoint.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import open_clip
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from benchmarks.remote_sensing_captions import captions
from rsvl_data.loader import Batch, LoaderConfig
from rsvl_data.shards import Dataset
from rsvl_pretrain.engine import Precision
from rsvl_pretrain.model import CONFIG_FOLDER, DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig, train

OPTIM = OptimConfig(lr=1e-4, warmup=2)
Data = Iterable[tuple[Tensor, Tensor]]
"""Normalised images and tokens, as open_clip's loaders give them."""


@dataclass(frozen=True)
class Course:
    """What both trainers are told."""

    model: str
    batch_size: int
    steps: int
    """steps in all; the first `warmup_steps` are not timed"""
    warmup_steps: int = 2
    precision: Precision = "fp32"
    device: str = "cpu"
    grad_checkpointing: bool = False

    @property
    def planned_steps(self) -> int:
        """One more than are done, so that no trainer comes to its end."""
        return self.steps + 1

    @property
    def optim(self) -> OptimConfig:
        return replace(OPTIM, warmup=min(OPTIM.warmup, max(self.planned_steps // 10, 1)))


class Finished(Exception):
    """All steps are done."""


class Clock:
    """Hands on batches and notes when they were asked for. `look` sees each of them."""

    def __init__(self, course: Course, look: Callable[[Any], None] | None = None):
        self.course, self.look, self.asked_s = course, look, list[float]()

    def batches(self, source: Iterable[Any]) -> Iterator[Any]:
        iterator = iter(source)
        while True:
            step = len(self.asked_s)
            if self.course.device == "cuda" and step in (self.course.warmup_steps, self.course.steps):
                torch.cuda.synchronize()
            self.asked_s.append(time.perf_counter())
            if step == self.course.steps:
                raise Finished
            batch = next(iterator)
            if self.look:
                self.look(batch)
            yield batch

    @property
    def samples_per_s(self) -> float:
        timed = self.asked_s[self.course.warmup_steps :]
        return self.course.batch_size * (len(timed) - 1) / (timed[-1] - timed[0])


def random_batches(course: Course, tokenize: Callable[[list[str]], Tensor], count: int, image_px: int = 224) -> list[Batch]:
    """Smooth coloured noise and remote-sensing captions, the same for the same numbers. Pinned where there is a GPU."""
    generator = torch.Generator().manual_seed(0)
    texts = captions(count * course.batch_size)
    batches = []
    for step in range(count):
        coarse = torch.randint(0, 256, (course.batch_size, 3, 8, 8), generator=generator, dtype=torch.uint8)
        images = torch.nn.functional.interpolate(coarse, size=image_px, mode="nearest")
        own = texts[step * course.batch_size : (step + 1) * course.batch_size]
        batch = Batch(
            step=step,
            epoch=0,
            keys=[f"{step}-{row}" for row in range(course.batch_size)],
            images=images,
            texts=own,
            tokens=tokenize(own),
            labels=[None] * course.batch_size,
        )
        batches.append(batch.pin_memory() if course.device == "cuda" else batch)
    return batches


def repeated(batches: list[Batch]) -> Iterator[Batch]:
    """Numbered from 0, without end."""
    step = 0
    while True:
        yield replace(batches[step % len(batches)], step=step)
        step += 1


def new_model(course: Course) -> Any:
    """open_clip's model with the weights of seed 0, those that `train_with_ours` begins with as well."""
    open_clip.add_model_config(CONFIG_FOLDER)
    torch.manual_seed(0)
    model = open_clip.create_model(course.model, precision=course.precision, device=course.device, output_dict=True)
    if course.grad_checkpointing:
        model.set_grad_checkpointing()
    return model


def train_with_open_clip(course: Course, data: Data, clock: Clock, *, model: Any = None) -> list[float]:
    """The loss of each step. What `open_clip_train.main` would make of our options: AdamW in two groups, cosine with warm-up,
    clipping. `model` is that of `new_model` when left out."""
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    model = new_model(course) if model is None else model
    optim, losses = course.optim, list[Tensor]()
    contrastive = open_clip.ClipLoss()

    def loss(**outputs: Any) -> dict[str, Tensor]:
        found = contrastive(**outputs)
        losses.append(found["contrastive_loss"].detach())
        return found

    optimizer = open_clip_optimizer(model, optim)
    scheduler = cosine_lr(optimizer, optim.lr, optim.warmup, course.planned_steps)
    loader = _Loader(clock.batches(data), course.planned_steps, course.planned_steps * course.batch_size)
    split = SimpleNamespace(dataloader=loader, set_epoch=lambda _: None)
    args = SimpleNamespace(
        device=course.device,
        precision=course.precision,
        batch_size=course.batch_size,
        grad_clip_norm=optim.grad_clip_norm,
        accum_freq=1,
        log_every_n_steps=100,  # their default
        rank=0,
        world_size=1,
        distill=False,
        skip_scheduler=False,
        horovod=False,
        wandb=False,
    )
    try:
        train_one_epoch(model, {"train": split}, loss, 0, optimizer, None, scheduler, None, args)
    except Finished:
        return [value.item() for value in losses]
    raise RuntimeError(f"open_clip's trainer asked for fewer than {course.planned_steps} batches")


@dataclass
class _Loader:
    batches: Iterator[Any]
    num_batches: int
    num_samples: int

    def __iter__(self) -> Iterator[Any]:
        return self.batches


def open_clip_optimizer(model: Any, optim: OptimConfig) -> torch.optim.Optimizer:
    """As `open_clip_train/main.py` of 3.3.0 makes it (lines 335 to 352)."""

    def exempt(name: str, parameter: Tensor) -> bool:
        return parameter.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))

    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if exempt(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not exempt(n, p)], "weight_decay": optim.wd},
    ]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps)


def train_with_ours(
    course: Course,
    out: Path,
    clock: Clock,
    batches: Iterable[Batch] | None = None,
    *,
    dataset: Dataset | None = None,
    loader: LoaderConfig | None = None,
    prepare: Callable[[DualEncoder], None] | None = None,
) -> list[float]:
    """The loss of each step of `rsvl_pretrain.train.train`, on `batches` or on the shards of `dataset`. `prepare` may change the
    encoder first."""
    from rsvl_pretrain import train as trainer

    torch.manual_seed(0)
    encoder = DualEncoder.load(course.model, device=course.device)
    encoder.model.set_grad_checkpointing(course.grad_checkpointing)
    if prepare:
        prepare(encoder)
    own_batches = trainer.train_batches

    def timed(*arguments: Any, **options: Any) -> Iterator[Batch]:
        return clock.batches(own_batches(*arguments, **options) if batches is None else batches)

    config = TrainConfig(steps=course.planned_steps, precision=course.precision, save_every=course.planned_steps, trackers=())
    try:
        with mock.patch.object(trainer, "train_batches", timed):
            train(
                ClipObjective(encoder),
                dataset or Dataset(out, {"splits": {}, "shards": []}),
                out,
                config=config,
                optim=course.optim,
                loader=loader or LoaderConfig(course.batch_size),
            )
    except Finished:
        AcceleratorState._reset_state()  # else the next run in this process could not choose another precision
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [line["loss/total"] for line in lines]
    raise RuntimeError(f"our trainer asked for fewer than {course.planned_steps} batches")


def largest_difference(peer: list[float], ours: list[float]) -> float:
    """Of two loss curves, step by step, relative to the peer's loss. Raises RuntimeError for curves of different lengths."""
    if len(peer) != len(ours):
        raise RuntimeError(f"the peer did {len(peer)} steps, ours {len(ours)}")
    return max(abs(a - b) / abs(a) for a, b in zip(peer, ours, strict=True))
