"""A run that ended early goes on as if it had not: whatever ended it, however many processes go on, whatever lies on the disk."""

import errno
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch
import train_process
from colour_source import build_colours
from safetensors import SafetensorError
from torch import nn
from train_process import finish, metrics, output, start

from rsvl_data.errors import DataError, OptionError, RsvlError
from rsvl_data.loader import LoaderConfig
from rsvl_data.shards import Shard
from rsvl_pretrain import checkpoint
from rsvl_pretrain.checkpoint import finished_checkpoints
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.train import TrainConfig, train
from rsvl_pretrain.train_step import _keys_digest

# --- in this process ------------------------------------------------------------------------------------------------------


class NoisyObjective(ClipObjective):
    """Image embeddings go through a batch norm and a dropout."""

    def __init__(self, encoder):
        super().__init__(encoder)
        self.noise = nn.Sequential(nn.BatchNorm1d(encoder.config["embed_dim"]), nn.Dropout(0.3))

    def embed(self, batch):
        embeds = super().embed(batch)
        return {**embeds, "image": nn.functional.normalize(self.noise(embeds["image"]), dim=-1)}


def run(dataset, out, *, resume=None, steps=6, save_every=2, stop_after=None, objective=ClipObjective, seed=0, **config):
    """`stop_after`: as if the process died after that step."""
    torch.manual_seed(0)
    objective = objective(DualEncoder.load("rsvl-tiny"))

    def stop(encoder):
        raise KeyboardInterrupt

    config = TrainConfig(steps=steps, save_every=save_every, eval_every=stop_after or 0, trackers=(), **config)
    evaluators = {"x": stop} if stop_after else None
    loader, optim = LoaderConfig(batch_size=8, workers=0), OptimConfig(lr=1e-3, warmup=2)
    arguments = {"config": config, "optim": optim, "loader": loader, "seed": seed, "resume": resume, "evaluators": evaluators}
    if stop_after:
        with pytest.raises(KeyboardInterrupt):
            train(objective, dataset, out, **arguments)
        return None
    train(objective, dataset, out, **arguments)
    return objective


def weights(objective):
    return safetensors.torch.save(dict(objective.state_dict()))


@pytest.mark.parametrize("accum_freq", [1, 2])
def test_dropout_and_batch_norm_go_on_exactly(colours, tmp_path, accum_freq):
    whole = run(colours, tmp_path / "whole", objective=NoisyObjective, steps=4, accum_freq=accum_freq)
    run(colours, tmp_path / "parts", objective=NoisyObjective, steps=4, accum_freq=accum_freq, stop_after=3)
    torch.rand(7)  # what was drawn in between does not matter
    parts = run(colours, tmp_path / "parts", objective=NoisyObjective, steps=4, accum_freq=accum_freq, resume="latest")
    assert weights(parts) == weights(whole)


def test_the_seed_decides_what_drops_out(colours, tmp_path):
    one, two = (run(colours, tmp_path / str(seed), objective=NoisyObjective, steps=1, seed=seed) for seed in (0, 1))
    assert weights(one) != weights(two)


def test_going_on_reads_nothing_before(colours, tmp_path, monkeypatch):
    run(colours, tmp_path / "run", stop_after=5, save_every=4)
    rows = []
    read = Shard.sample
    monkeypatch.setattr(Shard, "sample", lambda self, row: rows.append(row) or read(self, row))
    run(colours, tmp_path / "run", resume="latest", save_every=4)
    assert len(rows) == 8 * 2  # steps 5 and 6


def test_a_checkpoint_holds_no_random_state(colours, tmp_path):
    run(colours, tmp_path / "run", steps=1, ema_decay=0.9)
    checkpoint = finished_checkpoints(tmp_path / "run")[0]
    names = {path.name for path in checkpoint.iterdir()}
    assert names == {"model.safetensors", "optimizer.bin", "ema.safetensors", "trainer.json"}
    files = json.loads((checkpoint / "trainer.json").read_text())["files"]
    for name, told in files.items():
        content = (checkpoint / name).read_bytes()
        assert told == {"bytes": len(content), "sha256": sha256(content).hexdigest()}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A data set, and a run on it with checkpoints of the steps 2 and 4."""
    folder = tmp_path_factory.mktemp("finished")
    dataset = build_colours(folder / "data")
    run(dataset, folder / "run", steps=4, ema_decay=0.9)
    return dataset, folder / "run"


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (cut, "model.safetensors", r"model.safetensors has \d+ bytes of \d+"),
        (flip, "optimizer.bin", "optimizer.bin has another sha256"),
        (Path.unlink, "ema.safetensors", "ema.safetensors is missing"),
        (cut, "trainer.json", "its trainer.json is missing or does not say"),
        (Path.unlink, "trainer.json", "its trainer.json is missing or does not say"),
    ],
)
def test_damage_is_noticed_and_the_checkpoint_before_is_used(finished, tmp_path, caplog, spoil, name, said):
    dataset, before = finished
    shutil.copytree(before, tmp_path / "run")
    second, fourth = finished_checkpoints(tmp_path / "run")
    spoil(fourth / name)
    if name != "trainer.json":
        with pytest.raises(DataError, match=f"step_00000004 is damaged: {said}.*Give --resume latest"):
            run(dataset, tmp_path / "run", steps=4, ema_decay=0.9, resume=str(fourth))
    run(dataset, tmp_path / "run", steps=4, ema_decay=0.9, resume="latest")
    assert f"{fourth} is damaged: " in caplog.text and "The checkpoint before it is used" in caplog.text
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4]
    for folder in ("export", "export_raw"):
        ended, whole = (path / folder / "open_clip_model.safetensors" for path in (tmp_path / "run", before))
        assert ended.read_bytes() == whole.read_bytes()
    spoil(fourth / name), spoil(second / name)
    with pytest.raises(DataError, match="no checkpoint in .* is whole"):
        run(dataset, tmp_path / "run", steps=4, ema_decay=0.9, resume="latest")


def test_a_damaged_newer_checkpoint_does_not_push_out_a_whole_one(finished, tmp_path):
    dataset, before = finished
    shutil.copytree(before, tmp_path / "run")
    cut(finished_checkpoints(tmp_path / "run")[-1] / "model.safetensors")
    run(dataset, tmp_path / "run", steps=4, save_every=3, keep=1, ema_decay=0.9, resume="latest", stop_after=3)
    names = [path.name for path in finished_checkpoints(tmp_path / "run")]
    assert names == ["step_00000002", "step_00000004"]  # died before the one of step 3 was written
    run(dataset, tmp_path / "run", steps=4, save_every=3, keep=1, ema_decay=0.9, resume="latest")
    assert [path.name for path in finished_checkpoints(tmp_path / "run")] == ["step_00000004"]


class Planted:
    """Executes when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def plant(path: Path, mark: Path, how: str) -> None:
    if how == "pickle":
        path.write_bytes(pickle.dumps(Planted(mark), protocol=2))
    else:
        torch.save({"state": Planted(mark)}, path)


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize("name", ["random_states_0.pkl", "custom_checkpoint_0.pkl", "scheduler.bin"])
def test_a_file_that_was_not_saved_is_refused(finished, tmp_path, name, how):
    dataset, before = finished
    shutil.copytree(before, tmp_path / "run")
    plant(finished_checkpoints(tmp_path / "run")[-1] / name, tmp_path / "executed", how)
    with pytest.raises(DataError, match=f"holds {name}, which was not saved with it. Nothing was loaded; remove that file"):
        run(dataset, tmp_path / "run", steps=4, ema_decay=0.9, resume="latest")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize("name", ["optimizer.bin", "model.safetensors", "ema.safetensors", "random_states_0.pkl"])
def test_nothing_in_a_checkpoint_is_executed(finished, tmp_path, name, how):
    """Even where whoever changed it has made trainer.json agree."""
    dataset, before = finished
    shutil.copytree(before, tmp_path / "run")
    checkpoint = finished_checkpoints(tmp_path / "run")[-1]
    plant(checkpoint / name, tmp_path / "executed", how)
    saved = json.loads((checkpoint / "trainer.json").read_text())
    content = (checkpoint / name).read_bytes()
    saved["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    (checkpoint / "trainer.json").write_text(json.dumps(saved))
    if name == "random_states_0.pkl":  # nobody asks for it
        run(dataset, tmp_path / "run", steps=4, ema_decay=0.9, resume="latest")
    else:
        with pytest.raises(DataError, match="cannot be loaded: .* Nothing in it was executed"):
            run(dataset, tmp_path / "run", steps=4, ema_decay=0.9, resume="latest")
    assert not (tmp_path / "executed").exists()
    torch.load(io.BytesIO(content), weights_only=False) if how == "torch" else pickle.loads(content)
    assert (tmp_path / "executed").exists()  # the trap works


def test_a_full_disk_leaves_the_checkpoint_before(colours, tmp_path, small_disk):
    whole = run(colours, tmp_path / "whole")
    size = sum(path.stat().st_size for path in finished_checkpoints(tmp_path / "whole")[-1].iterdir())
    out = tmp_path / "run"
    out.mkdir()
    with small_disk(out, f"{int(1.6 * size)}") as resize:
        with pytest.raises(DataError, match=r"of step 4 could not be written: .*step_00000002 is whole: make room and go on"):
            run(colours, out)
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_00000002"]
        resize(f"{int(2.6 * size)}")
        with pytest.raises(DataError, match="could not be written"):
            run(colours, out, resume="latest")
        resize(f"{6 * size}")
        assert weights(run(colours, out, resume="latest")) == weights(whole)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),  # torch.save, by where the disk ended
        RuntimeError("basic_ios::clear: iostream error"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_every_way_to_say_that_the_disk_is_full_ends_in_one_message(colours, tmp_path, monkeypatch, failure):
    def save(accelerator, folder, plain=checkpoint._save_state):
        if "step_00000004" in folder.name:
            raise failure
        plain(accelerator, folder)

    monkeypatch.setattr(checkpoint, "_save_state", save)
    whole = tmp_path / "checkpoints" / "step_00000002"
    said = f"of step 4 could not be written: {failure}. {whole} is whole: make room and go on with --resume latest."
    with pytest.raises(DataError, match=re.escape(said)):
        run(colours, tmp_path, steps=4)


def test_the_digest_of_a_batch_does_not_know_its_processes():
    keys = [f"{number:x}" for number in range(8)]
    whole = _keys_digest(keys, 0)
    assert (_keys_digest(keys[:4], 0) + _keys_digest(keys[4:], 4)) % 2**64 == whole
    assert _keys_digest([keys[1], keys[0], *keys[2:]], 0) != whole
    assert _keys_digest([*keys[:7], "8"], 0) != whole


@pytest.mark.parametrize(
    ("option", "said"), [({"timeout_s": 0.0}, "timeout-s"), ({"keep": 0}, "keep"), ({"profile": -1}, "profile")]
)
def test_options_that_make_no_sense(option, said):
    with pytest.raises(OptionError, match=said):
        TrainConfig(**option)


# --- in processes of their own ----------------------------------------------------------------------------------------------

RUN = {"steps": 8, "save_every": 3, "ema_decay": 0.9}
EXPORTS = ("export", "export_raw")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The data, and a run of one process that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    data = build_colours(folder / "data").root
    train_process.train(data, folder / "run", "--workers", "0", **RUN)
    return data, folder / "run"


def assert_same_bits(run: Path, whole: Path) -> None:
    for export in EXPORTS:
        name = f"{export}/open_clip_model.safetensors"
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    shown = [
        [{name: value for name, value in line.items() if not name.endswith("_s")} for line in metrics(path)]
        for path in (run, whole)
    ]
    assert shown[0] == shown[1]


def assert_same_run(run: Path, whole: Path) -> None:
    """By another number of processes: the same samples at the same places, and the same numbers but for the order of addition."""
    for ours, theirs in zip(metrics(run), metrics(whole), strict=True):
        assert ours["keys_digest"] == theirs["keys_digest"]
        assert ours["loss/total"] == pytest.approx(theirs["loss/total"], abs=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
    for export in EXPORTS:
        loaded = [safetensors.torch.load_file(path / export / "open_clip_model.safetensors") for path in (run, whole)]
        for name, tensor in loaded[0].items():
            torch.testing.assert_close(tensor, loaded[1][name], rtol=0, atol=2e-4)


def test_killed_and_resumed_with_other_workers_has_the_same_bits(whole, tmp_path):
    data, reference = whole
    assert finish(start(data, tmp_path / "run", "--workers", "0", kill_at=5, **RUN)) == [-signal.SIGKILL]
    assert not (tmp_path / "run" / "export").exists()
    train_process.train(data, tmp_path / "run", "--workers", "2", "--resume", "latest", **RUN)
    assert_same_bits(tmp_path / "run", reference)


def test_a_killed_process_ends_the_other_and_one_alone_goes_on(whole, tmp_path):
    data, reference = whole
    out = tmp_path / "run"
    assert finish(start(data, out, "--workers", "0", ranks=2, kill_at=5, **RUN)) == [1, -signal.SIGKILL]
    assert "another process of this run was killed or does not answer" in output(out) and "Traceback" not in output(out)
    train_process.train(data, out, "--workers", "0", "--resume", "latest", **RUN)
    assert_same_run(out, reference)


@pytest.mark.parametrize(("spoil", "workers"), [("term", "0"), ("group", "2")])
def test_sigterm_ends_a_run_after_its_step_with_a_checkpoint(whole, tmp_path, spoil, workers):
    data, _ = whole
    out = tmp_path / "run"
    assert finish(start(data, out, "--workers", workers, spoil=spoil, **RUN)) == [1]
    assert "stopped by SIGTERM; the checkpoint of step 3 is saved. Go on with --resume latest." in output(out)
    assert [path.name for path in finished_checkpoints(out)] == ["step_00000003"]


def test_a_loss_that_is_not_finite_on_one_process_stops_both(whole, tmp_path):
    data, _ = whole
    out = tmp_path / "run"
    assert finish(start(data, out, "--workers", "0", ranks=2, spoil="nan", **{**RUN, "save_every": 1})) == [1, 1]
    said = [output(out, rank) for rank in range(2)]
    assert all("the loss became nan at step 2; the weights were not changed. Samples of the batch: " in text for text in said)
    names = [text.partition("Samples of the batch: ")[2].partition(".")[0].split(", ") for text in said]
    assert names[0] == names[1] and len(names[0]) == 4  # those of the process whose loss it was
    assert [path.name for path in finished_checkpoints(out)] == ["step_00000001", "step_00000002"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_killed_at_random_steps(whole, tmp_path, workers):
    """Ten kills in all, some of them of a run that goes on from one before."""
    data, reference = whole
    rng = random.Random(workers)
    for number in range(3 if workers < 2 else 2):
        out = tmp_path / f"run{number}"
        for _ in range(2 if number else 1):
            fatal = rng.randrange(RUN["steps"])
            resume = ("--resume", "latest")
            finish(start(data, out, "--workers", str(workers), *resume, kill_at=fatal, **RUN))
        train_process.train(data, out, "--workers", str(rng.choice([0, 1, 2, 4])), "--resume", "latest", **RUN)
        assert_same_bits(out, reference)


@pytest.mark.slow
@pytest.mark.parametrize("accum_freq", [1, 2])
def test_from_one_process_to_two_and_back(whole, tmp_path, accum_freq):
    data, _ = whole
    options = {**RUN, "accum_freq": accum_freq}
    train_process.train(data, tmp_path / "whole", "--workers", "0", **options)
    out, resume = tmp_path / "run", ("--workers", "0", "--resume", "latest")
    for ranks, fatal in ((1, 4), (2, 7), (1, None)):
        finish(start(data, out, *resume, ranks=ranks, kill_at=fatal, **options))
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_killed_and_resumed_have_the_same_bits(whole, tmp_path):
    data, _ = whole
    train_process.train(data, tmp_path / "whole", "--workers", "0", ranks=2, **RUN)
    finish(start(data, tmp_path / "run", "--workers", "0", ranks=2, kill_at=5, **RUN))
    train_process.train(data, tmp_path / "run", "--workers", "1", "--resume", "latest", ranks=2, **RUN)
    assert_same_bits(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("timeout_s", [4, 12])
def test_a_process_that_hangs_is_waited_for_so_long(whole, tmp_path, timeout_s):
    data, _ = whole
    out = tmp_path / "run"
    first, second = start(data, out, "--workers", "0", ranks=2, spoil="stop", timeout_s=timeout_s, **RUN)
    try:
        assert finish([first]) == [1]
    finally:
        second.kill()
    assert f"Timed out waiting {1000 * timeout_s}ms" in output(out)
    assert finish([second]) == [-signal.SIGKILL]


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both(whole, tmp_path):
    data, reference = whole
    out = tmp_path / "run"
    assert finish(start(data, out, "--workers", "0", ranks=2, spoil="term", **RUN)) == [1, 1]
    assert all("the checkpoint of step 3 is saved" in output(out, rank) for rank in range(2))
    train_process.train(data, out, "--workers", "0", "--resume", "latest", **RUN)
    assert_same_run(out, reference)


def test_a_second_sigterm_ends_the_process_at_once(monkeypatch):
    from rsvl_pretrain.stopping import StopRequest

    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked and signal.getsignal(signal.SIGTERM) == before


def test_other_errors_are_not_taken_for_a_lost_process():
    from rsvl_pretrain.stopping import naming_lost_processes

    with pytest.raises(RuntimeError, match="mat1 and mat2"), naming_lost_processes(2):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="closed by peer"), naming_lost_processes(1):
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(RsvlError, match="another process of this run"), naming_lost_processes(2):
        raise RuntimeError("Connection closed by peer")
