"""The commands that measure results again, from what the results record."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

from evaluation.result import Result

_SCORED_FILES = ("segmentation", "referring")  # predictions that lie as files; no model runs
_PROBES = ("linear_probe", "knn", "few_shot")  # of one protocol
# Option of the command line by its name in `Result.options`, and the tasks that have it; () is all tasks that run a model.
_FLAGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "limit": ("limit", ()),
    "batch_size": ("batch-size", ()),
    "precision": ("precision", ()),
    "engine": ("engine", ("zero_shot", "retrieval", "localization", *_PROBES)),
    "num_bootstrap": ("num-bootstrap", ()),
    "trained_on": ("trained-on", ()),
    "threshold": ("threshold", ("open_vocabulary",)),
    "background": ("background", ("open_vocabulary",)),
    "leave_out": ("leave-out", ("segmentation",)),
    "boundary_px": ("boundary-px", ("segmentation",)),
}
# A published protocol prescribes these; under ours they can be chosen.
_CHOSEN = {"head": "head", "scale": "scale", "window_px": "window", "stride_px": "stride", "upsample": "upsample"}


def command(result: Result) -> str:
    """Capitals stand for what a result does not know: MODEL and MASKS for what was measured, DATA for the folder of the public datasets,
    DATASET for that of one, SCORES for a table."""
    task = shlex.quote(result.task.replace("_", "-"))
    words = [f"--{flag} {_quoted(value)}" for flag, value in _options(result) if value not in (None, "", [])]
    out = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") for name in (result.task, result.dataset, result.protocol))
    return " ".join(["rsvl eval", task, *_inputs(result), *words, f"--out {out}.json"])


def _quoted(value: Any) -> str:
    return " ".join(shlex.quote(str(each)) for each in (value if isinstance(value, list) else [value]))


def _inputs(result: Result) -> list[str]:
    named = result.options.get("dataset")
    public = shlex.quote(str(named))
    if result.task == "quality":
        return ["--scores SCORES", f"--dataset {shlex.quote(result.dataset)}"]
    if result.task in _SCORED_FILES:
        return ["--predicted MASKS", f"--dataset {shlex.quote(result.dataset)}", "--root DATA"]
    if named is None or result.task == "localization":
        return ["--model MODEL", "--data DATASET"]
    if result.task == "open_vocabulary":
        return ["--model MODEL", f"--dataset {public}", "--data DATA"]
    return ["--model MODEL", f"--data {public}", "--root DATA"]


def _options(result: Result) -> Iterator[tuple[str, Any]]:
    task, options = result.task, result.options
    runs_model = task not in (*_SCORED_FILES, "quality")
    if task not in ("localization", "quality"):
        yield "split", result.split
    if task not in ("quality", *_PROBES):
        yield "protocol", result.protocol
    yield "lang", result.data.get("lang")
    if task == "localization":
        yield "scales-px", str(result.data.get("scales_px") or "").split()
    for name, (flag, tasks) in _FLAGS.items():
        if task in tasks if tasks else runs_model or name == "num_bootstrap":
            yield flag, options.get(name)
    if task == "open_vocabulary" and result.protocol == "rsvl":
        yield from ((flag, options.get(name)) for name, flag in _CHOSEN.items())
    yield "seed", result.seed
