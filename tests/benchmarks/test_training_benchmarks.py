"""The benchmarks of training, small: both trainers, what makes them end, and what the tables show of their results."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
import tyro

from benchmarks import (
    contrastive_loss,
    distributed_loss,
    gpu_loss,
    gpu_memory,
    gpu_train,
    measure,
    resume_time,
    text_encoding,
    train_step,
    training_tables,
)
from benchmarks.remote_sensing_captions import captions
from benchmarks.trainers import (
    OPTIM,
    Clock,
    Course,
    largest_difference,
    new_model,
    open_clip_optimizer,
    random_batches,
    repeated,
    train_with_open_clip,
    train_with_ours,
)
from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder

ROOT = Path(__file__).parents[2]
TINY = Course("rsvl-tiny", batch_size=4, steps=6)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def in_process(monkeypatch, capsys):
    """The contenders run here, without the seconds that a process takes to start."""

    def use(module):
        def run(script, arguments, *, path_first=None):
            module.run_role(tyro.cli(module.Options, args=list(arguments)))
            lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MEASURED ")]
            return json.loads(lines[-1].removeprefix("MEASURED "))

        monkeypatch.setattr(measure, "measure_in_fresh_process", run)

    return use


def table(path: Path) -> str:
    return training_tables.SECTIONS[path.name](json.loads(path.read_text()), "Measured here.")


# --- captions -----------------------------------------------------------------------------------------------------------------


def test_captions_are_as_long_as_published_ones():
    lengths = (open_clip.get_tokenizer("ViT-B-32")(captions(2000)) != 0).sum(dim=1).float()
    assert 14 < lengths.mean() < 17 and lengths.quantile(0.99) <= 31 and lengths.max() < 40
    assert captions(20) == captions(30)[:20] != captions(20, seed=1)
    assert len(set(captions(300))) > 280


# --- trainers -----------------------------------------------------------------------------------------------------------------


def both(course: Course, tmp_path: Path, theirs: Course | None = None) -> tuple[list[float], list[float], Clock]:
    encoder = DualEncoder.load(course.model)
    batches = random_batches(course, encoder.tokenizer, 3, encoder.preprocess.size)
    floats = ((encoder.preprocess.normalize(batch.images), batch.tokens) for batch in repeated(batches))
    peer_clock, clock = Clock(course), Clock(course)
    peer = train_with_open_clip(theirs or course, floats, peer_clock)
    ours = train_with_ours(course, tmp_path / "run", clock, repeated(batches))
    assert len(peer_clock.asked_s) == len(clock.asked_s) == course.steps + 1
    return peer, ours, clock


def test_both_trainers_follow_the_same_curve(tmp_path):
    peer, ours, clock = both(TINY, tmp_path)
    assert len(peer) == len(ours) == 6
    assert largest_difference(peer, ours) < 1e-4
    assert max(ours) - min(ours) > 0.01
    timed = clock.asked_s[TINY.warmup_steps :]
    assert clock.samples_per_s == pytest.approx(4 * 4 / (timed[-1] - timed[0]))
    assert not (tmp_path / "run" / "checkpoints").exists()  # left before its end


def test_another_learning_rate_or_precision_shows_in_the_curve(tmp_path, monkeypatch):
    other = replace(TINY, precision="amp_bf16")
    peer, ours, _ = both(TINY, tmp_path, theirs=other)
    assert 1e-4 < largest_difference(peer, ours) < 2e-2
    monkeypatch.setattr("benchmarks.trainers.OPTIM", replace(OPTIM, lr=2e-3))
    faster = train_with_ours(TINY, tmp_path / "faster", Clock(TINY), repeated(_batches(TINY)))
    assert largest_difference(faster, ours) > 1e-3


def _batches(course):
    encoder = DualEncoder.load(course.model)
    return random_batches(course, encoder.tokenizer, 3, encoder.preprocess.size)


def test_the_peers_optimizer_has_our_groups():
    optimizer = open_clip_optimizer(new_model(TINY), OPTIM)
    sizes = [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
    assert [decay for _, decay in sizes] == [0.0, OPTIM.wd] and min(number for number, _ in sizes) > 5


def test_curves_of_different_lengths_are_refused():
    with pytest.raises(RuntimeError, match="the peer did 2 steps, ours 1"):
        largest_difference([1.0, 2.0], [1.0])


# --- train_step ---------------------------------------------------------------------------------------------------------------


def tiny_train_step(tmp_path: Path, **others) -> train_step.Options:
    settings = {"cases": ("memory-fp32", "memory-bf16"), "steps": (4, 4), "rounds": (2, 1), "curve_steps": 6, "threads": 1}
    return train_step.Options(
        tmp_path, tmp_path / "data", tmp_path / "train_step.json", model="rsvl-tiny", batch_size=4, **settings | others
    )


def test_the_training_step_writes_what_the_table_shows(tmp_path, in_process):
    in_process(train_step)
    status = train_step.main(tiny_train_step(tmp_path))
    result = json.loads((tmp_path / "train_step.json").read_text())
    assert status == (1 if result["missed"] else 0)
    fp32, bf16 = result["cases"]
    assert fp32["steps"] == [6, 4] and len(fp32["losses"]["ours"]) == 6 and bf16["steps"] == [4]
    assert fp32["largest_loss_difference"] < 1e-4 < bf16["largest_loss_difference"] < 2e-2
    assert table(tmp_path / "train_step.json").count(" x |") == 2


def test_ours_trains_from_the_shards_the_peer_gets(tmp_path, in_process, capsys):
    options = tiny_train_step(tmp_path, cases=("shards-fp32",), steps=(4,), rounds=(1,), size_px=64)
    dataset = train_step.make_dataset(options, 4)
    assert dataset.splits == {"train": 16} and len(dataset.shards("train")) == 4
    in_process(train_step)
    found = [measure.measure_in_fresh_process("", _arguments(replace(options, role="ours"))) for _ in range(2)]
    assert found[0]["texts_sha256"] == found[1]["texts_sha256"] and len(found[0]["losses"]) == 4


def _arguments(options):
    names = ("peer_path", "data", "model", "batch_size", "size_px", "threads", "role")
    told = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    return [*told, "--cases", options.cases[0], "--steps", str(options.steps[0]), "--rounds", "1"]


def test_trainers_that_differ_end_the_benchmark():
    peer = {"texts_sha256": "0", "losses": [2.0, 1.0]}
    assert train_step.check_agreement("memory-fp32", peer, dict(peer)) == 0
    assert train_step.check_agreement("shards-fp32", peer, {**peer, "losses": [2.0, 1.5]}) == 0.5  # other batches
    with pytest.raises(RuntimeError, match="the loss curves differ by 0.5"):
        train_step.check_agreement("memory-fp32", peer, {**peer, "losses": [2.0, 1.5]})
    with pytest.raises(RuntimeError, match="saw different texts"):
        train_step.check_agreement("shards-fp32", peer, {**peer, "texts_sha256": "1"})


@pytest.mark.parametrize(
    ("others", "message"),
    [({"rounds": (1,)}, "must give one number for each"), ({"steps": (4, 5)}, "--steps 5 of --batch-size 4: an epoch")],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, others, message):
    with pytest.raises(OptionError, match=message):
        tiny_train_step(tmp_path, **others)
    with pytest.raises(OptionError, match="one number for each of --batch-sizes"):
        contrastive_loss.Options(batch_sizes=(64,))


# --- text encoding ------------------------------------------------------------------------------------------------------------


def test_text_encoding_writes_what_the_table_shows(tmp_path, in_process):
    in_process(text_encoding)
    out = tmp_path / "text_encoding.json"
    options = text_encoding.Options(out, model="rsvl-tiny", texts=96, batch_size=16, rounds=1, threads=1)
    status = text_encoding.main(options)
    result = json.loads(out.read_text())
    assert status == (0 if result["gate"]["passed"] else 1)
    assert 0 < result["largest_differences"]["ours"] < 1e-5  # not the same products, so not the same bits
    assert "96 captions of 1" in table(out)


def test_other_embeddings_end_the_benchmark():
    with pytest.raises(RuntimeError, match="embeddings differ by 0.5"):
        text_encoding.check_agreement({"embeds": [[1.0, 2.0]]}, {"embeds": [[1.0, 2.5]]})
    with pytest.raises(RuntimeError, match="embeddings differ by nan"):
        text_encoding.check_agreement({"embeds": [[1.0]]}, {"embeds": [[float("nan")]]})


# --- resuming -----------------------------------------------------------------------------------------------------------------


def test_resuming_writes_what_the_table_shows(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(resume_time, "CHECKED_SAMPLES", 8)
    monkeypatch.setattr(resume_time, "SHARES", (0.1, 0.9))
    in_process(resume_time)
    out = tmp_path / "resume_time.json"
    resume_time.main(resume_time.Options(tmp_path / "data", out, shard_samples=20, size_px=64, batch_size=4, rounds=1))
    result = json.loads(out.read_text())
    assert result["same_keys_after"] == ["10%", "90%", "10% of epoch 6", "90% of epoch 6"]
    assert list(result["contenders"]["peer-stream"]["seconds"]) == ["10%", "90%"]
    assert table(out).count("`skip_first_batches`") == 2


def test_other_keys_after_a_resume_end_the_benchmark():
    expected = {"10%": ["a", "b"]}
    resume_time.check_keys(expected, {"keys_1": expected, "keys_2": expected})
    with pytest.raises(RuntimeError, match="with 2 workers other samples came after 10%"):
        resume_time.check_keys(expected, {"keys_1": expected, "keys_2": {"10%": ["b", "a"]}})
    with pytest.raises(OptionError, match="fewer than 100 samples are left"):
        resume_time.Options(shard_samples=100)


# --- the loss on two ranks ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_ranks_write_what_the_table_shows(tmp_path):
    out = tmp_path / "distributed_loss.json"
    distributed_loss.main(distributed_loss.Options(out, batch_size=1024, dim=32, rounds=1, passes=1))
    result = json.loads(out.read_text())
    assert result["largest_gradient_difference"] < 1e-5 and result["bidir"]["memory_ratio"]["median"] < 1
    assert "2 ranks (gloo) of 1,024 pairs" in table(out)


# --- GPU checks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "cap", "found"),
    [
        (1000, 64, {"batch_size": 64, "fails_at": None}),
        (64, 64, {"batch_size": 64, "fails_at": None}),
        (1000, 50, {"batch_size": 50, "fails_at": None}),
        (100, 4096, {"batch_size": 96, "fails_at": 104}),
        (3, 4096, {"batch_size": 3, "fails_at": 4}),
        (0, 4096, {"batch_size": 0, "fails_at": 1}),
    ],
)
def test_the_largest_batch_is_found(limit, cap, found):
    assert gpu_memory.largest_that_fits(lambda size: size <= limit, 8, cap, float("inf")) == found


def test_the_search_for_the_largest_batch_keeps_to_its_time():
    assert gpu_memory.largest_that_fits(lambda size: True, 8, 1000, 0) == {"batch_size": 0, "fails_at": None}


def test_gpu_loss_and_memory_run_without_a_gpu(tmp_path):
    assert gpu_loss.main(gpu_loss.Options(tmp_path / "gpu_loss.json", passes=1, smoke=True)) == 0
    assert "| 64 |" in table(tmp_path / "gpu_loss.json")
    assert gpu_memory.main(gpu_memory.Options(tmp_path / "gpu_memory.json", smoke=True)) == 0
    assert "| rsvl-tiny | yes | 4 or more | 4 or more |" in table(tmp_path / "gpu_memory.json")


def test_other_gradients_on_a_gpu_end_the_benchmark():
    one = [torch.tensor(1.0), torch.ones(3)]
    assert gpu_loss.largest_difference(one, one) == 0
    with pytest.raises(RuntimeError, match="differ by 0.5 of the largest"):
        gpu_loss.largest_difference(one, [one[0], one[1] / 2])


def test_gpu_training_runs_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_train, "VARIANTS", ("peer", "ours", "ours_padded", "ours_checkpointed"))
    out = tmp_path / "gpu_train.json"
    assert gpu_train.main(gpu_train.Options(out, smoke=True)) == 0
    rows = {row["variant"]: row for row in json.loads(out.read_text())["rows"]}
    assert max(row["largest_loss_difference"] for row in rows.values()) < 2e-2
    work = [rows[variant]["gflop_per_pair_forward"] for variant in ("ours", "ours_padded", "peer")]
    assert work == sorted(set(work))  # last blocks for the tokens that are read; and no padding
    assert rows["ours"]["gflop_per_pair_forward"] < rows["peer"]["gflop_per_pair_forward"]
    assert table(out).count("| rsvl-tiny, 4 |") == 4


def test_what_there_is_no_time_for_is_named(tmp_path):
    out = tmp_path / "gpu_train.json"
    assert gpu_train.main(gpu_train.Options(out, smoke=True, budget_s=0)) == 0
    assert table(out).count("left out: no time") == len(gpu_train.VARIANTS)


@pytest.mark.slow
def test_the_gpu_script_runs_on_any_machine(tmp_path):
    """With nothing imported that a machine for GPU checks would have to be given for no use."""
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable, "PYTHONPATH": ""}
    subprocess.run(["bash", ROOT / "benchmarks" / "gpu.sh", "--smoke"], check=True, env=environment)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu_loss.json", "gpu_memory.json", "gpu_train.json"]
    code = "import sys, benchmarks.gpu_train, benchmarks.gpu_memory, benchmarks.gpu_loss; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert not {"datasets", "datatrove", "faiss", "matplotlib", "webdataset", "aiohttp", "tensorboard"} & set(modules)
