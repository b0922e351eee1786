import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_pages import (
    CONFIG,
    Element,
    words,
)

from evaluation.report import write_report
from rsvl_data.errors import DataError


def test_training_curves_and_settings(render: Callable[..., Element], run: Path) -> None:
    [section] = render([], runs=[run]).all("section", id="training")
    charts = {e.all("h3")[0].text: e for e in section.all("figure")}
    assert list(charts) == ["Loss", "On held-out data, during training", "Learning rate"]
    assert "Top-1 accuracy, at the end 50.0%" in words(charts["On held-out data, during training"].text)
    assert "smoothed over about 4 steps" in charts["Loss"].text and "smoothed" not in charts["Learning rate"].text
    assert len(charts["Loss"].all("polyline")) == 2
    assert "steps 100" in words(section.text) and "image-text pairs seen 800" in words(section.text)
    [settings] = section.all("dl", class_="settings")
    assert [words(e.text) for e in settings.all("div")] == ["recipe pretrain/clip", "model ViT-B-32", "optim.lr 0.0005"]
    assert json.loads(section.all("pre")[0].text) == CONFIG


def test_several_losses_are_drawn_with_their_sum(render: Callable[..., Element], run: Path) -> None:
    line = {"step": 1, "loss/contrastive": 1.5, "loss/distill": 0.5, "loss/total": 2.0}
    (run / "metrics.jsonl").write_text(json.dumps(line))
    [legend] = render([], runs=[run]).all("ul", class_="legend")
    assert [words(e.text) for e in legend.all("li")] == ["contrastive 1.5", "distill 0.5", "total 2"]


def test_metrics_of_a_killed_and_resumed_run(render: Callable[..., Element], run: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        '{"step": 1, "lr": 1}',
        '{"step": 2, "lr": 9}',
        '{"step": 2, "lr": 2}',
        '{"step": 3, "lr": NaN}',
        "7",
        '{"step": 4, "l',
    ]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    [section] = render([], runs=[run]).all("section", id="training")
    assert "at the end 2 " in words(section.text)
    assert [record.args[1] for record in caplog.records] == [5, 6]


def test_a_broken_config_is_an_error_that_names_it(tmp_path: Path, run: Path) -> None:
    (run / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"run/config\.json cannot be read"):
        write_report(tmp_path / "report.html", [], runs=[run])


def test_ticks_close_together_have_different_names(render: Callable[..., Element], run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"step": 1, "logit_scale": 14.28}\n{"step": 2, "logit_scale": 14.12}')
    [chart] = render([], runs=[run]).all("svg", class_="chart")
    assert [e.text for e in chart.all("text", class_="end")][:3] == ["14.15", "14.2", "14.25"]


def make_run(folder: Path, lr: float, losses: list[float], **metrics: float) -> Path:
    folder.mkdir(parents=True)
    lines = [{"step": i, "loss/contrastive": loss, "loss/total": loss, "samples_seen": 8 * i} for i, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"step": len(losses), **metrics}])))
    (folder / "config.json").write_text(json.dumps({"recipe": "pretrain/clip", "options": {"seed": 0, "optim": {"lr": lr}}}))
    return folder


def test_several_runs_share_charts_and_list_what_differs(render: Callable[..., Element], tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", 0.1, [3, 2, 1], **{"val/acc1": 0.5}), make_run(tmp_path / "b", 0.2, [3, 2.5])]
    [section] = render([], runs=runs).all("section", id="training")
    charts = {e.all("h3")[0].text: e for e in section.all("figure")}
    assert list(charts) == ["Loss", "Top-1 accuracy, held out"]
    assert [words(e.text) for e in charts["Loss"].all("ul", class_="legend")[0].all("li")] == ["a 1", "b 2.5"]
    assert words(charts["Top-1 accuracy, held out"].all("ul", class_="legend")[0].text) == "a, at the end 50.0%"
    assert (
        charts["Loss"].all("svg", class_="chart")[0].attributes["aria-label"]
        == "Loss over training steps. a ends at 1, b ends at 2.5"
    )
    facts, settings = (
        [[words(cell.text) for cell in row.children if cell.tag in ("th", "td")] for row in table.all("tr")]
        for table in section.all("table")
    )
    assert facts == [["", "a", "b"], ["steps", "3", "2"], ["image-text pairs seen", "24", "16"]]
    assert settings == [["", "a", "b"], ["optim.lr", "0.1", "0.2"]]


def test_runs_of_one_name_are_told_apart_by_the_folder_above(render: Callable[..., Element], tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name / "run", 0.1, [1.0]) for name in ("large", "small")]
    [section] = render([], runs=runs).all("section", id="training")
    assert "2 runs: large/run, small/run." in words(section.text)
    assert len(section.all("table")) == 1, "equal settings are not listed"
