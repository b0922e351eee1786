import re
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from report_pages import DAY, EVIL, make_result

from evaluation.comparison import compare_all
from evaluation.report import write_report
from evaluation.report_groups import Missing
from evaluation.result import Metric, Result
from rsvl_data.errors import OptionError

EUROSAT = {"dataset": "eurosat", "split": "all", "protocol": "georsclip", "n": 27_000}


def write(folder: Path, ending: str, results: list[Result], **options: Any) -> str:
    write_report(folder / f"report{ending}", results, **{"day": DAY, **options})
    return (folder / f"report{ending}").read_text()


def rows_of(markdown: str) -> list[list[str]]:
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in markdown.splitlines() if line.startswith("|")]


def test_markdown_holds_values_intervals_chance_and_notes(tmp_path: Path) -> None:
    other = make_result(model={"name": "b"}, metrics={"acc1": Metric(0.5)}, data={"sha256": "cd" * 32, "note": "rendered"})
    text = write(tmp_path, ".md", [make_result(), other], title="Two models")
    assert text.splitlines()[:3] == ["> toy: **rendered**", "", "# Two models"]
    head, line, chance, first, second = ([cell.strip() for cell in row] for row in rows_of(text))
    assert head == ["Model", "Top-1 accuracy", "Top-5 accuracy"] and line == ["---", "---:", "---:"]
    assert (chance, first) == (["Chance", "4.8", "–"], ["tiny", "61.2 (52.1–70.5)", "91.3"])
    assert second == ["b", "50.0", "–"]
    assert "toy, test split, n = 105, protocol rsvl: our own sentences" in text and "2030-01-02" in text


def test_published_rows_that_do_not_compare_are_marked_in_both(tmp_path: Path) -> None:
    results = [make_result(**EUROSAT)]
    rows = [[cell.strip() for cell in row] for row in rows_of(write(tmp_path, ".md", results))]
    assert ["GeoRSCLIP, ViT-H-14, published", "67.5", "–"] in rows
    assert ["*SkyCLIP, ViT-B-32, published †*", "*33.3*", "*–*"] in rows
    latex = write(tmp_path, ".tex", results)
    assert r"GeoRSCLIP, ViT-H-14, published & 67.5 & --" in latex
    assert r"\textcolor{gray}{SkyCLIP, ViT-B-32, published \textsuperscript{$\dagger$}} & \textcolor{gray}{33.3}" in latex
    for text in (write(tmp_path, ".md", results), latex):
        assert "Does not compare (protocol farslip, ours georsclip; split" in text and "arxiv.org/abs/2306.11300v5" in text


@pytest.mark.usefixtures("few_items_will_do")
def test_latex_is_balanced_booktabs(tmp_path: Path) -> None:
    items = {"items": {"truth": [0, 1], "rank": [1, 2]}}
    results = [make_result(model={"name": name}, n=2, details=items) for name in ("a_1", "b%")]
    missing = [Missing("retrieval", "rsicd", "georsclip", "a", "absent", "not under data")]
    text = write(tmp_path, ".tex", results, comparisons=compare_all(results), missing=missing)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    for rule in ("toprule", "bottomrule"):
        assert text.count("\\" + rule) == 3
    assert r"a\_1 & 61.2 {\scriptsize 52.1--70.5} & 91.3 \\" in text and r"b\% &" in text
    bare = re.sub(r"\\[\\{}%&$#_]", "", text)
    assert bare.count("{") == bare.count("}") and "absent: not under data" in text
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.S):
        lines = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(table[0])}


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = EVIL + r" \input{/etc/passwd} [x](javascript:1) |a| `b` $" + "\n# head"
    fields = {"model": {"name": evil}, "dataset": evil, "protocol": evil, "data": {"note": evil}, "contamination": {evil: evil}}
    results = [make_result(**fields, metrics={evil: Metric(0.5)})]
    markdown = write(tmp_path, ".md", results, title=evil)
    assert "<" not in markdown and not re.search(r"(?<!\\)[\[`]", markdown) and len({len(row) for row in rows_of(markdown)}) == 1
    assert sum(line.startswith("#") for line in markdown.splitlines()) == 2
    latex = write(tmp_path, ".tex", results, title=evil)
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert r"\input" not in body and r"\textbackslash{}input\{/etc/passwd\}" in body
    assert all(line.startswith("%") for line in latex.splitlines()[:2])


def test_equal_inputs_make_equal_texts_and_the_day_counts(tmp_path: Path) -> None:
    for ending in (".md", ".tex"):
        first = write(tmp_path, ending, [make_result()])
        assert first == write(tmp_path, ending, [make_result()]) != write(tmp_path, ending, [make_result()], day=date(2031, 1, 1))


def test_another_ending_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--out report\.pdf: a report is written as \.html, \.md or \.tex"):
        write(tmp_path, ".pdf", [make_result()])
    assert not list(tmp_path.iterdir())


def test_a_latex_caption_tells_notes_of_its_own_data_alone(tmp_path: Path) -> None:
    noted = make_result(data={"sha256": "cd" * 32, "note": "rendered"})
    text = write(tmp_path, ".tex", [noted, make_result(dataset="other")])
    first, second = text.split(r"\begin{table}")[1:]
    assert "toy: rendered" in first and "rendered" not in second


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    evil = 'a_1 & "b" 50% #1 $x$ ^~ {c} \\input|<>'
    results = [
        make_result(model={"name": name}, n=2, details={"items": {"truth": [0, 1], "rank": [1, 2]}}) for name in (evil, "b")
    ]
    write(tmp_path, ".tex", results, comparisons=compare_all(results))
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx,xcolor}\n\\begin{document}\n\\input{report}\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "main.pdf").stat().st_size > 10_000
