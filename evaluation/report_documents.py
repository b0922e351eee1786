r"""The report as Markdown and as LaTeX: tables of our models with chance and the papers' rows, paired tests, what is missing, notes.

Both are written from the same tables. LaTeX is a file to \input: it needs the packages booktabs, graphicx and xcolor.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from evaluation.comparison import Comparison
from evaluation.published import PublishedRow, published_beside
from evaluation.report_groups import Group, Missing
from evaluation.result import Metric
from evaluation.wording import difference_text, interval_text, metric_words, protocol_meaning, task_words, value_text

Notes = Sequence[tuple[str, str | None]]
_MARK = "†"  # on rows of other protocols or data


@dataclass(frozen=True)
class _Cell:
    """`small` stands beside the text: an interval."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class _Row:
    """`apart`: a line above it. `greyed`: not to be compared with the others."""

    cells: tuple[_Cell, ...]
    apart: bool = False
    greyed: bool = False


@dataclass(frozen=True)
class _Table:
    title: str
    facts: str
    head: tuple[str, ...]
    rows: list[_Row]
    footnotes: list[str]
    datasets: frozenset[str] = frozenset()


def markdown_report(
    groups: Sequence[Group],
    notes: Notes,
    comparisons: Sequence[Comparison],
    missing: Sequence[Missing],
    *,
    title: str,
    day: date,
) -> str:
    """The note about the data comes first, as on the page."""
    blocks = [f"> {_markdown(name)}: **{_markdown(note)}**" for name, note in notes if note]
    blocks += [f"# {_markdown(title)}", f"{day.isoformat()}. Values are percent with 95% bootstrap intervals in brackets."]
    for table in _tables(groups, comparisons, missing):
        blocks += [f"## {_markdown(table.title)}", _markdown(table.facts), _markdown_table(table)]
        blocks += ["  \n".join(map(_markdown, table.footnotes))] if table.footnotes else []
    return "\n\n".join(filter(None, blocks)) + "\n"


def latex_report(
    groups: Sequence[Group],
    notes: Notes,
    comparisons: Sequence[Comparison],
    missing: Sequence[Missing],
    *,
    title: str,
    day: date,
) -> str:
    """Notes about the data are in the caption of every table made from them, because tables are copied one by one."""

    def said(table: _Table) -> str:
        return " ".join(f"{_latex(name)}: {_latex(note)}" for name, note in notes if note and name in table.datasets)

    head = [
        rf"% {_one_line(title)}, {day.isoformat()}. Values are percent with 95 % bootstrap intervals.",
        r"% \usepackage{booktabs,graphicx,xcolor}",
    ]
    return (
        "\n\n".join(["\n".join(head), *(_latex_table(each, said(each)) for each in _tables(groups, comparisons, missing))]) + "\n"
    )


# --- What both are made of ---


def _tables(groups: Sequence[Group], comparisons: Sequence[Comparison], missing: Sequence[Missing]) -> Iterator[_Table]:
    yield from (_results_table(group) for group in groups)
    if comparisons:
        yield _comparison_table(comparisons)
    if missing:
        rows = [
            _Row(tuple(map(_Cell, (task_words(m.task), m.dataset, m.protocol, m.model, f"{m.state}: {m.reason}"))))
            for m in missing
        ]
        yield _Table("Not measured", "", ("Task", "Dataset", "Protocol", "Model", "Why"), rows, [])


def _results_table(group: Group) -> _Table:
    first, names = group.first, group.metric_names
    rows = [_Row((_Cell("Chance"), *(_Cell(_number(name, group.chance(name))) for name in names)))]
    for column, result in zip(group.columns, group.results):
        name = f"{column} (train-test overlap)" if column in group.overlapping else column
        rows.append(_Row((_Cell(name), *(_measured(name, result.metrics.get(name)) for name in names)), apart=result is first))
    footnotes = [f"Overlap with the training data of {column}: {text}" for column, text, _ in group.contaminations]
    published = published_beside(first)
    for i, each in enumerate(published):
        rows.append(_published_row(each, names, apart=i == 0))
    footnotes += list(dict.fromkeys(_published_note(each) for each in published))
    facts = f"{first.dataset}, {first.split} split, n = {first.n:,}, protocol {first.protocol}"
    meaning = protocol_meaning(first.task, first.protocol)
    head = ("Model", *(metric_words(name).name for name in names))
    return _Table(
        task_words(first.task),
        f"{facts}: {meaning}." if meaning else f"{facts}.",
        head,
        rows,
        footnotes,
        frozenset([first.dataset]),
    )


def _measured(name: str, metric: Metric | None) -> _Cell:
    if metric is None:
        return _Cell("–")
    interval = interval_text(name, metric).removesuffix("%")
    return _Cell(_number(name, metric.value), "" if interval == "–" else interval)


def _number(name: str, value: float | None) -> str:
    return value_text(name, value).removesuffix("%")


def _published_row(each: PublishedRow, names: Sequence[str], *, apart: bool) -> _Row:
    mark = "" if each.compares else f" {_MARK}"
    trained = ", trained on the train split" if each.row.trained_on_train_split else ""
    cells = (_Cell(_number(name, each.values.get(name))) for name in names)
    return _Row((_Cell(f"{each.row.name}{trained}, published{mark}"), *cells), apart, not each.compares)


def _published_note(each: PublishedRow) -> str:
    source = f"{each.table.source} ({each.table.url})"
    return (
        f"Published, {each.agrees}: {source}."
        if each.compares
        else f"{_MARK} Does not compare ({'; '.join(each.differs)}): {source}."
    )


def _comparison_table(comparisons: Sequence[Comparison]) -> _Table:
    rows = []
    for each in comparisons:
        found, name = each.difference, each.metric
        interval = f"{difference_text(name, found.low)} to {difference_text(name, found.high)}"
        where = f"{task_words(each.task)}, {each.dataset}/{each.split}, {each.protocol}"
        models = (str(each.first.get("name")), str(each.second.get("name")))
        told = (where, metric_words(name).name, *models, difference_text(name, found.value), interval, f"{found.p_value:.3f}")
        rows.append(_Row(tuple(map(_Cell, told))))
    facts = "First minus second on the same items, paired bootstrap, in points; p is two-sided and not corrected for many tests."
    head = ("On", "Metric", "First", "Second", "Difference", "95% interval", "p")
    return _Table("Models compared", facts, head, rows, [], frozenset(each.dataset for each in comparisons))


# --- Markdown ---


def _markdown_table(table: _Table) -> str:
    lines = [[_markdown(cell) for cell in table.head], ["---", *["---:"] * (len(table.head) - 1)]]
    for row in table.rows:
        cells = [_markdown(f"{cell.text} ({cell.small})" if cell.small else cell.text) for cell in row.cells]
        lines.append([f"*{cell}*" if row.greyed and cell.strip() else cell for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown(text: str) -> str:
    """Text that stays text: no markup, no HTML, no link."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", _one_line(text)).replace("&", "&amp;").replace("<", "&lt;")


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- LaTeX ---

_LATEX = {
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "†": r"\textsuperscript{$\dagger$}",
    "×": r"$\times$",
    "“": "``",
    "”": "''",
    "|": r"\textbar{}",
    '"': "''",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in _one_line(text))


def _latex_table(table: _Table, said: str) -> str:
    head = " & ".join(rf"\textbf{{{_latex(cell)}}}" for cell in table.head)
    facts = " ".join(filter(None, (_latex(table.facts), said)))
    body = [line for row in table.rows for line in ([r"\midrule"] if row.apart else []) + [_latex_row(row)]]
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_latex(table.title)}. {facts}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
            *(r"\toprule", rf"{head} \\", r"\midrule"),
            *body,
            *(r"\bottomrule", r"\end{tabular}}"),
            *(rf"\par\smallskip{{\footnotesize {_latex(note)}\par}}" for note in table.footnotes),
            r"\end{table}",
        ]
    )


def _latex_row(row: _Row) -> str:
    cells = [_latex(cell.text) + (rf" {{\scriptsize {_latex(cell.small)}}}" if cell.small else "") for cell in row.cells]
    return " & ".join(rf"\textcolor{{gray}}{{{cell}}}" if row.greyed else cell for cell in cells) + r" \\"
