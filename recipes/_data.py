"""`rsvl data ...`: looking at a dataset folder."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from evaluation.agreement import describe_ratings
from evaluation.report import write_report
from rsvl_data.rating.page import PageOptions, write_rating_page
from rsvl_data.rating.ratings import read_ratings
from rsvl_data.shard_cache import ShardCache
from rsvl_data.shards import Dataset
from rsvl_data.signature import write_signature
from rsvl_data.validate import problems

Folder = Annotated[Path, tyro.conf.Positional]
_PAGE = PageOptions()
_CACHE = ShardCache()
RatingFiles = Annotated[tuple[Path, ...], tyro.conf.Positional]


def validate(dataset: Folder, data_cache: Path = _CACHE.folder, data_cache_gib: float = _CACHE.size_gib) -> int:
    """Check every byte and record. Exit status 1 and a sentence a problem when something is wrong.

    Args:
        dataset: dataset folder, or its address: hf://datasets/org/name, s3://bucket/path, https://...
        data_cache: folder where shards of data at an address are kept
        data_cache_gib: the most it may take
    """
    opened = Dataset.open(dataset, ShardCache(data_cache, data_cache_gib))
    found = 0
    for problem in problems(opened):
        print(problem)
        found += 1
    shards = len(opened.manifest["shards"])
    print(f"{dataset}: {sum(opened.splits.values())} samples in {shards} shards, {found or 'no'} problem{'s' * (found != 1)}")
    return 1 if found else 0


def stats(dataset: Folder, data_cache: Path = _CACHE.folder, data_cache_gib: float = _CACHE.size_gib) -> int:
    """Counts by split and label, words, sizes, and what the build left out.

    Args:
        dataset: dataset folder, or its address: hf://datasets/org/name, s3://bucket/path, https://...
        data_cache: folder where shards of data at an address are kept
        data_cache_gib: the most it may take
    """
    opened, console = Dataset.open(dataset, ShardCache(data_cache, data_cache_gib)), Console()
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


def signature(dataset: Folder) -> int:
    """Write signature.parquet, by which `rsvl eval` says whether a model has seen the images it is measured on.

    Args:
        dataset: dataset folder
    """
    print(f"signature: {write_signature(Dataset.open(dataset))}")
    return 0


def rate(
    dataset: Folder,
    out: Path = Path("rating.html"),
    page: Annotated[PageOptions, tyro.conf.arg(name="")] = _PAGE,
) -> int:
    """One HTML file on which people rate captions 1 to 5; it works without a server and gives the ratings as CSV.

    Args:
        dataset: dataset folder
        out: page to write
        page: what it shows
    """
    written = write_rating_page(Dataset.open(dataset), out, page)
    passed_over = f", {written.num_unreadable} unreadable samples passed over" if written.num_unreadable else ""
    print(
        f"page: {out} ({written.num_captions} captions of {written.num_images} images at {written.image_px} px, "
        f"{written.num_bytes / 1e6:.1f} MB{passed_over})"
    )
    return 0


def agreement(ratings: RatingFiles, data: Path | None = None, num_bootstrap: int = 1000, seed: int = 0) -> int:
    """What raters said, how far they agree, and how far scores agree with them. A file is a rater.

    Args:
        ratings: CSV files in RS5M's columns, as a rating page saves them
        data: dataset folder the captions come from: ranking scores are compared with the ratings
        num_bootstrap: resamples of the rated captions for the 95 % intervals
        seed: of the resamples
    """
    dataset = Dataset.open(data) if data is not None else None
    for line in describe_ratings([read_ratings(path) for path in ratings], dataset, num_bootstrap, seed):
        print(line)
    return 0


VERBS = {"validate": validate, "stats": stats, "browse": browse, "signature": signature, "rate": rate, "agreement": agreement}
