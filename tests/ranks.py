"""A function on several gloo processes at once, as torchrun would start them."""

import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(*arguments)` answers on each of `world` gloo processes."""
    with mp.get_context("spawn").Manager() as manager:
        answers = manager.dict()
        port = _free_port()
        mp.spawn(_run_rank, (world, port, answers, work, arguments), nprocs=world)
        return [answers[index] for index in range(world)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run_rank(index: int, world: int, port: int, answers: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=index, world_size=world)
    try:
        answers[index] = work(*arguments)
    finally:
        dist.destroy_process_group()
