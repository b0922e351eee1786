"""A dataset folder that rsvl wrote: manifest.json and the tars it lists. Every record stays whole: key, captions with their kinds, regions,
mask, geo facts, provenance, scores, and fields of other writers.

The manifest is not trusted: tars are walked by their own headers, an image must have the sha256 of its record. A picture that is
stored in another format gets a new sha256 and keeps its key, so that records of both data sets can be compared.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.images import UnreadableImage, to_stored
from rsvl_data.sample import Sample
from rsvl_data.sources.base import Entry
from rsvl_data.sources.tar_members import MemberSource, Refused, image_member, member, tar_entries

EXPECTS = "manifest.json beside data/*.tar (a dataset folder written by rsvl)"
_MANIFEST_FIELDS = {"format_version", "shards", "splits"}
_NAME = re.compile(r"[A-Za-z0-9_]+-\d+")
_MAX_MANIFEST_BYTES = 1 << 28


def find(path: Path) -> Path | None:
    """The folder."""
    folder = path.parent if path.name == "manifest.json" else path
    file = folder / "manifest.json"
    if not file.is_file() or file.stat().st_size > _MAX_MANIFEST_BYTES:
        return None
    try:
        manifest = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return folder if isinstance(manifest, dict) and manifest.keys() >= _MANIFEST_FIELDS else None


def open(folder: Path, name: str, image_form: ImageForm) -> MemberSource:
    """Name, note and legend of the masks are the manifest's. Raises DataError when it lists no shard by its name."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    shards = manifest["shards"] if isinstance(manifest["shards"], list) else []
    names = [str(shard.get("name")) for shard in shards if isinstance(shard, dict)]
    if not names or not all(_NAME.fullmatch(shard) for shard in names):
        raise DataError(f"{folder / 'manifest.json'} lists shards {names[:3]}; expected names such as train-00000")
    legend, note = manifest.get("mask"), manifest.get("note")
    said: dict[str, Any] = {
        "note": note if isinstance(note, str) else None,
        "mask": legend if isinstance(legend, dict) else None,
    }

    def describe(entry: Entry, members: dict[str, bytes]) -> Sample:
        return _sample(entry, members, image_form, with_mask=said["mask"] is not None)

    name = manifest["name"] if isinstance(manifest.get("name"), str) else name
    return MemberSource(name, folder, lambda: list_entries(folder, names), describe, image_form, **said)


def list_entries(folder: Path, names: list[str]) -> Iterator[Entry]:
    """The id of an entry is the key of its sample, in whatever shard it lies."""
    for name in names:
        for entry in tar_entries(folder, f"data/{name}.tar", name.rpartition("-")[0]):
            yield entry if "problem" in entry.facts else replace(entry, id=entry.id.rpartition("/")[2])


def _sample(entry: Entry, members: dict[str, bytes], image_form: ImageForm, *, with_mask: bool) -> Sample:
    image = image_member(members)
    mask = member(members, "mask.png") if with_mask else None
    try:
        sample = Sample.from_json(member(members, "json"), image=image, mask=mask)
    except ValueError as error:
        raise Refused("bad_record", f"KEY.json is no sound record: {error}") from error
    if hashlib.sha256(image).hexdigest() != sample.sha256:
        raise Refused("checksum", "the image is not the one of its record")
    try:
        stored = to_stored(image, image_form)
    except UnreadableImage as error:
        raise Refused(error.reason, str(error)) from error
    if (stored.width, stored.height) != (sample.width, sample.height) or stored.orientation > 1 or sample.key != entry.id:
        raise Refused("bad_record", f"the record is of {sample.key}, {sample.width} x {sample.height}, or the image is turned")
    if stored.content == image:
        return sample
    return sample.model_copy(update={"image": stored.content, "sha256": hashlib.sha256(stored.content).hexdigest()})
