"""Where the time of a step goes: torch's profiler over a few steps, as a trace to look at and as three lines to read.

RUN/profile/trace.json.gz   of the main process, for https://ui.perfetto.dev or chrome://tracing
RUN/profile/summary.txt     the three lines
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from rsvl_data.shards import write_atomically
from rsvl_pretrain.objectives import Objective

log = logging.getLogger(__name__)
WARMUP_STEPS = 3  # allocations, kernel choices and the loader's first batches are not what a step costs
PHASES = ("data wait", "forward", "backward", "optimizer")  # train.py marks them
PARTS = ("image tower", "text tower", "loss")  # of the forward pass; with pieces (accum_freq), of the backward pass too


@contextmanager
def profiled(num_steps: int, folder: Path, objective: Objective) -> Iterator[Callable[[], None]]:
    """A function to call after every step. Steps WARMUP_STEPS to WARMUP_STEPS + `num_steps` are recorded; with 0 nothing is."""
    if not num_steps:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    plan = schedule(wait=0, warmup=WARMUP_STEPS, active=num_steps, repeat=1)
    recorder = profile(activities=activities, schedule=plan, on_trace_ready=lambda done: _report(done, folder), acc_events=True)
    with _marked(objective), recorder:
        yield recorder.step
    if not (folder / "summary.txt").exists():
        log.warning("nothing was profiled: that takes more than %d steps", WARMUP_STEPS)


@contextmanager
def _marked(objective: Objective) -> Iterator[None]:
    """The parts of the forward pass carry their names in the trace."""
    places = objective.profiled_parts()
    for owner, method, name in places:
        setattr(owner, method, _named(name, getattr(owner, method)))
    try:
        yield
    finally:
        for owner, method, _ in places:
            delattr(owner, method)  # the class's own is seen again


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def marked(*arguments: Any, **named: Any) -> Any:
        with record_function(name):
            return function(*arguments, **named)

    return marked


def _report(recorder: profile, folder: Path) -> None:
    if not any(event.key == PHASES[-1] for event in recorder.key_averages()):
        return  # the run ended before the first step that was to be recorded
    folder.mkdir(parents=True, exist_ok=True)
    recorder.export_chrome_trace(str(folder / "trace.json.gz"))
    text = summary(recorder)
    write_atomically(folder / "summary.txt", text.encode())
    log.info("%sTrace: %s, for https://ui.perfetto.dev", text, folder / "trace.json.gz")


def summary(recorder: profile) -> str:
    """Three lines. Times of phases are the host's, which waits for the device once in the forward and once in the backward pass."""
    events = recorder.key_averages()
    marks_us = {event.key: event.cpu_time_total for event in events if event.key in PHASES + PARTS}
    steps_us = [event.cpu_time_total for event in recorder.events() or () if event.name.startswith("ProfilerStep")]
    on_device = torch.cuda.is_available()
    operations_us = {
        event.key: event.self_device_time_total if on_device else event.self_cpu_time_total
        for event in events
        if event.key not in marks_us and not event.key.startswith("ProfilerStep")
    }
    top = sorted(operations_us, key=lambda name: -operations_us[name])[:6]
    total_us, num_steps = sum(steps_us), len(steps_us)
    return (
        f"{num_steps} steps of {total_us / num_steps / 1000:.1f} ms each: {_shares(marks_us, PHASES, total_us)}\n"
        f"in the towers and the loss: {_shares(marks_us, PARTS, total_us)}\n"
        f"operations, of {'device' if on_device else 'host'} time: {_shares(operations_us, top, sum(operations_us.values()))}\n"
    )


def _shares(times: Mapping[str, float], names: Sequence[str], total: float) -> str:
    return ", ".join(f"{name} {times.get(name, 0) / total:.0%}" for name in names)
