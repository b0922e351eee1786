"""The loop: batches in, a run folder out.

RUN/metrics.jsonl     one line a step
RUN/quarantine.jsonl  the samples that could not be used, in whose place others were
RUN/checkpoints/      see checkpoint.py
RUN/export/           the trained model in open_clip's layout
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object, set_seed
from torch import Tensor

from rsvl_data.errors import DataError, OptionError
from rsvl_data.loader import Batch, LoaderConfig, train_batches, worker_deaths_named
from rsvl_data.quarantine import BadSample, Quarantine, most_bad_samples
from rsvl_data.shards import Dataset
from rsvl_pretrain.accumulate import CachedBatch
from rsvl_pretrain.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from rsvl_pretrain.engine import Precision, make_accelerator
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.optim import OptimConfig, learning_rate, make_optimizer, set_learning_rate
from rsvl_pretrain.run_log import RunLog

MAX_LOGIT_SCALE = math.log(100)  # CLIP, arXiv:2103.00020, section 2.5
Evaluator = Callable[[DualEncoder], Mapping[str, float]]


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 1000
    """optimizer steps in all"""
    precision: Precision = "fp32"
    """of the forward pass; weights and losses stay in fp32"""
    accum_freq: int = 1
    """pieces in which each process embeds its part of the batch, for batches that do not fit; every sample still meets all others"""
    save_every: int = 200
    """steps between checkpoints; the last step is always saved"""
    keep: int = 2
    """newest checkpoints that stay"""
    eval_every: int = 0
    """steps between evaluations on val; 0 never"""
    trackers: tuple[str, ...] = ("tensorboard",)
    """besides metrics.jsonl: any name accelerate knows"""
    max_bad_samples: float = 0.001
    """samples that may be unusable (corrupt shard, unreadable image, no caption) and are replaced by others of the split; one more stops
    the run. Below 1 a fraction of the split, rounded up; from 1 on a count; 0 stops at the first. They are listed in quarantine.jsonl"""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_samples < math.inf:
            raise OptionError(f"--train.max-bad-samples is {self.max_bad_samples}; it must be 0 or more")
        if min(self.steps, self.save_every, self.keep, self.accum_freq) < 1:
            raise OptionError("--train.steps, --train.save-every, --train.keep and --train.accum-freq must be 1 or more")


def train(
    objective: ClipObjective,
    dataset: Dataset,
    out: Path,
    *,
    config: TrainConfig,
    optim: OptimConfig,
    loader: LoaderConfig,
    seed: int = 0,
    resume: str | None = None,
    evaluators: Mapping[str, Evaluator] | None = None,
    split: str = "train",
) -> DualEncoder:
    """Train the encoder of `objective` and return it; its export lies in `out`/export.

    A run that was killed ends, when resumed, with the same weights bit for bit on a CPU. `evaluators` answer named numbers for the
    encoder as it is; they are called every `config.eval_every` steps and cannot change the run.
    """
    optim = replace(optim, warmup=min(optim.warmup, max(config.steps // 10, 1)))
    set_seed(seed)
    accelerator = make_accelerator(config.precision, config.trackers, out)
    model, optimizer = accelerator.prepare(objective, make_optimizer(objective, optim))
    encoder = objective.encoder
    identity = _identity(objective, dataset.sha256(split), config, optim, loader, seed)
    checkpoint = find_checkpoint(out, resume)
    done = load_checkpoint(accelerator, checkpoint, json.loads(json.dumps(identity))) if checkpoint else 0
    metrics = RunLog(accelerator, out / "metrics.jsonl", done, config.steps)
    quarantine = _quarantine(accelerator, out / "quarantine.jsonl", done, config.max_bad_samples, dataset.splits.get(split, 0))
    batches = train_batches(
        dataset,
        split,
        encoder.preprocess,
        encoder.tokenizer,
        replace(loader, bad_samples="replace" if config.max_bad_samples else "raise"),
        start_step=done,
        num_steps=config.steps - done,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    with metrics, worker_deaths_named():
        clock = time.perf_counter()
        for batch in batches:
            data_wait_s = time.perf_counter() - clock
            quarantine.add(_of_all_processes(accelerator, batch.bad))
            lr = learning_rate(batch.step, optim, config.steps)
            values = _train_step(accelerator, model, optimizer, objective, batch, lr, optim.grad_clip_norm, config.accum_freq)
            step_s = time.perf_counter() - clock
            timing = {"samples_per_s": loader.batch_size / step_s, "data_wait_s": data_wait_s}
            done = batch.step + 1
            seen = {"epoch": batch.epoch, "samples_seen": done * loader.batch_size, "bad_samples": len(quarantine)}
            metrics.write(done, {**values, **timing, **seen})
            if evaluators and config.eval_every and (done % config.eval_every == 0 or done == config.steps):
                metrics.write(done, _evaluate(encoder, evaluators))
            if done % config.save_every == 0 or done == config.steps:
                save_checkpoint(accelerator, out, done, identity, config.keep)
            clock = time.perf_counter()
    if accelerator.is_main_process:
        encoder.export(out / "export")
    accelerator.end_training()
    AcceleratorState._reset_state()  # else the next run in this process could not choose another precision
    return encoder


def _quarantine(accelerator: Accelerator, path: Path, done: int, allowed: float, num_samples: int) -> Quarantine:
    known = Quarantine.read(path, done)
    accelerator.wait_for_everyone()  # before the main process writes it anew
    return Quarantine(known, path if accelerator.is_main_process else None, most_bad_samples(allowed, num_samples))


def _of_all_processes(accelerator: Accelerator, bad: list[BadSample]) -> list[BadSample]:
    """In the order of the batch, on every process, so that all of them stop together. Where there are none it costs one number."""
    if accelerator.num_processes == 1:
        return bad
    if not accelerator.reduce(torch.tensor(len(bad), device=accelerator.device)).item():
        return []
    return gather_object(bad)


def _identity(
    objective: ClipObjective, data_sha256: str, config: TrainConfig, optim: OptimConfig, loader: LoaderConfig, seed: int
) -> dict[str, Any]:
    """What a continued run must share with the one before."""
    return {
        "dataset": data_sha256,
        "model": objective.encoder.config,
        "trained_parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad),
        "seed": seed,
        "steps": config.steps,
        "contrastive": asdict(objective.config),
        "optim": asdict(optim),
        "batch_size": loader.batch_size,
        "precision": config.precision,
    }


def _train_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: ClipObjective,
    batch: Batch,
    lr: float,
    grad_clip_norm: float | None,
    accum_freq: int,
) -> dict[str, float]:
    """One optimizer step. A loss or gradient that is not finite stops before the weights change."""
    encoder = objective.encoder
    model.train()
    set_learning_rate(optimizer, lr)
    cached = CachedBatch(model, objective, batch, accum_freq) if accum_freq > 1 else None
    losses = cached.losses if cached else model(batch)
    means = _over_all_processes(accelerator, losses)
    _check_finite("loss", means["loss/total"], batch)
    if cached:
        cached.backward(accelerator)
    else:
        accelerator.backward(sum(losses.values()))
    norm = accelerator.clip_grad_norm_(model.parameters(), grad_clip_norm or math.inf).item()
    _check_finite("gradient norm", norm, batch)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        encoder.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
    return {**means, "grad_norm": norm, "lr": lr, "logit_scale": encoder.logit_scale.item()}


def _over_all_processes(accelerator: Accelerator, losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Named for metrics.jsonl, with their total: the same numbers on every process, so that all of them go on or stop together."""
    values = torch.stack([value.detach().float() for value in losses.values()])
    means = accelerator.reduce(values, reduction="mean").tolist()
    return {**{f"loss/{name}": mean for name, mean in zip(losses, means)}, "loss/total": sum(means)}


def _check_finite(what: str, value: float, batch: Batch) -> None:
    if not math.isfinite(value):
        raise DataError(
            f"the {what} became {value} at step {batch.step}; the weights were not changed. Samples of the batch: "
            f"{', '.join(batch.keys[:8])}{', ...' if len(batch.keys) > 8 else ''}. Lower --optim.lr or look at these samples."
        )


def _evaluate(encoder: DualEncoder, evaluators: Mapping[str, Evaluator]) -> dict[str, float]:
    """Leaves mode and random state as they were, so a run with evaluations equals one without."""
    with torch.random.fork_rng(), torch.inference_mode():
        was_training = encoder.training
        encoder.eval()
        values = {f"{prefix}/{name}": value for prefix, run in evaluators.items() for name, value in run(encoder).items()}
        encoder.train(was_training)
    return values
