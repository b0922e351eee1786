"""The loop: batches in, a run folder out.

RUN/metrics.jsonl   one line a step
RUN/checkpoints/    see checkpoint.py
RUN/export/         the trained model in open_clip's layout; with --train.ema-decay its averaged weights
RUN/export_raw/     then the weights of the last step
RUN/profile/        see step_profile.py
"""

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.profiler import record_function

from rsvl_data.errors import DataError, OptionError, RsvlError
from rsvl_data.loader import Batch, LoaderConfig, train_batches
from rsvl_data.shards import Dataset
from rsvl_pretrain.accumulate import CachedBatch
from rsvl_pretrain.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from rsvl_pretrain.ema import WeightEma
from rsvl_pretrain.engine import Precision, make_accelerator
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.optim import OptimConfig, learning_rate, make_optimizer, set_learning_rate
from rsvl_pretrain.run_log import RunLog, check_trackers
from rsvl_pretrain.step_profile import profiled
from rsvl_pretrain.stopping import StopRequest, naming_lost_processes

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
    ema_decay: float | None = None
    """also average the weights, this share of the average staying each step (0.9999 is usual for long runs); evaluations on val and
    the export see the average"""
    ema_warmup: bool = True
    """lower that share at first, to (1 + step) / (10 + step)"""
    tower_norms: bool = False
    """also log the gradient norm of each tower, before clipping"""
    trackers: tuple[str, ...] = ("tensorboard",)
    """besides metrics.jsonl: any of tensorboard, wandb, trackio, mlflow, aim, comet_ml, clearml, dvclive, swanlab"""
    profile: int = 0
    """record so many steps near the start with torch's profiler, into RUN/profile"""
    timeout_s: float = 1800.0
    """several processes end the run when one of them keeps the others waiting for longer"""

    def __post_init__(self) -> None:
        if min(self.steps, self.save_every, self.keep, self.accum_freq) < 1:
            raise OptionError("--train.steps, --train.save-every, --train.keep and --train.accum-freq must be 1 or more")
        if self.profile < 0 or self.timeout_s <= 0:
            raise OptionError(f"--train.profile {self.profile} must be 0 or more, --train.timeout-s {self.timeout_s} above 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise OptionError(f"--train.ema-decay {self.ema_decay} must be above 0 and below 1; leave it out for no average")


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
    """Train the encoder of `objective` and return it as exported to `out`/export.

    A run that was killed ends, when resumed, with the same weights bit for bit on a CPU. `evaluators` answer named numbers for the
    encoder as it is; they are called every `config.eval_every` steps and cannot change the run. SIGTERM ends it, with a checkpoint,
    after the step it is in: RsvlError.
    """
    optim = replace(optim, warmup=min(optim.warmup, max(config.steps // 10, 1)))
    check_trackers(config.trackers)
    accelerator = make_accelerator(config.precision, config.trackers, out, config.timeout_s)
    with naming_lost_processes(accelerator.num_processes):
        model, optimizer = accelerator.prepare(objective, make_optimizer(objective, optim))
        ema = WeightEma(objective, config.ema_decay, warmup=config.ema_warmup) if config.ema_decay else None
        identity = _identity(objective, dataset.sha256(split), config, optim, loader, seed)
        checkpoint = find_checkpoint(accelerator, out, resume)
        done = load_checkpoint(accelerator, checkpoint, json.loads(json.dumps(identity)), ema) if checkpoint else 0
        batches = train_batches(
            dataset,
            split,
            objective.encoder.preprocess,
            objective.encoder.tokenizer,
            loader,
            start_step=done,
            num_steps=config.steps - done,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        with (
            RunLog(accelerator, out, config.trackers, done, config.steps) as metrics,
            StopRequest() as stop,
            profiled(config.profile if accelerator.is_main_process else 0, out / "profile", objective) as end_of_step,
        ):
            parts = (accelerator, model, optimizer, objective, ema)
            for done, values, asked in _steps(*parts, batches, config, optim, loader.batch_size, seed, stop):
                metrics.write(done, values)
                if evaluators and config.eval_every and (done % config.eval_every == 0 or done == config.steps):
                    with ema.applied() if ema else nullcontext():
                        metrics.write(done, _evaluate(objective.encoder, evaluators))
                stopping = asked and done < config.steps
                if done % config.save_every == 0 or done == config.steps or stopping:
                    save_checkpoint(accelerator, out, done, identity, config.keep, ema)
                if stopping:
                    raise RsvlError(f"stopped by SIGTERM; the checkpoint of step {done} is saved. Go on with --resume latest.")
                end_of_step()
        _export(accelerator, objective.encoder, ema, out)
        accelerator.end_training()
    AcceleratorState._reset_state()  # else the next run in this process could not choose another precision
    return objective.encoder


def _steps(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: ClipObjective,
    ema: WeightEma | None,
    batches: Iterator[Batch],
    config: TrainConfig,
    optim: OptimConfig,
    batch_size: int,
    seed: int,
    stop: StopRequest,
) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Trains on each batch. Gives the number of steps done, the line for metrics.jsonl, and whether any process was asked to stop."""
    while True:
        clock = time.perf_counter()
        with record_function("data wait"):
            batch = next(batches, None)
        if batch is None:
            return
        data_wait_s = time.perf_counter() - clock
        _seed_step(seed, batch.step, accelerator.process_index)
        lr = learning_rate(batch.step, optim, config.steps)
        values, asked = _train_step(accelerator, model, optimizer, objective, batch, lr, optim.grad_clip_norm, config, stop)
        if ema:
            ema.update(batch.step)
        done, step_s = batch.step + 1, time.perf_counter() - clock
        timing = {"samples_per_s": batch_size / step_s, "step_s": step_s, "data_wait_s": data_wait_s}
        yield done, {**values, **timing, "epoch": batch.epoch, "samples_seen": done * batch_size}, asked


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout and the like draw from (seed, step, rank) alone: nothing of it need be saved, and any number of processes can go on."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()[:4])
    random.seed(number)
    np.random.seed(number)  # takes 32 bits
    torch.manual_seed(number)  # of every device


def _export(accelerator: Accelerator, encoder: DualEncoder, ema: WeightEma | None, out: Path) -> None:
    try:
        if ema and accelerator.is_main_process:
            encoder.export(out / "export_raw")
        if ema:
            ema.copy_to_weights()
        if accelerator.is_main_process:
            encoder.export(out / "export")
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the export could not be written: {error}. The last checkpoint is whole: make room and go on with --resume latest."
        ) from error


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
        "ema": [config.ema_decay, config.ema_warmup] if config.ema_decay else None,
    }


def _train_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: ClipObjective,
    batch: Batch,
    lr: float,
    grad_clip_norm: float | None,
    config: TrainConfig,
    stop: StopRequest,
) -> tuple[dict[str, Any], bool]:
    """One optimizer step, and whether any process was asked to stop. A loss or gradient that is not finite stops before the weights
    change."""
    encoder = objective.encoder
    model.train()
    set_learning_rate(optimizer, lr)
    with record_function("forward"):
        cached = CachedBatch(model, objective, batch, config.accum_freq) if config.accum_freq > 1 else None
        losses = cached.losses if cached else model(batch)
        means, keys_digest, stopping = _over_all_processes(accelerator, losses, batch, stop)
        _check_finite("loss", means["loss/total"], batch, losses.values())
    with record_function("backward"):
        if cached:
            cached.backward(accelerator)
        else:
            accelerator.backward(sum(losses.values()))
        norms = _tower_norms(objective) if config.tower_norms else {}
        norm = accelerator.clip_grad_norm_(model.parameters(), grad_clip_norm or math.inf).item()
        _check_finite("gradient norm", norm, batch, losses.values())
    with record_function("optimizer"):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            encoder.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
    shown = {"grad_norm": norm, **norms, "lr": lr, "logit_scale": encoder.logit_scale.item(), "keys_digest": keys_digest}
    return {**means, **shown}, stopping


def _over_all_processes(
    accelerator: Accelerator, losses: Mapping[str, Tensor], batch: Batch, stop: StopRequest
) -> tuple[dict[str, float], str, bool]:
    """In one exchange: losses named for metrics.jsonl with their total, the digest of the global batch, and whether to stop. The same
    on every process, so that all of them go on or stop together."""
    digest = _keys_digest(batch.keys, accelerator.process_index * len(batch.keys))
    # Halves of 32 bits, and a flag: sums of these over processes are exact in fp64.
    others = torch.tensor([digest >> 32, digest & 0xFFFFFFFF, stop.asked], dtype=torch.float64, device=accelerator.device)
    values = torch.stack([value.detach().double() for value in losses.values()])
    *sums, high, low, asked = accelerator.reduce(torch.cat([values, others]), reduction="sum").tolist()
    means = [total / accelerator.num_processes for total in sums]
    named = {**{f"loss/{name}": mean for name, mean in zip(losses, means)}, "loss/total": sum(means)}
    return named, f"{((int(high) << 32) + int(low)) % 2**64:016x}", bool(asked)


def _keys_digest(keys: Sequence[str], first_place: int) -> int:
    """64 bits. Digests of the parts of a batch add up to that of the whole, which says which sample came at which place."""
    hashes = (hashlib.blake2b(f"{place} {key}".encode(), digest_size=8) for place, key in enumerate(keys, first_place))
    return sum(int.from_bytes(each.digest()) for each in hashes) % 2**64


def _tower_norms(objective: ClipObjective) -> dict[str, float]:
    """Of the gradients of the image tower, the text tower and what belongs to neither."""
    gradients: dict[str, list[Tensor]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.grad is not None:
            shared = not name.startswith("encoder.model.") or name.rpartition(".")[2] in ("logit_scale", "logit_bias")
            tower = "other" if shared else "image" if name.startswith("encoder.model.visual.") else "text"
            gradients.setdefault(tower, []).append(parameter.grad)
    norms = {tower: torch.nn.utils.get_total_norm(grads) for tower, grads in gradients.items()}
    return {
        f"grad_norm/{tower}": (norm.full_tensor() if isinstance(norm, DTensor) else norm).item() for tower, norm in norms.items()
    }


def _check_finite(what: str, value: float, batch: Batch, own_losses: Iterable[Tensor]) -> None:
    """`value` is the same on every process. The samples are those of the processes whose own losses are not finite, or of all."""
    if math.isfinite(value):
        return
    finite = all(bool(loss.isfinite()) for loss in own_losses)
    parts = gather_object([(finite, batch.keys)])
    keys = [key for is_finite, part in parts for key in part if not is_finite] or [key for _, part in parts for key in part]
    raise DataError(
        f"the {what} became {value} at step {batch.step}; the weights were not changed. Samples of the batch: "
        f"{', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}. Lower --optim.lr or look at these samples."
    )


def _evaluate(encoder: DualEncoder, evaluators: Mapping[str, Evaluator]) -> dict[str, float]:
    """Leaves the mode as it was, and every step draws from a random state of its own, so a run with evaluations equals one without."""
    with torch.inference_mode():
        was_training = encoder.training
        encoder.eval()
        values = {f"{prefix}/{name}": value for prefix, run in evaluators.items() for name, value in run(encoder).items()}
        encoder.train(was_training)
    return values
