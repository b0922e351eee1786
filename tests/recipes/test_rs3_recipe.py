"""Captions of every kind side by side, through the command line, against a server that counts its requests."""

from collections import Counter

import pytest
from chat_server import picture, serve

from recipes.cli import main
from rsvl_data.captioning.engine import close_engines
from rsvl_data.sample import Sample
from rsvl_data.shards import Dataset


@pytest.fixture
def server():
    with serve() as double:
        yield double
        close_engines()


@pytest.fixture
def source(tmp_path):
    """Nine pictures of three classes."""
    for number in range(9):
        folder = tmp_path / "source" / ("golf_course", "River", "beach")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(picture(number))
    return tmp_path / "source"


def run(source, out, *words: str) -> int:
    return main(
        ["run", "data/rs3", "--source", str(source), "--out", str(out), "--workers", "1", "--image.suffix", "png", *words]
    )


def status(command, *words) -> int:
    """tyro ends the process for a value that an options class refuses."""
    try:
        return command(*words)
    except SystemExit as end:
        return end.code


def samples(out) -> list[Sample]:
    dataset = Dataset.open(out)
    return [sample for split in dataset.splits for sample in dataset.samples(split)]


def vlm(server, candidates: int = 4) -> list[str]:
    sampling = ["--vlm.sampling.num-candidates", str(candidates)]
    return ["--vlm.engine", "server", "--vlm.model", "tiny", "--vlm.base-urls", server.url, *sampling]


TINY = ("--rank.model1", "rsvl-tiny", "--rank.model2", "rsvl-tiny", "--rank.rotation.num-views", "3")


def test_by_rule_alone(source, tmp_path):
    assert run(source, tmp_path / "out", "--rules.labels", "2") == 0
    for sample in samples(tmp_path / "out"):
        assert [c.kind for c in sample.captions] == ["composed", "label", "label"]
        assert sample.captions[0].text == sample.captions[1].text  # a second sentence on the label would say nothing new
        assert {"golf_course": "golf course", "River": "river", "beach": "beach"}[sample.label] in sample.captions[1].text


def test_all_kinds_side_by_side(source, tmp_path, server):
    assert run(source, tmp_path / "out", *vlm(server), "--ranked", *TINY, "--rank.ranking.second-keep", "2") == 0
    for sample in samples(tmp_path / "out"):
        kinds = Counter(c.kind for c in sample.captions)
        assert kinds == {"top": 1, "rotation": 1, "label": 1, "vlm": 4, "composed": 1}
        candidates = [c for c in sample.captions if c.kind == "vlm"]
        assert sorted(c.rank for c in candidates) == [1, 2, 3, 4]
        assert all(c.source.model == "tiny" and c.prompt.id == "rs-generic-short/1" for c in candidates)
        top = next(c for c in sample.captions if c.kind == "top")
        assert sample.captions[0] is top and sample.captions[top.parent].rank == 1
        composed = next(c for c in sample.captions if c.kind == "composed")
        assert composed.text.lower().startswith(top.text.lower())  # the best candidate first, then what the rules add


def test_answers_are_asked_for_once(source, tmp_path, server):
    assert run(source, tmp_path / "out", *vlm(server)) == 0
    asked = server.asked.copy()
    assert len(asked) == 9 and (tmp_path / "out.answers").is_dir()
    words = ("--vlm.store", str(tmp_path / "out.answers"))
    assert run(source, tmp_path / "again", *vlm(server), *words, "--rules.labels", "3") == 0
    assert server.asked == asked
    assert {c.text for s in samples(tmp_path / "again") for c in s.captions if c.kind == "vlm"} == {
        c.text for s in samples(tmp_path / "out") for c in s.captions if c.kind == "vlm"
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vlm.engine", "server"], "needs --vlm.model"),
        (["--vlm.prompt", "mine"], "allowed are rs-generic-short"),
        (["--ranked"], "needs candidates"),
    ],
)
def test_wrong_options(source, tmp_path, capsys, words, message):
    assert status(run, source, tmp_path / "out", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_models_in_this_process_take_one_worker(source, tmp_path, capsys):
    assert status(run, source, tmp_path / "out", "--vlm.engine", "transformers", "--vlm.model", "x", "--workers", "2") == 2
    assert "--workers 1" in capsys.readouterr().err
