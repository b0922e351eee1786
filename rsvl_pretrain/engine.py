"""What runs the loop: one process or many, in which precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

Precision = Literal["fp32", "amp_bf16"]


def make_accelerator(precision: Precision, trackers: Sequence[str], out: Path) -> Accelerator:
    """`trackers` write under `out`/tracking."""
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # without it accelerate does not see torchrun's other processes on a CPU
        mixed_precision={"fp32": "no", "amp_bf16": "bf16"}[precision],
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "tracking")),
    )
    if trackers:
        accelerator.init_trackers("rsvl")
    return accelerator
