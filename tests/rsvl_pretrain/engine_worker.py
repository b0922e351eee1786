"""Trains under several engines one after the other, in the same processes: starting them takes longer than a tiny training.

torchrun --nproc_per_node 2 engine_worker.py CASES.json, where CASES.json is a list of {engine, out, stop_at, spoil_at, fails, options}:
the name of a file of recipes/engines, a run folder, the step after whose evaluation the run breaks off (or null), the step whose gradient
is infinite on the last process (or null), whether a DataError is expected (its text goes to OUT/error.RANK), and changed fields of
`options`.
"""

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from recipes.pretrain import clip
from rsvl_data.errors import DataError
from rsvl_pretrain.objectives import ClipObjective, ContrastiveConfig
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig

ENGINES = Path(clip.__file__).parents[1] / "engines"


def options(data: Path, out: Path, **changes: Any) -> clip.Options:
    """Six steps of rsvl-tiny that leave one checkpoint, of 100 MB. `changes` are of the options, and in `train`, `optim`, `contrastive`."""
    train = {"steps": 6, "eval_every": 3, "save_every": 2, "keep": 1, "trackers": (), **changes.pop("train", {})}
    optim = {"warmup": 2, "grad_clip_norm": 2.0, **changes.pop("optim", {})}
    return clip.Options(
        data=data,
        out=out,
        model="rsvl-tiny",
        batch_size=8,
        workers=0,
        train=TrainConfig(**train),
        optim=OptimConfig(**optim),
        contrastive=ContrastiveConfig(**changes.pop("contrastive", {})),
        **changes,
    )


@contextmanager
def launched_by(engine: str):
    """What `accelerate launch --config_file` would put into the environment."""
    words = ["--config_file", str(ENGINES / f"{engine}.yaml"), "--num_processes", "2", "--main_process_port", "0", "script.py"]
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        environment = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        environment = prepare_multi_gpu_env(arguments)
    before = dict(os.environ)
    os.environ.update({name: value for name, value in environment.items() if name.startswith(("ACCELERATE_", "FSDP_"))})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        AcceleratorState._reset_state(reset_partial_state=True)


class Stop(Exception):
    pass


def run(case: dict[str, Any], data: Path) -> None:
    chosen = options(data, Path(case["out"]), **case["options"])
    if case["stop_at"]:
        chosen = replace(chosen, train=replace(chosen.train, eval_every=case["stop_at"]))
        clip.val_evaluators = lambda dataset: {"stop": _stop}
    ClipObjective.forward = _spoiled(case["spoil_at"]) if case["spoil_at"] else FORWARD
    try:
        clip.run(chosen)
    except Stop:
        pass
    except DataError as error:
        if not case["fails"]:
            raise
        Path(case["out"], f"error.{os.environ['RANK']}").write_text(str(error))
    finally:
        clip.val_evaluators = VAL_EVALUATORS


def _stop(encoder: Any) -> dict[str, float]:
    raise Stop


def _spoiled(step: int) -> Any:
    def forward(self: ClipObjective, batch: Any, **named: Any) -> dict[str, Any]:
        losses = FORWARD(self, batch, **named)
        if batch.step == step and os.environ["RANK"] == "1":
            losses["contrastive"].register_hook(lambda gradient: gradient * float("inf"))
        return losses

    return forward


VAL_EVALUATORS, FORWARD = clip.val_evaluators, ClipObjective.forward

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    PartialState.destroy_process_group = lambda self, group=None: None  # one group of processes serves all trainings
    plan = json.loads(Path(sys.argv[1]).read_text())
    for case in plan["cases"]:
        with launched_by(case["engine"]):
            run(case, Path(plan["data"]))
