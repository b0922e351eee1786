"""Presets, warnings, released checkpoints."""

import json
import logging
import math
from dataclasses import replace

import pytest
import torch
from region_dataset import build_regions

from recipes import cli
from recipes.pretrain import farslip1, farslip2
from rsvl_data.errors import DataError, OptionError
from rsvl_pretrain import farslip_checkpoints
from rsvl_pretrain.farslip_checkpoints import load_farslip
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig
from rsvl_pretrain.optim import share_below_rounding
from rsvl_pretrain.text_positions import KeptPositions, set_context_length
from rsvl_pretrain.train import TrainConfig

RECIPES = {"pretrain/farslip1": farslip1, "pretrain/farslip2": farslip2}
NEEDED = ("--data", "d", "--out", "o", "--init-from", "rsvl-tiny")


def options_of(recipe: str, *words: str, monkeypatch) -> farslip1.Options | farslip2.Options:
    """What the command line makes of the words."""
    seen = []
    monkeypatch.setattr(RECIPES[recipe], "run", seen.append)
    assert cli.run_recipe([recipe, *NEEDED, *words]) == 0
    return seen[0]


def test_the_preset_is_where_options_start(monkeypatch):
    paper = options_of("pretrain/farslip1", "--preset", "paper", "--optim.wd", "0.5", monkeypatch=monkeypatch)
    assert (paper.preset, paper.optim.lr, paper.optim.wd, paper.optim.warmup) == ("paper", 1e-6, 0.5, 1000)
    assert paper.contrastive == ContrastiveConfig(local_loss=False, gather_with_grad=False)
    assert paper.distill.ema_update == "before_step" and paper.distill_weight == 0.1 and paper.batch_size == 160
    left_out = options_of("pretrain/farslip1", monkeypatch=monkeypatch)
    assert left_out == options_of("pretrain/farslip1", "--preset=recommended", monkeypatch=monkeypatch)
    assert left_out.contrastive == ContrastiveConfig() and left_out.optim.lr == 1e-5
    second = options_of("pretrain/farslip2", "--preset", "paper", "--context-length", "248", monkeypatch=monkeypatch)
    assert (second.optim.lr, second.colour, second.context_length, second.distill_from) == (4e-9, True, 248, "none")
    assert (second.min_area_px, second.max_area_px, second.regions_per_image) == (64**2, 1024**2, 4)


@pytest.mark.parametrize("word", ["--smoke", "--config"])
def test_one_start_alone(word):
    with pytest.raises(OptionError, match="give one of them"):
        cli.run_recipe(["pretrain/farslip1", "--preset", "paper", word, "x"])


def test_farslip_32_steps_of_an_epoch_of_rs5m():
    assert farslip1.PRESETS["paper"]["train"].steps == math.ceil(5_070_186 / farslip1.PRESETS["paper"]["batch_size"]) == 31_689


def test_farslip_33_the_share_of_weights_that_a_step_cannot_change():
    """fp32 at 0.2 is rounded to 2^-26 = 1.49e-8: half of that is more than 4e-9, at 0.1 it is less."""
    model = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.2, -0.2, 0.1, 0.0]]))
    assert share_below_rounding(model, 4e-9) == 0.5
    assert share_below_rounding(model, 1e-6) == 0
    assert torch.equal(model.weight - 3.7e-9, model.weight) is False  # 0.1 and 0 move
    assert model.weight[0, 0] - 3.7e-9 == model.weight[0, 0]


def test_farslip_26_and_33_warnings(tmp_path, caplog):
    """Kinds of caption are chosen by --caption-kinds; those that are cut, and a rate that is lost, are said."""
    caplog.set_level(logging.WARNING, logger="recipes")
    root = build_regions(tmp_path / "data").root
    start = farslip2.Options(data=root, out=tmp_path / "a", init_from="rsvl-tiny", batch_size=4, workers=0, min_area_px=1)
    quick = replace(start, train=TrainConfig(steps=1, trackers=()), caption_kinds=("vlm",))
    farslip2.run(quick)
    assert not caplog.records
    encoder = DualEncoder.load("rsvl-tiny")
    encoder.model.positional_embedding = torch.nn.Parameter(encoder.model.positional_embedding[:6].detach())
    encoder.model.attn_mask, encoder.model.context_length = encoder.model.attn_mask[:6, :6], 6
    encoder.config["text_cfg"]["context_length"] = 6
    encoder.export(tmp_path / "short")
    farslip2.run(replace(quick, out=tmp_path / "b", init_from=str(tmp_path / "short"), optim=replace(quick.optim, lr=4e-9)))
    said = [record.getMessage() for record in caplog.records]
    assert any("--optim.lr 4e-09 is less than half of the rounding of" in text for text in said)
    assert any("of the captions are longer than the 6 tokens" in text for text in said)


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A file as FarSLIP's trainer writes it: 248 positions in two tables (68 of the tiny model), the first 20 from the base."""
    monkeypatch.setattr(farslip_checkpoints, "_ARCHITECTURES", {8: "rsvl-tiny"})
    torch.manual_seed(3)
    encoder = DualEncoder.load("rsvl-tiny")
    set_context_length(encoder, 68)
    state = {f"module.{name}": tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    base, first = state["module.positional_embedding"], (torch.arange(68) < 20).float()[:, None]
    state["module.positional_embedding_res"] = base + (torch.arange(68) < 20).float()[:, None] * 9
    state["module.positional_embedding"] = base + (1 - first) * 9
    state["module.mask1"], state["module.mask2"] = first, 1 - first
    torch.save({"epoch": 10, "name": "x", "state_dict": state}, tmp_path / "FarSLIP2.pt")
    return tmp_path / "FarSLIP2.pt", encoder


def test_farslip_30_a_released_checkpoint_is_one_table_of_positions(released):
    path, original = released
    loaded = load_farslip(path)
    texts = ["a lake", "many boats " * 30]
    torch.testing.assert_close(loaded.encode_text(texts), original.encode_text(texts))
    with pytest.raises(OptionError, match="--convert-positions"):
        set_context_length(loaded, 32)


def test_a_run_begins_with_a_released_checkpoint(released, tmp_path):
    path, original = released
    root = build_regions(tmp_path / "data").root
    start = farslip1.Options(data=root, out=tmp_path / "run", init_from=str(path), batch_size=4, workers=0)
    trained = farslip1.run(replace(start, train=TrainConfig(steps=1, trackers=())))
    assert KeptPositions(trained).rows.shape == (68, 128)
    assert not torch.equal(trained.model.visual.proj, original.model.visual.proj)


def test_a_file_that_is_no_such_checkpoint(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(DataError, match="is no checkpoint of FarSLIP"):
        load_farslip(path)


def test_the_configuration_of_a_run_runs_it_again(tmp_path, monkeypatch):
    root = build_regions(tmp_path / "data").root
    words = ("--batch-size", "4", "--workers", "0", "--min-area-px", "1", "--train.steps", "1", "--train.trackers")
    start = ["--data", str(root), "--init-from", "rsvl-tiny", "--preset", "paper"]
    assert cli.run_recipe(["pretrain/farslip2", *start, "--out", str(tmp_path / "run"), *words]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["options"]["preset"] == "paper" and config["options"]["optim"]["lr"] == 4e-9
    again = ["pretrain/farslip2", "--config", str(tmp_path / "run" / "config.json"), "--out", str(tmp_path / "again")]
    assert cli.run_recipe(again) == 0
    runs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("run", "again")]
    first, second = (json.loads(lines[0]) for lines in runs)
    assert first["loss/total"] == second["loss/total"] and first["keys_digest"] == second["keys_digest"]
