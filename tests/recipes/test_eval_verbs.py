"""The verbs of `rsvl eval` on 40 flat pictures; what they compute is tested in tests/evaluation."""

from pathlib import Path

import pytest

from evaluation.result import Result
from recipes.cli import main
from rsvl_data.shards import Dataset


def measured(verb: str, data: object, out: Path, *words: str) -> Result:
    assert (
        main(["eval", verb, "--model", "rsvl-tiny", "--data", str(data), "--out", str(out), "--num-bootstrap", "5", *words]) == 0
    )
    return Result.load(out)


@pytest.mark.parametrize(
    ("verb", "words", "metric"),
    [
        ("zero-shot", [], "acc1"),
        ("retrieval", ["--protocol", "clip_benchmark"], "mean_recall"),
        ("linear-probe", ["--val-split", "val"], "acc1"),
        ("knn", [], "acc1"),
    ],
)
def test_every_verb_writes_a_result(colours, tmp_path, verb, words, metric):
    result = measured(verb, colours.root, tmp_path / "result.json", *words)
    assert metric in result.metrics and result.split == "test" and result.n == Dataset.open(colours.root).splits["test"]
    assert result.contamination == {"trained_on": "nothing", "exact_images": 0, "same_phash_images": 0, "known_overlaps": "none"}


def test_fresh_weights_are_those_of_the_seed_and_called_untrained(colours, tmp_path, capsys):
    one, again, other = (
        measured("zero-shot", colours.root, tmp_path / f"{number}.json", "--seed", seed) for number, seed in enumerate("445")
    )
    assert one.model == again.model and one.metrics == again.metrics and one.model["sha256"] != other.model["sha256"]
    assert "rsvl-tiny (untrained)  zero_shot" in capsys.readouterr().out


def test_splits_and_names(colours, tmp_path):
    out = tmp_path / "result.json"
    assert measured("zero-shot", colours.root.name, out, "--root", str(colours.root.parent), "--split", "val").split == "val"
    chosen = measured("linear-probe", colours.root, out, "--val-split", "val")
    assert chosen.data["val"] == "val" != measured("linear-probe", colours.root, out).data["val"]
    assert measured("knn", colours.root, out, "--train-split", "val", "--val-split", "val").data["train"] == "val"
    whole, few = (measured("zero-shot", colours.root, out, *words) for words in ([], ["--limit", "1"]))
    assert (few.n, few.options["limit"], whole.options["limit"]) == (1, 1, None)


def test_cache_and_training_data(colours, tmp_path):
    run = tmp_path / "cache"
    first = measured("zero-shot", colours.root, tmp_path / "a.json", "--cache", str(run), "--trained-on", "ucm", "rsicd")
    assert first.contamination["trained_on"] == ["ucm", "rsicd"]
    assert len(list(run.glob("*/embeddings.f16"))) == 1


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--data", "nowhere"], 2, "no dataset is called 'nowhere'"),
        (["--data", "DATA", "--split", "holdout"], 1, "has no split 'holdout'; it has train"),
        (["--data", "DATA", "--limit", "0"], 1, "must be at least 1"),
        (["--data", "DATA", "--lang", "fr"], 2, "has no name in 'fr'"),
        (["few-shot", "--data", "DATA"], 2, "shots"),  # 16 images a class are more than there are
    ],
)
def test_what_cannot_be_measured(colours, tmp_path, capsys, words, status, message):
    verb, words = (words[0], words[1:]) if words[0] == "few-shot" else ("zero-shot", words)
    words = [str(colours.root) if word == "DATA" else word for word in words]
    assert main(["eval", verb, "--model", "rsvl-tiny", "--out", str(tmp_path / "x.json"), *words]) == status
    assert message in capsys.readouterr().err
