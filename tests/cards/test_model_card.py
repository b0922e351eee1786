"""`rsvl card model` on short runs of every pretraining recipe."""

import json
from pathlib import Path

import pytest
import yaml
from many_languages import build_colours_in_languages
from region_dataset import build_regions

from evaluation.result import Result
from recipes.cli import main, recipe_names
from rsvl_pretrain.model import DualEncoder

ONE_STEP = ("--batch-size", "4", "--workers", "0", "--train.steps", "1", "--train.trackers")
SMALL_VIEWS = (
    *("--distillation.prototypes", "24", "--distillation.hidden-dim", "256", "--distillation.bottleneck-dim", "64"),
    *("--views.local-crops", "1", "--views.local-px", "32", "--train.precision", "fp32"),
)
WORDS = {
    "pretrain/clip": ("--model", "rsvl-tiny"),
    "pretrain/farslip1": ("--init-from", "rsvl-tiny", "--crops-per-image", "1"),
    "pretrain/farslip2": ("--init-from", "rsvl-tiny", "--min-area-px", "1"),
    "pretrain/rs_m_clip": ("--model", "rsvl-tiny", "--languages", "en", "es", *SMALL_VIEWS),
}


def trained(recipe: str, data: Path, out: Path) -> Path:
    assert main(["run", recipe, "--data", str(data), "--out", str(out), *WORDS[recipe], *ONE_STEP]) == 0
    return out


def measured(run: Path, data: Path, out: Path) -> Path:
    words = ("--num-bootstrap", "5", "--batch-size", "8", "--workers", "1")
    assert main(["eval", "zero-shot", "--model", str(run), "--data", str(data), "--out", str(out), *words]) == 0
    return out


def card(run: Path, *results: Path) -> str:
    assert main(["card", "model", str(run), *(("--results", *map(str, results)) if results else ())]) == 0
    return (run / "export" / "README.md").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    build_colours_in_languages(folder / "data")
    return trained("pretrain/clip", folder / "data", folder / "run")


def test_every_recipe_has_its_words():
    assert set(WORDS) == {name for name in recipe_names() if name.startswith("pretrain/")}


@pytest.mark.parametrize("recipe", WORDS)
def test_a_card_says_what_the_run_was(recipe, tmp_path):
    dataset = build_regions(tmp_path / "data") if recipe == "pretrain/farslip2" else build_colours_in_languages(tmp_path / "data")
    run = trained(recipe, dataset.root, tmp_path / "run")
    text = card(run)
    assert f"trained with rsvl on {dataset.name}." in text
    assert "| started from | rsvl-tiny |" in text and "| training | 1 steps of 4 samples |" in text
    assert f"`rsvl run {recipe} --config config.json`" in text and json.loads((run / "config.json").read_text())["code"] in text
    assert f"`{DualEncoder.load(str(run)).weights_sha256()}`" in text and "Not measured yet." in text
    again = tmp_path / "again.json"
    again.write_text(json.dumps({"recipe": recipe, "options": json.loads(text.split("```json\n")[1].split("```")[0])}))
    assert main(["run", recipe, "--config", str(again), "--out", str(tmp_path / "again")]) == 0


def test_numbers_and_data_of_training_and_of_measuring(run, colours, tmp_path):
    """The colours that were measured are called `tiny`, what was trained on `languages`; a note of either stands on the card."""
    for folder, note in ((colours.root, "procedural"), (run.parent / "data", "drawn")):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "note": note}))
    path = measured(run, colours.root, tmp_path / "zero_shot.json")
    text = card(run, path)
    assert "trained with rsvl on languages." in text and f"Measured on {colours.name} (test) and nowhere else." in text
    assert "**drawn**" in text and "**procedural**" in text
    value = Result.load(path).metrics["acc1"].value
    assert f"| acc1 | {100 * value:.1f}% |" in text and "in percent" in text
    front = yaml.safe_load(text.split("---")[1])["model-index"][0]["results"][0]
    assert front["dataset"]["name"] == colours.name and front["metrics"][0]["value"] == value


def test_an_overlap_stands_beside_the_numbers(run, colours, tmp_path):
    """The colours are other images than those of the run's dataset, until somebody says that they were trained on."""
    path = measured(run, colours.root, tmp_path / "zero_shot.json")
    assert "Overlap with the training data" not in card(run, path)
    path = measured(run, run.parent / "data", tmp_path / "own.json")
    assert "Overlap with the training data, languages: trained on languages" in card(run, path)


def test_the_data_of_a_run_may_be_gone_or_elsewhere(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    for place, told in (("old/rs5m", "rs5m"), ("hf:/datasets/org/rs5m", "hf://datasets/org/rs5m")):
        moved = tmp_path / told.split(":")[0]
        (moved / "export").mkdir(parents=True)
        for file in (run / "export").iterdir():
            (moved / "export" / file.name).write_bytes(file.read_bytes())
        (moved / "config.json").write_text(json.dumps({**config, "options": {**config["options"], "data": place}}))
        assert f"trained with rsvl on {told}." in card(moved)


def test_numbers_of_other_weights_are_refused(run, colours, tmp_path, capsys):
    path = measured(Path("rsvl-tiny"), colours.root, tmp_path / "other.json")
    assert main(["card", "model", str(run), "--results", str(path)]) == 1
    told = capsys.readouterr().err
    assert "of rsvl-tiny (untrained) with weights" in told and f"Measure with --model {run}" in told


def test_a_run_that_did_not_end(tmp_path, capsys):
    assert main(["card", "model", str(tmp_path)]) == 1
    assert "is not a finished run" in capsys.readouterr().err
