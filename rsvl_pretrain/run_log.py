"""What a run says while it runs."""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rsvl_data.errors import OptionError
from rsvl_data.shards import write_atomically

log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 30.0
_PACKAGES = {"comet_ml": "comet-ml"}  # every other tracker is named like its package


def check_trackers(names: Sequence[str]) -> None:
    """Raises OptionError for a tracker that accelerate does not know, or whose package is not installed."""
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise OptionError(
                f"--train.trackers {name} is unknown; allowed are {', '.join(LOGGER_TYPE_TO_CLASS)}, "
                "or none of them (metrics.jsonl is always written)"
            )
        if name not in map(str, get_available_trackers()):
            raise OptionError(f"--train.trackers {name} needs a package: pip install {_PACKAGES.get(name, name)}")


class RunLog:
    """metrics.jsonl, the trackers, and the progress: a bar, or a line now and then where no terminal shows one.

    A resumed run drops the lines after its checkpoint first, and tells TensorBoard to.
    """

    def __init__(self, accelerator: Accelerator, out: Path, trackers: Sequence[str], done: int, steps: int):
        self.accelerator, self.path, self.steps = accelerator, out / "metrics.jsonl", steps
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, disable=not accelerator.is_main_process, transient=True)
        self.task = self.bar.add_task("", total=steps, completed=done)
        self._first, self._started, self._last_line = done, time.monotonic(), time.monotonic()
        if accelerator.is_main_process:
            lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() and done else []
            write_atomically(self.path, "".join(line for line in lines if _step_of(line) <= done).encode())
        if trackers:
            accelerator.init_trackers("rsvl", init_kwargs={"tensorboard": {"purge_step": done + 1}})

    def __enter__(self) -> "RunLog":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """What is not a number is for metrics.jsonl alone."""
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        self.accelerator.log({name: value for name, value in values.items() if isinstance(value, int | float)}, step=step)
        if "loss/total" in values:
            self._show(step, _described(values))

    def _show(self, step: int, words: str) -> None:
        self.bar.update(self.task, completed=step, description=words)
        now = time.monotonic()
        if not self.bar.disable and not self.bar.console.is_terminal and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            left_s = (self.steps - step) * (now - self._started) / (step - self._first)
            log.info("step %d of %d: %s, %s left", step, self.steps, words, _clock(left_s))
            self._last_line = now


def _described(values: Mapping[str, Any]) -> str:
    words = f"loss {values['loss/total']:.3f}, {values['samples_per_s']:.0f} samples/s"
    waited = values["data_wait_s"] / values["step_s"]
    return f"{words}, {waited:.0%} of the time waiting for data" if waited >= 0.1 else words


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _step_of(line: str) -> float:
    """Infinity for a line that a kill cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf
