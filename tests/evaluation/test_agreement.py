import re
from pathlib import Path

import pytest
from colour_source import ColourSource

from recipes.cli import main
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Caption
from rsvl_data.shards import Dataset

HEADER = "image_path,description,relevance_detail,hallucination,fluency\n"


@pytest.fixture
def scored(tmp_path: Path) -> Dataset:
    def extra(number: int) -> dict[str, object]:
        return {"captions": [Caption(text=f"caption {number}", kind="vlm", second_score=number / 100, rank=1)]}

    options = BuildOptions(out=tmp_path / "data", workers=1, val=0, test=0)
    dataset = build(ColourSource(12, note="flat colours", extra=extra), [], options, recipe="test")
    assert dataset is not None
    return dataset


def rate(dataset: Dataset, path: Path, shift: int = 0) -> str:
    """Marks that rise with the score; `shift` moves every third one."""
    rows = []
    for sample in dataset.samples("train"):
        number = int(sample.captions[0].text.split()[1])
        mark = 1 + number // 3 + (shift if number % 3 == 0 else 0)
        rows.append(f"{sample.key}.jpg,caption {number},{mark},{6 - mark},5\n")
    path.write_text(HEADER + "".join(rows))
    return str(path)


def lines_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    assert main(["data", "agreement", *words]) == 0
    return dict(line.partition(": ")[::2] for line in capsys.readouterr().out.splitlines())


def number(line: str, name: str) -> float:
    return float(re.search(rf"{name} (-?[\d.]+)", line)[1])


def test_raters_scores_and_what_is_undefined(scored, tmp_path, capsys):
    ann, bob = rate(scored, tmp_path / "ann.csv"), rate(scored, tmp_path / "bob.csv", shift=1)
    found = lines_of(capsys, ann, bob, "--data", str(scored.root), "--num-bootstrap", "50")
    assert found["ann"] == "12 captions in 12 rows" and "flat colours" in found
    assert number(found["relevance_detail"], "mean") == pytest.approx((2.5 + 2.5 + 4 / 12) / 2, abs=6e-4)
    assert 0.5 < number(found["relevance_detail"], "alpha") < 1
    assert found["fluency"].startswith("mean 5.000 [3.941, 5.000] (n 24 marks); alpha undefined")
    assert number(found["second_score and relevance_detail"], "Spearman") > 0.9
    assert number(found["relevance_detail and hallucination"], "Spearman") == -1
    assert found["first_score and fluency"] == "Spearman undefined (n 0 captions)"
    assert "n 12 captions rated by two or more" in found["hallucination"]


def test_options_change_the_outcome(scored, tmp_path, capsys):
    files = [rate(scored, tmp_path / "ann.csv"), rate(scored, tmp_path / "bob.csv", shift=1)]
    plain = lines_of(capsys, *files, "--num-bootstrap", "30")
    assert lines_of(capsys, *files, "--num-bootstrap", "30", "--seed", "1") != plain
    assert lines_of(capsys, *files, "--num-bootstrap", "31") != plain
    assert not any("score" in name for name in plain)


def test_one_rater_has_nobody_to_agree_with(scored, tmp_path, capsys):
    found = lines_of(capsys, rate(scored, tmp_path / "ann.csv"), "--num-bootstrap", "20")
    assert "alpha undefined (n 0 captions" in found["hallucination"]


def test_the_same_name_twice(scored, tmp_path, capsys):
    ann = rate(scored, tmp_path / "ann.csv")
    assert main(["data", "agreement", ann, ann]) == 2
    assert "different names" in capsys.readouterr().err


def test_the_rating_page_from_the_command_line(scored, tmp_path, capsys):
    words = ["--num", "5", "--kinds", "vlm", "--image-px", "100"]
    assert main(["data", "rate", str(scored.root), "--out", str(tmp_path / "page.html"), *words]) == 0
    assert "5 captions of 5 images at 100 px" in capsys.readouterr().out and (tmp_path / "page.html").exists()
    assert main(["data", "rate", str(scored.root), "--out", str(tmp_path / "page.html"), "--num", "0"]) == 2
