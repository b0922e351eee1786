"""Every engine gives the numbers of one process: losses, validation, weights. Two ranks on a CPU, over gloo."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from colour_source import build_colours

from rsvl_data.errors import OptionError
from rsvl_pretrain.engine import make_accelerator

sys.path.insert(0, str(Path(__file__).parent))
from engine_worker import ENGINES, options

from recipes.pretrain import clip

ALL = sorted(path.stem for path in ENGINES.glob("*.yaml"))
IMPORTANT = ["fsdp2", "zero2", "zero3"]
ROOT = ENGINES.parents[1]
MODULES = [str(ROOT), str(ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, MODULES))}


def case(
    engine: str, out: Path, stop_at: int | None = None, spoil_at: int | None = None, fails: bool = False, **changes: Any
) -> dict[str, Any]:
    return {"engine": engine, "out": str(out), "stop_at": stop_at, "spoil_at": spoil_at, "fails": fails, "options": changes}


def train(data: Path, *cases: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Two processes that go through the cases."""
    plan = data.parent / f"plan-{len(list(data.parent.glob('plan-*')))}.json"
    plan.write_text(json.dumps({"data": str(data), "cases": cases}))
    command = "-m torch.distributed.run --standalone --nproc_per_node 2".split()
    words = [sys.executable, *command, str(Path(__file__).parent / "engine_worker.py"), str(plan)]
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def lines(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith("_s")} for row in rows]


def weights(run: Path, export: str = "export") -> dict[str, Any]:
    return safetensors.torch.load_file(run / export / "open_clip_model.safetensors")


def assert_same_training(run: Path, expected: Path, tolerance: float = 1e-5) -> None:
    for row, wanted in zip(lines(run), lines(expected), strict=True):
        assert row.pop("keys_digest", None) == wanted.pop("keys_digest", None)
        assert row == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    found, wanted_weights = weights(run), weights(expected)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in wanted_weights.items()}
    for name, tensor in found.items():
        assert _that_matter(name, tensor - wanted_weights[name]).abs().max() <= tolerance, name
    assert files(run) == files(expected)


def _that_matter(name: str, weights: torch.Tensor) -> torch.Tensor:
    """Without the biases of keys: softmax takes no notice of them, so their gradient is rounding, of which AdamW makes whole steps."""
    if not name.endswith("in_proj_bias"):
        return weights
    query, _, value = weights.chunk(3)
    return torch.cat([query, value])


def files(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "export").iterdir())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return build_colours(tmp_path_factory.mktemp("engines") / "colours").root


@pytest.fixture(scope="module")
def one(data) -> Path:
    """The same training in one process."""
    clip.run(options(data, data.parent / "one"))
    return data.parent / "one"


@pytest.fixture(scope="module")
def resumed(data) -> Path:
    """Each of the important engines: a run that breaks off after step 3 and is resumed from step 2, before evaluations."""
    pytest.importorskip("deepspeed")
    plan = []
    for engine in IMPORTANT:
        out = data.parent / f"{engine}-parts"
        plan += [case(engine, out, stop_at=3), case(engine, out, resume="latest")]
    done = train(data, *plan, case("zero3", data.parent / "zero2-parts", fails=True, resume="latest"))
    assert done.returncode == 0, done.stderr[-4000:]
    return data.parent


@pytest.mark.parametrize("engine", IMPORTANT)
def test_an_engine_equals_one_process(one, resumed, engine):
    assert_same_training(resumed / f"{engine}-parts", one)


@pytest.mark.slow
def test_resumed_to_the_same_bits(data, resumed):
    done = train(data, *(case(engine, data.parent / engine) for engine in IMPORTANT))
    assert done.returncode == 0, done.stderr[-4000:]
    for engine in IMPORTANT:
        whole, parts = resumed / engine, resumed / f"{engine}-parts"
        assert (whole / "export" / "open_clip_model.safetensors").read_bytes() == (
            parts / "export" / "open_clip_model.safetensors"
        ).read_bytes()
        steps = [[row for row in lines(run) if "loss/total" in row] for run in (whole, parts)]
        assert steps[0] == steps[1]


def test_a_checkpoint_of_another_engine_is_refused(resumed):
    for rank in range(2):
        said = (resumed / "zero2-parts" / f"error.{rank}").read_text()
        assert "engine was 'zero2 on 2 processes', is 'zero3 on 2 processes'" in said


CHANGES: dict[str, dict[str, Any]] = {
    "twenty steps": {"train": {"steps": 20}},
    "pieces": {"train": {"accum_freq": 2}},
    "frozen image tower": {"lock_image": True},
    "sigmoid loss": {"contrastive": {"loss": "sigmoid", "exchange": "bidir"}},
    "checkpointed activations": {"grad_checkpointing": True},
    "no clipping": {"optim": {"grad_clip_norm": None}},
    "clipping": {"optim": {"grad_clip_norm": 0.5, "layer_decay": 0.8}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_options_mean_the_same_under_every_engine(data, tmp_path, name):
    changes = CHANGES[name]
    clip.run(options(data, tmp_path / "one", **json.loads(json.dumps(changes))))
    done = train(data, *(case(engine, tmp_path / engine, **changes) for engine in ALL))
    assert done.returncode == 0, done.stderr[-4000:]
    for engine in ALL:  # rounding grows from step to step
        assert_same_training(tmp_path / engine, tmp_path / "one", tolerance=3e-5 if name == "twenty steps" else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp2", "zero2"])
def test_averages_are_those_of_one_process(data, tmp_path, engine):
    changes = {"train": {"ema_decay": 0.9}}
    clip.run(options(data, tmp_path / "one", **json.loads(json.dumps(changes))))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    plan = [(whole, {}), (parts, {"stop_at": 3}), (parts, {"resume": "latest"})]
    done = train(data, *(case(engine, out, **part, **changes) for out, part in plan))
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same_training(whole, tmp_path / "one")
    for folder in ("export", "export_raw"):
        found, resumed, wanted = (weights(run, folder) for run in (whole, parts, tmp_path / "one"))
        for name, tensor in wanted.items():
            assert (found[name] - tensor).abs().max() <= 1e-5, name
            assert torch.equal(found[name], resumed[name])
    names = [run / "checkpoints" / "step_00000006" / "ema.safetensors" for run in (whole, tmp_path / "one")]
    averages = map(safetensors.torch.load_file, names)
    for found, wanted in zip(*(sorted(each.items()) for each in averages), strict=True):
        assert found[0] == wanted[0] and (found[1] - wanted[1]).abs().max() <= 1e-5


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(data, tmp_path):
    """The run stops at step 4, after which its weights are those of the checkpoint before it."""
    train_options = {"eval_every": 0, "save_every": 1}
    runs = [case(engine, tmp_path / engine, spoil_at=4, fails=True, train=train_options) for engine in ALL]
    done = train(data, *runs, *(case(engine, tmp_path / engine, resume="latest", train=train_options) for engine in ALL))
    assert done.returncode == 0, done.stderr[-4000:]
    clip.run(options(data, tmp_path / "one", train=train_options))
    for engine in ALL:
        for rank in range(2):
            said = (tmp_path / engine / f"error.{rank}").read_text()
            assert re.match("the gradient norm became (inf|nan) at step 4; the weights were not changed.", said), (engine, said)
        assert_same_training(tmp_path / engine, tmp_path / "one")


@pytest.mark.slow
def test_bf16_is_the_same_in_every_engine(data, tmp_path):
    changes = {"train": {"precision": "amp_bf16"}}
    clip.run(options(data, tmp_path / "one", **json.loads(json.dumps(changes))))
    clip.run(options(data, tmp_path / "fp32"))
    done = train(data, *(case(engine, tmp_path / engine, **changes) for engine in ALL))
    assert done.returncode == 0, done.stderr[-4000:]
    half, full = (lines(tmp_path / name)[0]["loss/total"] for name in ("one", "fp32"))
    for engine in ALL:
        first = lines(tmp_path / engine)[0]["loss/total"]
        # Half a batch shares rows otherwise than a whole one, which bf16 rounds otherwise; ZeRO-3 has a linear layer of its own
        assert abs(first - half) < (1.5e-3 if engine.startswith("zero3") else 5e-4)
        assert abs(first - full) > 1e-4
        assert {tensor.dtype for tensor in weights(tmp_path / engine).values()} == {
            weights(tmp_path / "one")["logit_scale"].dtype
        }


@pytest.mark.slow
def test_compiled_blocks_change_no_loss(data, tmp_path):
    changes = {"train": {"compile": True}}
    clip.run(options(data, tmp_path / "one"))
    done = train(data, *(case(engine, tmp_path / engine, **changes) for engine in ("ddp", "fsdp2", "zero2")))
    assert done.returncode == 0, done.stderr[-4000:]
    for engine in ("ddp", "fsdp2", "zero2"):
        assert_same_training(tmp_path / engine, tmp_path / "one", tolerance=1e-4)


def test_what_accelerate_was_told_in_vain_is_refused(tmp_path, monkeypatch):
    for variables, message in [
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "say it here: --train.precision"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "give --train.accum-freq"),
        ({"ACCELERATE_USE_FSDP": "true"}, "need their processes started"),
        ({"ACCELERATE_USE_FSDP": "true", "LOCAL_RANK": "0", "FSDP_VERSION": "1"}, "set fsdp_version: 2"),
    ]:
        with monkeypatch.context() as patch, pytest.raises(OptionError, match=message):
            for name, value in variables.items():
                patch.setenv(name, value)
            make_accelerator((), tmp_path, 60.0)


def test_deepspeed_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'rsvl\[deepspeed\]'"):
        make_accelerator((), tmp_path, 60.0)
