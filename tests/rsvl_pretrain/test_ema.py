"""Averaged weights: what they are, who sees them, and that a run with them goes on exactly."""

import pytest
import safetensors.torch
import torch
from torch import nn

from rsvl_data.errors import DataError, OptionError
from rsvl_data.loader import LoaderConfig
from rsvl_pretrain.ema import WeightEma
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig, train


def small(dtype=torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).to(dtype)


def shake(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize(("warmup", "decays"), [(False, [0.9] * 4), (True, [1 / 10, 2 / 11, 3 / 12, 4 / 13])])
def test_equals_the_plain_sum(warmup, decays):
    module = small()
    ema = WeightEma(module, 0.9, warmup=warmup)
    expected = {name: parameter.detach().double() for name, parameter in module.named_parameters()}
    for step, decay in enumerate(decays):
        shake(module)
        ema.update(step)
        expected = {name: decay * expected[name] + (1 - decay) * p.detach().double() for name, p in module.named_parameters()}
    found = ema.whole_tensors()
    assert found.keys() == expected.keys()
    for name, average in found.items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert ema.decay_after(10_000) == 0.9


def test_constant_weights_are_their_average():
    module = small()
    ema = WeightEma(module, 0.99)
    for step in range(5):
        ema.update(step)
    assert all(torch.equal(average, module.get_parameter(name)) for name, average in ema.whole_tensors().items())


def test_bf16_weights_are_averaged_in_fp32():
    """A change of a thousandth is lost in bf16, whose numbers near 1 are 1/128 apart."""
    module = small(torch.bfloat16)
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        ema = WeightEma(module, 0.999, warmup=False)
        module[0].weight.fill_(2.0)
    ema.update(0)
    average = ema.whole_tensors()["0.weight"]
    assert average.dtype == torch.float32
    torch.testing.assert_close(average, torch.full_like(average, 1.001))
    with ema.applied():
        assert module[0].weight.dtype == torch.bfloat16


def test_applied_and_back_again():
    module = small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    ema = WeightEma(module, 0.5, warmup=False)
    shake(module)
    ema.update(0)
    own = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(KeyError), ema.applied():
        inside = module.state_dict()
        torch.testing.assert_close(inside["0.weight"], (before["0.weight"] + own["0.weight"]) / 2)
        raise KeyError  # an evaluator that fails
    assert all(torch.equal(tensor, own[name]) for name, tensor in module.state_dict().items())


def test_frozen_weights_and_buffers_are_left_alone():
    module = small()
    module[0].requires_grad_(False)
    ema = WeightEma(module, 0.5)
    assert set(ema.whole_tensors()) == {"1.weight", "1.bias", "2.weight", "2.bias"}
    module[1].running_mean.fill_(7.0)
    ema.copy_to_weights()
    assert module[1].running_mean.tolist() == [7.0] * 3


def test_averages_of_other_parameters_are_refused(tmp_path):
    safetensors.torch.save_file(WeightEma(small(), 0.5).whole_tensors(), tmp_path / "ema.safetensors")
    other = small()
    other[0].requires_grad_(False)
    with pytest.raises(DataError, match="averages other parameters than are trained here"):
        WeightEma(other, 0.5).load(tmp_path / "ema.safetensors")


def test_weights_that_zero_3_took_apart_are_refused():
    module = small()
    module[0].weight.ds_id = 0
    with pytest.raises(OptionError, match="ZeRO stage 3"):
        WeightEma(module, 0.5)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, float("nan")])
def test_decays_that_make_no_sense(decay):
    with pytest.raises(OptionError, match="--train.ema-decay .* must be above 0 and below 1"):
        TrainConfig(ema_decay=decay)


# --- in a run -------------------------------------------------------------------------------------------------------------


def run(dataset, out, *, resume=None, evaluator=None, **config):
    torch.manual_seed(0)
    return train(
        ClipObjective(DualEncoder.load("rsvl-tiny")),
        dataset,
        out,
        config=TrainConfig(steps=3, save_every=2, eval_every=2, trackers=(), **config),
        optim=OptimConfig(lr=1e-3, warmup=1),
        loader=LoaderConfig(batch_size=8, workers=0),
        resume=resume,
        evaluators={"val": evaluator} if evaluator else None,
    )


def exported(out, folder="export") -> str:
    return DualEncoder.load(str(out / folder)).weights_sha256()


def test_the_export_is_the_average_and_the_run_does_not_feel_it(colours, tmp_path):
    seen = []

    def evaluator(encoder):
        seen.append(encoder.weights_sha256())
        return {"number": 1.0}

    plain = run(colours, tmp_path / "plain")
    averaged = run(colours, tmp_path / "averaged", ema_decay=0.9, evaluator=evaluator)
    assert exported(tmp_path / "averaged", "export_raw") == plain.weights_sha256() == exported(tmp_path / "plain")
    assert exported(tmp_path / "averaged") == averaged.weights_sha256() == seen[-1] != plain.weights_sha256()
    assert not (tmp_path / "plain" / "export_raw").exists()
    saved = safetensors.torch.load_file(tmp_path / "averaged" / "checkpoints" / "step_00000003" / "ema.safetensors")
    ours = safetensors.torch.load_file(tmp_path / "averaged" / "export" / "open_clip_model.safetensors")
    assert all(torch.equal(tensor, saved["encoder.model." + name]) for name, tensor in ours.items())


def test_goes_on_exactly_and_only_as_the_same_average(colours, tmp_path):
    def stop_at_the_end(encoder):
        if (tmp_path / "parts" / "checkpoints" / "step_00000002").exists():
            raise KeyboardInterrupt
        return {}

    whole = run(colours, tmp_path / "whole", ema_decay=0.9)
    with pytest.raises(KeyboardInterrupt):
        run(colours, tmp_path / "parts", ema_decay=0.9, evaluator=stop_at_the_end)
    run(colours, tmp_path / "parts", ema_decay=0.9, resume="latest")
    assert exported(tmp_path / "parts") == whole.weights_sha256() == exported(tmp_path / "whole")
    for other in ({"ema_decay": 0.8}, {}, {"ema_decay": 0.9, "ema_warmup": False}):
        with pytest.raises(DataError, match=r"ema was \[0.9, True\], is"):
            run(colours, tmp_path / "parts", resume="latest", **other)


def test_the_warm_up_is_an_option_that_counts(colours, tmp_path):
    with_it, without = (run(colours, tmp_path / str(warm), ema_decay=0.9, ema_warmup=warm) for warm in (True, False))
    assert with_it.weights_sha256() != without.weights_sha256()
