"""Open-vocabulary segmentation of one image: our batched windows against one window per forward, the shape of SegEarth-OV's loop.

    python -m benchmarks.open_vocabulary          # writes benchmarks/results/open_vocabulary.json; some three minutes on two cores

Both get the same random ViT-B/16, the same text vectors and the same image of random blobs, in fresh processes with the same threads. The
peer is https://github.com/likyoo/SegEarth-OV (4496e8b), segearth_segmentor.py, `forward_slide` and `postprocess_result`, written again from
their shape: every window is a forward of its own, the last block is run whole beside the dense head, whose three attention matrices lie in
memory, logits are padded and added to the whole image, resized to its size (which they have), and a threshold (0 here) is looked at. It is
that code without its learned upsampler, in float32. Masks must agree in 99.9 % of the pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import measure

SMALLEST_RATIO, SMALLEST_AGREEMENT = 1.5, 0.999
WINDOW_PX, STRIDE_PX = 224, 112


@dataclass(frozen=True)
class Options:
    """Batched windows against one window per forward."""

    out: Path = Path(__file__).parent / "results" / "open_vocabulary.json"
    """the result file"""
    architecture: str = "ViT-B-16"
    """open_clip's name; its weights are random"""
    size_px: int = 1024
    """side of the image"""
    num_classes: int = 20
    """text vectors, random"""
    batch_size: int = 16
    """windows at once, ours"""
    threads: int = 2
    """of torch, both"""
    rounds: int = 3
    """of both in turn"""
    role: Literal["all", "peer", "ours"] = "all"
    """peer and ours are what the benchmark runs in processes of their own"""


def run_role(options: Options) -> None:
    import hashlib
    import time
    import zlib

    import numpy as np
    import torch

    torch.set_num_threads(options.threads)
    encoder, queries, image = _inputs(options)
    segment = _peer if options.role == "peer" else _ours
    segment(options, encoder, queries, image[:WINDOW_PX, :WINDOW_PX])  # imports and kernels
    start, cpu_start = time.perf_counter(), measure.cpu_seconds()
    mask = segment(options, encoder, queries, image)
    seconds, cpu_seconds = time.perf_counter() - start, measure.cpu_seconds() - cpu_start
    packed = zlib.compress(mask.numpy().astype(np.uint8).tobytes())
    measure.report(
        {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "mask": packed.hex(),
            "image_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
            "versions": measure.versions("torch", "open_clip_torch"),
        }
    )


def _inputs(options: Options) -> Any:
    import numpy as np
    import torch
    import torch.nn.functional as F

    from rsvl_pretrain.model import DualEncoder

    torch.manual_seed(0)
    encoder = DualEncoder.load(options.architecture)
    queries = F.normalize(torch.randn(options.num_classes, encoder.config["embed_dim"]), dim=1)
    coarse = np.random.default_rng(0).integers(0, 256, (options.size_px // 16, options.size_px // 16, 3), np.uint8)
    return encoder.eval(), queries, coarse.repeat(16, 0).repeat(16, 1)


def _ours(options: Options, encoder: Any, queries: Any, image: Any) -> Any:
    from rsvl_segment.classes import Classes
    from rsvl_segment.protocols import SegmentOptions
    from rsvl_segment.scenes import Pixels
    from rsvl_segment.segmenter import Segmenter

    classes = Classes(tuple((f"class {number}",) for number in range(len(queries))))
    settings = SegmentOptions(window_px=WINDOW_PX, stride_px=STRIDE_PX, logit_scale=50)
    segmenter = Segmenter(encoder, classes, settings, queries=queries, batch_size=options.batch_size)
    return segmenter.segment(Pixels(image))


def _peer(options: Options, encoder: Any, queries: Any, image: Any) -> Any:
    import torch
    import torch.nn.functional as F

    pixels = encoder.preprocess.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
    height, width = image.shape[:2]
    sums, hits = torch.zeros(1, len(queries), height, width), torch.zeros(1, 1, height, width)
    with torch.no_grad():
        for y in range(max(height - WINDOW_PX + STRIDE_PX - 1, 0) // STRIDE_PX + 1):
            for x in range(max(width - WINDOW_PX + STRIDE_PX - 1, 0) // STRIDE_PX + 1):
                y1, x1 = min(y * STRIDE_PX + WINDOW_PX, height), min(x * STRIDE_PX + WINDOW_PX, width)
                y0, x0 = max(y1 - WINDOW_PX, 0), max(x1 - WINDOW_PX, 0)
                tokens = F.normalize(_peer_tokens(encoder.model.visual, pixels[..., y0:y1, x0:x1]), dim=-1)
                side = WINDOW_PX // encoder.model.visual.patch_size[0]
                logits = (tokens @ queries.T).permute(0, 2, 1).reshape(1, -1, side, side)
                logits = F.interpolate(logits, size=(WINDOW_PX, WINDOW_PX), mode="bilinear")
                sums += F.pad(logits, (x0, width - x1, y0, height - y1))
                hits[..., y0:y1, x0:x1] += 1
        logits = F.interpolate(sums / hits, size=(height, width), mode="bilinear")[0]
        probs = (50 * logits).softmax(0)
        classes = probs.argmax(0, keepdim=True)
        classes[probs.max(0, keepdim=True)[0] < 0] = 0
        return classes[0].to(torch.uint8)


def _peer_tokens(tower: Any, window: Any) -> Any:
    import torch
    import torch.nn.functional as F

    x = tower._embeds(window)
    for block in tower.transformer.resblocks[:-1]:
        x = block(x)
    block = tower.transformer.resblocks[-1]
    attention = block.attn
    joint = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    parts = [part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in joint.chunk(3, -1)]
    weights = sum((part @ part.transpose(-1, -2) * part.shape[-1] ** -0.5).softmax(-1) for part in parts)
    mixed = attention.out_proj(torch.matmul(weights, parts[2]).transpose(1, 2).flatten(2))
    block(x)  # its output is not used there either
    return (tower.ln_post(mixed) @ tower.proj)[:, 1:]


def agreement(peer: measure.Measured, ours: measure.Measured) -> float:
    """Share of pixels with the same class. Raises RuntimeError below what is asked, and for different images."""
    import zlib

    import numpy as np

    if peer["image_sha256"] != ours["image_sha256"]:
        raise RuntimeError("the two did not see the same image")
    masks = [np.frombuffer(zlib.decompress(bytes.fromhex(each["mask"])), np.uint8) for each in (peer, ours)]
    same = float((masks[0] == masks[1]).mean())
    if same < SMALLEST_AGREEMENT or len(np.unique(masks[0])) < 2:
        raise RuntimeError(f"masks agree in {same:.4%} of the pixels and hold {len(np.unique(masks[0]))} classes")
    return same


def main(options: Options) -> None:
    if options.role != "all":
        run_role(options)
        return
    names = ("architecture", "size_px", "num_classes", "batch_size", "threads")
    setting = {name: getattr(options, name) for name in names}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in setting.items()]

    def contender(role: str) -> measure.Measured:
        return measure.measure_in_fresh_process(__file__, ["--role", role, *arguments])

    rounds = measure.alternate({"peer": lambda: contender("peer"), "ours": lambda: contender("ours")}, options.rounds)
    same = min(agreement(each["peer"], each["ours"]) for each in rounds)
    ratios = {
        name: measure.median_and_range([each["peer"][name] / each["ours"][name] for each in rounds])
        for name in ("seconds", "cpu_seconds")
    }
    found: dict[str, Any] = {
        "ratio": ratios["seconds"],
        "cpu_ratio": ratios["cpu_seconds"],
        "rounds": options.rounds,
        "agreement": same,
    }
    for role in ("ours", "peer"):
        found[role] = {
            name: measure.median_and_range([each[role][name] for each in rounds]) for name in ("seconds", "cpu_seconds")
        }
        memory = [each[role]["peak_rss_mib"]["process"] for each in rounds]
        found[role] |= {"peak_rss_mib": measure.median_and_range(memory), "versions": rounds[0][role]["versions"]}
    gates = {"ratio": SMALLEST_RATIO, "agreement": SMALLEST_AGREEMENT}
    missed = [] if found["ratio"]["median"] >= SMALLEST_RATIO else ["ratio"]
    measure.write_result(options.out, "open_vocabulary", {"setting": setting, "gates": gates, "missed": missed, **found})


if __name__ == "__main__":
    main(tyro.cli(Options))
