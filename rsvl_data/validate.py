"""Checks every byte and every record of a dataset folder, and names what is wrong."""

import hashlib
import io
import mmap
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from PIL import Image

from rsvl_data.errors import CorruptShard
from rsvl_data.sample import Sample
from rsvl_data.shards import Dataset, Member, Shard
from rsvl_data.tar_header import tar_header

_MOST_PER_SHARD = 10


def problems(dataset: Dataset) -> Iterator[str]:
    """One sentence a problem, shard by shard; nothing for a sound dataset.

    A shard whose checksums agree with the manifest is still read, so that records which were wrong from the start are found too.
    """
    for line in dataset.manifest["shards"]:
        found = list(_shard_problems(dataset, line))
        yield from found[:_MOST_PER_SHARD]
        if len(found) > _MOST_PER_SHARD:
            yield f"{line['name']}: and {len(found) - _MOST_PER_SHARD} more"
    counted = {split: sum(s["samples"] for s in dataset.manifest["shards"] if s["split"] == split) for split in dataset.splits}
    if counted != dataset.splits:
        yield f"manifest.json: its shards hold {counted}, but it says {dataset.splits}"


def _shard_problems(dataset: Dataset, line: dict[str, Any]) -> Iterator[str]:
    shard = Shard(dataset.root / "data" / f"{line['name']}.tar", dataset.remote)
    tar = shard.tar
    absent = [path.name for path in (tar, tar.with_suffix(".idx"), tar.with_suffix(".parquet")) if not path.is_file()]
    if absent and dataset.remote is None:
        yield f"{line['name']}: {', '.join(absent)} is missing"
        return
    try:
        for suffix, field in ((".idx", "idx_sha256"), (".parquet", "parquet_sha256")):
            if _sha256(shard, suffix) != line[field]:
                yield f"{line['name']}: {tar.with_suffix(suffix).name} is not the file that was written"
                return  # the tar is judged by them
        named = list(_member_problems(shard, line, dataset.manifest["image"]))
        yield from named
        if not named and _sha256(shard, ".tar") != line["sha256"]:
            sizes = f"{tar.stat().st_size} bytes, {line['bytes']} were written"
            yield f"{line['name']}: {tar.name} differs from what was written, outside of its members ({sizes})"
    except CorruptShard as error:
        yield f"{line['name']}: {error}"


def _sha256(shard: Shard, suffix: str) -> str:
    with shard.open(suffix) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _member_problems(shard: Shard, line: dict[str, Any], image_suffix: str) -> Iterator[str]:
    rows = shard.table()
    if not len(shard) == rows.num_rows == line["samples"]:
        yield f"{line['name']}: {len(shard)} samples in the index, {rows.num_rows} in the parquet, {line['samples']} in the manifest"
        return
    with shard.open(".tar") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield from _content_problems(shard, content, rows, line["name"], image_suffix)


def _content_problems(shard: Shard, content: mmap.mmap, rows: pa.Table, name: str, image_suffix: str) -> Iterator[str]:
    for index, members in enumerate(shard.members):
        turned = [
            member for member, crc in zip(members, rows["member_crc32"][index].as_py()) if not _is_sound(content, member, crc)
        ]
        if turned:
            yield from (f"{name}: member {member.name} differs from what was written" for member in turned)
        else:
            yield from _record_problems(shard, index, rows, name, image_suffix)


def _is_sound(tar: mmap.mmap, member: Member, crc: int) -> bool:
    header = tar[member.offset - 512 : member.offset]
    return header == tar_header(member.name, member.size) and zlib.crc32(tar[member.offset : member.offset + member.size]) == crc


def _record_problems(shard: Shard, index: int, rows: pa.Table, name: str, image_suffix: str) -> Iterator[str]:
    try:
        sample = shard.sample(index)
    except CorruptShard as error:
        yield f"{name}: {error}"
        return
    yield from (f"{name}: {sample.key}: {problem}" for problem in _sample_problems(sample, rows["key"][index].as_py()))
    if shard.members[index][0].name != f"{sample.key}.{image_suffix}":
        yield f"{name}: member {shard.members[index][0].name} holds the record of {sample.key}"


def _sample_problems(sample: Sample, row_key: str) -> Iterator[str]:
    with Image.open(io.BytesIO(sample.image)) as image:
        if image.size != (sample.width, sample.height):
            yield f"the image is {image.width} x {image.height}, its record says {sample.width} x {sample.height}"
    if sample.key != row_key:
        yield f"its parquet row is that of {row_key}"
    for region in sample.regions:
        x0, y0, x1, y1 = region.bbox
        if x0 < 0 or y0 < 0 or x1 > sample.width or y1 > sample.height:
            yield f"region {region.category} {region.bbox} leaves the image of {sample.width} x {sample.height}"
