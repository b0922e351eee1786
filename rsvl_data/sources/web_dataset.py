"""A dataset repository in WebDataset form: tars in a folder or in `data/` below it, as the Hugging Face Hub holds them.

https://huggingface.co/docs/hub/datasets-webdataset. A sample has one image, and KEY.txt (the caption), KEY.json (columns of `hub_rows`, or
a record of ours) or KEY.cls (the scene class, a number only where README.md names the classes). README.md's `configs` say which tars belong
to the dataset and to which split; without them it is the word in the tar's path. The licence is README.md's, where a record has none.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsvl_data.image_form import ImageForm
from rsvl_data.images import READABLE_SUFFIXES
from rsvl_data.sources.base import Entry, split_of_name
from rsvl_data.sources.dataset_card import DatasetCard
from rsvl_data.sources.hub_rows import captions_of_row, label_of_row, position_of_row, provenance_of_row, text_of
from rsvl_data.sources.tar_index import first_suffixes
from rsvl_data.sources.tar_members import (
    Described,
    MemberSource,
    Refused,
    image_member,
    json_member,
    list_tars,
    split_of_path,
    tar_entries,
    text_member,
)

EXPECTS = (
    "tars, here or in data/, of samples with one image and KEY.txt, KEY.json or KEY.cls (WebDataset), split by README.md or name"
)
_WORDS = {"txt", "json", "cls", "text", "caption"}


def find(path: Path) -> Path | None:
    root, tars = list_tars(path)
    suffixes = first_suffixes(root / tars[0]) if tars else set()
    has_image = any(f".{suffix}" in READABLE_SUFFIXES for suffix in suffixes)
    return path if has_image and suffixes & _WORDS else None


def open(path: Path, name: str, image_form: ImageForm) -> MemberSource:
    root, _ = list_tars(path)
    card = DatasetCard.read(root / "README.md")

    def describe(entry: Entry, members: dict[str, bytes]) -> Described:
        return _describe(members, card)

    return MemberSource(name, root, lambda: list_entries(path, card), describe, image_form)


def list_entries(path: Path, card: DatasetCard) -> Iterator[Entry]:
    root, tars = list_tars(path)
    for tar in tars:
        if card.lists(tar):
            yield from tar_entries(root, tar, split_of_name(card.split_of(tar) or "") or split_of_path(tar))


def _describe(members: dict[str, bytes], card: DatasetCard) -> Described:
    record = json_member(members) if "json" in members else {}
    captions = captions_of_row(record)
    known = {text_of(caption).strip() for caption in captions}
    texts = [text_member(members, suffix) for suffix in ("txt", "text", "caption") if suffix in members]
    classes = {"cls": text_member(members, "cls")} if "cls" in members else {}
    return Described(
        image_member(members),
        [*(text for text in texts if text.strip() not in known), *captions],
        label=label_of_row({**classes, **record}, card),
        geo={**position_of_row(record), **_record(record, "geo")},
        provenance={**provenance_of_row(record, card), **_provenance(record)},
        regions=_regions(record),
    )


def _record(record: dict[str, Any], name: str) -> dict[str, Any]:
    return value if isinstance(value := record.get(name), dict) else {}


def _provenance(record: dict[str, Any]) -> dict[str, Any]:
    """Without what the import itself says of the sample."""
    told = _record(record, "provenance")
    return {name: value for name, value in told.items() if name not in ("dataset", "split", "original_id") and value is not None}


def _regions(record: dict[str, Any]) -> list[dict[str, Any]]:
    regions = record.get("regions") or []
    if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
        raise Refused("bad_record", "regions is not a list of records")
    return regions
