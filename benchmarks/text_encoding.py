"""Texts a second of a text tower: ours without padding against `open_clip`'s `model.encode_text`, which computes all 77 tokens.

    python -m benchmarks.text_encoding          # writes benchmarks/results/text_encoding.json; about a minute and a half

256 captions with the lengths of published ones through ViT-B-32 with random weights, the same on both sides, in batches of `batch_size`;
fresh processes with the same threads in turn. `cut` is ours with each batch cut to its longest text, as in training; `ours` is
`encode_text` on all texts at once, as in evaluation, which also puts texts of like lengths together. Tokenizing is left out on all sides.
Embeddings must agree to 1e-5.
"""

import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import measure
from benchmarks.remote_sensing_captions import captions

SMALLEST_RATIO, LARGEST_DIFFERENCE = 3.0, 1e-5
CONTENDERS = ("peer", "cut", "ours")


@dataclass(frozen=True)
class Options:
    """Our text encoding against open_clip's."""

    out: Path = Path(__file__).parent / "results" / "text_encoding.json"
    """the result file"""
    model: str = "ViT-B-32"
    """any open_clip architecture"""
    texts: int = 256
    """captions"""
    batch_size: int = 64
    """texts a call; ours chooses for itself"""
    passes: int = 1
    """over all texts, in each process; the quickest counts"""
    rounds: int = 3
    """of all three in turn"""
    threads: int = os.cpu_count() or 1
    """of torch"""
    role: Literal["all", "peer", "cut", "ours"] = "all"
    """the others are what the benchmark runs in processes of their own"""


def run_role(options: Options) -> None:
    import torch

    from rsvl_pretrain.model import DualEncoder
    from rsvl_pretrain.text_length import encode_by_length, encode_without_padding

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    encoder = DualEncoder.load(options.model).eval()
    tokens = encoder.tokenizer(captions(options.texts))
    encode_batch = encoder.model.encode_text if options.role == "peer" else partial(encode_without_padding, encoder.model)

    def embed() -> torch.Tensor:
        if options.role == "ours":
            return encode_by_length(encoder.model, tokens)
        return torch.cat([encode_batch(part) for part in tokens.split(options.batch_size)])

    seconds = []
    with torch.inference_mode():
        encode_batch(tokens[:8])  # imports and kernels
        for _ in range(options.passes):
            start = time.perf_counter()
            embeds = embed()
            seconds.append(time.perf_counter() - start)
    measure.report(
        {
            "texts_per_s": options.texts / min(seconds),
            "mean_tokens": (tokens != 0).sum(dim=1).float().mean().item(),
            "embeds": embeds[:: max(options.texts // 32, 1)].tolist(),
            "threads": torch.get_num_threads(),
            "versions": measure.versions("torch", "open_clip_torch"),
        }
    )


def check_agreement(peer: measure.Measured, other: measure.Measured) -> float:
    """The largest difference between two embeddings' entries. Raises RuntimeError above 1e-5."""
    pairs = zip(peer["embeds"], other["embeds"], strict=True)
    difference = max(abs(a - b) for left, right in pairs for a, b in zip(left, right, strict=True))
    if not difference <= LARGEST_DIFFERENCE:
        raise RuntimeError(f"embeddings differ by {difference}; {LARGEST_DIFFERENCE} is allowed")
    return difference


def compare(options: Options) -> dict[str, Any]:
    def contender(role: str) -> measure.Measured:
        told = ("model", "texts", "batch_size", "passes", "threads")
        arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in told]
        return measure.measure_in_fresh_process(__file__, ["--role", role, *arguments])

    rounds = measure.alternate({role: partial(contender, role) for role in CONTENDERS}, options.rounds)
    result: dict[str, Any] = {"rounds": options.rounds, "ratios": {}, "largest_differences": {}}
    for role in ("cut", "ours"):
        ratios = [each[role]["texts_per_s"] / each["peer"]["texts_per_s"] for each in rounds]
        result["ratios"][role] = measure.median_and_range(ratios)
        result["largest_differences"][role] = max(check_agreement(each["peer"], each[role]) for each in rounds)
    for role in CONTENDERS:
        runs = [each[role] for each in rounds]
        result[role] = {
            "texts_per_s": measure.median_and_range([run["texts_per_s"] for run in runs]),
            "peak_rss_mib": max(run["peak_rss_mib"]["process"] for run in runs),
        }
    first = rounds[0]["ours"]
    return result | {name: first[name] for name in ("mean_tokens", "threads", "versions")}


def main(options: Options) -> int:
    if options.role != "all":
        run_role(options)
        return 0
    load = os.getloadavg()[0]
    result = compare(options)
    passed = result["ratios"]["ours"]["median"] >= SMALLEST_RATIO
    setting = {name: getattr(options, name) for name in ("model", "texts", "batch_size", "passes")}
    gate = {"smallest_ratio": SMALLEST_RATIO, "largest_difference": LARGEST_DIFFERENCE, "passed": passed}
    measure.write_result(
        options.out, "text_encoding", {"load_average_at_start": load, "setting": setting, "gate": gate, **result}
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
