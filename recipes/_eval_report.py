"""`rsvl eval report`: result files to one page, to Markdown or to LaTeX tables."""

from pathlib import Path
from typing import Annotated

import tyro

from evaluation.comparison import compare_all
from evaluation.report import write_report
from evaluation.report_groups import MISSING_FILE, Missing, load_missing
from evaluation.result import Result
from evaluation.wording import comparison_table, summary_table
from rsvl_data.errors import OptionError
from rsvl_data.shards import Dataset


def report(
    results: Annotated[list[Path], tyro.conf.Positional],
    /,
    out: Path = Path("report.html"),
    data: Path | None = None,
    run: tyro.conf.UseAppendAction[tuple[Path, ...]] = (),
    title: str = "Evaluation report",
) -> int:
    """One document of any number of results: tables with intervals, paired tests, published rows, pictures.

    Args:
        results: result files, or the output folder of `rsvl eval run`
        out: .html writes a self-contained page, .md and .tex tables and notes
        data: dataset folder, for pictures, counts and what the build left out
        run: run folder, for the training curves; give it again for each run to compare
        title: heading of the document
    """
    loaded, missing = _loaded(results)
    comparisons = compare_all(loaded)
    dataset = Dataset.open(data) if data else None
    write_report(out, loaded, comparisons=comparisons, dataset=dataset, runs=run, missing=missing, title=title)
    print(summary_table(loaded))
    if comparisons:
        print("\n" + comparison_table(comparisons))
    print(f"report: {out}")
    return 0


def _loaded(paths: list[Path]) -> tuple[list[Result], list[Missing]]:
    """A folder stands for every result in its `results`, and what the suite could not measure."""
    results, missing = [], []
    for path in paths:
        if path.is_dir():
            files = sorted((path / "results").rglob("*.json"))
            if not files:
                raise OptionError(f"{path} holds no results/*.json; give result files, or the output folder of `rsvl eval run`")
            results += [Result.load(file) for file in files]
            missing += load_missing(path) if (path / MISSING_FILE).is_file() else []
        else:
            results.append(Result.load(path))
    return results, missing
