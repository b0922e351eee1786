"""`rsvl run data/rank` on a dataset whose samples hold candidates."""

import hashlib
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from colour_source import ColourSource
from PIL import Image

from recipes.cli import main
from rsvl_data.images import encode
from rsvl_data.loader import LoaderConfig, train_batches
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Caption, Sample
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Augment, Preprocess
from rsvl_data.validate import problems
from rsvl_pretrain.model import DualEncoder

WORDS = ("a lake on the left", "bare ground", "many trees seen from above", "snow", "roofs and roads", "an airport")


def with_candidates(number: int) -> dict[str, object]:
    pixels = np.random.default_rng(number).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    image = encode(Image.fromarray(pixels).resize((40, 36)), "jpg")
    candidates = [Caption(text=f"{words}, picture {number}", kind="vlm") for words in WORDS]
    captions = [Caption(text="what a person wrote"), *(candidates if number else [])]
    return {"image": image, "sha256": hashlib.sha256(image).hexdigest(), "captions": captions}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """18 samples with six candidates each; the first has none."""
    options = BuildOptions(out=tmp_path_factory.mktemp("data") / "captioned", samples_per_shard=20, workers=1)
    dataset = build(ColourSource(18, note="blurred noise", extra=with_candidates), [], options, recipe="test")
    assert dataset is not None
    return dataset


@pytest.fixture(scope="module")
def ranked(captioned: Dataset) -> Dataset:
    rank(captioned.root, captioned.root.parent / "ranked")
    return Dataset.open(captioned.root.parent / "ranked")


def rank(source: Path, out: Path, *words: str) -> dict[str, Sample]:
    sizes = ["--ranking.candidates", "6", "--ranking.first-keep", "4", "--ranking.second-keep", "2", "--rotation.num-views", "4"]
    models = ["--model1", "rsvl-tiny", "--model2", "rsvl-tiny"]
    assert main(["run", "data/rank", "--source", str(source), "--out", str(out), *models, *sizes, *words]) == 0
    dataset = Dataset.open(out)
    assert not list(problems(dataset))
    return by_key(dataset)


def by_key(dataset: Dataset) -> dict[str, Sample]:
    return {sample.key: sample for split in dataset.splits for sample in dataset.samples(split)}


def test_both_choices_stand_beside_every_score(captioned, ranked, tmp_path):
    before, after = by_key(captioned), by_key(ranked)
    assert len(after) == 17 and ranked.note == "blurred noise" and ranked.manifest["image"] == "jpg"
    dropped = [stage["dropped"] for stage in ranked.manifest["stages"] if stage["dropped"]]
    assert dropped == [{"no_candidate": 1}]
    for key, sample in after.items():
        assert sample.image == before[key].image and sample.provenance == before[key].provenance
        assert Counter(caption.kind for caption in sample.captions) == {"vlm": 6, "human": 1, "top": 1, "rotation": 1}
        top, rotation, *_ = sample.captions
        assert (top.kind, rotation.kind) == ("top", "rotation")
        candidates = [caption for caption in sample.captions if caption.kind == "vlm"]
        assert sorted(caption.rank for caption in candidates) == [1, 2, 3, 4, 5, 6]
        assert all(caption.first_score is not None for caption in candidates)
        assert sum(caption.second_score is not None for caption in candidates) == 4
        assert sum(caption.rotation_variance is not None for caption in candidates) == 2
        assert sample.captions[top.parent].text == top.text and sample.captions[top.parent].rank == 1
        least = min((c for c in candidates if c.rank <= 2), key=lambda c: (c.rotation_variance, c.rank))
        assert sample.captions[rotation.parent] == least and least.text == rotation.text
    # the same features for every record, whether a score is there or not
    row = datasets.load_dataset(str(ranked.root), cache_dir=str(tmp_path / "cache"), split="train")[0]
    assert row["txt"] == row["json"]["captions"][0]["text"] and row["json"]["captions"][0]["kind"] == "top"


def test_a_ranked_dataset_is_ranked_again_to_the_same_records(ranked, tmp_path):
    again = rank(ranked.root, tmp_path / "again")
    assert {key: sample.to_json() for key, sample in again.items()} == {k: s.to_json() for k, s in by_key(ranked).items()}


def test_prune_default_caption_and_keep_unranked(captioned, tmp_path):
    samples = rank(captioned.root, tmp_path / "out", "--prune", "--default-caption", "rotation", "--ranking.keep-unranked")
    assert len(samples) == 18
    for sample in samples.values():
        kinds = Counter(caption.kind for caption in sample.captions)
        unranked = sample.provenance.original_id == "colour-0"
        assert kinds == ({"human": 1} if unranked else {"rotation": 1, "top": 1, "human": 1, "vlm": 2})
        assert sample.captions[0].kind == ("human" if unranked else "rotation")


def test_models_and_views_are_those_that_were_named(captioned, ranked, tmp_path):
    def scores(samples: dict[str, Sample]) -> list[list[list[float | None]]]:
        names = ("first_score", "second_score", "rotation_variance")
        candidates = [[c for c in sample.captions if c.kind == "vlm"] for sample in samples.values()]
        return [[[getattr(caption, name) for caption in own] for own in candidates] for name in names]

    plain = scores(by_key(ranked))
    filled = scores(rank(captioned.root, tmp_path / "filled", "--rotation.fill", "none", "--default-caption", "unchanged"))
    assert filled[:2] == plain[:2] and filled[2] != plain[2]
    other = "local-dir:" + str(export_tiny(tmp_path / "other"))
    swapped = scores(rank(captioned.root, tmp_path / "swapped", "--model2", other, "--rotation-model", "model2"))
    assert swapped[0] == plain[0] and swapped[1] != plain[1] and swapped[2] != plain[2]
    unchanged = next(Dataset.open(tmp_path / "filled").samples("train"))
    assert unchanged.captions[0].kind == "human" and [c.kind for c in unchanged.captions[-2:]] == ["top", "rotation"]


def export_tiny(folder: Path) -> Path:
    torch.manual_seed(77)
    DualEncoder.load("rsvl-tiny").export(folder)
    return folder


def test_training_draws_both_choices_alike(ranked):
    kind_of = {
        (sample.key, caption.text): caption.kind
        for sample in ranked.samples("train")
        for caption in sample.captions
        if caption.kind in ("top", "rotation")
    }
    keys = Counter(key for key, _ in kind_of)
    config = LoaderConfig(batch_size=8, workers=0, seed=1, augment=Augment("none"), caption_kinds=("top", "rotation"))

    def tokenize(texts: list[str]) -> torch.Tensor:
        return torch.zeros(len(texts), 1, dtype=torch.long)

    def drawn() -> list[tuple[str, str]]:
        batches = train_batches(ranked, "train", Preprocess(size=16), tokenize, config, num_steps=100)
        return [pair for batch in batches for pair in zip(batch.keys, batch.texts, strict=True)]

    pairs = drawn()
    counts = Counter(kind_of[pair] for pair in pairs if keys[pair[0]] == 2)  # where the choices differ
    assert counts.total() > 100 and abs(counts["top"] / counts.total() - 0.5) < 0.1
    assert pairs == drawn()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--source", "nowhere"], 1, "not a finished dataset"),
        (["--ranking.first-keep", "30"], 2, "20 -> 30 -> 5"),
        (["--model1", "ViT-H-15"], 2, "or ViT-H-14"),
        (["--batch-size", "0"], 2, "batch_size is 0"),
        (["--val", "0.5"], 2, "--val"),  # the splits are those of the source
    ],
)
def test_wrong_options(captioned, tmp_path, capsys, words, status, message):
    start = ["run", "data/rank", "--source", str(captioned.root), "--model1", "rsvl-tiny", "--model2", "rsvl-tiny"]
    try:
        found = main([*start, *words, "--out", str(tmp_path / "out")])
    except SystemExit as stopped:
        found = stopped.code
    assert found == status and message in " ".join(capsys.readouterr().err.replace("│", " ").split())
