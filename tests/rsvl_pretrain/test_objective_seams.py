"""What the trainer promises an objective: factors, hooks, learning rates, submodules that are saved and never exported."""

import json
import math

import pytest
import torch
from torch import nn

from rsvl_data.crops import RandomCrops
from rsvl_data.errors import DataError, OptionError
from rsvl_data.loader import LoaderConfig
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import Objective
from rsvl_pretrain.optim import OptimConfig, make_optimizer
from rsvl_pretrain.teacher import follow, frozen_copy
from rsvl_pretrain.term_norms import term_norms
from rsvl_pretrain.train import TrainConfig, train

OPTIM = OptimConfig(lr=0.01, warmup=0, lr_scheduler="const")


class Agreement(Objective):
    """Three losses; the crops of an image should look like what a teacher sees in the whole."""

    def __init__(self, encoder: DualEncoder, weights=None):
        super().__init__(encoder, {"text": 0.5, "watched": 0.0, "watched/absent": 0.0, **(weights or {})})
        self.head = nn.Linear(1, 1)
        self.teacher = frozen_copy(encoder.model.visual)
        self.seen: list[str] = []

    def embed(self, batch):
        embeds = {"image": self.encoder.encode_image(batch.images), "text": self.encoder.encode_tokens(batch.tokens)}
        if batch.crops:
            crops = batch.crops["r"]
            embeds["crop"] = self.head(self.encoder.encode_image(crops.images).mean(1, keepdim=True))
            with torch.no_grad():
                whole = self.teacher(self.encoder.preprocess.normalize(batch.images))
                embeds["target"] = whole[crops.sample].mean(1, keepdim=True)
        return embeds

    def losses(self, embeds):
        losses = {"image": embeds["image"].square().mean(), "text": (embeds["text"] ** 3).mean()}
        if "crop" in embeds:
            losses["crop"] = (embeds["crop"] - embeds["target"]).square().mean()
        return {**losses, "watched": torch.tensor(7.0), "watched/absent": torch.tensor(math.nan)}

    def identity(self):
        return {"weights": self.weights}

    @property
    def lr_shares(self):
        return {"head.": 10.0}

    def before_step(self, step):
        self.seen.append(f"before {step} {self.head.weight.grad is not None}")

    def after_step(self, step):
        self.seen.append(f"after {step}")
        follow(self.teacher, self.encoder.model.visual, 0.9)


class Stop(Exception):
    pass


def stop_now(encoder):
    raise Stop


def objective_of(**named) -> Agreement:
    torch.manual_seed(0)
    return Agreement(DualEncoder.load("rsvl-tiny"), **named)


def run(dataset, out, objective=None, *, resume=None, evaluators=None, **config):
    return train(
        objective or objective_of(),
        dataset,
        out,
        config=TrainConfig(**{"steps": 4, "save_every": 2, "trackers": (), **config}),
        optim=OPTIM,
        loader=LoaderConfig(batch_size=8, workers=0, crops={"r": RandomCrops(2, size_px=64)}),
        evaluators=evaluators,
        resume=resume,
    )


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_total_is_the_weighted_sum_and_watched_numbers_are_not_in_it(colours, tmp_path):
    run(colours, tmp_path / "run", steps=1)
    (row,) = lines(tmp_path / "run")
    assert row["loss/total"] == pytest.approx(row["loss/image"] + 0.5 * row["loss/text"] + row["loss/crop"], abs=1e-9)
    assert row["loss/watched"] == 7 and "loss/watched/absent" not in row


def test_hooks_stand_around_the_step_and_what_belongs_to_the_objective_is_saved_but_not_exported(colours, tmp_path):
    objective = objective_of()
    run(colours, tmp_path / "run", objective, steps=2)
    assert objective.seen == ["before 0 True", "after 0", "before 1 True", "after 1"]
    exported = DualEncoder.load(str(tmp_path / "run"))
    assert exported.model.state_dict().keys() == objective.encoder.model.state_dict().keys()


@pytest.mark.parametrize("accum_freq", [1, 2])
def test_resumed_to_the_same_bits_with_teacher_and_head(colours, tmp_path, accum_freq):
    whole, parts = objective_of(), objective_of()
    run(colours, tmp_path / "whole", whole, accum_freq=accum_freq)
    with pytest.raises(Stop):
        run(colours, tmp_path / "parts", evaluators={"x": stop_now}, eval_every=3, accum_freq=accum_freq)
    run(colours, tmp_path / "parts", parts, resume="latest", accum_freq=accum_freq)
    for (name, found), (_, expected) in zip(parts.state_dict().items(), whole.state_dict().items(), strict=True):
        assert torch.equal(found, expected), name


def test_pieces_equal_the_whole(colours, tmp_path):
    whole, pieces = objective_of(), objective_of()
    run(colours, tmp_path / "whole", whole, steps=2)
    run(colours, tmp_path / "pieces", pieces, steps=2, accum_freq=3)
    for row, expected in zip(lines(tmp_path / "pieces"), lines(tmp_path / "whole"), strict=True):
        for name in ("loss/total", "loss/crop", "grad_norm"):
            assert row[name] == pytest.approx(expected[name], rel=1e-3)


def test_other_factors_do_not_continue_a_run(colours, tmp_path):
    run(colours, tmp_path / "run", steps=4)
    with pytest.raises(DataError, match="weights was .*, is "):
        run(colours, tmp_path / "run", objective_of(weights={"text": 2.0}), resume="latest")


def test_a_learning_rate_of_its_own_and_no_teacher_in_the_optimizer():
    objective = objective_of()
    optimizer = make_optimizer(objective, OptimConfig(layer_decay=0.5), objective.lr_shares)
    share = {id(parameter): group["lr_scale"] for group in optimizer.param_groups for parameter in group["params"]}
    assert share[id(objective.head.weight)] == share[id(objective.head.bias)] == 10
    assert share[id(objective.encoder.model.visual.proj)] == 1
    assert not {id(parameter) for parameter in objective.teacher.parameters()} & share.keys()


def test_farslip_21_norms_of_terms_are_those_of_their_gradients(colours, tmp_path):
    objective = objective_of()
    run(colours, tmp_path / "run", objective, steps=1, term_norms=True)
    (row,) = lines(tmp_path / "run")
    assert {name for name in row if name.startswith("grad_norm/")} == {"grad_norm/image", "grad_norm/text", "grad_norm/crop"}
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    model = nn.Module()
    model.weight = weight
    terms = {"half": 0.5 * (weight.square().sum() / 2), "line": weight[0] * 2}
    assert term_norms(model, terms) == pytest.approx({"grad_norm/half": 2.5, "grad_norm/line": 2.0})
    assert weight.grad is None


def test_norms_of_terms_need_the_whole_batch():
    with pytest.raises(OptionError, match="--train.term-norms needs the whole batch"):
        TrainConfig(term_norms=True, accum_freq=2)
