"""Time and memory of the CLIP loss on two processes: ours against `open_clip.loss.ClipLoss(local_loss=True, gather_with_grad=True)`.

    python -m benchmarks.distributed_loss          # writes benchmarks/results/distributed_loss.json; about a minute and a half

Two ranks of torchrun over gloo, one thread each, the same unit vectors (float32, 512 wide). Ours is measured with every rank's embeddings
gathered and with the ring that holds one other rank's at a time. Memory is the growth of a rank's peak over what it held with the
inputs made, the larger of the two. The mean of the ranks' losses must agree to 1e-5, gradients to 1e-5 of their largest entry.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import measure
from benchmarks.contrastive_loss import TOLERANCE, check_agreement

LARGEST_MEMORY_RATIO = 0.5
NUM_RANKS = 2
CONTENDERS = ("peer", "gather", "bidir")


@dataclass(frozen=True)
class Options:
    """The tiled CLIP loss against open_clip's, on two ranks."""

    out: Path = Path(__file__).parent / "results" / "distributed_loss.json"
    """the result file"""
    batch_size: int = 4096
    """pairs of each rank"""
    dim: int = 512
    """width of the embeddings"""
    rounds: int = 3
    """of all three in turn"""
    passes: int = 2
    """forward and backward, in each process; the quickest counts"""
    role: Literal["all", "peer", "gather", "bidir"] = "all"
    """the others are what the benchmark runs in processes of their own"""
    rank_out: Path | None = None
    """where a rank writes what it measured"""


def run_rank(options: Options, rank_out: Path) -> None:
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    generator = torch.Generator().manual_seed(dist.get_rank())
    image, text = (
        F.normalize(torch.randn(options.batch_size, options.dim, generator=generator), dim=1).requires_grad_() for _ in range(2)
    )
    scale = torch.tensor(30.0, requires_grad=True)
    loss_of = _loss_of(options.role, dist.get_rank())
    loss_of(image[:64], text[:64], scale).backward()  # imports and kernels
    before_mib = measure.peak_rss_mib()["process"]
    seconds = []
    for _ in range(options.passes):
        image.grad = text.grad = scale.grad = None
        dist.barrier()
        start = time.perf_counter()
        loss = loss_of(image, text, scale)
        loss.backward()
        seconds.append(time.perf_counter() - start)
    grown_mib = measure.peak_rss_mib()["process"] - before_mib
    every = max(options.batch_size // 16, 1)
    assert image.grad is not None and text.grad is not None and scale.grad is not None
    measured = {
        "seconds": min(seconds),
        "grown_mib": grown_mib,
        "loss": loss.item(),
        "scale_gradient": scale.grad.item(),
        "gradients": {name: rows[::every].flatten().tolist() for name, rows in (("image", image.grad), ("text", text.grad))},
    }
    (rank_out / f"{dist.get_rank()}.json").write_text(json.dumps(measured))
    dist.barrier()
    dist.destroy_process_group()


def _loss_of(role: Any, rank: int) -> Any:
    if role == "peer":
        from open_clip.loss import ClipLoss

        return ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=NUM_RANKS)
    from rsvl_pretrain.losses import clip_loss

    return partial(clip_loss, exchange=role)


def run_role(options: Options) -> None:
    """Start the ranks and put together what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={NUM_RANKS}", "--standalone", __file__]
        told = ("role", "batch_size", "dim", "passes")
        command += [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in told]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, f"--rank-out={folder}"], env=environment, check=True, stdout=sys.stderr)
        ranks = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(NUM_RANKS)]
    measure.report(
        {
            "seconds": max(rank["seconds"] for rank in ranks),
            "grown_mib": max(rank["grown_mib"] for rank in ranks),
            "loss": sum(rank["loss"] for rank in ranks) / NUM_RANKS,
            "scale_gradient": sum(rank["scale_gradient"] for rank in ranks) / NUM_RANKS,
            "gradients": {side: [g for rank in ranks for g in rank["gradients"][side]] for side in ("image", "text")},
            "versions": measure.versions("torch", "open_clip_torch"),
        }
    )


def compare(options: Options) -> dict[str, Any]:
    def contender(role: str) -> measure.Measured:
        told = ("batch_size", "dim", "passes")
        arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in told]
        return measure.measure_in_fresh_process(__file__, ["--role", role, *arguments])

    rounds = measure.alternate({role: partial(contender, role) for role in CONTENDERS}, options.rounds)

    def of(role: str) -> dict[str, Any]:
        found = {name: measure.median_and_range([each[role][name] for each in rounds]) for name in ("seconds", "grown_mib")}
        if role != "peer":
            for name, quantity in (("time_ratio", "seconds"), ("memory_ratio", "grown_mib")):
                found[name] = measure.median_and_range([each[role][quantity] / each["peer"][quantity] for each in rounds])
        return found

    differences = [check_agreement(each["peer"], each[role]) for each in rounds for role in CONTENDERS[1:]]
    return {
        "rounds": options.rounds,
        "largest_gradient_difference": max(differences),
        "versions": rounds[0]["peer"]["versions"],
        **{role: of(role) for role in CONTENDERS},
    }


def main(options: Options) -> int:
    if options.rank_out:
        run_rank(options, options.rank_out)
        return 0
    if options.role != "all":
        run_role(options)
        return 0
    load = os.getloadavg()[0]
    result = compare(options)
    passed = all(result[role]["memory_ratio"]["median"] <= LARGEST_MEMORY_RATIO for role in CONTENDERS[1:])
    setting = {name: getattr(options, name) for name in ("batch_size", "dim", "passes")} | {"ranks": NUM_RANKS, "threads": 1}
    gate = {"largest_memory_ratio": LARGEST_MEMORY_RATIO, "tolerance": TOLERANCE, "passed": passed}
    measure.write_result(
        options.out, "distributed_loss", {"load_average_at_start": load, "setting": setting, "gate": gate, **result}
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
