import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from colour_source import build_colours
from PIL import Image

from recipes.cli import main, recipe_module, recipe_names
from rsvl_data.shards import Dataset


def rsvl(*words: str) -> tuple[int, str, str]:
    """In a process of its own, as a person types it."""
    done = subprocess.run([sys.executable, "-m", "recipes.cli", *words], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_recipes_are_listed_with_one_line_each(capsys):
    assert main(["run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(recipe_names())
    assert any(re.match(r"\s+data/import\s+\w+", line) for line in lines)


def test_every_option_of_every_recipe_is_explained(capsys):
    for name in recipe_names():
        with pytest.raises(SystemExit) as stopped:
            main(["run", name, "--help"])
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        assert "--out" in out and ("--seed" in out or name == "data/download"), name  # nothing about a download is random
        bare = re.findall(r"--([\w.-]+)(?: [A-Z]+| \{[^}]*\})?[ │\n]+\(default", out)
        assert not bare, f"{name}: {bare} have no explanation"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["bake"], 2, "unknown command 'bake'"),
        (["run", "data/imports"], 2, "did you mean data/import"),
        (["data", "chew"], 2, "allowed are validate, stats, browse"),
        (["data", "validate", "nowhere"], 1, "not a finished dataset"),
        (["run", "data/import", "--source", "nowhere", "--out", "x"], 1, "nowhere does not exist"),
        (["run", "data/import", "--sauce", "x", "--out", "x"], 2, "--sauce"),
        (["run", "data/import", "--source", ".", "--out", "x", "--val", "2"], 2, "--val 2"),
        (["run", "data/scenes", "--config", "nowhere.json"], 2, "nowhere.json"),
        (["run", "data/scenes", "--config"], 2, "--config needs the path"),
        (["eval", "report", "nowhere.json"], 1, "nowhere.json"),
    ],
)
def test_wrong_words_end_with_a_message_and_a_status(tmp_path, monkeypatch, capsys, words, status, message):
    monkeypatch.chdir(tmp_path)
    try:
        found = main(words)
    except SystemExit as stopped:
        found = stopped.code
    captured = capsys.readouterr()
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", captured.err + captured.out).split())
    assert found == status and message in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_status_reaches_the_shell(tmp_path):
    assert rsvl("data", "validate", str(tmp_path))[0] == 1
    assert rsvl("nonsense")[0] == 2
    status, out, _ = rsvl("--version")
    assert status == 0 and out.startswith("rsvl 0.")


def test_config_json_runs_the_same_again(tmp_path):
    for number in range(6):
        path = tmp_path / "source" / ("forest", "river")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (40 * number, 9, 9)).save(path)
    words = ["run", "data/import", "--source", str(tmp_path / "source"), "--samples-per-shard", "2", "--seed", "3"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    config = tmp_path / "one" / "config.json"
    assert json.loads(config.read_text())["options"]["samples_per_shard"] == 2
    assert main(["run", "data/import", "--config", str(config), "--out", str(tmp_path / "two")]) == 0
    assert (tmp_path / "one" / "manifest.json").read_bytes() == (tmp_path / "two" / "manifest.json").read_bytes()


def test_config_of_another_recipe_or_with_unknown_options(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"recipe": "pretrain/clip", "options": {}}))
    assert main(["run", "data/scenes", "--config", str(path)]) == 2
    assert "configuration of pretrain/clip" in capsys.readouterr().err
    path.write_text(json.dumps({"recipe": "data/scenes", "options": {"nmu": 4}}))
    assert main(["run", "data/scenes", "--config", str(path)]) == 2
    assert "sets nmu, which data/scenes does not have" in capsys.readouterr().err


def test_import_counts_what_it_drops(tmp_path, capsys):
    folder = tmp_path / "source" / "forest"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (16, 16), (40 * number, 9, 9)).save(folder / f"{number}.png")
    (folder / "bad.jpg").write_bytes(b"no image at all")
    assert main(["run", "data/import", "--source", str(tmp_path / "source"), "--out", str(tmp_path / "out")]) == 0
    assert main(["data", "stats", str(tmp_path / "out")]) == 0
    assert "read: 6 in, 5 kept, dropped not_an_image 1" in capsys.readouterr().out


def test_browse_makes_a_page(colours, tmp_path):
    assert main(["data", "browse", str(colours.root), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/webp") >= 4 and "forest" in page


def test_image_suffix_png_keeps_every_pixel(tmp_path):
    Image.new("RGB", (16, 16), (1, 2, 3)).save(_made(tmp_path / "source" / "forest") / "a.bmp")
    words = ["--source", str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--image.suffix", "png"]
    assert main(["run", "data/import", *words]) == 0
    dataset = Dataset.open(tmp_path / "out")
    [sample] = [sample for split in dataset.splits for sample in dataset.samples(split)]
    with Image.open(io.BytesIO(sample.image)) as image:
        assert image.format == "PNG" and image.getpixel((3, 3)) == (1, 2, 3)


def test_images_are_stored_as_asked(tmp_path):
    Image.new("RGB", (40, 20), (1, 2, 3)).save(_made(tmp_path / "source" / "AnnualCrop") / "a.png")
    frames = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "source" / "AnnualCrop" / "b.gif", save_all=True, append_images=frames[1:])
    options = "--image.size-px 50 --image.resize center_crop --image.upscale --image.quality 90 --image.animated drop".split()
    words = ["--source", str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--class-folders.words", "folder"]
    assert main(["run", "data/import", *words, *options]) == 0
    dataset = Dataset.open(tmp_path / "out")
    [sample] = [sample for split in dataset.splits for sample in dataset.samples(split)]
    assert (sample.width, sample.height, sample.original_width) == (50, 50, 40)
    assert sample.captions[0].text == "a satellite image of annualcrop."
    assert dataset.manifest["stages"][0]["dropped"] == {"animated": 1}


def test_a_size_without_a_way_to_it(tmp_path, capsys):
    words = ["--source", str(tmp_path), "--out", str(tmp_path / "out"), "--image.size-px", "50"]
    with pytest.raises(SystemExit) as caught:
        main(["run", "data/import", *words])
    assert caught.value.code == 2 and "say nothing without resize" in capsys.readouterr().err


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_dry_run(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert main(["run", "data/scenes", "--num", "50", "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "would read 50 images" in caplog.text and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_runs_in_smoke_mode(name, tmp_path):
    module = recipe_module(name)
    module.run(module.smoke(tmp_path))


def test_smoke_from_the_command_line(tmp_path):
    status, _, err = rsvl("run", "data/import", "--smoke", "--out", str(tmp_path / "out"))
    assert status == 0, err
    assert (tmp_path / "out" / "manifest.json").exists()


def test_eval_writes_results_and_a_report(tmp_path, capsys):
    data = build_colours(tmp_path / "data", val=0.2, test=0.4)
    for verb in ("zero-shot", "retrieval"):
        words = [
            "--model",
            "rsvl-tiny",
            "--data",
            str(data.root),
            "--out",
            str(tmp_path / f"{verb}.json"),
            "--num-bootstrap",
            "20",
        ]
        assert main(["eval", verb, *words]) == 0
        result = json.loads((tmp_path / f"{verb}.json").read_text())
        assert result["split"] == "test" and result["n"] == data.splits["test"] and result["model"]["name"] == "rsvl-tiny"
    page = tmp_path / "page.html"
    files = [str(tmp_path / "zero-shot.json"), str(tmp_path / "retrieval.json")]
    assert main(["eval", "report", *files, "--out", str(page), "--data", str(data.root)]) == 0
    assert "acc1" in capsys.readouterr().out and Path(page).stat().st_size > 5000


def test_a_full_disk_is_said_in_one_line_and_the_build_goes_on(tmp_path, small_disk):
    words = [
        "run",
        "data/scenes",
        "--num",
        "150",
        "--size-px",
        "128",
        "--samples-per-shard",
        "50",
        "--out",
        str(tmp_path / "disk" / "out"),
    ]
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", "2m") as resize:
        status, _, err = rsvl(*words)
        assert status == 1 and "No space left on device" in err and "give the same command again" in err
        assert len(err.strip().splitlines()) == 1, err
        resize("50m")
        assert rsvl(*words)[0] == 0
        assert rsvl("data", "validate", str(tmp_path / "disk" / "out"))[0] == 0


def test_a_full_disk_while_training_leaves_a_loadable_checkpoint(tmp_path, colours, small_disk):
    words = ["run", "pretrain/clip", "--data", str(colours.root), "--out", str(tmp_path / "disk" / "run"), "--model", "rsvl-tiny"]
    words += ["--batch-size", "8", "--workers", "0", "--train.steps", "3", "--train.save-every", "1", "--resume", "latest"]
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", "150m") as resize:
        status, _, err = rsvl(*words)
        assert status == 1 and "the checkpoint of step 2 could not be written" in err and "--resume latest" in err
        assert "Traceback" not in err
        resize("900m")
        assert rsvl(*words)[0] == 0
        assert (tmp_path / "disk" / "run" / "export" / "open_clip_model.safetensors").exists()
