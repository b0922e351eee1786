"""metrics.jsonl, trackers, and what is shown while a run lasts."""

import json
import logging

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rsvl_data.errors import DataError, OptionError
from rsvl_data.loader import LoaderConfig
from rsvl_pretrain import run_log
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig, train


def run(dataset, out, *, resume=None, stop_after=None, **config):
    def stop(encoder):
        raise KeyboardInterrupt

    torch.manual_seed(0)
    config = {"steps": 3, "save_every": 2, "trackers": (), **config, "eval_every": stop_after or 0}
    return train(
        ClipObjective(DualEncoder.load("rsvl-tiny")),
        dataset,
        out,
        config=TrainConfig(**config),
        optim=OptimConfig(lr=1e-3, warmup=1),
        loader=LoaderConfig(batch_size=8, workers=0),
        resume=resume,
        evaluators={"x": stop} if stop_after else None,
    )


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_step_says_what_happened_in_it(colours, tmp_path):
    run(colours, tmp_path / "run", tower_norms=True)
    first = lines(tmp_path / "run")[0]
    assert set(first) == set(
        "step loss/contrastive loss/total grad_norm grad_norm/image grad_norm/text grad_norm/other lr logit_scale keys_digest "
        "samples_per_s step_s data_wait_s epoch samples_seen bad_samples".split()
    )
    towers = sum(first[f"grad_norm/{tower}"] ** 2 for tower in ("image", "text", "other"))
    assert towers**0.5 == pytest.approx(first["grad_norm"], rel=1e-5)
    assert all(first[f"grad_norm/{tower}"] > 0 for tower in ("image", "text", "other"))
    assert 0 < first["data_wait_s"] < first["step_s"] and first["samples_per_s"] == pytest.approx(8 / first["step_s"])
    run(colours, tmp_path / "plain")
    assert "grad_norm/image" not in lines(tmp_path / "plain")[0]
    digests = [line["keys_digest"] for line in lines(tmp_path / "run")]
    assert len(set(digests)) == 3 and digests == [line["keys_digest"] for line in lines(tmp_path / "plain")]


def test_a_run_that_goes_on_takes_back_what_it_said_after_its_checkpoint(colours, tmp_path):
    out = tmp_path / "run"
    trackers = {"trackers": ("tensorboard",), "steps": 5}
    with pytest.raises(KeyboardInterrupt):
        run(colours, out, stop_after=3, **trackers)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss/to')
    assert [line["step"] for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()[:-1])] == [1, 2, 3]
    run(colours, out, resume="latest", **trackers)
    assert [line["step"] for line in lines(out)] == [1, 2, 3, 4, 5]
    events = EventAccumulator(str(out / "tracking" / "rsvl"), purge_orphaned_data=True).Reload()
    shown = events.Scalars("loss/total")
    assert [event.step for event in shown] == [1, 2, 3, 4, 5]
    assert [event.value for event in shown] == pytest.approx([line["loss/total"] for line in lines(out)])
    assert "keys_digest" not in events.Tags()["scalars"] and not events.Tags()["tensors"]


def test_trackers_that_cannot_be_had(colours, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="--train.trackers tensorbord is unknown; allowed are .*tensorboard, .*metrics.jsonl"):
        run(colours, tmp_path / "run", trackers=("tensorbord",))
    monkeypatch.setattr(run_log, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(OptionError, match="--train.trackers wandb needs a package: pip install wandb"):
        run(colours, tmp_path / "run", trackers=("tensorboard", "wandb"))
    with pytest.raises(OptionError, match="pip install comet-ml"):
        run_log.check_trackers(["comet_ml"])
    assert not (tmp_path / "run").exists()


def test_without_a_terminal_lines_tell_how_far_it_is(colours, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run_log, "_SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO, "rsvl_pretrain")
    run(colours, tmp_path / "run")
    said = [record.message for record in caplog.records if record.message.startswith("step ")]
    assert [text.partition(":")[0] for text in said] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    loss = lines(tmp_path / "run")[0]["loss/total"]
    assert f"loss {loss:.3f}, " in said[0] and "samples/s" in said[0] and said[2].endswith("0:00:00 left")


def test_what_is_said_of_a_step():
    step = {"loss/total": 1.5, "samples_per_s": 64.2, "step_s": 2.0, "data_wait_s": 0.1}
    assert run_log._described(step) == "loss 1.500, 64 samples/s"
    assert run_log._described({**step, "data_wait_s": 0.5}) == "loss 1.500, 64 samples/s, 25% of the time waiting for data"
    assert run_log._clock(3 * 3600 + 62) == "3:01:02"


def test_a_full_disk_says_how_to_go_on(colours, tmp_path, small_disk):
    out = tmp_path / "run"
    out.mkdir()
    with small_disk(out, "64k"):  # room for some ten lines
        (out / "filler").write_bytes(bytes(60 * 1024))
        with pytest.raises(DataError, match=r"could not write: .*No space left.* make room and go on with --resume latest"):
            run(colours, out, steps=30, save_every=30)
