"""`rsvl segment predict` and `rsvl eval open-vocabulary` from the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.cli import main
from rsvl_pretrain.model import DualEncoder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    DualEncoder.load("rsvl-tiny").export(folder)
    return str(folder)


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def predict(model, image, *options):
    out = image.with_name("mask.png")
    words = ["segment", "predict", "--model", model, "--image", str(image), "--out", str(out), "--device", "cpu", *options]
    return main(words), out


def ids(path):
    with Image.open(path) as mask:
        return np.asarray(mask)


def test_predict_writes_mask_and_overlay(model, image, capsys):
    overlay = image.with_name("overlay.png")
    status, out = predict(model, image, "--classes", "water,building|house,road", "--overlay", str(overlay))
    assert status == 0 and ids(out).shape == (72, 88) and overlay.is_file()
    printed = capsys.readouterr().out
    assert "a plain image" in printed and "building" in printed and "house" not in printed


CHANGES = {
    "protocol": ("farslip",), "prompts": ("openai_imagenet",), "head": ("last",), "scale": ("2",), "window": ("32",), "stride": ("8",),
    "upsample": ("jbu",), "threshold": ("0.9",), "classes": ("road,building,water",), "precision": ("bf16",),
}  # fmt: skip


@pytest.mark.parametrize("option", CHANGES)
def test_every_option_changes_the_mask(model, image, option):
    classes = ["--classes", "water,building,road"]
    _, out = predict(model, image, *classes)
    before = ids(out)
    status, out = predict(model, image, *(classes if option != "classes" else []), f"--{option}", *CHANGES[option])
    assert status == 0 and (ids(out) != before).any()


def test_a_background_takes_what_is_below_the_threshold(model, image):
    classes = ["--classes", "water,building,road", "--threshold", "0.9"]
    _, out = predict(model, image, *classes)
    without = ids(out)
    _, out = predict(model, image, *classes, "--background", "road")
    assert (without == 255).any() and (ids(out) == np.where(without == 255, 2, without)).all()


def test_a_published_protocol_brings_its_prompts(model, image):
    def mask(*options):
        return ids(predict(model, image, "--classes", "water,building,road", *options)[1])

    farslip = mask("--protocol", "farslip")
    assert (farslip == mask("--protocol", "farslip", "--prompts", "openai_imagenet")).all()
    assert (farslip != mask("--protocol", "farslip", "--prompts", "rsvl")).any()


def test_an_architecture_without_weights_is_the_same_model_each_time(image):
    def mask(*options):
        return ids(predict("rsvl-tiny", image, "--classes", "water,building,road", *options)[1])

    first = mask()
    assert (mask() == first).all() and (mask("--seed", "1") != first).any()


@pytest.mark.parametrize(
    "options, status, message",
    [
        (["--classes", ""], 2, "no class"),
        (["--classes", "water"], 2, "'water' is the only class; name what else there is too"),
        (["--classes", "water|lake", "--threshold", "0.5"], 2, "'water' is the only class; name what else there is too"),
        (["--classes", "water,land", "--background", "sea"], 2, "no class is called 'sea'"),
        (
            ["--classes", "water,land", "--background", "land"],
            2,
            "--background land takes the pixels below --threshold; give one",
        ),
        (["--classes", "water,land", "--window", "8", "--stride", "9"], 2, "stride from 1 to the window"),
        (["--classes", "water,land", "--out", "mask.jpg"], 2, "a mask is written as"),
        (["--classes", "water,land", "--image", "absent.png"], 1, "absent.png cannot be read"),
    ],
)
def test_what_cannot_be(model, image, options, status, message, capsys):
    assert predict(model, image, *options)[0] == status
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "dataset"
    assert main(["run", "data/scenes", "--out", str(out), "--num", "12", "--size-px", "64", "--val", "0.3", "--test", "0.3"]) == 0
    return out


def test_a_threshold_chosen_on_val_is_used_on_test(model, scenes, tmp_path, capsys):
    classes = json.loads((scenes / "manifest.json").read_text())["mask"]["classes"]
    common = [
        "eval",
        "open-vocabulary",
        "--model",
        model,
        "--data",
        str(scenes),
        "--device",
        "cpu",
        "--num-bootstrap",
        "20",
        "--limit",
        "2",
    ]
    chosen, result = str(tmp_path / "threshold.json"), tmp_path / "result.json"
    assert (
        main(
            [
                *common,
                "--split",
                "val",
                "--choose-threshold",
                "--thresholds",
                "0",
                "0.2",
                "--background",
                classes[0],
                "--out",
                chosen,
            ]
        )
        == 0
    )
    assert main([*common, "--threshold-from", chosen, "--out", str(result)]) == 0
    found = json.loads(result.read_text())
    assert found["task"] == "open_vocabulary" and found["options"]["threshold_chosen_on"]["split"] == "val" and found["n"] == 2
    assert main([*common, "--split", "val", "--threshold-from", chosen, "--out", str(result)]) == 2
    refused = {
        "three ways to one number": ["--threshold-from", chosen, "--threshold", "0.1"],
        "brings the background it was chosen for": ["--threshold-from", chosen, "--background", classes[0]],
        "chosen for something else (head: segearth and last)": ["--threshold-from", chosen, "--head", "last"],
        "takes the pixels below a threshold": ["--background", classes[0]],
        "protocol farslip has no threshold": ["--protocol", "farslip", "--choose-threshold"],
    }
    for message, options in refused.items():
        assert main([*common, *options, "--out", str(result)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_an_architecture_without_weights_measures_the_same_each_time(scenes, tmp_path):
    words = ["eval", "open-vocabulary", "--model", "rsvl-tiny", "--data", str(scenes), "--device", "cpu", "--num-bootstrap", "2"]

    def measured(*options):
        out = tmp_path / "result.json"
        assert main([*words, "--limit", "1", *options, "--out", str(out)]) == 0
        return json.loads(out.read_text())["model"]["sha256"]

    assert measured() == measured() != measured("--seed", "1")


def test_a_public_set_is_opened_by_name(model, shared, tmp_path):
    folder = shared / "data" / "loveda_sample"
    words = [
        "eval",
        "open-vocabulary",
        "--model",
        model,
        "--data",
        str(folder),
        "--dataset",
        "loveda",
        "--split",
        "all",
        "--device",
        "cpu",
    ]
    assert main([*words, "--limit", "1", "--stride", "64", "--num-bootstrap", "5", "--out", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["dataset"] == "loveda"
