"""Runs of FarSLIP: any engine gives the numbers of one process, with a teacher and with halves of a batch that have no region; a killed
run goes on to the same bits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from region_dataset import build_regions

sys.path.insert(0, str(Path(__file__).parent))
from farslip_worker import options
from test_engines import ENVIRONMENT, assert_same_training, lines, weights

from recipes.pretrain import farslip2
from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.text_positions import context_length


class Stop(Exception):
    pass


def train(data: Path, *cases: tuple[str, Path, dict]) -> None:
    plan = data.parent / f"plan-{len(list(data.parent.glob('plan-*')))}.json"
    listed = [{"engine": engine, "out": str(out), "options": changes} for engine, out, changes in cases]
    plan.write_text(json.dumps({"data": str(data), "cases": listed}))
    command = "-m torch.distributed.run --standalone --nproc_per_node 2".split()
    words = [sys.executable, *command, str(Path(__file__).parent / "farslip_worker.py"), str(plan)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return build_regions(tmp_path_factory.mktemp("runs") / "data").root


def test_farslip_14_and_19_two_processes_equal_one(data, tmp_path):
    """All three losses, a running mean for teacher; no process has regions in every step, and norms of terms are those of the batch. So
    is the padding that the released code has for negatives."""
    cases = {"paper": {"train": {"term_norms": True}}, "padded": {"regions": {"loss": "infonce_padded"}}}
    for name, changes in cases.items():
        farslip2.run(options(data, tmp_path / name, **json.loads(json.dumps(changes))))
    train(data, *(("ddp", tmp_path / f"{name}-ddp", changes) for name, changes in cases.items()))
    for name in cases:
        assert_same_training(tmp_path / f"{name}-ddp", tmp_path / name, tolerance=2e-5)
    assert {"grad_norm/distill", "grad_norm/regions", "grad_norm/contrastive"} < lines(tmp_path / "paper")[0].keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"distill": {"teacher": "shared"}, "crop_px": None},
        {"distill": {"teacher": "frozen", "align": "combined"}, "distill_from": "objects"},
        {"context_length": 68, "distill": {"teacher": "shared_stopgrad", "align": "patches"}},
        {"train": {"accum_freq": 2}},
    ],
)
def test_every_engine_equals_one_process(data, tmp_path, changes):
    farslip2.run(options(data, tmp_path / "one", **json.loads(json.dumps(changes))))
    engines = ["ddp", "fsdp2", *(["zero2"] if "context_length" not in changes else [])]
    train(data, *((engine, tmp_path / engine, changes) for engine in engines))
    for engine in engines:
        assert_same_training(tmp_path / engine, tmp_path / "one", tolerance=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_a_run_that_was_broken_off_goes_on_to_the_same_bits_under_an_engine(data, tmp_path, engine):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(data, (engine, whole, {}), (engine, parts, {}))
    for step in (4,):
        for path in sorted((parts / "checkpoints" / f"step_{step:08d}").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (parts / "checkpoints" / f"step_{step:08d}").rmdir()
    train(data, (engine, parts, {"resume": "latest"}))
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(parts)[name], tensor), name


@pytest.mark.parametrize("changes", [{}, {"context_length": 68}])
def test_a_run_that_was_broken_off_goes_on_to_the_same_bits(data, tmp_path, monkeypatch, changes):
    """With its teacher, and with the first positions of longer captions as they were."""
    whole = farslip2.run(options(data, tmp_path / "whole", **changes))

    def stop_now(encoder: DualEncoder) -> dict[str, float]:
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr("recipes.pretrain._farslip.val_evaluators", lambda dataset: {"x": stop_now})
        patch.setattr("rsvl_data.shards.Dataset.splits", {"train": 16, "val": 1})
        farslip2.run(options(data, tmp_path / "parts", train={"eval_every": 3}, **changes))
    parts = farslip2.run(options(data, tmp_path / "parts", resume="latest", **changes))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[name], tensor), name


def test_farslip_29_longer_captions_leave_the_first_positions_as_they_were(data, tmp_path):
    torch.manual_seed(0)
    first = DualEncoder.load("rsvl-tiny").model.positional_embedding[:20].clone()
    trained = farslip2.run(options(data, tmp_path / "kept", context_length=68))
    assert context_length(trained) == 68 and torch.equal(trained.model.positional_embedding[:20], first)
    freed = farslip2.run(options(data, tmp_path / "freed", context_length=68, keep_first_positions=False))
    assert not torch.equal(freed.model.positional_embedding[:20], first)


def test_other_crops_do_not_continue_a_run(data, tmp_path):
    farslip2.run(options(data, tmp_path / "run", train={"steps": 2}))
    with pytest.raises(Exception, match="crops was .*'count': 2.*, is "):
        farslip2.run(options(data, tmp_path / "run", train={"steps": 2}, resume="latest", regions_per_image=3))


def test_stage_2_needs_regions(colours, tmp_path):
    with pytest.raises(OptionError, match="has no regions in its train split"):
        farslip2.run(options(colours.root, tmp_path / "run"))
