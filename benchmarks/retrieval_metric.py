"""Recalls of image-text retrieval: ours against CLIP_benchmark's `recall_at_k`, and a million embeddings from a memory map.

    pip install --no-deps --target /tmp/peer_clip_benchmark clip-benchmark==1.6.2
    pip install --target /tmp/peer_clip_benchmark scikit-learn 'numpy<2.4'
    python -m benchmarks.retrieval_metric --peer-path /tmp/peer_clip_benchmark     # writes benchmarks/results/retrieval_metric.json

Both get the same unit vectors (float32, five texts an image) in fresh processes with the same threads, and answer recall at 1, 5 and
10 in both directions; the recalls must be equal. Time holds all that the recalls need: scores and positive pairs of the peer, task and
ranks of ours. Memory is the growth of the peak over what the process held with the inputs made. The million is ours alone, half
precision on disk.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import measure

KS, TEXTS_AN_IMAGE, PEER_BATCH_SIZE = (1, 5, 10), 5, 64
SMALLEST_RATIOS, LARGEST_MEMORY_RATIO = {1000: 8.0, 5000: 15.0}, 0.1
LARGEST_MILLION_MIB = 4096


@dataclass(frozen=True)
class Options:
    """Retrieval metric against CLIP_benchmark's."""

    peer_path: Path | None = None
    """folder with clip-benchmark, made by pip install --target"""
    out: Path = Path(__file__).parent / "results" / "retrieval_metric.json"
    """the result file"""
    sizes: tuple[int, ...] = (1000, 5000)
    """images; five texts each"""
    dim: int = 512
    """width of the embeddings"""
    rounds: int = 5
    """of both in turn, at each size"""
    million: int = 1_000_000
    """gallery rows of the memory map; 0 leaves this part out"""
    million_queries: int = 2000
    """each with one right item in the gallery"""
    data: Path = Path(tempfile.gettempdir()) / "rsvl-bench-retrieval"
    """where the memory map is made, from a seed"""
    role: Literal["all", "peer", "ours", "million"] = "all"
    """the others are what the benchmark runs in processes of their own"""


def embeddings(num_images: int, dim: int) -> tuple[Any, Any]:
    """Unit vectors of images, and of texts that are their image with noise: recalls far from 0 and 1."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(num_images, dim, generator=generator), dim=1)
    noise = torch.randn(TEXTS_AN_IMAGE * num_images, dim, generator=generator)
    return image, F.normalize(image.repeat_interleave(TEXTS_AN_IMAGE, 0) + 0.3 * noise, dim=1)


def peer_recalls(image: Any, text: Any) -> dict[str, float]:
    """The second half of its `zeroshot_retrieval.evaluate`, which takes images and not embeddings."""
    import torch
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    scores = text @ image.t()
    positive_pairs = torch.zeros_like(scores, dtype=torch.bool)
    positive_pairs[torch.arange(len(scores)), torch.arange(len(image)).repeat_interleave(TEXTS_AN_IMAGE)] = True
    found = {}
    for k in KS:
        for name, x, y in (("image", scores, positive_pairs), ("text", scores.T, positive_pairs.T)):
            recalls = batchify(recall_at_k, x, y, PEER_BATCH_SIZE, "cpu", k=k)
            found[f"{name}_retrieval_recall@{k}"] = (recalls > 0).float().mean().item()
    return found


def our_recalls(image: Any, text: Any) -> dict[str, float]:
    from evaluation.metrics.ranks import ranks_both_ways
    from evaluation.metrics.retrieval import recall_at_k, retrieval_task

    captions = [[f"{i} {j}" for j in range(TEXTS_AN_IMAGE)] for i in range(len(image))]
    task = retrieval_task(captions, "clip_benchmark")
    ranks = dict(zip(("image", "text"), ranks_both_ways(text, image, task.text_to_image), strict=True))
    return {f"{name}_retrieval_recall@{k}": recall_at_k(ranks[name], k) for name in ranks for k in KS}


def run_role(options: Options) -> None:
    if options.role == "million":
        run_million(options)
        return
    recalls = peer_recalls if options.role == "peer" else our_recalls
    image, text = embeddings(options.sizes[0], options.dim)
    recalls(image[:64], text[: 64 * TEXTS_AN_IMAGE])  # imports and kernels
    measure.forget_peak_rss()
    before_mib = measure.peak_rss_mib()["process"]
    start, cpu_start = time.perf_counter(), measure.cpu_seconds()
    found = recalls(image, text)
    seconds, cpu_seconds = time.perf_counter() - start, measure.cpu_seconds() - cpu_start
    import torch

    measure.report(
        {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "grown_mib": measure.peak_rss_mib()["process"] - before_mib,
            "recalls": found,
            "threads": torch.get_num_threads(),
            "versions": measure.versions("torch", *(["clip-benchmark"] if options.role == "peer" else [])),
        }
    )


def run_million(options: Options) -> None:
    import torch

    from evaluation.metrics.ranks import first_right_ranks
    from evaluation.metrics.relevance import Lists, Relevance

    gallery = torch.from_numpy(np.memmap(map_path(options), np.float16, "c", shape=(options.million, options.dim)))
    right = np.linspace(0, options.million - 1, options.million_queries).astype(int)
    noise = torch.randn(len(right), options.dim, generator=torch.Generator().manual_seed(1))
    query, each = gallery[right].float() + 0.18 * noise, np.arange(len(right))
    relevance = Relevance(Lists.from_pairs(each, each, len(right)), Lists.from_pairs(each, right, len(right)), options.million)
    start = time.perf_counter()
    ranks = first_right_ranks(query, gallery, relevance)
    seconds = time.perf_counter() - start
    check_some(query, gallery, right, ranks)
    measure.report({"seconds": seconds, "recall@1": float((ranks == 1).mean()), "median_rank": float(np.median(ranks))})


def check_some(query: Any, gallery: Any, right: Any, ranks: Any) -> None:
    """Three queries by a plain product with 10,000 rows at a time. Raises RuntimeError for another rank."""
    import torch
    import torch.nn.functional as F

    few = F.normalize(query[:3], dim=1)
    own = (few * F.normalize(gallery[right[:3]].float(), dim=1)).sum(1, keepdim=True)
    before = sum((few @ F.normalize(rows.float(), dim=1).T > own + 1e-5).sum(1) for rows in gallery.split(10_000))
    if not torch.all((1 + before - torch.from_numpy(ranks[:3])).abs() <= 1):  # rounding may swap neighbours
        raise RuntimeError(f"ranks of the first queries are {1 + before} by a plain product, {ranks[:3]} of ours")


def map_path(options: Options) -> Path:
    return options.data / f"{options.million}x{options.dim}.f16"


def make_map(options: Options) -> None:
    path, size = map_path(options), options.million * options.dim * 2
    if path.exists() and path.stat().st_size == size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    with open(path.with_suffix(".tmp"), "wb") as file:
        for start in range(0, options.million, 2**14):
            rows = generator.standard_normal((min(2**14, options.million - start), options.dim), dtype=np.float32)
            file.write((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).tobytes())
    path.with_suffix(".tmp").rename(path)


def contender(options: Options, role: str, size: int = 1) -> measure.Measured:
    arguments = [f"--sizes={size}", f"--dim={options.dim}", f"--million={options.million}", f"--data={options.data}"]
    arguments.append(f"--million-queries={options.million_queries}")
    path = options.peer_path if role == "peer" else None
    return measure.measure_in_fresh_process(__file__, ["--role", role, *arguments], path_first=path)


def compare(options: Options, size: int) -> dict[str, Any]:
    roles = {role: lambda role=role: contender(options, role, size) for role in ("peer", "ours")}
    rounds = measure.alternate(roles, options.rounds)
    for each in rounds:
        for name, value in each["peer"]["recalls"].items():
            if abs(value - each["ours"]["recalls"][name]) > 1e-6:
                raise RuntimeError(f"{name} is {value} of the peer, {each['ours']['recalls'][name]} of ours")
    found: dict[str, Any] = {"images": size, "texts": size * TEXTS_AN_IMAGE, "rounds": options.rounds}
    found["speed_ratio"] = measure.median_and_range([each["peer"]["seconds"] / each["ours"]["seconds"] for each in rounds])
    found["cpu_ratio"] = measure.median_and_range([each["peer"]["cpu_seconds"] / each["ours"]["cpu_seconds"] for each in rounds])
    found["memory_ratio"] = measure.median_and_range([each["ours"]["grown_mib"] / each["peer"]["grown_mib"] for each in rounds])
    for role in ("ours", "peer"):
        found[role] = {name: measure.median_and_range([each[role][name] for each in rounds]) for name in ("seconds", "grown_mib")}
        found[role]["versions"] = rounds[0][role]["versions"]
    return found | {"recalls": rounds[0]["ours"]["recalls"], "threads": rounds[0]["ours"]["threads"]}


def main(options: Options) -> None:
    if options.role != "all":
        run_role(options)
        return
    if options.peer_path is None:
        raise SystemExit("--peer-path is missing: the folder with clip-benchmark that the docstring makes")
    cases = [compare(options, size) for size in options.sizes]
    missed = [
        case["images"]
        for case in cases
        if case["speed_ratio"]["median"] < SMALLEST_RATIOS.get(case["images"], 0)
        or case["memory_ratio"]["median"] > LARGEST_MEMORY_RATIO
    ]
    result: dict[str, Any] = {"setting": {"dim": options.dim, "ks": KS}, "missed": missed, "cases": cases}
    if options.million:
        make_map(options)
        million = contender(options, "million")
        peak_mib = million["peak_rss_mib"]["process"]
        if peak_mib > LARGEST_MILLION_MIB:
            missed.append(f"{options.million} rows took {peak_mib:.0f} MiB")
        result["million"] = {"rows": options.million, "queries": options.million_queries, **million}
    measure.write_result(options.out, "retrieval_metric", result)


if __name__ == "__main__":
    main(tyro.cli(Options))
