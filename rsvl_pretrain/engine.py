"""What runs the loop: one process or many, in which precision."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

Precision = Literal["fp32", "amp_bf16"]


def make_accelerator(precision: Precision, trackers: Sequence[str], out: Path, timeout_s: float) -> Accelerator:
    """`trackers` will write under `out`/tracking. A process that keeps the others waiting for `timeout_s` ends the run."""
    # One microsecond more: accelerate drops a timeout that equals its own default, and gloo then takes torch's, which is longer.
    group = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_s, microseconds=1))
    return Accelerator(
        cpu=not torch.cuda.is_available(),  # without it accelerate does not see torchrun's other processes on a CPU
        mixed_precision={"fp32": "no", "amp_bf16": "bf16"}[precision],
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "tracking")),
        kwargs_handlers=[group],
    )
