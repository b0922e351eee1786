"""pretrain/rs_m_clip from the command line: presets, languages, several processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from many_languages import build_colours_in_languages
from PIL import Image
from tiny_xlm_roberta import CLIP_NAME, SENTENCES, fill_hub_cache, use_hub_cache
from train_process import WORDS, finish, metrics, output, start

import recipes
from evaluation.benchmarks.retrieval import retrieval
from evaluation.data import ShardSet
from evaluation.prompts_multilingual import LANGS
from recipes.cli import main
from recipes.pretrain import rs_m_clip
from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ViewConfig
from rsvl_pretrain.self_distillation import SelfDistillationConfig
from rsvl_pretrain.train import TrainConfig

SMALL = (
    *("--distillation.prototypes", "24", "--distillation.hidden-dim", "256", "--distillation.bottleneck-dim", "64"),
    *("--views.local-crops", "2", "--views.local-px", "32", "--train.precision", "fp32"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return build_colours_in_languages(tmp_path_factory.mktemp("languages") / "data", everywhere=True)


@pytest.fixture(scope="module")
def options(dataset, tmp_path_factory):
    return rs_m_clip.Options(
        data=dataset.root,
        out=tmp_path_factory.mktemp("runs") / "run",
        model="rsvl-tiny",
        languages=("en", "es", "ru"),
        batch_size=8,
        workers=0,
        distillation=SelfDistillationConfig(prototypes=24, hidden_dim=256, bottleneck_dim=64),
        views=ViewConfig(local_crops=2, local_px=32),
        train=TrainConfig(steps=4, save_every=4, eval_every=4, trackers=()),
    )


def test_rs_m_clip_01_ten_languages_unless_asked():
    assert rs_m_clip.Options.languages == LANGS == ("en", "pt", "es", "fr", "de", "nl", "it", "zh", "ko", "ru")


def test_languages_are_logged_and_val_is_measured_in_each(options, dataset, tmp_path):
    rs_m_clip.run(replace(options, out=tmp_path / "run"))
    lines = metrics(tmp_path / "run")
    drawn = {name for line in lines for name in line if name.startswith("loss/contrastive[")}
    assert drawn == {"loss/contrastive[en]", "loss/contrastive[es]", "loss/contrastive[ru]"}
    values = {name: value for line in lines for name, value in line.items() if name.startswith("val_retrieval/")}
    each = [values[f"val_retrieval/mean_recall[{lang}]"] for lang in ("en", "es", "ru")]
    assert values["val_retrieval/mean_recall"] == pytest.approx(sum(each) / 3)


def test_rs_m_clip_14_english_alone_is_measured_as_plain_retrieval_does(options, dataset, tmp_path):
    rs_m_clip.run(replace(options, out=tmp_path / "run", languages=("en",)))
    encoder = DualEncoder.load(str(tmp_path / "run")).eval()
    plain = retrieval(encoder, ShardSet(dataset, "val"), lang="en", num_bootstrap=1).metrics["mean_recall"].value
    assert metrics(tmp_path / "run")[-1]["val_retrieval/mean_recall[en]"] == pytest.approx(plain)
    assert {name for line in metrics(tmp_path / "run") for name in line if "contrastive[" in name} == {"loss/contrastive[en]"}


def test_rs_m_clip_13_a_trained_xlm_roberta_is_read_by_open_clip(options, tmp_path, monkeypatch):
    fill_hub_cache(tmp_path / "hub")
    use_hub_cache(monkeypatch, tmp_path / "hub")
    views = ViewConfig(local_crops=2, local_px=16)
    train = replace(options.train, steps=2, eval_every=0)
    encoder = rs_m_clip.run(replace(options, out=tmp_path / "run", model=f"hf-hub:{CLIP_NAME}", views=views, train=train)).eval()
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'run' / 'export'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'run' / 'export'}")
    texts, image = list(SENTENCES.values()), Image.new("RGB", (40, 36), (20, 120, 30))
    stored = torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1)[None]
    with torch.inference_mode():
        found = model.eval().encode_text(tokenizer(texts), normalize=True)
        torch.testing.assert_close(encoder.encode_text(texts), found, atol=1e-4, rtol=0)
        flat = model.encode_image(preprocess(image)[None], normalize=True)
        torch.testing.assert_close(encoder.encode_image(stored), flat, atol=1e-4, rtol=0)
    assert "text.transformer.encoder.layer.0.output.dense.weight" in model.state_dict()
    assert not any("teacher" in name or "head" in name for name in model.state_dict())


def test_rs_m_clip_06_two_processes_give_the_numbers_of_one(dataset, tmp_path):
    """Contrastive loss, self-distillation with its centre and teacher, and the losses of languages."""
    runs = [
        start(
            dataset.root,
            tmp_path / str(ranks),
            *SMALL,
            recipe="pretrain/rs_m_clip",
            ranks=ranks,
            steps=4,
            save_every=4,
            eval_every=0,
        )
        for ranks in (1, 2)
    ]
    for ranks, processes in zip((1, 2), runs):
        assert set(finish(processes)) == {0}, output(tmp_path / str(ranks))
    for alone, shared in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        assert alone["keys_digest"] == shared["keys_digest"]
        for name in alone:
            if name.startswith("loss"):
                assert shared[name] == pytest.approx(alone[name], rel=1e-4), (alone["step"], name)
    states = [
        safetensors.torch.load_file(tmp_path / ranks / "checkpoints" / "step_00000004" / "model.safetensors") for ranks in "12"
    ]
    assert any("teacher" in name for name in states[0]) and "distillation.center" in states[0]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=2e-5, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


def launched(engine: str, dataset, out, freeze: int) -> subprocess.CompletedProcess[str]:
    """Two processes under an engine, started by accelerate."""
    config = Path(recipes.__file__).parent / "engines" / f"{engine}.yaml"
    launch = f"-m accelerate.commands.launch --config_file {config} --num_processes 2 --main_process_port 0".split()
    words = [*WORDS, *SMALL, "--train.steps", "6", "--distillation.freeze-last-layer-epochs", str(freeze)]
    command = [
        sys.executable,
        *launch,
        "-m",
        "recipes.pretrain.rs_m_clip",
        "--data",
        str(dataset.root),
        "--out",
        str(out),
        *words,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "freeze"), [("fsdp2", 1), ("zero2", 0)])
def test_spread_weights_give_the_numbers_of_one_process(dataset, tmp_path, engine, freeze):
    assert (done := launched(engine, dataset, tmp_path / engine, freeze)).returncode == 0, done.stderr[-4000:]
    words = [*WORDS, *SMALL, "--train.steps", "6", "--distillation.freeze-last-layer-epochs", str(freeze)]
    assert main(["run", "pretrain/rs_m_clip", "--data", str(dataset.root), "--out", str(tmp_path / "one"), *words]) == 0
    for alone, shared in zip(metrics(tmp_path / "one"), metrics(tmp_path / engine), strict=True):
        for name in alone:
            if name.startswith(("loss", "val")):
                assert shared[name] == pytest.approx(alone[name], rel=1e-4), (alone, name)
    one, many = (
        safetensors.torch.load_file(tmp_path / name / "export" / "open_clip_model.safetensors") for name in ("one", engine)
    )
    assert all(torch.allclose(many[name], tensor, atol=2e-5) for name, tensor in one.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "freeze", "message"),
    [("zero2", 1, "no layer can be frozen for a while"), ("zero3", 0, "ZeRO stage 3 takes apart")],
)
def test_what_deepspeed_cannot_do_is_named(dataset, tmp_path, engine, freeze, message):
    done = launched(engine, dataset, tmp_path / "run", freeze)
    assert done.returncode and message in done.stderr


@pytest.mark.parametrize("preset", rs_m_clip.PRESETS)
def test_presets_are_whole_and_save_themselves(preset, dataset, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(rs_m_clip, "run", seen.append)
    words = ["--data", str(dataset.root), "--out", str(tmp_path), "--preset", preset, "--distillation.weight", "0.5"]
    assert main(["run", "pretrain/rs_m_clip", *words]) == 0
    (options,) = seen
    assert options.preset == preset and options.distillation.weight == 0.5
    wanted = rs_m_clip.PRESETS[preset]
    assert options.train == wanted["train"]
    assert options.distillation == replace(wanted["distillation"], weight=0.5)


def test_rs_m_clip_12_the_reconstruction():
    """Section 3.3 of the reference, which is inferred itself."""
    options = rs_m_clip.Options(data=None, out=None, **rs_m_clip.PRESETS["reconstruction"])
    distillation, views, optim = options.distillation, options.views, options.optim
    assert options.model == "hf-hub:laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k"
    assert (distillation.prototypes, distillation.hidden_dim, distillation.bottleneck_dim, distillation.head_layers) == (
        65536,
        2048,
        256,
        3,
    )
    assert (distillation.student_temperature, distillation.teacher_temperature) == (0.1, 0.04)
    assert (distillation.center_momentum, distillation.teacher_momentum, distillation.teacher_schedule) == (0.9, 0.996, "fixed")
    assert (distillation.weight, distillation.freeze_last_layer_epochs) == (1.0, 1)
    assert (views.global_crops, views.global_area, views.contrastive) == (2, (0.4, 1.0), "global")
    assert (views.local_crops, views.local_area, views.local_px) == (8, (0.05, 0.4), 96)
    assert (optim.lr, optim.wd, optim.lr * distillation.head_lr_share) == (1e-5, 0.2, pytest.approx(5e-4))
    assert optim.warmup == round(0.05 * options.train.steps) and options.train.precision == "amp_bf16"


def test_languages_that_make_no_sense(options):
    with pytest.raises(OptionError, match="share of English is 2"):
        replace(options, english_share=2)


def test_the_options_of_a_run_run_it_again(options, tmp_path):
    rs_m_clip.run(replace(options, out=tmp_path / "run"))
    again = str(tmp_path / "again")
    assert main(["run", "pretrain/rs_m_clip", "--config", str(tmp_path / "run" / "config.json"), "--out", again]) == 0
    first, second = (DualEncoder.load(str(tmp_path / name)).weights_sha256() for name in ("run", "again"))
    assert first == second
    assert json.loads((tmp_path / "again" / "config.json").read_text())["options"]["languages"] == ["en", "es", "ru"]
