import json

import pytest
from torch import nn

from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.optim import OptimConfig, learning_rate, make_optimizer


def test_official_schedules(shared):
    cases = json.loads((shared / "fixtures" / "objectives" / "lr_schedules.json").read_text())["scalars"]["cases"]
    checked = 0
    for case in cases:
        if case["schedule"] in ("cosine", "const"):
            config = OptimConfig(lr=case["base_lr"], warmup=case["warmup"], lr_scheduler=case["schedule"])
            ours = [learning_rate(step, config, case["total_steps"]) for step in range(case["total_steps"] + 1)]
            assert ours == pytest.approx(case["lr_at_step_0_to_total"], rel=1e-9, abs=1e-30)
            checked += 1
    assert checked == 4


def test_who_decays():
    model = DualEncoder.load("rsvl-tiny")
    plain, decayed = make_optimizer(model, OptimConfig(wd=0.3)).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    plain_names, decayed_names = ({names[id(p)] for p in group["params"]} for group in (plain, decayed))
    assert plain["weight_decay"] == 0 and decayed["weight_decay"] == 0.3
    assert {"model.logit_scale", "model.ln_final.weight", "model.visual.class_embedding"} <= plain_names
    assert {"model.token_embedding.weight", "model.visual.conv1.weight", "model.text_projection"} <= decayed_names
    assert plain_names | decayed_names == set(names.values()) and not plain_names & decayed_names


def test_frozen_parameters_are_left_out():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in make_optimizer(model, OptimConfig()).param_groups] == [1, 0]


def test_bad_options():
    with pytest.raises(OptionError, match="--optim.lr 0"):
        OptimConfig(lr=0)
