"""Training runs in processes of their own, as many as a test likes.

They are forked from a server that imported everything once and never trained, so that each costs a fraction of a second.
"""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

WORDS = ("--model", "rsvl-tiny", "--batch-size", "8", "--optim.warmup", "2", "--train.trackers")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["recipes.pretrain.clip", "train_process"])


def start(
    data: Path,
    out: Path,
    *words: str,
    ranks: int = 1,
    kill_at: int | None = None,
    spoil: str | None = None,
    recipe: str = "pretrain/clip",
    **options: Any,
) -> list[BaseProcess]:
    """A recipe on `data`, as many processes as `ranks`. `kill_at`: the last process dies by SIGKILL when it begins that step.

    What they print lies beside `out`, in NAME.RANK.log. `options` are of `--train.`.
    """
    settings = [part for name, value in options.items() for part in (f"--train.{name.replace('_', '-')}", str(value))]
    command = ["run", recipe, "--data", str(data), "--out", str(out), *WORDS, *settings, *words]
    port = _free_port()
    processes = []
    for rank in range(ranks):
        log = out.with_name(f"{out.name}.{rank}.log")
        last = rank == ranks - 1
        process = _CONTEXT.Process(
            target=_main, args=(command, rank, ranks, port, log, kill_at if last else None, spoil if last else None)
        )
        process.start()
        processes.append(process)
    return processes


def finish(processes: Sequence[BaseProcess], timeout_s: float = 240) -> list[int | None]:
    """Exit status of each; those that are still there after `timeout_s` are killed, and None."""
    for process in processes:
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
            return [None] * len(processes)
    return [process.exitcode for process in processes]


def train(data: Path, out: Path, *words: str, **options: Any) -> None:
    """To its end, successfully."""
    status = finish(start(data, out, *words, **options))
    assert set(status) == {0}, "".join(output(out, rank) for rank in range(len(status)))


def output(out: Path, rank: int = 0) -> str:
    return out.with_name(f"{out.name}.{rank}.log").read_text()


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _main(command: list[str], rank: int, ranks: int, port: int, log: Path, kill_at: int | None, spoil: str | None) -> None:
    with open(log, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        if ranks > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
        from recipes.cli import main

        _at_step(kill_at, spoil)
        try:
            status = main(command)
        except BaseException:
            traceback.print_exc()
            status = 70
    sys.exit(status)


def _at_step(kill_at: int | None, spoil: str | None) -> None:
    """The process dies at this step; or does to itself what `spoil` says: "nan" at step 2 gives a loss that is not a number, "stop"
    sends SIGSTOP there, "term" SIGTERM; with "group" the process and its loader processes are sent SIGTERM from outside."""
    from rsvl_pretrain.objectives import ClipObjective

    plain = ClipObjective.forward
    if spoil == "group":
        os.setpgid(0, 0)

    def forward(self: ClipObjective, batch: Any, **named: Any) -> dict[str, Any]:
        if batch.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if batch.step == 2 and spoil in ("stop", "term"):
            os.kill(os.getpid(), {"stop": signal.SIGSTOP, "term": signal.SIGTERM}[spoil])
        if batch.step == 2 and spoil == "group":
            subprocess.run(["kill", "-TERM", "--", f"-{os.getpgrp()}"], check=True, process_group=0)
        losses = plain(self, batch, **named)
        return {name: loss * float("nan") for name, loss in losses.items()} if batch.step == 2 and spoil == "nan" else losses

    if kill_at is not None or spoil:
        ClipObjective.forward = forward  # type: ignore[method-assign]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
