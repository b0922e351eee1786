"""GAIA, https://github.com/Orion-AI-Lab/GAIA (Hub: azavras/GAIA): some 40,000 satellite images of the web, five GPT-4o captions each.

Released are records without images, `{train,val,test}_data.json` (or .jsonl): rows, columns, or columns that map a row index to a
value. Images come by URL; here they lie in `images/` under the last part of `image_src`, or in img2dataset shards as the authors'
options make them, whose KEY.json has `id` and `captions`; the other fields and the split are joined by `id` from the records that lie
in the shards' folder or the one above.

What is easy to get wrong: the .txt of a shard is `image_alt`, the alt text of the web page, not a caption (kept last, kind `alt`).
Every raw caption begins with a lead-in, which `strip_lead_in` removes. lat and lon are geocoded place names of unknown precision, not
the footprint of the image. Images belong to their sites: `credits` becomes the attribution. Tags, resolution class and modalities
stay in the provenance.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.json_records import is_list, list_records, parse, read_document, read_span
from rsvl_data.sources import img2dataset
from rsvl_data.sources.base import Entry
from rsvl_data.sources.tar_members import Described, MemberSource, Refused, image_member, json_member, problem, split_of_path

EXPECTS = "{train,val,test}_data.json or .jsonl beside images/ (GAIA), or img2dataset shards with columns id and captions"
LEAD_IN = "The image showcases:"
_RECORDS = re.compile(r"(train|val|valid|validation|test)_data\.jsonl?")
_CAPTIONER = {"engine": "GAIA", "model": "gpt-4o-2024-08-06"}


def find(path: Path) -> Path | None:
    """A file of records, or a folder with such files or with GAIA's shards."""
    if path.is_file():
        return path if _RECORDS.fullmatch(path.name) and _mentions_image_src(path) else None
    if not path.is_dir():
        return None
    if any(_mentions_image_src(file) for file in _record_files(path)):
        return path
    return path if _is_shards(path) else None


def open(path: Path, name: str, image_form: ImageForm, *, strip_lead_in: bool = False) -> MemberSource:
    """`strip_lead_in` removes "The image showcases:" from captions, which then begin with a capital."""
    root = path if path.is_dir() else path.parent

    def describe(entry: Entry, members: dict[str, bytes]) -> Described:
        return _describe(_record_of(entry, root), members, strip_lead_in)

    return MemberSource(name, root, lambda: list_entries(path), describe, image_form)


def list_entries(path: Path) -> Iterator[Entry]:
    """Raises DataError for a file of records in none of the three forms."""
    if path.is_dir() and _is_shards(path):
        yield from _shard_entries(path)
        return
    root, files = (path, _record_files(path)) if path.is_dir() else (path.parent, [path])
    folder = "images/" if (root / "images").is_dir() else ""
    for file in files:
        for number, (record, facts) in enumerate(read_records(file, root)):
            yield _record_entry(record, facts, f"{file.name}/{number}", split_of_path(file.name), folder)


def read_records(path: Path, root: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The records of one file, whichever its form, and the facts by which an entry finds each again; what is no object comes as it is, a
    bad line as None. Raises DataError."""
    if path.suffix == ".jsonl" or is_list(path):
        name = Path(os.path.relpath(path, root)).as_posix()
        yield from ((record, {"records": name, "span": [*span]}) for record, span in list_records(path, EXPECTS))
        return
    try:
        data = parse(read_document(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Expected {EXPECTS}") from error
    if isinstance(data, dict) and isinstance(data.get("image_src"), dict | list):
        yield from ((row, {"record": row}) for row in _rows_of_columns(data, path))
    else:
        raise DataError(f"{path} holds neither rows nor columns with image_src. Expected {EXPECTS}")


def _rows_of_columns(data: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """Values of one index belong together."""
    urls = data["image_src"]
    columns = {}
    for name, values in data.items():
        if type(values) is not type(urls) or (isinstance(values, list) and len(values) != len(urls)):
            raise DataError(f"{path}: column {name} has not the {len(urls)} rows of image_src")
        columns[name] = values if isinstance(values, dict) else dict(enumerate(values))
    for index in columns["image_src"]:
        yield {name: values.get(index) for name, values in columns.items()}


def _record_files(folder: Path) -> list[Path]:
    """One file a split: the .json where both forms are there."""
    files = {file.stem: file for file in sorted(folder.glob("*_data.json*"), reverse=True) if _RECORDS.fullmatch(file.name)}
    return sorted(files.values())


def _mentions_image_src(path: Path) -> bool:
    """Karpathy files and others are called *_data.json too. Columns can be long, so the whole file is searched."""
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(1 << 20):
            if b'"image_src"' in tail + chunk:
                return True
            tail = chunk[-16:]
    return False


def _is_shards(folder: Path) -> bool:
    first = next(iter(sorted(folder.glob("*.parquet"))), None)
    return first is not None and img2dataset.columns_of(first) >= {"id", "captions"} and img2dataset.find(folder) is not None


def _record_entry(record: Any, facts: dict[str, Any], place: str, split: str | None, folder: str) -> Entry:
    url = record.get("image_src") if isinstance(record, dict) else None
    if not isinstance(url, str):
        return problem(place, "bad_record", f"{place} is not a record with an image_src", split)
    try:
        name = PurePosixPath(unquote(urlsplit(url).path)).name
    except ValueError:
        name = ""
    if not name:
        return problem(place, "bad_record", f"{place}: image_src {url!r} does not end in the name of a file", split)
    return Entry(str(record.get("id") or place), split, {"files": {"image": folder + name}, **facts})


def _shard_entries(folder: Path) -> Iterator[Entry]:
    known = {}
    for file in (*_record_files(folder.parent), *_record_files(folder)):
        for record, facts in read_records(file, folder):
            if isinstance(record, dict):
                known[repr(record.get("id"))] = (facts, split_of_path(file.name))
    ids: dict[str, Any] = {}
    for entry in img2dataset.list_entries(folder):
        shard, _, key = entry.id.rpartition("/")
        if shard not in ids:
            ids[shard] = _ids_of_keys(folder / f"{shard}.parquet")
        facts, split = known.get(repr(ids[shard].get(key)), ({}, entry.split))
        yield entry if "problem" in entry.facts else Entry(entry.id, split, {**entry.facts, **facts})


def _ids_of_keys(parquet: Path) -> dict[str, Any]:
    columns = img2dataset.columns_of(parquet)
    if not columns >= {"key", "id"}:
        return {}  # the unreadable table is an entry of its own
    return {row["key"]: row["id"] for row in img2dataset.read_columns(parquet, ["key", "id"])}


def _record_of(entry: Entry, root: Path) -> dict[str, Any]:
    if "span" not in entry.facts:
        return dict(entry.facts.get("record", {}))
    try:
        return dict(read_span(root / entry.facts["records"], entry.facts["span"]))
    except ValueError as error:
        raise Refused("changed_file", str(error)) from error


def _describe(record: dict[str, Any], members: dict[str, bytes], strip_lead_in: bool) -> Described:
    stored: dict[str, Any] = {}
    if "json" in members:
        stored = json_member(members)
        record = {"id": stored.get("id"), "image_alt": stored.get("caption"), "captions": stored.get("captions"), **record}
    captions = record.get("captions")
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise Refused("bad_record", f"captions are {str(captions)[:200]}; expected a list of texts")
    said = [{"text": without_lead_in(t) if strip_lead_in else t, "kind": "vlm", "source": _CAPTIONER} for t in captions]
    if isinstance(record.get("image_alt"), str):
        said.append({"text": record["image_alt"], "kind": "alt"})
    place = {
        "place": record.get("location"),
        "platform": _joined(record.get("satellite")),
        "sensor": _joined(record.get("sensor")),
    }
    geo = img2dataset.coordinates(record.get("lat"), record.get("lon")) | {name: text for name, text in place.items() if text}
    told = {name: record.get(name) for name in ("tag", "resolution", "modalities")}
    told |= {name: stored.get(name) for name in ("original_width", "original_height")}
    told |= {"url": record.get("image_src") or stored.get("url"), "attribution": _joined(record.get("credits"))}
    told |= {"gaia_id": record.get("id")}
    image = members["image"] if "image" in members else image_member(members)
    return Described(image, said, geo=geo, provenance={name: value for name, value in told.items() if value})


def without_lead_in(caption: str) -> str:
    """Captions that do not begin with it stay as they are."""
    text = caption.strip()
    if not text.startswith(LEAD_IN):
        return caption
    text = text.removeprefix(LEAD_IN).lstrip()
    return text[:1].upper() + text[1:]


def _joined(names: Any) -> str | None:
    return ", ".join(name for name in names if isinstance(name, str)) if isinstance(names, list) else names
