"""Options of pretrain/clip that decide which weights learn, and how."""

import json
from dataclasses import replace

import pytest
import torch
from colour_source import build_colours

from recipes.pretrain import clip
from rsvl_data.errors import DataError, OptionError
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.train import TrainConfig


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    build_colours(folder / "data")
    train = TrainConfig(steps=3, save_every=3, trackers=())
    return clip.Options(data=folder / "data", out=folder / "run", model="rsvl-tiny", batch_size=8, workers=0, train=train)


def changed_parts(options, tmp_path, **changes) -> set[str]:
    """Which parts of the model a short run changes."""
    trained = clip.run(replace(options, out=tmp_path / "run", **changes)).model.state_dict()
    torch.manual_seed(options.seed)
    fresh = DualEncoder.load("rsvl-tiny").model.state_dict()
    changed = {name for name, tensor in fresh.items() if not torch.equal(tensor, trained[name])}
    return {"image" if name.startswith("visual.") else "scale" if name == "logit_scale" else "text" for name in changed}


@pytest.mark.parametrize(
    ("changes", "learned"),
    [
        ({}, {"image", "text", "scale"}),
        ({"lock_image": True}, {"text", "scale"}),
        ({"lock_text": True}, {"image", "scale"}),
        ({"lock_image": True, "lock_image_unlocked_groups": 1}, {"image", "text", "scale"}),
        ({"lock_text": True, "lock_text_unlocked_layers": 1}, {"image", "text", "scale"}),
    ],
)
def test_locked_towers_stay(options, tmp_path, changes, learned):
    assert changed_parts(options, tmp_path, **changes) == learned


def losses(out) -> list[float]:
    return [json.loads(line)["loss/total"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_checkpointed_activations_change_no_loss(options, tmp_path, monkeypatch):
    calls = []
    original = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr("rsvl_pretrain.clip_block.checkpoint", lambda *a, **k: calls.append(1) or original(*a, **k))
    for name, wanted in (("plain", False), ("again", True)):
        clip.run(replace(options, out=tmp_path / name, grad_checkpointing=wanted))
        assert bool(calls) == wanted
    assert losses(tmp_path / "again") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)


def test_accumulated_pieces_change_no_loss(options, tmp_path):
    clip.run(replace(options, out=tmp_path / "whole"))
    clip.run(replace(options, out=tmp_path / "pieces", train=replace(options.train, accum_freq=3)))
    assert losses(tmp_path / "pieces") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


@pytest.mark.parametrize(
    "changes", [{"lock_image": True, "lock_text": True}, {"lock_image_unlocked_groups": 1}, {"lock_text_unlocked_layers": 2}]
)
def test_options_that_make_no_sense(options, changes):
    with pytest.raises(OptionError, match="lock"):
        replace(options, **changes)


def test_a_run_does_not_go_on_with_other_towers_locked(options, tmp_path):
    clip.run(replace(options, out=tmp_path / "run"))
    with pytest.raises(DataError, match="trained_parameters was"):
        clip.run(replace(options, out=tmp_path / "run", lock_text=True, resume="latest"))


def test_a_refused_run_leaves_the_options_of_the_one_before(options, tmp_path):
    clip.run(replace(options, out=tmp_path / "run"))
    before = (tmp_path / "run" / "config.json").read_text()
    assert json.loads(before)["options"]["seed"] == 0
    for changes, error in (({}, OptionError), ({"resume": "latest"}, DataError)):
        with pytest.raises(error):
            clip.run(replace(options, out=tmp_path / "run", seed=7, **changes))
        assert (tmp_path / "run" / "config.json").read_text() == before
