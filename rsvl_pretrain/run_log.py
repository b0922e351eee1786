"""What a run says while it runs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rsvl_data.shards import write_atomically


class RunLog:
    """metrics.jsonl, the trackers and the progress bar. A resumed run drops the lines after its checkpoint first."""

    def __init__(self, accelerator: Accelerator, path: Path, done: int, steps: int):
        self.accelerator, self.path = accelerator, path
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, disable=not accelerator.is_main_process, transient=True)
        self.task = self.bar.add_task("", total=steps, completed=done)
        if accelerator.is_main_process:
            lines = path.read_text().splitlines(keepends=True) if path.exists() and done else []
            write_atomically(path, "".join(line for line in lines if _step_of(line) <= done).encode())

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        self.accelerator.log(dict(values), step=step)
        shown = f"loss {values['loss/total']:.3f} {values['samples_per_s']:.0f} samples/s" if "loss/total" in values else None
        self.bar.update(self.task, completed=step, description=shown)


def _step_of(line: str) -> float:
    """Infinity for a line that a kill cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf
