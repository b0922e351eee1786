"""`rsvl eval report` on files and on the output folder of a suite."""

import json
from pathlib import Path

import pytest

from evaluation.report_groups import Missing, save_missing
from evaluation.result import Metric, Result
from recipes.cli import main


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """What `rsvl eval run` leaves of two models and one dataset that was not there."""
    folder = tmp_path / "suite"
    for model, right in (("small", 4), ("large", 18)):
        items = {"truth": [0, 1] * 10, "rank": [1] * right + [2] * (20 - right)}
        metrics = {"acc1": Metric(right / 20, 0.1, 0.9, 0.5)}
        origin = {"model": {"name": model}, "data": {"sha256": "ab"}, "code": "0", "seconds": 1.0}
        result = Result("zero_shot", "toy", "test", "rsvl", 20, metrics, **origin, details={"items": items})
        result.save(folder / "results" / model / "zero_shot-toy-rsvl.json")
    save_missing(folder, [Missing("zero_shot", "aid", "rsvl", "small", "absent", "not under data")])
    return folder


@pytest.mark.parametrize("ending", [".html", ".md", ".tex"])
def test_a_folder_stands_for_its_results_and_what_is_missing(suite: Path, tmp_path: Path, ending: str, capsys) -> None:
    out = tmp_path / f"report{ending}"
    assert main(["eval", "report", str(suite), "--out", str(out), "--title", "Small against large"]) == 0
    text = out.read_text()
    assert all(told in text for told in ("Small against large", "absent", "not under data", "20.0", "90.0"))
    assert ("<!doctype" in text, "| ---" in text, r"\toprule" in text) == (ending == ".html", ending == ".md", ending == ".tex")
    printed = capsys.readouterr().out
    assert "large  small" in printed and f"report: {out}" in printed


def test_runs_are_compared(suite: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss/total": 1.0}))
    out = tmp_path / "report.html"
    assert (
        main(["eval", "report", str(suite), "--out", str(out), "--run", str(tmp_path / "a"), "--run", str(tmp_path / "b")]) == 0
    )
    assert "2 runs: a, b." in out.read_text()


@pytest.mark.parametrize(
    ("given", "status", "told"),
    [
        (["EMPTY"], 2, "holds no results/*.json; give result files, or the output folder of `rsvl eval run`"),
        (["SUITE", "--out", "report.pdf"], 2, "a report is written as .html, .md or .tex"),
        (["BROKEN"], 1, "is no list of missing measurements"),
    ],
)
def test_errors_say_what_to_do(suite: Path, tmp_path: Path, given: list[str], status: int, told: str, capsys) -> None:
    (tmp_path / "empty").mkdir()
    if given == ["BROKEN"]:
        (suite / "missing.json").write_text('{"a": 1}')
    folders = {"EMPTY": str(tmp_path / "empty"), "SUITE": str(suite), "BROKEN": str(suite)}
    assert main(["eval", "report", *(folders.get(word, word) for word in given)]) == status
    assert told in " ".join(capsys.readouterr().err.split())
