import json

import pytest
import torch
import train_process
from colour_source import build_colours
from train_process import metrics

from rsvl_data.errors import DataError, OptionError
from rsvl_data.loader import LoaderConfig
from rsvl_pretrain.checkpoint import finished_checkpoints
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective, ContrastiveConfig
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig, train
from rsvl_pretrain.train_step import MAX_LOGIT_SCALE

OPTIM = OptimConfig(lr=1e-3, warmup=2)


def run(
    dataset, out, *, steps=8, resume=None, lr=1e-3, save_every=3, duplicates="negatives", evaluators=None, eval_every=0, **config
):
    torch.manual_seed(0)
    encoder = DualEncoder.load("rsvl-tiny")
    return train(
        ClipObjective(encoder, ContrastiveConfig(duplicates=duplicates)),
        dataset,
        out,
        config=TrainConfig(steps=steps, save_every=save_every, eval_every=eval_every, trackers=(), **config),
        optim=OptimConfig(lr=lr, warmup=2),
        loader=LoaderConfig(batch_size=8, workers=0),
        resume=resume,
        evaluators=evaluators,
    )


def test_it_learns_and_says_so(colours, tmp_path):
    run(colours, tmp_path / "run", steps=25)
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 26))
    assert sum(line["loss/total"] for line in lines[-5:]) < 0.8 * sum(line["loss/total"] for line in lines[:5])
    assert {"loss/contrastive", "grad_norm", "lr", "logit_scale", "samples_per_s", "data_wait_s", "samples_seen", "epoch"} <= set(
        lines[0]
    )
    assert lines[-1]["samples_seen"] == 200
    assert [path.name for path in finished_checkpoints(tmp_path / "run")] == ["step_00000024", "step_00000025"]


def test_resume_is_exact(colours, tmp_path):
    whole = run(colours, tmp_path / "whole")
    run_until(colours, tmp_path / "parts", 5)
    parts = run(colours, tmp_path / "parts", resume="latest")
    assert parts.weights_sha256() == whole.weights_sha256()
    timeless = [
        [{k: v for k, v in line.items() if not k.endswith("_s")} for line in metrics(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert timeless[0] == timeless[1]


class Stop(Exception):
    pass


def run_until(dataset, out, step):
    """As if the process had died after this step, past its last checkpoint."""

    def stop(encoder):
        raise Stop

    with pytest.raises(Stop):
        run(dataset, out, evaluators={"x": stop}, eval_every=step)


def test_evaluations_do_not_change_the_run(colours, tmp_path):
    def noisy(encoder):
        assert not encoder.training
        return {"number": torch.rand(3).sum().item()}

    plain = run(colours, tmp_path / "plain", steps=4)
    watched = run(colours, tmp_path / "watched", steps=4, evaluators={"val": noisy}, eval_every=1)
    assert plain.weights_sha256() == watched.weights_sha256()
    assert sum("val/number" in line for line in metrics(tmp_path / "watched")) == 4


def test_a_run_is_not_overwritten_or_continued_as_another(colours, tmp_path):
    run(colours, tmp_path / "run", steps=2)
    with pytest.raises(OptionError, match="holds a run already. Go on with --resume latest"):
        run(colours, tmp_path / "run", steps=2)
    with pytest.raises(DataError, match="steps was 2, is 4"):
        run(colours, tmp_path / "run", steps=4, resume="latest")
    with pytest.raises(DataError, match=r"optim was .*0.001.* is .*0.002"):
        run(colours, tmp_path / "run", steps=2, lr=2e-3, resume="latest")
    other = build_colours(tmp_path / "other", seed=5)
    with pytest.raises(DataError, match="dataset was"):
        run(other, tmp_path / "run", steps=2, resume="latest")
    with pytest.raises(OptionError, match="is not a checkpoint"):
        run(colours, tmp_path / "run", steps=2, resume=str(tmp_path))


def test_half_written_checkpoints_are_ignored_with_a_warning(colours, tmp_path, caplog):
    (tmp_path / "run" / "checkpoints" / "step_00000009.tmp").mkdir(parents=True)
    run(colours, tmp_path / "run", steps=1, resume="latest")
    assert "step_00000009.tmp was not finished" in caplog.text


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(colours, tmp_path, monkeypatch):
    broken = ClipObjective.forward

    def forward(self, batch):
        losses = broken(self, batch)
        return {"contrastive": losses["contrastive"] * (torch.nan if batch.step == 2 else 1)}

    monkeypatch.setattr(ClipObjective, "forward", forward)
    with pytest.raises(
        DataError, match=r"the loss became nan at step 2; the weights were not changed. Samples of the batch: [0-9a-f]{16}"
    ):
        run(colours, tmp_path / "run", save_every=1)
    assert [path.name for path in finished_checkpoints(tmp_path / "run")] == ["step_00000001", "step_00000002"]


@pytest.mark.parametrize(("start", "end"), [(9.0, MAX_LOGIT_SCALE), (-3.0, 0.0)])
def test_farslip_20_logit_scale_is_clamped(colours, tmp_path, start, end):
    """Its exponential to 1 to 100."""
    torch.manual_seed(0)
    encoder = DualEncoder.load("rsvl-tiny")
    with torch.no_grad():
        encoder.model.logit_scale.fill_(start)
    config, loader = TrainConfig(steps=1, trackers=()), LoaderConfig(batch_size=8, workers=0)
    train(ClipObjective(encoder), colours, tmp_path / "run", config=config, optim=OPTIM, loader=loader)
    assert encoder.model.logit_scale.item() == pytest.approx(end)


def test_bf16_runs_and_differs(colours, tmp_path):
    full = run(colours, tmp_path / "full", steps=2)
    half = run(colours, tmp_path / "half", steps=2, precision="amp_bf16")
    assert full.weights_sha256() != half.weights_sha256()
    assert metrics(tmp_path / "half")[-1]["loss/total"] == pytest.approx(metrics(tmp_path / "full")[-1]["loss/total"], rel=0.05)


def test_two_processes_equal_one(colours, tmp_path):
    """The same global batch, spread over two: equal samples, losses and gradients."""
    for ranks in (1, 2):
        train_process.train(colours.root, tmp_path / str(ranks), "--workers", "0", ranks=ranks, steps=4)
    for one, two in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        assert two["keys_digest"] == one["keys_digest"]
        assert two["loss/total"] == pytest.approx(one["loss/total"], abs=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)


def spoil(dataset, *rows):
    """Overwrite the images of these rows of the first shard."""
    shard = dataset.shards("train")[0]
    with shard.tar.open("r+b") as tar:
        for row in rows:
            tar.seek(shard.members[row][0].offset)
            tar.write(b"no image" * 8)


def test_bad_samples_are_replaced_written_down_and_resumed_exactly(colours, tmp_path):
    spoil(colours, 3, 5)
    whole = run(colours, tmp_path / "whole", steps=10, max_bad_samples=2)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "quarantine.jsonl").read_text().splitlines()]
    assert {(line["shard"], line["row"], line["reason"]) for line in lines} == {
        ("train-00000", 3, "unreadable_image"),
        ("train-00000", 5, "unreadable_image"),
    }
    assert metrics(tmp_path / "whole")[-1]["bad_samples"] == 2
    with pytest.raises(Stop):
        run(colours, tmp_path / "parts", steps=10, max_bad_samples=2, evaluators={"x": stop_now}, eval_every=5)
    parts = run(colours, tmp_path / "parts", steps=10, max_bad_samples=2, resume="latest")
    assert parts.weights_sha256() == whole.weights_sha256()
    assert (tmp_path / "parts" / "quarantine.jsonl").read_text() == (tmp_path / "whole" / "quarantine.jsonl").read_text()


@pytest.mark.slow
def test_two_processes_write_down_the_same_bad_samples(colours, tmp_path):
    spoil(colours, 1, 2, 3, 5)
    words, runs = ("--workers", "0"), {ranks: tmp_path / str(ranks) for ranks in (1, 2)}
    for ranks, out in runs.items():
        train_process.train(colours.root, out, *words, ranks=ranks, steps=6, max_bad_samples=4)
        with pytest.raises(AssertionError, match="samples cannot be used, --train.max-bad-samples allows 2"):
            train_process.train(colours.root, tmp_path / f"few{ranks}", *words, ranks=ranks, steps=6, max_bad_samples=2)
    assert (runs[1] / "quarantine.jsonl").read_text() == (runs[2] / "quarantine.jsonl").read_text()
    assert len((runs[1] / "quarantine.jsonl").read_text().splitlines()) == 4
    for one, two in zip(metrics(runs[1]), metrics(runs[2]), strict=True):
        assert (two["keys_digest"], two["bad_samples"]) == (one["keys_digest"], one["bad_samples"])


def stop_now(encoder):
    raise Stop


@pytest.mark.parametrize(
    ("allowed", "message"), [(0, "sample .*: the image"), (0.001, "2 samples cannot be used, .* allows 1: ")]
)
def test_too_many_bad_samples_stop(colours, tmp_path, allowed, message):
    spoil(colours, 3, 5)
    with pytest.raises(DataError, match=message):
        run(colours, tmp_path / "run", steps=10, max_bad_samples=allowed)


def test_an_impossible_bound():
    with pytest.raises(OptionError, match="--train.max-bad-samples is -1; it must be 0 or more"):
        TrainConfig(max_bad_samples=-1)
