"""The catalogue for people: a table of what is there, and the page docs/datasets.md."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from evaluation.datasets.entry import DatasetEntry, OfficialSplit
from rsvl_data.errors import DataError


class Line(NamedTuple):
    """`where` is the folder that was found, or the address to get the dataset at; `splits` are those of the copy that was found, else
    the published one that is measured when none is asked for."""

    name: str
    task: str
    splits: str
    is_found: bool
    where: str


def list_datasets(entries: Iterable[DatasetEntry], root: Path | None) -> list[Line]:
    """In the order of the catalogue. Without a root nothing is looked for."""
    lines = []
    for entry in entries:
        found = entry.find(root) if root else None
        splits = _splits_under(root, entry) if root and found else _count(entry.splits[0])
        lines.append(Line(entry.name, ", ".join(entry.tasks), splits, found is not None, str(found or entry.home)))
    return lines


def _splits_under(root: Path, entry: DatasetEntry) -> str:
    try:
        return ", ".join(entry.splits_under(root))
    except DataError:
        return "not readable"


def catalogue_page(entries: Iterable[DatasetEntry]) -> str:
    """Markdown: one table of all, then what is known of each."""
    entries = list(entries)
    lines = [
        *_HEAD,
        "",
        "| name | dataset | task | classes | splits (images) | licence |",
        "| --- | --- | --- | ---: | --- | --- |",
    ]
    for entry in entries:
        classes = str(len(entry.classes) or entry.num_classes or "")
        splits = ", ".join(_count(split) for split in entry.splits)
        lines.append(
            f"| [{entry.name}](#{entry.name}) | {entry.title} | {', '.join(entry.tasks)} | {classes} | {splits} | {entry.licence} |"
        )
    for entry in entries:
        lines += ["", *_section(entry)]
    return "\n".join(lines) + "\n"


def _cells(entry: DatasetEntry) -> Iterator[str]:
    yield f"[{entry.name}](#{entry.name})"
    yield entry.title
    yield ", ".join(entry.tasks)
    yield str(len(entry.classes) or entry.num_classes or "")
    yield ", ".join(_count(split) for split in entry.splits)
    yield entry.licence


def _section(entry: DatasetEntry) -> Iterator[str]:
    yield f"## {entry.name}"
    yield ""
    yield f"{entry.title}: {entry.citation}. Home: {entry.home}. Licence: {entry.licence}."
    yield ""
    yield entry.notes
    yield ""
    yield f"- folder: {' or '.join(f'`{name}`' for name in entry.folders)}"
    for layout in entry.layouts:
        yield f"- layout: {layout.expects}"
    for split in entry.splits:
        if split.files_sha256:
            yield f"- file names of {split.name}: sha256 `{split.files_sha256}`"
        if split.list_md5:
            yield f"- list of {split.name}: md5 `{split.list_md5}`"
    if entry.classes:
        yield f"- classes: {', '.join(entry.classes)}"


def _count(split: OfficialSplit) -> str:
    return f"{split.name} {split.num_images:,}" if split.num_images else f"{split.name} ?"


_HEAD = """# Datasets to measure on

Written from the catalogue in `evaluation/datasets` by `rsvl eval ls --page docs/datasets.md`. `rsvl eval ls --root DATA` says which
of them are under a folder of yours. Nothing is downloaded: get a dataset at its home, under its terms.

A dataset is found by the name of its folder, in any spelling, and read in the layout that lies in it. The first split is the one that
is measured when none is asked for; a copy with a `splits.csv` (columns filename, split) is measured on its `test`. Where the images are
not the published ones, in number or by name, a note says so beside every result. `?` is a number that we could not find out, "not
stated" a licence that nobody gives.

Besides these names: the path of a dataset folder of ours, `wds:PATH` for the webdatasets of CLIP_benchmark, `hub:org/name` for the
Hugging Face Hub. Translations of a captioned set are read from `captions.<lang>.json` beside it,
`{"images": [{"filename", "sentences": [{"raw"}]}]}`: a layout of our own, since none is published.

The sha256 of file names is of the names in order, without folder and ending, lower case, a line each (`names_sha256` in
`evaluation/datasets/entry.py`).
""".splitlines()
