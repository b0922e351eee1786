import json

import pytest
from torch import nn

from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.optim import OptimConfig, learning_rate, make_optimizer, set_learning_rate


def test_official_schedules(shared):
    cases = json.loads((shared / "fixtures" / "objectives" / "lr_schedules.json").read_text())["scalars"]["cases"]
    for case in cases:
        cooldown = {name: case[name] for name in ("cooldown_steps", "cooldown_power", "cooldown_end_lr") if name in case}
        config = OptimConfig(lr=case["base_lr"], warmup=case["warmup"], lr_scheduler=case["schedule"], **cooldown)
        ours = [learning_rate(step, config, case["total_steps"]) for step in range(case["total_steps"] + 1)]
        assert ours == pytest.approx(case["lr_at_step_0_to_total"], rel=1e-9, abs=1e-30)
    assert len(cases) == 6


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
    assert [len(group["params"]) for group in make_optimizer(model, OptimConfig()).param_groups] == [1]


def test_bad_options():
    with pytest.raises(OptionError, match="--optim.lr 0"):
        OptimConfig(lr=0)
    with pytest.raises(OptionError, match="layer-decay 1.5"):
        OptimConfig(layer_decay=1.5)
    with pytest.raises(OptionError, match="cooldown-steps 0"):
        OptimConfig(lr_scheduler="const-cooldown")


def test_layer_decay_falls_with_the_distance_to_the_output():
    model = DualEncoder.load("rsvl-tiny")
    optimizer = make_optimizer(model, OptimConfig(layer_decay=0.5))
    set_learning_rate(optimizer, 8.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    lr = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(lr) == len(names)
    assert (
        lr["model.visual.proj"]
        == lr["model.visual.ln_post.weight"]
        == lr["model.text_projection"]
        == lr["model.logit_scale"]
        == 8
    )
    blocks = [lr[f"model.visual.transformer.resblocks.{i}.attn.in_proj_weight"] for i in range(4)]
    assert blocks == [0.5, 1, 2, 4]
    assert [lr[f"model.transformer.resblocks.{i}.mlp.c_fc.weight"] for i in range(2)] == [2, 4]
    assert lr["model.visual.conv1.weight"] == lr["model.visual.positional_embedding"] == 0.25
    assert lr["model.token_embedding.weight"] == lr["model.positional_embedding"] == 1
    decays = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays["model.visual.transformer.resblocks.0.attn.in_proj_weight"] > 0
    assert decays["model.visual.transformer.resblocks.0.ln_1.weight"] == 0


def test_layer_decay_refuses_towers_in_stages():
    staged = nn.ModuleDict(
        {"visual": nn.ModuleDict({"stages": nn.ModuleDict({"blocks": nn.ModuleDict({"0": nn.Linear(2, 2)})})})}
    )
    with pytest.raises(OptionError, match="stages"):
        make_optimizer(staged, OptimConfig(layer_decay=0.5))
