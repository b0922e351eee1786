"""`rsvl run data/rank` on a dataset whose samples hold candidates."""

from collections import Counter
from itertools import islice
from pathlib import Path

import datasets
import pytest
import torch
from colour_source import ColourSource

from recipes.cli import main
from rsvl_data.loader import LoaderConfig, train_batches
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Caption, Sample
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Augment, Preprocess
from rsvl_data.validate import problems

WORDS = ("a lake on the left", "bare ground", "many trees seen from above", "snow", "roofs and roads", "an airport")


def with_candidates(number: int) -> dict[str, object]:
    candidates = [Caption(text=f"{words}, picture {number}", kind="vlm") for words in WORDS]
    return {"captions": [Caption(text="what a person wrote"), *candidates]} if number else {}


@pytest.fixture
def captioned(tmp_path: Path) -> Dataset:
    """30 samples with six candidates each; the first has none."""
    options = BuildOptions(out=tmp_path / "captioned", samples_per_shard=10, workers=1)
    dataset = build(ColourSource(30, note="flat colours", extra=with_candidates), [], options, recipe="test")
    assert dataset is not None
    return dataset


def rank(source: Path, out: Path, *words: str) -> dict[str, Sample]:
    sizes = ["--ranking.candidates", "6", "--ranking.first-keep", "4", "--ranking.second-keep", "2", "--rotation.num-views", "4"]
    models = ["--model1", "rsvl-tiny", "--model2", "rsvl-tiny"]
    assert main(["run", "data/rank", "--source", str(source), "--out", str(out), *models, *sizes, *words]) == 0
    dataset = Dataset.open(out)
    assert not list(problems(dataset))
    return {sample.key: sample for split in dataset.splits for sample in dataset.samples(split)}


def test_both_choices_stand_beside_every_score(captioned, tmp_path):
    before = {sample.key: sample for split in captioned.splits for sample in captioned.samples(split)}
    after = rank(captioned.root, tmp_path / "ranked")
    ranked = Dataset.open(tmp_path / "ranked")
    assert len(after) == 29 and ranked.note == "flat colours"
    assert next(stage for stage in ranked.manifest["stages"] if stage["dropped"])["dropped"] == {"no_candidate": 1}
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


def test_a_ranked_dataset_is_ranked_again_to_the_same_bytes(captioned, tmp_path):
    once = rank(captioned.root, tmp_path / "once", "--default-caption", "unchanged")
    again = rank(tmp_path / "once", tmp_path / "again", "--default-caption", "unchanged", "--workers", "2")
    assert {key: sample.to_json() for key, sample in again.items()} == {key: sample.to_json() for key, sample in once.items()}


def test_options_change_the_outcome(captioned, tmp_path):
    def texts(*words: str) -> list[list[tuple[str, str, float | None]]]:
        samples = rank(captioned.root, tmp_path / str(len(list(tmp_path.iterdir()))), *words)
        return [[(c.kind, c.text, c.rotation_variance) for c in sample.captions] for sample in samples.values()]

    plain = texts()
    assert {
        kind for captions in texts("--prune") for kind, _, variance in captions if kind == "vlm" and variance is None
    } == set()
    assert all(captions[0][0] == "rotation" for captions in texts("--default-caption", "rotation"))
    assert all(captions[0][0] == "human" for captions in texts("--default-caption", "unchanged"))
    assert len(texts("--ranking.keep-unranked")) == len(plain) + 1
    assert texts("--seed", "5") != plain  # other fresh weights
    assert texts("--rotation.fill", "none") != plain


def test_the_model_of_the_rotations_is_the_one_that_was_named(captioned, tmp_path):
    words = ["--model2", "local-dir:" + str(export_tiny(tmp_path / "other"))]
    first = rank(captioned.root, tmp_path / "first", *words)
    second = rank(captioned.root, tmp_path / "second", *words, "--rotation-model", "model2")
    assert [s.to_json() for s in first.values()] != [s.to_json() for s in second.values()]
    for key, sample in first.items():
        assert [c.rank for c in sample.captions] == [c.rank for c in second[key].captions]


def export_tiny(folder: Path) -> Path:
    from rsvl_pretrain.model import DualEncoder

    torch.manual_seed(77)
    DualEncoder.load("rsvl-tiny").export(folder)
    return folder


def test_training_draws_both_choices_alike(captioned, tmp_path):
    rank(captioned.root, tmp_path / "ranked")
    dataset = Dataset.open(tmp_path / "ranked")
    kind_of = {
        (sample.key, caption.text): caption.kind
        for sample in dataset.samples("train")
        for caption in sample.captions
        if caption.kind in ("top", "rotation")
    }
    differ = {key for key, _ in kind_of if sum(other == key for other, _ in kind_of) == 2}
    config = LoaderConfig(batch_size=8, workers=0, seed=1, augment=Augment("none"), caption_kinds=("top", "rotation"))

    def drawn() -> list[tuple[str, str]]:
        batches = train_batches(dataset, "train", Preprocess(size=16), lambda texts: torch.zeros(len(texts), 1, dtype=torch.long), config, num_steps=120)  # fmt: skip
        return [pair for batch in islice(batches, 120) for pair in zip(batch.keys, batch.texts, strict=True)]

    pairs = drawn()
    counts = Counter(kind_of[pair] for pair in pairs if pair[0] in differ)
    assert counts.total() > 200 and abs(counts["top"] / counts.total() - 0.5) < 0.1
    assert pairs == drawn()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--source", "nowhere"], 1, "not a finished dataset"),
        (["--ranking.first-keep", "30"], 2, "20 -> 30 -> 5"),
        (["--model1", "ViT-H-15"], 2, "did you mean ViT-H-14"),
        (["--batch-size", "0"], 2, "batch_size is 0"),
        (["--val", "0.5"], 2, "--val"),
    ],
)
def test_wrong_options(captioned, tmp_path, capsys, words, status, message):
    start = ["run", "data/rank", "--source", str(captioned.root), "--model1", "rsvl-tiny", "--model2", "rsvl-tiny"]
    try:
        found = main([*start, *words, "--out", str(tmp_path / "out")])
    except SystemExit as stopped:
        found = stopped.code
    assert found == status and message in " ".join(capsys.readouterr().err.replace("│", " ").split())
