"""`rsvl eval report` on files and on the output folder of a suite."""

import json
import re
from pathlib import Path

import pytest

from evaluation.report_commands import command
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


RULES = {
    "batch_size": 8,
    "workers": 2,
    "precision": "bf16",
    "engine": "fast",
    "limit": 5,
    "num_bootstrap": 9,
    "trained_on": ["a", "b c"],
}
PIXELS = {
    "head": "last",
    "scale": 2.0,
    "window_px": 64,
    "stride_px": 32,
    "upsample": "jbu",
    "threshold": 0.3,
    "background": "clutter",
}


@pytest.mark.parametrize(
    ("task", "fields", "told"),
    [
        ("zero_shot", {"options": {**RULES, "dataset": "ucm"}}, "--model MODEL --data ucm --root DATA --split val"),
        ("retrieval", {"options": RULES, "data": {"lang": "es"}}, "--data DATASET --split val --protocol rsvl --lang es"),
        ("localization", {"options": RULES, "data": {"scales_px": "64 96"}}, "--protocol rsvl --scales-px 64 96 --limit 5"),
        ("open_vocabulary", {"options": {**RULES, **PIXELS, "dataset": "loveda"}}, "--dataset loveda --data DATA --split val"),
        ("open_vocabulary", {"options": PIXELS}, "--window 64 --stride 32"),
        ("segmentation", {"options": {"leave_out": ["x y"], "boundary_px": 3.0}}, "--leave-out 'x y' --boundary-px 3.0"),
        ("referring", {}, "--predicted MASKS --dataset toy --root DATA --split val --protocol rsvl --seed 0"),
        ("quality", {}, "eval quality --scores SCORES --dataset toy --seed 0 --out quality-toy-rsvl.json"),
        ("linear_probe", {"options": RULES}, "--trained-on a 'b c'"),
    ],
)  # fmt: skip
def test_commands_have_only_options_that_there_are(task: str, fields: dict, told: str, capsys) -> None:
    origin = {"model": {"name": "m"}, "data": {}, "code": "0", "seconds": 1.0}
    text = command(Result(task, "toy", "val", "rsvl", 20, {}, **{**origin, **fields}))
    assert told in text
    with pytest.raises(SystemExit):
        main([*text.split()[1:3], "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z-]+", text)) <= known


def test_a_published_protocol_is_not_told_what_it_prescribes() -> None:
    origin = {
        "model": {"name": "m"},
        "data": {},
        "code": "0",
        "seconds": 1.0,
        "options": {**PIXELS, "threshold": 0.0, "background": None},
    }
    text = command(Result("open_vocabulary", "loveda", "val", "farslip", 20, {}, **origin))
    assert "--window" not in text and "--head" not in text and "--background" not in text
