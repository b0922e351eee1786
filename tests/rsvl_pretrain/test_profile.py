"""--train.profile: a trace and three lines, and the same weights as without."""

import gzip
import json
import logging
import re

import torch

from rsvl_data.loader import LoaderConfig
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.step_profile import WARMUP_STEPS
from rsvl_pretrain.train import TrainConfig, train


def run(dataset, out, steps, profile):
    torch.manual_seed(0)
    return train(
        ClipObjective(DualEncoder.load("rsvl-tiny")),
        dataset,
        out,
        config=TrainConfig(steps=steps, profile=profile, trackers=()),
        optim=OptimConfig(lr=1e-3, warmup=1),
        loader=LoaderConfig(batch_size=8, workers=0),
    )


def test_says_where_the_time_goes_and_changes_nothing(colours, tmp_path, caplog):
    caplog.set_level(logging.INFO, "rsvl_pretrain")
    steps = WARMUP_STEPS + 3  # the last one, with its checkpoint, is not recorded
    plain = run(colours, tmp_path / "plain", steps, 0)
    out = tmp_path / "profiled"
    assert run(colours, out, steps, 2).weights_sha256() == plain.weights_sha256()
    assert not (tmp_path / "plain" / "profile").exists()

    with gzip.open(out / "profile" / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    counts = {
        name: sum(event.get("name") == name and event.get("ph") == "X" for event in events) for name in ("optimizer", "loss")
    }
    assert counts == {"optimizer": 2, "loss": 2}

    text = (out / "profile" / "summary.txt").read_text()
    phases, parts, operations = text.splitlines()
    assert text in caplog.text and "https://ui.perfetto.dev" in caplog.text
    assert phases.startswith("2 steps of ") and parts.startswith("in the towers and the loss: image tower ")
    shares = {name: int(share) for name, share in re.findall(r"(\w[\w ]*\w) (\d+)%", phases)}
    assert shares.keys() == {"data wait", "forward", "backward", "optimizer"} and min(shares.values()) > 0
    assert 80 <= sum(shares.values()) <= 102
    inside = [int(share) for share in re.findall(r"(\d+)%", parts)]
    assert len(inside) == 3 and inside[0] > 0 and sum(inside) <= shares["forward"] + 2
    assert "aten::" in operations


def test_a_run_too_short_to_profile_says_so(colours, tmp_path, caplog):
    run(colours, tmp_path / "run", WARMUP_STEPS, 2)
    assert f"nothing was profiled: that takes more than {WARMUP_STEPS} steps" in caplog.text
    assert not (tmp_path / "run" / "profile").exists()
