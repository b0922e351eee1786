"""Time and memory of the CLIP loss, forward and backward: ours in tiles against `open_clip.loss.ClipLoss`, which holds all logits.

    python -m benchmarks.contrastive_loss          # writes benchmarks/results/contrastive_loss.json; about two and a half minutes

Both get the same unit vectors (float32, 512 wide) in fresh processes with the same threads. Memory is the growth of the peak over what the
process held with the inputs made. Losses must agree to 1e-5 and gradients to 1e-5 of their largest entry.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import measure
from rsvl_data.errors import OptionError

LARGEST_MEMORY_RATIO, LARGEST_TIME_RATIO = 0.2, 1.0
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Options:
    """The tiled CLIP loss against open_clip's."""

    out: Path = Path(__file__).parent / "results" / "contrastive_loss.json"
    """the result file"""
    batch_sizes: tuple[int, ...] = (4096, 8192, 16384)
    """pairs"""
    dim: int = 512
    """width of the embeddings"""
    rounds: tuple[int, ...] = (3, 3, 3)
    """of both losses in turn, for each of `batch_sizes`; the peer takes 4.5 GiB for 16,384 pairs"""
    passes: int = 1
    """forward and backward, in each process; the quickest counts"""
    role: Literal["all", "peer", "ours"] = "all"
    """peer and ours are what the benchmark runs in processes of their own"""

    def __post_init__(self) -> None:
        if self.role == "all" and len(self.rounds) != len(self.batch_sizes):
            raise OptionError(f"--rounds {self.rounds} must give one number for each of --batch-sizes {self.batch_sizes}")


def run_role(options: Options) -> None:
    import time

    import torch
    import torch.nn.functional as F

    (batch_size,) = options.batch_sizes
    generator = torch.Generator().manual_seed(0)
    image, text = (
        F.normalize(torch.randn(batch_size, options.dim, generator=generator), dim=1).requires_grad_() for _ in range(2)
    )
    scale = torch.tensor(30.0, requires_grad=True)
    loss_of = _loss_of(options.role)
    loss_of(image[:64], text[:64], scale).backward()  # imports and kernels
    before_mib = measure.peak_rss_mib()["process"]
    seconds = []
    for _ in range(options.passes):
        image.grad = text.grad = scale.grad = None
        start = time.perf_counter()
        loss = loss_of(image, text, scale)
        loss.backward()
        seconds.append(time.perf_counter() - start)
    assert image.grad is not None and text.grad is not None and scale.grad is not None
    sample = {name: rows.grad[:: batch_size // 32].flatten().tolist() for name, rows in (("image", image), ("text", text))}
    measure.report(
        {
            "seconds": min(seconds),
            "grown_mib": measure.peak_rss_mib()["process"] - before_mib,
            "loss": loss.item(),
            "scale_gradient": scale.grad.item(),
            "gradients": sample,
            "threads": torch.get_num_threads(),
            "versions": measure.versions("torch", "open_clip_torch"),
        }
    )


def _loss_of(role: str) -> Any:
    if role == "peer":
        from open_clip.loss import ClipLoss

        return ClipLoss()
    from rsvl_pretrain.losses import clip_loss

    return clip_loss


def compare(options: Options, batch_size: int, num_rounds: int) -> dict[str, Any]:
    def contender(role: str) -> measure.Measured:
        arguments = [f"--batch-sizes={batch_size}", f"--dim={options.dim}", f"--passes={options.passes}"]
        return measure.measure_in_fresh_process(__file__, ["--role", role, *arguments])

    rounds = measure.alternate({"peer": lambda: contender("peer"), "ours": lambda: contender("ours")}, num_rounds)
    differences = [check_agreement(each["peer"], each["ours"]) for each in rounds]

    def ratio(name: str) -> dict[str, float]:
        return measure.median_and_range([each["ours"][name] / each["peer"][name] for each in rounds])

    found: dict[str, Any] = {"batch_size": batch_size, "rounds": num_rounds, "time_ratio": ratio("seconds")}
    found |= {"memory_ratio": ratio("grown_mib"), "largest_gradient_difference": max(differences)}
    for role in ("ours", "peer"):
        found[role] = {name: measure.median_and_range([each[role][name] for each in rounds]) for name in ("seconds", "grown_mib")}
        found[role]["versions"] = rounds[0][role]["versions"]
    found["threads"] = rounds[0]["ours"]["threads"]
    return found


def check_agreement(peer: measure.Measured, ours: measure.Measured) -> float:
    """The largest difference of gradients, relative to the largest gradient. Raises RuntimeError when the two disagree."""
    worst = 0.0
    for side in ("image", "text"):
        largest = max(map(abs, peer["gradients"][side]))
        worst = max(worst, *(abs(a - b) / largest for a, b in zip(peer["gradients"][side], ours["gradients"][side], strict=True)))
    for name in ("loss", "scale_gradient"):
        if abs(peer[name] - ours[name]) > TOLERANCE * max(abs(peer[name]), 1e-3):
            raise RuntimeError(f"{name} is {peer[name]} of the peer, {ours[name]} of ours")
    if worst > TOLERANCE:
        raise RuntimeError(f"gradients differ by {worst} of the largest")
    return worst


def main(options: Options) -> None:
    if options.role != "all":
        run_role(options)
        return
    cases = [compare(options, *case) for case in zip(options.batch_sizes, options.rounds, strict=True)]
    missed = [
        case["batch_size"]
        for case in cases
        if case["memory_ratio"]["median"] > LARGEST_MEMORY_RATIO or case["time_ratio"]["median"] > LARGEST_TIME_RATIO
    ]
    setting = {"dim": options.dim, "passes": options.passes, "threads": cases[0]["threads"]}
    gates = {"memory": LARGEST_MEMORY_RATIO, "time": LARGEST_TIME_RATIO}
    measure.write_result(options.out, "contrastive_loss", {"setting": setting, "gates": gates, "missed": missed, "cases": cases})


if __name__ == "__main__":
    main(tyro.cli(Options))
