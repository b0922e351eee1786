"""`rsvl data ...`: looking at a dataset folder."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from evaluation.report import write_report
from rsvl_data.shards import Dataset
from rsvl_data.validate import problems

Folder = Annotated[Path, tyro.conf.Positional]


def validate(dataset: Folder) -> int:
    """Check every byte and record. Exit status 1 and a sentence a problem when something is wrong.

    Args:
        dataset: dataset folder
    """
    opened = Dataset.open(dataset)
    found = 0
    for problem in problems(opened):
        print(problem)
        found += 1
    shards = len(opened.manifest["shards"])
    print(f"{dataset}: {sum(opened.splits.values())} samples in {shards} shards, {found or 'no'} problem{'s' * (found != 1)}")
    return 1 if found else 0


def stats(dataset: Folder) -> int:
    """Counts by split and label, words, sizes, and what the build left out.

    Args:
        dataset: dataset folder
    """
    opened, console = Dataset.open(dataset), Console()
    if opened.note:
        console.print(opened.note)
    table = Table("split", "samples", "captions", "words a caption", "labels", "image sides px", "regions")
    labels: Counter[str] = Counter()
    for split, count in opened.splits.items():
        rows = opened.table(split, ["captions", "label", "width", "height", "num_regions"]).to_pydict()
        words = [len(caption.split()) for captions in rows["captions"] for caption in captions]
        sides = sorted({*rows["width"], *rows["height"]})
        labels.update(label for label in rows["label"] if label)
        table.add_row(
            split,
            str(count),
            str(len(words)),
            f"{sum(words) / max(len(words), 1):.1f}",
            str(len({*rows["label"]} - {None})),
            f"{sides[0]}-{sides[-1]}" if len(sides) > 1 else str(sides[0]),
            str(sum(rows["num_regions"])),
        )
    console.print(table)
    if labels:
        console.print("labels: " + ", ".join(f"{label} {count}" for label, count in labels.most_common()))
    for stage in opened.manifest["stages"]:
        dropped = ", ".join(f"{reason} {count}" for reason, count in stage["dropped"].items()) or "nothing"
        console.print(f"{stage['name']}: {stage['in']} in, {stage['kept']} kept, dropped {dropped}")
    return 0


def browse(dataset: Folder, out: Path = Path("browse.html")) -> int:
    """One HTML page of a dataset: samples of every label, counts, what the build left out.

    Args:
        dataset: dataset folder
        out: page to write
    """
    opened = Dataset.open(dataset)
    write_report(out, [], dataset=opened, title=f"Dataset {opened.name}")
    print(f"page: {out}")
    return 0


VERBS = {"validate": validate, "stats": stats, "browse": browse}
