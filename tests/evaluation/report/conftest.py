import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_pages import (
    CONFIG,
    DAY,
    GREYS,
    Element,
    make_dataset,
    make_sample,
    parse,
)

from evaluation.report import write_report
from evaluation.result import Result
from rsvl_data.shards import Dataset


@pytest.fixture
def render(tmp_path: Path) -> Callable[..., Element]:
    def render(results: list[Result], **options: Any) -> Element:
        write_report(tmp_path / "report.html", results, **{"day": DAY, **options})
        return parse((tmp_path / "report.html").read_text())

    return render


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    stages = [
        {"name": "read", "in": 9, "kept": 8, "dropped": {"truncated": 1}},
        {"name": "size", "in": 8, "kept": 6, "dropped": {"too_small": 2}},
    ]
    return make_dataset(tmp_path / "data", [make_sample(key) for key in GREYS], stages=stages)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    lines = [
        {"step": i, "loss/contrastive": 3 / i, "loss/total": 3 / i, "lr": 1e-4 * i, "samples_seen": 8 * i, "data_wait_s": 0.002}
        for i in range(1, 101)
    ]
    lines += [{"step": 50, "val/acc1": 0.25}, {"step": 100, "val/acc1": 0.5}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder
