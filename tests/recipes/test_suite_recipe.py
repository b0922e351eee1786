"""`rsvl eval run`: small trees of EuroSAT and UCM, tiny models with fresh weights."""

import functools
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from evaluation.datasets import catalogue
from evaluation.result import Result
from evaluation.suite import Measurement, measurements
from recipes._suite_run import Ranks
from recipes.cli import main
from recipes.evaluate import suite
from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two pictures a class, and captions of those of UCM."""
    root = tmp_path_factory.mktemp("data")
    for entry in (entry for entry in catalogue() if entry.name in ("eurosat", "ucm")):
        for number, label in enumerate(entry.classes):
            folder = root / entry.folders[0] / label
            folder.mkdir(parents=True)
            for side in (5, 9):
                picture = Image.new("RGB", (32, 32), (12 * number, 80, 255 - 12 * number))
                picture.paste((255, 255, 255), (0, 0, side + number, side))
                picture.save(folder / f"{label}_{side}.jpg")
    captions = root / "UCM_captions"
    (captions / "imgs").mkdir(parents=True)
    images = []
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 99, 5 * number)).save(captions / "imgs" / f"{number}.tif")
        sentences = [{"raw": f"number {number}", "imgid": number, "sentid": number}]
        images.append(
            {"filename": f"{number}.tif", "imgid": number, "split": "test", "sentids": [number], "sentences": sentences}
        )
    (captions / "dataset.json").write_text(json.dumps({"dataset": "UCM", "images": images}))
    return root


@pytest.fixture
def options(data, tmp_path) -> suite.Options:
    return suite.Options(model=("rsvl-tiny",), root=data, out=tmp_path / "out", num_bootstrap=20, batch_size=8)


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many batches of images were encoded, call by call."""
    calls: list[int] = []
    encode = DualEncoder.encode_image
    monkeypatch.setattr(DualEncoder, "encode_image", lambda self, images: calls.append(len(images)) or encode(self, images))
    return calls


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch) -> None:
    """Loading takes longer than measuring; fresh weights come from the seed, which is part of the name here."""
    load = functools.cache(lambda name, device, seed: original(name, device).eval())
    original = DualEncoder.load
    monkeypatch.setattr(DualEncoder, "load", lambda name, device="cpu": load(name, device, torch.initial_seed()))


@pytest.fixture
def no_page(monkeypatch) -> None:
    monkeypatch.setattr(suite, "write_report", lambda *args, **options: None)


def results_of(out: Path) -> dict[str, Result]:
    return {path.stem: replace(Result.load(path), seconds=0) for path in sorted(out.glob("results/*/*.json"))}


def states(outcomes) -> dict[str, str]:
    return {outcome.measurement.dataset: outcome.state for outcome in outcomes}


def test_quick(options, capsys):
    outcomes = suite.run(options)
    assert states(outcomes) == {"eurosat": "measured", "ucm": "measured", "ucm-captions": "measured"}
    found = results_of(options.out)
    assert {name: result.n for name, result in found.items()} == {
        "zero_shot-eurosat-rsvl": 20,
        "zero_shot-ucm-rsvl": 42,
        "retrieval-ucm-captions-rsvl": 12,
    }
    assert found["zero_shot-ucm-rsvl"].options["num_bootstrap"] == 20
    assert found["zero_shot-ucm-rsvl"].contamination["trained_on"] == "nothing"
    assert json.loads((options.out / "comparisons.json").read_text()) == []
    assert "Overlap with the training data" in (options.out / "report.html").read_text()
    assert "3 measured" in capsys.readouterr().out


def test_what_is_finished_is_kept(options, encoded, no_page):
    suite.run(options)
    before = results_of(options.out)
    encoded.clear()
    assert set(states(suite.run(options)).values()) == {"kept"} and encoded == []
    assert results_of(options.out) == before
    path = next(options.out.glob("results/*/zero_shot-ucm-rsvl.json"))
    path.write_text("{")  # half a file
    assert states(suite.run(options)) == {"eurosat": "kept", "ucm": "measured", "ucm-captions": "kept"}
    assert results_of(options.out) == before and encoded == []  # by the embeddings that were kept


def test_what_changes_a_number_is_measured_again(options, monkeypatch, no_page):
    monkeypatch.setattr(suite, "measurements", lambda name: measurements(name)[:1])
    suite.run(options)
    changes = ({"seed": 1}, {"num_bootstrap": 21}, {"limit": 5}, {"batch_size": 4}, {"precision": "bf16"}, {"engine": "fast"})
    for change in (*changes, {"trained_on": ("x",)}):
        outcomes = suite.run(replace(options, **change))
        assert states(outcomes) == {"eurosat": "measured"}, change
        assert outcomes[0].result.n == change.get("limit", 20)
    assert states(suite.run(replace(options, trained_on=("x",)))) == {"eurosat": "kept"}


def test_workers_and_where_embeddings_are_kept_change_nothing(options, encoded, tmp_path, no_page):
    suite.run(options)
    before, num_calls = results_of(options.out), len(encoded)
    for change in ({"workers": 5}, {"cache": tmp_path / "shared"}, {"no_cache": True}):
        shutil.rmtree(options.out)
        encoded.clear()
        suite.run(replace(options, **change))
        assert results_of(options.out) == before
        assert len(encoded) > num_calls if "no_cache" in change else len(encoded) == num_calls  # some pictures are in two sets
        assert (options.out / "embeddings").exists() is ("workers" in change)
    shutil.rmtree(options.out)
    encoded.clear()
    suite.run(replace(options, cache=tmp_path / "shared"))
    assert results_of(options.out) == before and encoded == []


def test_data_that_changed_are_measured_again(options, data, tmp_path, no_page):
    root = tmp_path / "copy"
    shutil.copytree(data, root)
    suite.run(replace(options, root=root))
    Image.new("RGB", (40, 40)).save(next(root.glob("*/River/River_5.jpg")))
    assert states(suite.run(replace(options, root=root))) == {"eurosat": "measured", "ucm": "kept", "ucm-captions": "kept"}


def test_absent_and_broken_datasets_cost_nothing_else(options, data, tmp_path, capsys, no_page):
    root = tmp_path / "copy"
    shutil.copytree(data, root)
    shutil.rmtree(root / "UCM_captions")
    next(root.glob("*/agricultural/agricultural_5.jpg")).write_bytes(b"no image")
    words = ["--root", str(root), "--out", str(options.out), "--num-bootstrap", "20"]
    assert main(["eval", "run", "quick", "--model", "rsvl-tiny", *words]) == 1
    told = capsys.readouterr()
    assert "failed: zero_shot-ucm-rsvl of rsvl-tiny: sample agricultural/agricultural_5.jpg cannot be evaluated" in told.out
    assert f"absent: retrieval-ucm-captions-rsvl of rsvl-tiny: not under {root}; get it at http" in told.out
    assert "1 measured, 1 absent, 1 failed" in told.out and "1 of 3 measurements failed, the rest is kept" in told.err
    assert list(results_of(options.out)) == ["zero_shot-eurosat-rsvl"]
    shutil.rmtree(next(root.glob("UCM*")))
    assert main(["eval", "run", "quick", "--model", "rsvl-tiny", *words]) == 0  # absent is no failure
    assert "1 kept, 2 absent" in capsys.readouterr().out


def test_a_bug_costs_nothing_else(options, monkeypatch, no_page):
    monkeypatch.setattr("recipes._suite_run._BENCHMARKS", {"zero_shot": lambda *a, **b: 1 / 0})
    outcomes: list = []
    monkeypatch.setattr(suite, "outcome_table", lambda found: outcomes.extend(found) or "")
    with pytest.raises(Exception, match="3 of 3 measurements failed.*ZeroDivisionError"):
        suite.run(options)
    assert [outcome.reason for outcome in outcomes] == ["ZeroDivisionError: division by zero"] * 2 + ["KeyError: 'retrieval'"]


def test_a_run_that_was_killed_goes_on(options, encoded, monkeypatch, no_page):
    suite.run(options)
    expected, num_calls = results_of(options.out), len(encoded)
    shutil.rmtree(options.out)
    encoded.clear()

    encode = DualEncoder.encode_image

    def stop(self, images):
        if len(encoded) == 5:
            raise KeyboardInterrupt
        return encode(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(DualEncoder, "encode_image", stop)
        with pytest.raises(KeyboardInterrupt):
            suite.run(options)
    suite.run(options)
    assert results_of(options.out) == expected and len(encoded) == num_calls


def test_two_models_are_compared(options, tmp_path, capsys):
    DualEncoder.load("rsvl-tiny").export(tmp_path / "other")
    words = ["--root", str(options.root), "--out", str(options.out), "--num-bootstrap", "20", "--trained-on", "ucm-captions"]
    assert main(["eval", "run", "quick", "--model", "rsvl-tiny", "--model", str(tmp_path / "other"), *words]) == 0
    out = capsys.readouterr().out
    comparisons = json.loads((options.out / "comparisons.json").read_text())
    assert {each["metric"] for each in comparisons} >= {"acc1", "mean_per_class_recall", "mean_recall"}
    assert {(each["first"]["name"], each["second"]["name"]) for each in comparisons} == {("rsvl-tiny", str(tmp_path / "other"))}
    assert ("6 measured" in out and "first better" in out) or "not told apart" in out
    page = (options.out / "report.html").read_text()
    assert "Models compared on the same items" in page and "Train-test overlap" in page and "UCM-Captions describes" in page
    files = [str(path) for path in options.out.glob("results/*/zero_shot-ucm*.json")]
    assert main(["eval", "report", *files, "--out", str(tmp_path / "page.html")]) == 0
    assert "mean_per_class_recall" in capsys.readouterr().out and "Models compared" in (tmp_path / "page.html").read_text()


def test_models_that_cannot_be_loaded_are_named(options, capsys, no_page):
    with pytest.raises(Exception, match="no model is called 'rsvl-tony'"):
        suite.run(replace(options, model=("rsvl-tony", "rsvl-tiny")))
    told = capsys.readouterr().out
    assert "3 measured, 3 failed" in told
    names = "zero_shot-eurosat-rsvl, zero_shot-ucm-rsvl, retrieval-ucm-captions-rsvl"
    assert f"failed: {names} of rsvl-tony: no model" in told and told.count("no model is called") == 1


MASKS, PLACES = Measurement("open_vocabulary", "loveda", "rsvl"), Measurement("localization", "air-slt", "rsvl")


@pytest.fixture
def dense(options, tmp_path, monkeypatch) -> suite.Options:
    """Six images with masks, and six scenes with a sentence each."""
    root = tmp_path / "dense"
    for number in range(1, 7):
        for kind, image in (
            ("images", Image.new("RGB", (80, 64), (90, 40 * number, 30))),
            ("masks", Image.new("L", (80, 64), number)),
        ):
            path = root / f"LoveDA/Val/Rural/{kind}_png/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    scene = Image.new("RGB", (280, 260), (20, 90, 20))
    scene.paste((230, 77, 26), (150, 100, 240, 190))
    square = [[150, 100], [240, 100], [240, 190], [150, 190]]
    asked = []
    (root / "AIR-SLT").mkdir()
    for number, text in enumerate("roof house square lake field road".split()):
        scene.save(root / "AIR-SLT" / f"{number}.png")
        asked.append({"caption": text, "jpg_name": f"{number}.png", "points": [square]})
    (root / "AIR-SLT" / "anno.json").write_text(json.dumps(asked))
    monkeypatch.setattr(suite, "measurements", lambda name: (MASKS, PLACES))
    return replace(options, root=root)


def test_masks_and_places_are_measured_and_kept(dense, encoded, capsys):
    assert states(suite.run(dense)) == {"loveda": "measured", "air-slt": "measured"}
    told = capsys.readouterr().out
    assert "loveda/val" in told and "miou" in told and "air-slt/test" in told and "rmi" in told
    before = results_of(dense.out)
    assert {name: result.n for name, result in before.items()} == {
        "localization-air-slt-rsvl": 6,
        "open_vocabulary-loveda-rsvl": 6,
    }
    assert before["open_vocabulary-loveda-rsvl"].options["head"] == "segearth"  # beside the rules of the run
    page = (dense.out / "report.html").read_text()
    assert "Open-vocabulary segmentation" in page and "Semantic localisation" in page
    encoded.clear()
    assert states(suite.run(dense)) == {"loveda": "kept", "air-slt": "kept"} and encoded == []
    assert results_of(dense.out) == before
    assert [outcome.result.n for outcome in suite.run(replace(dense, limit=1))] == [1, 1]


def test_two_models_are_paired_on_masks_and_places(dense, tmp_path):
    DualEncoder.load("rsvl-tiny").export(tmp_path / "other")
    suite.run(replace(dense, model=("rsvl-tiny", str(tmp_path / "other"))))
    comparisons = json.loads((dense.out / "comparisons.json").read_text())
    assert {(each["task"], each["metric"]) for each in comparisons} >= {("open_vocabulary", "miou"), ("localization", "rmi")}


def test_absent_and_broken_masks_and_places(dense, capsys, no_page):
    next(dense.root.glob("LoveDA/**/masks_png/2.png")).write_bytes(b"no mask")
    shutil.rmtree(dense.root / "AIR-SLT")
    with pytest.raises(Exception, match="1 of 2 measurements failed"):
        suite.run(dense)
    told = capsys.readouterr().out
    assert f"absent: {PLACES.name} of rsvl-tiny: not under {dense.root}; get it at https://github.com/xiaoyuan1996" in told
    assert f"failed: {MASKS.name} of rsvl-tiny:" in told and "masks_png/2.png" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ()}, "--model is needed"),
        ({"model": ("a", "a")}, "--model a is given twice"),
        ({"root": Path("nowhere")}, "--root nowhere is no folder"),
        ({"cache": Path("x"), "no_cache": True}, "--cache names a folder"),
    ],
)
def test_options_that_make_no_sense(options, change, message):
    with pytest.raises(OptionError, match=message):
        suite.run(replace(options, **change))


@pytest.mark.parametrize("world_size", [2, 5])
def test_ranks_share_the_encoding(options, no_page, encoded, world_size, monkeypatch):
    """One after the other here; what they share is the folder."""
    suite.run(options)
    expected, num_calls = results_of(options.out), len(encoded)
    shutil.rmtree(options.out)
    encoded.clear()
    monkeypatch.setattr(Ranks, "wait", lambda self: None)
    shares = []
    for rank in reversed(range(world_size)):
        with monkeypatch.context() as patched:
            patched.setattr(Ranks, "started", lambda rank=rank: nullcontext(Ranks(rank, world_size)))
            outcomes = suite.run(options)
        shares.append(len(encoded) - sum(shares))
        assert bool(outcomes) is (rank == 0) and bool(results_of(options.out)) is (rank == 0)
    assert results_of(options.out) == expected and all(shares) and max(shares) < num_calls


@pytest.mark.slow
def test_several_processes_give_the_same_numbers(options, tmp_path, no_page):
    suite.run(options)
    words = ["quick", "--model", "rsvl-tiny", "--root", str(options.root), "--num-bootstrap", "20", "--batch-size", "8"]
    for number, more in enumerate(([], ["--no-cache"])):
        out = tmp_path / f"ranks{number}"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [*torchrun, "-m", "recipes.evaluate.suite", *words, "--out", str(out), *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert results_of(out) == results_of(options.out)
        assert (out / "embeddings").exists() is not bool(more) and not (out / "embeddings.tmp").exists()
        assert done.stdout.count("3 measured") == 1
