"""The loop: batches in, a run folder out.

RUN/metrics.jsonl   one line a step
RUN/checkpoints/    see checkpoint.py
RUN/export/         the trained model in open_clip's layout
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
from accelerate.utils import set_seed
from torch import Tensor

from rsvl_data.errors import DataError, OptionError
from rsvl_data.loader import Batch, LoaderConfig, train_batches
from rsvl_data.shards import Dataset
from rsvl_pretrain.accumulate import CachedBatch
from rsvl_pretrain.blocks import compile_blocks
from rsvl_pretrain.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from rsvl_pretrain.engine import (
    Precision,
    backward,
    clamp,
    engine_name,
    make_accelerator,
    prepare,
    step,
    whole_encoder,
    whole_spare,
)
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
    compile: bool = False
    """torch.compile for the transformer blocks of both towers: slow first steps, then faster ones; needs a C++ compiler"""
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

    def __post_init__(self) -> None:
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
    accelerator = make_accelerator(config.trackers, out)
    encoder, spare = objective.encoder, whole_spare(accelerator, objective.encoder)
    identity = _identity(objective, dataset.sha256(split), config, optim, loader, seed, engine_name(accelerator))
    if config.compile:
        compile_blocks(encoder)
    model, optimizer = prepare(
        accelerator,
        objective,
        make_optimizer(objective, optim),
        precision=config.precision,
        grad_clip_norm=optim.grad_clip_norm,
    )
    checkpoint = find_checkpoint(out, resume)
    done = load_checkpoint(accelerator, checkpoint, json.loads(json.dumps(identity))) if checkpoint else 0
    metrics = RunLog(accelerator, out / "metrics.jsonl", done, config.steps)
    batches = train_batches(
        dataset,
        split,
        encoder.preprocess,
        encoder.tokenizer,
        loader,
        start_step=done,
        num_steps=config.steps - done,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    with metrics:
        clock = time.perf_counter()
        for batch in batches:
            data_wait_s = time.perf_counter() - clock
            lr = learning_rate(batch.step, optim, config.steps)
            values = _train_step(accelerator, model, optimizer, objective, batch, lr, optim.grad_clip_norm, config.accum_freq)
            step_s = time.perf_counter() - clock
            timing = {"samples_per_s": loader.batch_size / step_s, "data_wait_s": data_wait_s}
            done = batch.step + 1
            metrics.write(done, {**values, **timing, "epoch": batch.epoch, "samples_seen": done * loader.batch_size})
            if evaluators and config.eval_every and (done % config.eval_every == 0 or done == config.steps):
                with whole_encoder(accelerator, encoder, spare) as whole:
                    metrics.write(done, _evaluate(whole, evaluators))
            if done % config.save_every == 0 or done == config.steps:
                save_checkpoint(accelerator, out, done, identity, config.keep)
            clock = time.perf_counter()
    with whole_encoder(accelerator, encoder, spare) as whole:
        if accelerator.is_main_process:
            whole.export(out / "export")
    accelerator.end_training()
    AcceleratorState._reset_state()  # else the next run in this process could not choose another precision
    return whole


def _identity(
    objective: ClipObjective,
    data_sha256: str,
    config: TrainConfig,
    optim: OptimConfig,
    loader: LoaderConfig,
    seed: int,
    engine: str,
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
        "engine": engine,
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
    model.train()
    set_learning_rate(optimizer, lr)
    cached = CachedBatch(model, objective, batch, accum_freq) if accum_freq > 1 else None
    losses = cached.losses if cached else model(batch)
    means = _over_all_processes(accelerator, losses)
    _check_finite("loss", means["loss/total"], batch)
    if cached:
        cached.backward(accelerator)
    else:
        backward(accelerator, model, torch.stack(list(losses.values())).sum())
    norm = step(accelerator, model, optimizer, grad_clip_norm)
    _check_finite("gradient norm", norm, batch)
    log_scale = clamp(accelerator, objective.encoder.model.logit_scale, 0, MAX_LOGIT_SCALE)
    return {**means, "grad_norm": norm, "lr": lr, "logit_scale": math.exp(log_scale)}


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
    with torch.random.fork_rng(), torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        was_training = encoder.training
        encoder.eval()
        values = {f"{prefix}/{name}": value for prefix, run in evaluators.items() for name, value in run(encoder).items()}
        encoder.train(was_training)
    return values
