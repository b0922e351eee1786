"""`clip_benchmark eval` against ours, from the start of the process to its end, on one webdataset and one model: the same numbers, sooner.

    pip install --no-deps --target /tmp/peer_clip_benchmark clip-benchmark==1.6.2 pycocoevalcap 'webdataset<=0.2.86'
    pip install --target /tmp/peer_clip_benchmark scikit-learn 'numpy<2.4'     # its accuracy raises TypeError with numpy 2.4
    python -m benchmarks.zero_shot_eval --peer-path /tmp/peer_clip_benchmark   # writes benchmarks/results/zero_shot_eval.json

500 procedural scenes under 45 class names with OpenAI's 18 templates, and 100 of them with five captions each for retrieval; ViT-B-32
with random weights from a seed, in float32 (`--no_amp`). Both read the same tar files. acc1, acc5, mean_per_class_recall and the
recalls must agree to 1e-4. Classes follow the scenes no more than the weights do: agreement is checked where every score is close.
"""

import io
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from PIL import Image

from benchmarks import measure

NUM_SHARDS, IMAGE_PX, CAPTIONS_AN_IMAGE = 4, 256, 5
SMALLEST_RATIO, TOLERANCE = 2.0, 1e-4
Task = Literal["zeroshot_classification", "zeroshot_retrieval"]


@dataclass(frozen=True)
class Options:
    """Zero-shot classification and retrieval against clip_benchmark's command."""

    peer_path: Path | None = None
    """folder with clip-benchmark, made by pip install --target"""
    out: Path = Path(__file__).parent / "results" / "zero_shot_eval.json"
    """the result file"""
    data: Path = Path(tempfile.gettempdir()) / "rsvl-bench-zero-shot"
    """where images and weights are made, from a seed; those already there are used"""
    model: str = "ViT-B-32"
    """an architecture; its weights are random"""
    images: int = 500
    """in the webdataset"""
    workers: int = 2
    """processes or threads that decode"""
    batch_size: int = 64
    """images encoded at once"""
    rounds: int = 3
    """of both in turn, for classification"""
    task: Task = "zeroshot_classification"
    """what a process of the benchmark's own does"""
    retrieval_rounds: int = 1
    """for retrieval, of which a fifth of the images is enough to see that the numbers agree: it has no gate"""
    role: Literal["all", "ours"] = "all"
    """ours is what the benchmark runs in a process of its own"""


def make_webdatasets(options: Options) -> None:
    """DATA/{task}-{images}: CLIP_benchmark's layout."""
    from evaluation.prompts import OPENAI_RESISC45, RESISC45_CLASS_NAMES
    from rsvl_data.scenes import render_scene

    scenes = None
    for task in ("zeroshot_classification", "zeroshot_retrieval"):
        root = wds_root(options, task)
        if (root / "test" / "nshards.txt").exists():
            continue
        scenes = scenes or [render_scene(0, number, IMAGE_PX) for number in range(options.images)]
        (root / "test").mkdir(parents=True, exist_ok=True)
        for shard in range(NUM_SHARDS):
            with tarfile.open(root / "test" / f"{shard}.tar", "w") as tar:
                for number in range(shard, num_images(options, task), NUM_SHARDS):
                    captions = list(scenes[number].captions[:CAPTIONS_AN_IMAGE])
                    label = str(number % len(RESISC45_CLASS_NAMES))
                    member = {"cls": label} if task == "zeroshot_classification" else {"txt": "\n".join(captions)}
                    for suffix, content in (("jpg", jpeg(scenes[number].image)), *((k, v.encode()) for k, v in member.items())):
                        info = tarfile.TarInfo(f"s{number:05d}.{suffix}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
        if task == "zeroshot_classification":
            (root / "classnames.txt").write_text("\n".join(RESISC45_CLASS_NAMES))
            templates = [template.replace("{}", "{c}") for template in OPENAI_RESISC45.templates]
            (root / "zeroshot_classification_templates.txt").write_text("\n".join(templates))
        else:
            (root / "dataset_type.txt").write_text("retrieval")
        (root / "test" / "nshards.txt").write_text(str(NUM_SHARDS))


def jpeg(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


def wds_root(options: Options, task: str) -> Path:
    return options.data / f"{task}-{num_images(options, task)}"


def num_images(options: Options, task: str) -> int:
    return options.images if task == "zeroshot_classification" else options.images // 5


def model_folder(options: Options) -> Path:
    return options.data / options.model


def make_model(options: Options) -> None:
    import torch

    from rsvl_pretrain.model import DualEncoder

    if not (model_folder(options) / "open_clip_config.json").exists():
        torch.manual_seed(0)
        DualEncoder.load(options.model).export(model_folder(options))


def run_ours(options: Options) -> None:
    """Writes the Result, as `rsvl eval` does."""
    from evaluation.benchmarks.retrieval import retrieval
    from evaluation.benchmarks.zero_shot import zero_shot
    from evaluation.datasets.web_dataset import WebDatasetSet
    from rsvl_pretrain.model import DualEncoder

    encoder = DualEncoder.load(f"local-dir:{model_folder(options)}")
    data = WebDatasetSet(wds_root(options, options.task), "test")
    benchmark = zero_shot if options.task == "zeroshot_classification" else retrieval
    result = benchmark(encoder, data, protocol="clip_benchmark", batch_size=options.batch_size, workers=options.workers)
    result.save(options.out)


def ours(options: Options, task: str) -> measure.Measured:
    out = options.data / "ours.json"
    arguments = [f"--task={task}", f"--images={options.images}", f"--model={options.model}", f"--data={options.data}"]
    arguments += [f"--workers={options.workers}", f"--batch-size={options.batch_size}", f"--out={out}"]
    measured = measure.measure_command([sys.executable, "-m", "benchmarks.zero_shot_eval", "--role=ours", *arguments])
    return measured | {"metrics": {name: metric["value"] for name, metric in json.loads(out.read_text())["metrics"].items()}}


def peer(options: Options, task: str) -> measure.Measured:
    out = options.data / "peer.json"
    command = [sys.executable, "-c", "from clip_benchmark.cli import main; main()", "eval"]
    command += ["--dataset", f"wds/{task}", "--dataset_root", str(wds_root(options, task)), "--task", task, "--no_amp", "--quiet"]
    command += ["--model", f"local-dir:{model_folder(options)}", "--pretrained", "", "--output", str(out)]
    command += ["--num_workers", str(options.workers), "--batch_size", str(options.batch_size), "--recall_k", "1", "5", "10"]
    paths = [str(options.peer_path), os.environ.get("PYTHONPATH", "")]
    measured = measure.measure_command(command, {**os.environ, "PYTHONPATH": os.pathsep.join(paths).strip(os.pathsep)})
    return measured | {"metrics": json.loads(out.read_text())["metrics"]}


def compare(options: Options, task: str, num_rounds: int) -> dict[str, Any]:
    rounds = measure.alternate({"peer": lambda: peer(options, task), "ours": lambda: ours(options, task)}, num_rounds)
    worst = max(disagreements(rounds))
    if worst > TOLERANCE:
        raise RuntimeError(
            f"{task}: numbers differ by {worst}: peer {rounds[0]['peer']['metrics']}, ours {rounds[0]['ours']['metrics']}"
        )
    found: dict[str, Any] = {"task": task, "images": num_images(options, task), "rounds": num_rounds, "largest_difference": worst}
    for name in ("seconds", "cpu_seconds"):
        ratios = [each["peer"][name] / each["ours"][name] for each in rounds]
        found[f"{name}_ratio"] = measure.median_and_range(ratios)
    for role in ("ours", "peer"):
        found[role] = {
            name: measure.median_and_range([each[role][name] for each in rounds]) for name in ("seconds", "peak_pss_mib")
        }
    return found | {"metrics": rounds[0]["peer"]["metrics"]}


def disagreements(rounds: list[dict[str, measure.Measured]]) -> Iterator[float]:
    for each in rounds:
        for name, value in each["peer"]["metrics"].items():
            yield abs(value - each["ours"]["metrics"][name])


def main(options: Options) -> None:
    if options.role == "ours":
        run_ours(options)
        return
    if options.peer_path is None:
        raise SystemExit("--peer-path is missing: the folder with clip-benchmark that the docstring makes")
    make_webdatasets(options)
    make_model(options)
    began = time.perf_counter()
    rounds = {"zeroshot_classification": options.rounds, "zeroshot_retrieval": options.retrieval_rounds}
    cases = [compare(options, task, number) for task, number in rounds.items() if number]
    missed = [case["task"] for case in cases[:1] if case["seconds_ratio"]["median"] < SMALLEST_RATIO]
    setting = {name: getattr(options, name) for name in ("model", "images", "workers", "batch_size")}
    packages = measure.versions("torch", "open_clip_torch")
    result = {"setting": setting, "versions": packages, "missed": missed, "cases": cases, "seconds": time.perf_counter() - began}
    measure.write_result(options.out, "zero_shot_eval", result)


if __name__ == "__main__":
    main(tyro.cli(Options))
