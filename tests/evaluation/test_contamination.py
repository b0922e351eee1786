import io
import json
from pathlib import Path

import pytest
from PIL import Image

from evaluation.contamination import (
    KNOWN_OVERLAPS,
    TrainingData,
    contamination_of,
    is_untrained,
    shows_overlap,
    training_data_of,
)
from evaluation.data import EvalItem, MemorySet, ShardSet
from evaluation.datasets import catalogue
from rsvl_data.errors import DataError
from rsvl_data.signature import write_signature
from rsvl_pretrain.model import DualEncoder


def stored(side: int, quality: int = 95) -> bytes:
    """The same gradient with a corner, in another file."""
    picture = Image.linear_gradient("L").resize((64, 64))
    picture.paste(255, (0, 0, side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def named(name: str, *images: bytes) -> MemorySet:
    return MemorySet(name, "test", (), [EvalItem(str(number)) for number in range(len(images))], images)


@pytest.fixture
def run(colours, tmp_path: Path) -> Path:
    """A run folder of a model that was trained on `colours`."""
    folder = tmp_path / "run"
    (folder / "export").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"recipe": "pretrain/clip", "options": {"data": str(colours.root)}}))
    return folder


def test_nothing_known_is_said():
    found = contamination_of(named("tiny", stored(9)), TrainingData())
    assert set(found.values()) == {"unknown"} and not shows_overlap(found)


@pytest.mark.parametrize("model", ["{}", "{}/export", "local-dir:{}", "local-dir:{}/export"])
def test_images_of_the_training_split_are_counted(run, colours, model):
    assert contamination_of(ShardSet(colours, "train"), training_data_of(model.format(run)))["exact_images"] == "unknown"
    write_signature(colours)
    training = training_data_of(model.format(run))
    train = contamination_of(ShardSet(colours, "train"), training)
    assert (train["exact_images"], train["same_phash_images"], train["training_images"]) == (1, 1, 1) and shows_overlap(train)
    test = contamination_of(ShardSet(colours, "test"), training)
    assert (test["exact_images"], test["test_images"]) == (0, 5) and test["trained_on"] == ["tiny"]


def test_a_picture_stored_anew_is_found_by_its_phash(run, colours):
    write_signature(colours)
    training = training_data_of(str(run))
    same, other = stored(30, quality=60), stored(60)
    from rsvl_data.signature import Signature, image_phash

    signature = Signature("x", 1, frozenset(), frozenset({image_phash(stored(30))}))
    found = contamination_of(named("x", same, other), TrainingData(training.names, signature))
    assert (found["exact_images"], found["same_phash_images"]) == (0, 1) and shows_overlap(found)


@pytest.mark.parametrize(
    ("measured", "trained", "told"),
    [
        ("ucm", ["UCM_Captions"], "ucm-captions: all images"),
        ("resisc45", ["NWPU Captions"], "nwpu-captions: all images"),
        ("resisc45", ["cap-5"], "nwpu-captions: all images"),
        ("rsitmd", ["rsicd"], "rsicd: some images"),
        ("isaid", ["dota"], "dota: all images"),
        ("fmow", ["RS5M"], "fmow: its train split (Zhang"),
        ("millionaid", ["RS5M"], "millionaid: its test split (Zhang"),
        ("millionaid", ["Million-AID"], "millionaid: the dataset itself"),
        ("ucm", ["ucm"], "ucm: the dataset itself"),
        ("ucm", ["UC Merced"], "ucm: the dataset itself"),
        ("ucm", ["org/UCMerced_LandUse"], "ucm: the dataset itself"),
        ("resisc45", ["NWPU-RESISC45"], "resisc45: the dataset itself"),
        ("wds/eurosat", ["EuroSAT_RGB"], "eurosat: the dataset itself"),
        ("uavid-7", ["uavid"], "uavid: the dataset itself"),
        ("openearthmap-9", ["OpenEarthMap"], "openearthmap: the dataset itself"),
        ("vaihingen-boundary", ["vaihingen"], "vaihingen: the dataset itself"),
        ("potsdam", ["potsdam-boundary"], "potsdam: the dataset itself"),
        ("nwpu-vhr10-refs", ["NWPU VHR-10"], "nwpu-vhr10: the dataset itself"),
        ("vaihingen", ["nwpu_vhr10"], "nwpu-vhr10: colour-infrared crops"),
        ("nwpu-vhr10", ["isprs-vaihingen"], "vaihingen: colour-infrared crops"),
        ("isaid", ["DOTA-v1.0"], "dota: all images"),
        ("risbench", ["dota"], "dota: some images"),
        ("risbench", ["DIOR"], "dior: some images"),
        ("rrsis-d", ["risbench"], "risbench: some images"),
    ],
)
def test_known_overlaps(measured, trained, told):
    found = contamination_of(named(measured, b"x"), training_data_of("ViT-B-32", trained))
    assert any(line.startswith(told) for line in found["known_overlaps"]) and shows_overlap(found)
    assert contamination_of(named("aid", b"x"), training_data_of("ViT-B-32", trained))["known_overlaps"] == "unknown"


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: entry.name)
def test_every_name_of_a_dataset_is_that_dataset(entry):
    for name in (entry.name, entry.title, entry.name.upper().replace("-", " ")):
        found = contamination_of(named(entry.name, b"x"), TrainingData((name,)))
        assert found["known_overlaps"][0].startswith(f"{entry.family or entry.name}: the dataset itself"), name


def test_overlaps_name_datasets_as_the_catalogue_does():
    elsewhere = {"dota", "dior", "vrsbench"}
    names = {entry.family or entry.name for entry in catalogue()} | elsewhere
    assert {name for overlap in KNOWN_OVERLAPS for name in (overlap.first, overlap.second)} <= names
    assert {entry.family for entry in catalogue()} - {None} <= {entry.name for entry in catalogue()}
    assert all(overlap.source for overlap in KNOWN_OVERLAPS)


@pytest.mark.parametrize("name", ["rsvl-tiny", "ViT-B-32", "ViT-B-32,"])
def test_fresh_weights_have_seen_nothing(name, tmp_path, monkeypatch):
    found = contamination_of(named("ucm", b"x"), training_data_of(name))
    assert is_untrained(found) and not shows_overlap(found) and found["known_overlaps"] == "none"
    told = contamination_of(named("ucm", b"x"), training_data_of(name, ["ucm"]))
    assert not is_untrained(told) and shows_overlap(told)  # whoever names training data knows better
    monkeypatch.chdir(tmp_path)
    DualEncoder.load("rsvl-tiny").export(tmp_path / name.rstrip(","))
    assert is_untrained(contamination_of(named("ucm", b"x"), training_data_of(name))) == name.endswith(",")


@pytest.mark.parametrize("name", ["ViT-B-32,openai", "hf-hub:org/name", "runs/mine", "local-dir:x"])
def test_of_other_weights_nothing_is_known(name):
    found = contamination_of(named("ucm", b"x"), training_data_of(name))
    assert not is_untrained(found) and not is_untrained(None) and set(found.values()) == {"unknown"}


def test_folders_that_tell_nothing(run, colours, tmp_path):
    assert training_data_of("hf-hub:org/name") == training_data_of(str(tmp_path)) == TrainingData()
    (run / "config.json").write_text('{"options": []}')
    assert training_data_of(str(run)) == TrainingData()
    (run / "config.json").write_text('{"options": {"data": "gone"}}')
    assert training_data_of(str(run), ("a",)) == TrainingData(("a",))


def test_a_signature_that_is_none(run, colours):
    (colours.root / "signature.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is no signature: .* Write it with `rsvl data signature"):
        training_data_of(str(run))
