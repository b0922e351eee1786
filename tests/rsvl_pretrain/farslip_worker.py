"""Both stages of FarSLIP at once under several engines, one after the other in the same processes.

torchrun --nproc_per_node 2 farslip_worker.py CASES.json, where CASES.json is {data, cases: [{engine, out, options}]}: the name of a file of
recipes/engines, a run folder, and changed fields of `options`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from engine_worker import launched_by

from recipes.pretrain import farslip2
from rsvl_pretrain.objectives import DistillConfig, RegionConfig
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig


def options(data: Path, out: Path, **changes: Any) -> farslip2.Options:
    """Four steps of rsvl-tiny with all three losses; `changes` of the options, and in `train`, `distill` and `regions`."""
    train = {"steps": 4, "save_every": 2, "trackers": (), **changes.pop("train", {})}
    distill = {"teacher": "ema", **changes.pop("distill", {})}
    mean = {"momentum": 0.9} if distill["teacher"] == "ema" else {}
    source = changes.pop("distill_from", "random")
    crops = {"crops_per_image": 2, "crop_px": changes.pop("crop_px", 32)} if source == "random" else {}
    return farslip2.Options(
        data=data,
        out=out,
        init_from="rsvl-tiny",
        batch_size=4,
        workers=0,
        min_area_px=1.0,
        distill_from=source,
        distill=DistillConfig(**mean, **distill),
        regions=RegionConfig(**changes.pop("regions", {})),
        train=TrainConfig(**train),
        optim=OptimConfig(lr=1e-3, warmup=0, grad_clip_norm=2.0),
        **crops,
        **changes,
    )


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    PartialState.destroy_process_group = lambda self, group=None: None  # one group of processes serves all trainings
    plan = json.loads(Path(sys.argv[1]).read_text())
    for case in plan["cases"]:
        with launched_by(case["engine"]):
            farslip2.run(options(Path(plan["data"]), Path(case["out"]), **case["options"]))
