"""One step of training: a batch in, other weights and a line of numbers out."""

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.profiler import record_function

from rsvl_data.errors import DataError
from rsvl_data.loader import Batch
from rsvl_pretrain import engine
from rsvl_pretrain.accumulate import CachedBatch
from rsvl_pretrain.ema import WeightEma
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import Objective
from rsvl_pretrain.optim import set_learning_rate
from rsvl_pretrain.stopping import StopRequest
from rsvl_pretrain.term_norms import term_norms

MAX_LOGIT_SCALE = math.log(100)  # CLIP, arXiv:2103.00020, section 2.5


@dataclass(frozen=True)
class TrainState:
    """All that a step changes.

    model       `objective` as the engine wraps it: what is called
    ema         running mean of the weights, if asked for
    spare       a second encoder, where the engine spreads the weights of the first (`engine.whole_spare`)
    """

    accelerator: Accelerator
    objective: Objective
    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: WeightEma | None
    spare: DualEncoder | None

    @contextmanager
    def whole_encoder(self) -> Iterator[DualEncoder]:
        """The encoder with all of its weights on this process; every process must enter."""
        with engine.whole_encoder(self.accelerator, self.objective.encoder, self.spare) as encoder:
            yield encoder


def seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout and the like draw from (seed, step, rank) alone: nothing of it need be saved, and any number of processes can go on."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()[:4])
    random.seed(number)
    np.random.seed(number)  # takes 32 bits
    torch.manual_seed(number)  # of every device


def train_step(
    state: TrainState,
    batch: Batch,
    lr: float,
    *,
    grad_clip_norm: float | None,
    accum_freq: int,
    tower_norms: bool,
    of_terms: bool,
    stop: StopRequest,
) -> tuple[dict[str, Any], bool]:
    """The numbers of one optimizer step, and whether any process was asked to stop. `of_terms` asks for the gradient norm of each term.

    Raises DataError for a loss or gradient that is not finite, before the weights change.
    """
    accelerator, objective = state.accelerator, state.objective
    state.model.train()
    set_learning_rate(state.optimizer, lr)
    with record_function("forward"):
        cached = CachedBatch(state.model, objective, batch, accum_freq) if accum_freq > 1 else None
        losses = cached.losses if cached else state.model(batch)
        means, keys_digest, stopping = _over_all_processes(accelerator, objective, losses, batch, stop.asked)
        _check_finite("loss", means["loss/total"], batch, objective.terms(losses).values())
    norms: dict[str, float] = {}
    with record_function("backward"):
        if cached:
            cached.backward(accelerator)
        else:
            norms.update(term_norms(objective, objective.terms(losses)) if of_terms else {})
            engine.backward(accelerator, state.model, objective.total(losses))
        objective.before_step(batch.step)
        norms.update(_tower_norms(objective) if tower_norms else {})
    with record_function("optimizer"):
        norm = engine.step(accelerator, state.model, state.optimizer, grad_clip_norm)
        _check_finite("gradient norm", norm, batch, objective.terms(losses).values())
        log_scale = engine.clamp(accelerator, objective.encoder.model.logit_scale, 0, MAX_LOGIT_SCALE)
        objective.after_step(batch.step)
        if state.ema:
            state.ema.update(batch.step)
    shown = {"grad_norm": norm, **norms, "lr": lr, "logit_scale": math.exp(log_scale), "keys_digest": keys_digest}
    return {**means, **shown}, stopping


def _over_all_processes(
    accelerator: Accelerator, objective: Objective, losses: Mapping[str, Tensor], batch: Batch, asked_to_stop: bool
) -> tuple[dict[str, float], str, bool]:
    """In one exchange: losses named for metrics.jsonl with their weighted total, the digest of the global batch, and whether to stop.
    The same on every process, so that all of them go on or stop together."""
    digest = _keys_digest(batch.keys, accelerator.process_index * len(batch.keys))
    # Halves of 32 bits, and a flag: sums of these over processes are exact in fp64.
    others = torch.tensor([digest >> 32, digest & 0xFFFFFFFF, asked_to_stop], dtype=torch.float64, device=accelerator.device)
    values = torch.stack([value.detach().double() for value in losses.values()])
    *sums, high, low, asked = accelerator.reduce(torch.cat([values, others]), reduction="sum").tolist()
    means = {name: total / accelerator.num_processes for name, total in zip(losses, sums)}
    weighted_total = sum(objective.factor(name) * mean for name, mean in means.items() if objective.factor(name))
    # A number to watch that this batch does not have, such as the loss of a language it lacks, is left out.
    known = {f"loss/{name}": mean for name, mean in means.items() if objective.factor(name) or math.isfinite(mean)}
    named = {**known, "loss/total": weighted_total}
    return named, f"{((int(high) << 32) + int(low)) % 2**64:016x}", bool(asked)


def _keys_digest(keys: Sequence[str], first_place: int) -> int:
    """64 bits. Digests of the parts of a batch add up to that of the whole, which says which sample came at which place."""
    hashes = (hashlib.blake2b(f"{place} {key}".encode(), digest_size=8) for place, key in enumerate(keys, first_place))
    return sum(int.from_bytes(each.digest()) for each in hashes) % 2**64


def _tower_norms(objective: Objective) -> dict[str, float]:
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
