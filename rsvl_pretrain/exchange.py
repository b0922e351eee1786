"""Every process sees the rows of every other, and each row's owner gets back what all of them found out about it.

    gather   all rows at once, [world * b, d] on each process; fewest messages
    shift    rows go round a ring, [b, d] at a time
    bidir    the same ring in both directions, half as many rounds
    reduce   one process after the other shows its rows to all

The last three hold one foreign block at a time, so their memory does not grow with the number of processes. The names are open_clip's for
SigLIP (`src/open_clip/loss.py`, `dist_impl`). All four give the same sums, in another order of addition.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from rsvl_pretrain.distributed import rank, world_size

Exchange = Literal["gather", "shift", "bidir", "reduce"]
Join = Literal["sum", "logsumexp"]
Block = tuple[Tensor, ...]
Visit = Callable[[int, Block], Block]


def visit_all(rows: Block, visit: Visit, joins: Sequence[Join], exchange: Exchange) -> Block:
    """Call `visit(owner, rows of owner)` once for every process, this one's own rows first; join what all processes answered about
    this one's rows.

    `rows` are tensors of equal shape on every process. An answer is one tensor for each of `joins`, of equal shape everywhere.
    """
    own = visit(rank(), rows)
    if world_size() == 1:
        return own
    walk = {"gather": _gather, "shift": _shift, "bidir": _bidir, "reduce": _reduce}[exchange]
    return walk(tuple(row.contiguous() for row in rows), own, visit, joins)


def join(first: Block, second: Block, joins: Sequence[Join]) -> Block:
    return tuple(a + b if how == "sum" else torch.logaddexp(a, b) for a, b, how in zip(first, second, joins, strict=True))


def _gather(rows: Block, own: Block, visit: Visit, joins: Sequence[Join]) -> Block:
    parts = []
    for row in rows:
        part = [torch.empty_like(row) for _ in range(world_size())]
        dist.all_gather(part, row)
        parts.append(part)
    answers = [own if owner == rank() else visit(owner, tuple(part[owner] for part in parts)) for owner in range(world_size())]
    return tuple(_all_reduce(torch.stack([answer[index] for answer in answers]), how)[rank()] for index, how in enumerate(joins))


def _all_reduce(values: Tensor, how: Join) -> Tensor:
    if how == "sum":
        dist.all_reduce(values)
        return values
    largest = values.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    finite = torch.where(largest.isfinite(), largest, 0)  # all -inf stays -inf
    sums = (values - finite).exp()
    dist.all_reduce(sums)
    return finite + sums.log()


def _reduce(rows: Block, own: Block, visit: Visit, joins: Sequence[Join]) -> Block:
    joined = own
    for owner in range(world_size()):
        shown = rows if owner == rank() else tuple(torch.empty_like(row) for row in rows)
        for row in shown:
            dist.broadcast(row, owner)
        answer = own if owner == rank() else visit(owner, shown)
        answer = tuple(_all_reduce(part.clone(), how) for part, how in zip(answer, joins, strict=True))
        joined = answer if owner == rank() else joined
    return joined


def _shift(rows: Block, own: Block, visit: Visit, joins: Sequence[Join]) -> Block:
    """The answers travel with the rows they are about; after `world` hops both are home."""
    size, after, before = world_size(), (rank() + 1) % world_size(), (rank() - 1) % world_size()
    travelling = (*rows, *own)
    for hop in range(1, size + 1):
        travelling = _send_and_receive(travelling, after, before)
        shown, answers = travelling[: len(rows)], travelling[len(rows) :]
        if hop < size:
            travelling = (*shown, *join(answers, visit((rank() - hop) % size, shown), joins))
    return travelling[len(rows) :]


def _bidir(rows: Block, own: Block, visit: Visit, joins: Sequence[Join]) -> Block:
    """To the right for half of the others, to the left for the rest; then each answer goes straight home."""
    size = world_size()
    joined = own
    for direction, hops in ((1, size // 2), (-1, (size - 1) // 2)):
        travelling: Block = rows
        for hop in range(1, hops + 1):
            travelling = _send_and_receive(travelling, (rank() + direction) % size, (rank() - direction) % size)
            shown, answers = travelling[: len(rows)], travelling[len(rows) :]
            found = visit((rank() - direction * hop) % size, shown)
            travelling = (*shown, *(join(answers, found, joins) if answers else found))
        if hops:
            home = _send_and_receive(
                travelling[len(rows) :], (rank() - direction * hops) % size, (rank() + direction * hops) % size
            )
            joined = join(joined, home, joins)
    return joined


def _send_and_receive(tensors: Block, to: int, sender: int) -> Block:
    received = tuple(torch.empty_like(tensor) for tensor in tensors)
    operations = []
    for sent, place in zip(tensors, received, strict=True):
        operations += [dist.P2POp(dist.isend, sent.contiguous(), to), dist.P2POp(dist.irecv, place, sender)]
    for request in dist.batch_isend_irecv(operations):
        request.wait()
    return received
