"""`rsvl eval ls`: what can be measured on, and where it is."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.datasets import catalogue
from evaluation.datasets.listing import catalogue_page, list_datasets
from rsvl_data.errors import OptionError
from rsvl_data.shards import write_atomically


def ls(root: Path | None = None, page: Path | None = None) -> int:
    """Datasets to measure on: task, splits, and whether each is under a folder of yours or where to get it.

    Args:
        root: folder to look in
        page: write all that is known as a Markdown page instead
    """
    if page is not None:
        write_atomically(page, catalogue_page(catalogue()).encode())
        print(f"page: {page}")
        return 0
    if root is not None and not root.is_dir():
        raise OptionError(f"--root {root} is no folder; give the one that holds the datasets")
    lines = list_datasets(catalogue(), root)
    table = Table("name", "task", "splits here, or as published" if root else "split and its images")
    table.add_column("found, or where to get it" if root else "where to get it", overflow="fold")
    for line in lines:
        table.add_row(line.name, line.task, line.splits, Text(line.where, "green" if line.is_found else ""))
    Console().print(table)
    if root is not None:
        print(f"{sum(line.is_found for line in lines)} of {len(lines)} found under {root}")
    return 0
