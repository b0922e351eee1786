"""What img2dataset writes, https://github.com/rom1504/img2dataset#file-format: output_format webdataset or files.

A folder of shards: NNNNN.tar (or a folder NNNNN) with KEY.jpg/png/webp, KEY.txt and KEY.json, and NNNNN.parquet with a row for every
URL, failed ones too. What is easy to get wrong:

  a row that failed      has no members; it is counted under its status (failed_to_download, failed_to_resize) with the error message
  a success row          without members is counted too (`missing_member`): this is how a cut archive shows
  keys                   are texts with leading zeros; members lie in the order in which downloads ended, samples are listed by key
  `sha256` in KEY.json   is of the bytes as downloaded, not of the stored image: it is kept as `downloaded_sha256`
  lat and lon            null or NaN is absent

The words come from KEY.txt, all else from KEY.json; columns of the URL table that the record has no place for stay in the provenance.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry
from rsvl_data.sources.tar_files import TAR_SUFFIXES, find_tar
from rsvl_data.sources.tar_members import (
    Described,
    MemberSource,
    image_member,
    json_member,
    problem,
    split_of_path,
    tar_entries,
    text_member,
)

EXPECTS = "a folder of img2dataset shards: NNNNN.parquet with key, status and error_message beside NNNNN.tar or a folder NNNNN"
_STATUS = {"key", "status", "error_message"}
_LICENCE = ("licence", "license")
_ATTRIBUTION = ("attribution", "credits", "credit", "author")
_LABEL = ("label", "class")
# Told elsewhere in the record, or of no use once the image is there.
_NOT_KEPT = {
    *_STATUS,
    *_LICENCE,
    *_ATTRIBUTION,
    *_LABEL,
    "caption",
    "captions",
    "width",
    "height",
    "sha256",
    "exif",
    "lat",
    "lon",
}
_TAKEN = {"dataset", "split", "original_id", "retrieved", "url"}


def find(path: Path) -> Path | None:
    """The folder, when the first parquet in it has img2dataset's columns."""
    if not path.is_dir():
        return None
    first = next(iter(sorted(path.glob("*.parquet"))), None)
    return path if first is not None and columns_of(first) >= _STATUS and _shards(path) else None


def open(folder: Path, name: str, image_form: ImageForm) -> MemberSource:
    return MemberSource(name, folder, lambda: list_entries(folder), _describe, image_form)


def list_entries(folder: Path) -> Iterator[Entry]:
    for shard in _shards(folder):
        yield from _shard_entries(folder, shard)


def columns_of(parquet: Path) -> set[str]:
    """Empty for what is no parquet."""
    try:
        return set(pq.read_schema(parquet).names)
    except (OSError, pa.ArrowException):
        return set()


def read_columns(parquet: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """One row at a time. Raises pyarrow's ArrowException or OSError."""
    with pq.ParquetFile(parquet) as file:
        for batch in file.iter_batches(columns=names):
            yield from batch.to_pylist()


def _shards(folder: Path) -> list[str]:
    """Names of all that could be one, a table without images or images without a table too."""
    found = {
        path.name.split(".")[0] for path in folder.iterdir() if path.name.endswith((*TAR_SUFFIXES, ".parquet")) or path.is_dir()
    }
    return sorted(name for name in found if name.isdecimal())


def _shard_entries(folder: Path, shard: str) -> Iterator[Entry]:
    split = split_of_path(folder.name)
    are_files = (folder / shard).is_dir()
    entries = list(_file_entries(folder, shard, split) if are_files else tar_entries(folder, find_tar(folder, shard), split))
    yield from sorted(entries, key=lambda entry: entry.id)
    yield from _rows_without_sample(folder / f"{shard}.parquet", {entry.id for entry in entries}, split)


def _file_entries(folder: Path, shard: str, split: str | None) -> Iterator[Entry]:
    files: dict[str, dict[str, str]] = {}
    for path in sorted((folder / shard).iterdir()):
        key, _, suffix = path.name.partition(".")
        if key and suffix:
            files.setdefault(key, {})[suffix.lower()] = f"{shard}/{path.name}"
    for key, members in files.items():
        yield Entry(f"{shard}/{key}", split, {"files": members})


def _rows_without_sample(parquet: Path, ids: set[str], split: str | None) -> Iterator[Entry]:
    try:
        for row in read_columns(parquet, [*_STATUS, "url"]):
            id = f"{parquet.stem}/{row['key']}"
            if row["status"] != "success":
                yield problem(id, str(row["status"]), f"{row.get('url')}: {row['error_message']}", split)
            elif id not in ids:
                yield problem(id, "missing_member", f"{parquet} says success, but the shard does not hold {row['key']}", split)
    except (OSError, pa.ArrowException, KeyError) as error:
        yield problem(f"{parquet.stem}/table", "unreadable_table", f"{parquet}: {error}; failed downloads are not known", split)


def _describe(entry: Entry, members: dict[str, bytes]) -> Described:
    record = json_member(members)
    text = text_member(members, "txt") if "txt" in members else str(record.get("caption") or "")
    return Described(
        image_member(members),
        [{"text": text, "kind": "alt"}],
        label=_first_text(record, _LABEL),
        geo=coordinates(record.get("lat"), record.get("lon")),
        provenance=provenance_of(record),
    )


def provenance_of(record: dict[str, Any]) -> dict[str, Any]:
    """URL, licence and attribution of a KEY.json, and whatever its URL table said besides."""
    kept = {name: value for name, value in record.items() if name not in _NOT_KEPT | _TAKEN and _is_said(value)}
    told = {
        "url": _first_text(record, ("url",)),
        "licence": _first_text(record, _LICENCE),
        "attribution": _first_text(record, _ATTRIBUTION),
        "downloaded_sha256": _first_text(record, ("sha256",)),
    }
    return {**kept, **{name: value for name, value in told.items() if value}}


def coordinates(lat: Any, lon: Any) -> dict[str, Any]:
    """Both as they are when they are a place on Earth, else nothing."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) for value in (lat, lon)):
        return {}
    return {"lat": lat, "lon": lon} if abs(lat) <= 90 and abs(lon) <= 180 else {}


def _is_said(value: Any) -> bool:
    return value not in (None, "", []) and not (isinstance(value, float) and not math.isfinite(value))


def _first_text(record: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((record[name] for name in names if isinstance(record.get(name), str) and record[name].strip()), None)
