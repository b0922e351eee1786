"""The loop: batches in, a run folder out.

RUN/metrics.jsonl     one line a step
RUN/quarantine.jsonl  the samples that could not be used, in whose place others were
RUN/checkpoints/      see checkpoint.py
RUN/export/           the trained model in open_clip's layout; with --train.ema-decay its averaged weights
RUN/export_raw/       then the weights of the last step
RUN/profile/          see step_profile.py
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch.profiler import record_function

from rsvl_data.errors import DataError, OptionError, RsvlError
from rsvl_data.loader import Batch, LoaderConfig, train_batches, worker_deaths_named
from rsvl_data.quarantine import BadSample, Quarantine, most_bad_samples
from rsvl_data.shards import Dataset
from rsvl_pretrain import engine
from rsvl_pretrain.blocks import compile_blocks
from rsvl_pretrain.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from rsvl_pretrain.ema import WeightEma
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import Objective
from rsvl_pretrain.optim import OptimConfig, learning_rate, make_optimizer
from rsvl_pretrain.run_log import RunLog, check_trackers
from rsvl_pretrain.step_profile import profiled
from rsvl_pretrain.stopping import StopRequest, naming_full_disk, naming_lost_processes
from rsvl_pretrain.train_step import TrainState, seed_step, train_step

Evaluator = Callable[[DualEncoder], Mapping[str, float]]


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 1000
    """optimizer steps in all"""
    precision: engine.Precision = "fp32"
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
    ema_decay: float | None = None
    """also average the weights, this share of the average staying each step (0.9999 is usual for long runs); evaluations on val and
    the export see the average"""
    ema_warmup: bool = True
    """lower that share at first, to (1 + step) / (10 + step)"""
    tower_norms: bool = False
    """also log the gradient norm of each tower, before clipping"""
    term_norms: bool = False
    """also log the gradient norm of each term of the loss, which takes one more backward pass a term"""
    trackers: tuple[str, ...] = ("tensorboard",)
    """besides metrics.jsonl: any of tensorboard, wandb, trackio, mlflow, aim, comet_ml, clearml, dvclive, swanlab"""
    profile: int = 0
    """record so many steps near the start with torch's profiler, into RUN/profile"""
    timeout_s: float = 1800.0
    """several processes end the run when one of them keeps the others waiting for longer"""

    max_bad_samples: float = 0.001
    """samples that may be unusable (corrupt shard, unreadable image, no caption) and are replaced by others of the split; one more stops
    the run. Below 1 a fraction of the split, rounded up; from 1 on a count; 0 stops at the first. They are listed in quarantine.jsonl"""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_samples < math.inf:
            raise OptionError(f"--train.max-bad-samples is {self.max_bad_samples}; it must be 0 or more")
        if min(self.steps, self.save_every, self.keep, self.accum_freq) < 1:
            raise OptionError("--train.steps, --train.save-every, --train.keep and --train.accum-freq must be 1 or more")
        if self.term_norms and self.accum_freq > 1:
            raise OptionError("--train.term-norms needs the whole batch at once; leave it out, or --train.accum-freq")
        if self.profile < 0 or self.timeout_s <= 0:
            raise OptionError(f"--train.profile {self.profile} must be 0 or more, --train.timeout-s {self.timeout_s} above 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise OptionError(f"--train.ema-decay {self.ema_decay} must be above 0 and below 1; leave it out for no average")


def train(
    objective: Objective,
    dataset: Dataset,
    out: Path,
    *,
    config: TrainConfig,
    optim: OptimConfig,
    loader: LoaderConfig,
    seed: int = 0,
    resume: str | None = None,
    evaluators: Mapping[str, Evaluator] | None = None,
    on_start: Callable[[], None] | None = None,
    split: str = "train",
) -> DualEncoder:
    """Train the encoder of `objective` and return it as exported to `out`/export.

    A run that was killed ends, when resumed, with the same weights bit for bit on a CPU. `evaluators` answer named numbers for the
    encoder as it is; they are called every `config.eval_every` steps and cannot change the run. SIGTERM ends it, with a checkpoint,
    after the step it is in: RsvlError. The main process calls `on_start` once it is sure that the run may begin or go on, before it
    writes anything.
    """
    optim = replace(optim, warmup=min(optim.warmup, max(config.steps // 10, 1)))
    check_trackers(config.trackers)
    accelerator = engine.make_accelerator(config.trackers, out, config.timeout_s)
    identity = _identity(objective, dataset.sha256(split), config, optim, loader, seed, engine.engine_name(accelerator))
    with naming_lost_processes(accelerator.num_processes):
        state = _prepared(accelerator, objective, config, optim)
        done = _loaded(state, out, resume, identity)
        batches = _batches(state, dataset, split, config, loader, done)
        if on_start and accelerator.is_main_process:
            on_start()
        quarantine = _quarantine(
            accelerator, out / "quarantine.jsonl", done, config.max_bad_samples, dataset.splits.get(split, 0)
        )
        with (
            RunLog(accelerator, out, config.trackers, done, config.steps) as log,
            StopRequest() as stop,
            worker_deaths_named(),
            naming_full_disk(),
            profiled(config.profile if accelerator.is_main_process else 0, out / "profile", objective) as end_of_step,
        ):
            for done, values, asked in _steps(state, batches, quarantine, config, optim, loader.batch_size, seed, stop):
                log.write(done, values)
                if evaluators and config.eval_every and (done % config.eval_every == 0 or done == config.steps):
                    log.write(done, _evaluate(state, evaluators))
                stopping = asked and done < config.steps
                if done % config.save_every == 0 or done == config.steps or stopping:
                    save_checkpoint(accelerator, out, done, identity, config.keep, state.ema)
                if stopping:
                    raise RsvlError(f"stopped by SIGTERM; the checkpoint of step {done} is saved. Go on with --resume latest.")
                end_of_step()
        encoder = _export(state, out)
        accelerator.end_training()
    AcceleratorState._reset_state()  # else the next run in this process could not choose another engine
    return encoder


def _prepared(accelerator: Accelerator, objective: Objective, config: TrainConfig, optim: OptimConfig) -> TrainState:
    if config.tower_norms and engine.is_deepspeed(accelerator):
        raise OptionError("--train.tower-norms: DeepSpeed does not show the gradients; leave it out, or use DDP or FSDP2")
    if config.term_norms and engine.is_wrapped(accelerator):
        raise OptionError("--train.term-norms needs whole weights on each process; leave it out, or use one process or DDP")
    spare = engine.whole_spare(accelerator, objective.encoder)
    if config.compile:
        compile_blocks(objective.encoder)
    model, optimizer = engine.prepare(
        accelerator,
        objective,
        make_optimizer(objective, optim, objective.lr_shares),
        precision=config.precision,
        grad_clip_norm=optim.grad_clip_norm,
    )
    ema = WeightEma(objective, config.ema_decay, warmup=config.ema_warmup) if config.ema_decay else None
    return TrainState(accelerator, objective, model, optimizer, ema, spare)


def _loaded(state: TrainState, out: Path, resume: str | None, identity: dict[str, Any]) -> int:
    """The number of steps done: 0 for a fresh start."""
    checkpoint = find_checkpoint(state.accelerator, out, resume)
    if checkpoint is None:
        return 0
    done = load_checkpoint(state.accelerator, checkpoint, json.loads(json.dumps(identity)), state.ema)
    engine.after_loading(state.accelerator, state.model)
    return done


def _batches(
    state: TrainState, dataset: Dataset, split: str, config: TrainConfig, loader: LoaderConfig, done: int
) -> Iterator[Batch]:
    return train_batches(
        dataset,
        split,
        state.objective.encoder.preprocess,
        state.objective.encoder.tokenizer,
        replace(loader, bad_samples="replace" if config.max_bad_samples else "raise"),
        start_step=done,
        num_steps=config.steps - done,
        rank=state.accelerator.process_index,
        world_size=state.accelerator.num_processes,
    )


def _steps(
    state: TrainState,
    batches: Iterator[Batch],
    quarantine: Quarantine,
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
        quarantine.add(_of_all_processes(state.accelerator, batch.bad))
        seed_step(seed, batch.step, state.accelerator.process_index)
        values, asked = train_step(
            state,
            batch,
            learning_rate(batch.step, optim, config.steps),
            grad_clip_norm=optim.grad_clip_norm,
            accum_freq=config.accum_freq,
            tower_norms=config.tower_norms,
            of_terms=config.term_norms,
            stop=stop,
        )
        done, step_s = batch.step + 1, time.perf_counter() - clock
        timing = {"samples_per_s": batch_size / step_s, "step_s": step_s, "data_wait_s": data_wait_s}
        seen = {"epoch": batch.epoch, "samples_seen": done * batch_size, "bad_samples": len(quarantine)}
        yield done, {**values, **timing, **seen}, asked


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


def _export(state: TrainState, out: Path) -> DualEncoder:
    """The encoder that was exported: with the averaged weights, if there are any."""
    is_main = state.accelerator.is_main_process
    try:
        if state.ema:
            with state.whole_encoder() as encoder:
                if is_main:
                    encoder.export(out / "export_raw")
            state.ema.copy_to_weights()
        with state.whole_encoder() as encoder:
            if is_main:
                encoder.export(out / "export")
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the export could not be written: {error}. The last checkpoint is whole: make room and go on with --resume latest."
        ) from error
    return encoder


def _identity(
    objective: Objective,
    data_sha256: str,
    config: TrainConfig,
    optim: OptimConfig,
    loader: LoaderConfig,
    seed: int,
    engine_name: str,
) -> dict[str, Any]:
    """What a continued run must share with the one before."""
    return {
        "dataset": data_sha256,
        "model": objective.encoder.config,
        "trained_parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad),
        "seed": seed,
        "steps": config.steps,
        **objective.identity(),
        "optim": asdict(optim),
        "batch_size": loader.batch_size,
        **({"crops": {name: asdict(crops) for name, crops in loader.crops.items()}} if loader.crops else {}),
        "precision": config.precision,
        "engine": engine_name,
        "ema": [config.ema_decay, config.ema_warmup] if config.ema_decay else None,
    }


def _evaluate(state: TrainState, evaluators: Mapping[str, Evaluator]) -> dict[str, float]:
    """Of the averaged weights, if there are any. It leaves weights and mode as they were, and every step draws from a random state of its
    own, so a run with evaluations equals one without."""
    averaged = state.ema.applied() if state.ema else nullcontext()
    with averaged, state.whole_encoder() as encoder, torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        was_training = encoder.training
        encoder.eval()
        values = {f"{prefix}/{name}": value for prefix, run in evaluators.items() for name, value in run(encoder).items()}
        encoder.train(was_training)
    return values
