"""The released trainer of FarSLIP on stored batches, in a process whose `open_clip` is theirs.

python benchmarks/farslip_peer.py INPUTS STAGE THREADS, with the checkout first on the path; `benchmarks/farslip_step.py` calls it.
"""

import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss, MultiPosConLossMM
from open_clip_train import train as trainer
from open_clip_train.scheduler import cosine_lr
from safetensors.torch import load_file

from benchmarks import measure

WARMUP_STEPS = 2


class Finished(Exception):
    pass


@dataclass
class Loader:
    """Their loader's face. Notes the CPU time and the clock whenever a batch is asked for."""

    stored: list[Any]
    batch_size: int
    times: list[tuple[float, float]] = field(default_factory=list)

    @property
    def num_batches(self) -> int:
        return len(self.stored) + 1

    @property
    def num_samples(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[Any]:
        for batch in self.stored:
            self.times.append((measure.cpu_seconds(), time.perf_counter()))
            yield batch
        self.times.append((measure.cpu_seconds(), time.perf_counter()))
        raise Finished


def losses_of_each_step() -> list[dict[str, float]]:
    """Filled as they train: `train_one_epoch` keeps its losses to itself."""
    seen: list[dict[str, float]] = []
    plain = trainer.backward

    def backward(total_loss: torch.Tensor, scaler: Any) -> None:
        seen.append({name: loss.item() for name, loss in sys._getframe(1).f_locals["losses"].items()})
        plain(total_loss, scaler)

    trainer.backward = backward
    return seen


def optimizer_of(model: torch.nn.Module, setting: dict[str, Any]) -> torch.optim.Optimizer:
    """As their `main.py` makes it."""
    named = list(model.named_parameters())
    exempt = [p.ndim < 2 or any(word in n for word in ("bn", "ln", "bias", "logit_scale")) for n, p in named]
    groups = [
        {"params": [p for (_, p), out in zip(named, exempt) if out], "weight_decay": 0.0},
        {"params": [p for (_, p), out in zip(named, exempt) if not out], "weight_decay": setting["wd"]},
    ]
    return torch.optim.AdamW(groups, lr=setting["lr"], betas=(0.9, 0.98), eps=1e-6)


def main(inputs: Path, stage: str, threads: int) -> None:
    torch.set_num_threads(threads)
    logging.disable(logging.INFO)
    content = torch.load(inputs / f"{stage}.pt", weights_only=True)
    setting, stored = content["setting"], content["batches"]
    if stage == "stage1":  # the two kinds of data have shapes of their own there
        stored = [(batch["images"], batch["tokens"]) for batch in stored]
    model = open_clip.create_model(setting["model"], output_dict=True)
    model.load_state_dict(load_file(inputs / "weights.safetensors"))
    loader, losses = Loader(stored, setting["batch_size"]), losses_of_each_step()
    optimizer = optimizer_of(model, setting)
    args = SimpleNamespace(
        device="cpu",
        precision="fp32",
        accum_freq=1,
        skip_scheduler=False,
        loss_type=["global_itc", "distill" if stage == "stage1" else "local_itc"],
        last_attn_type="SegEarth",
        distill_type="active",
        distill_align="roi2pooled",
        local_itc_align="cls",
        w_g=1.0,
        w_d=0.1,
        w_l=1.0,
        batch_size=setting["batch_size"],
        max_boxes=setting["crops_per_image"],
        EMA_momentum=0.99,
        grad_clip_norm=None,
        horovod=False,
        log_every_n_steps=100,
        rank=0,
        local_rank=0,
        world_size=1,
        wandb=False,
        epochs=1,
        distributed=False,
    )
    try:
        trainer.train_one_epoch(
            model,
            None,
            {"stage1": "farslip1", "stage2": "farslip2"}[stage],
            {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda _: None)},
            ClipLoss(),
            MultiPosConLossMM(rank=0, world_size=1) if stage == "stage2" else None,
            0,
            optimizer,
            None,
            cosine_lr(optimizer, setting["lr"], setting["warmup"], setting["planned_steps"]),
            args,
        )
    except Finished:
        (cpu_start, start), (cpu_end, end) = loader.times[WARMUP_STEPS], loader.times[-1]
        num_timed = len(stored) - WARMUP_STEPS
        measure.report(
            {
                "cpu_seconds_a_step": (cpu_end - cpu_start) / num_timed,
                "seconds_a_step": (end - start) / num_timed,
                "losses": losses,
            }
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
