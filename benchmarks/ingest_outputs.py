"""What two downloaders made of one list: the same images kept, how far their pixels lie apart, and which tars are whole."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rsvl_data.shards import file_sha256

LARGEST_MEAN_DIFFERENCE = 2.0  # grey levels, over all images; both resize by area and encode anew


def images_by_path(tars: list[Path]) -> dict[str, bytes]:
    """The path of the URL to the encoded image. The record of img2dataset says `url`, ours `provenance.url`."""
    found = {}
    for tar in tars:
        for record, image in records(tar):
            url = record["url"] if "url" in record else record["provenance"]["url"]
            found[url.rpartition("/")[2]] = image
    return found


def records(tar: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Record and image of each sample. The members of a sample lie side by side."""
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tar) as archive:
        for info in archive:
            key, _, suffix = info.name.partition(".")
            file = archive.extractfile(info)
            assert file is not None
            members.setdefault(key, {})[suffix] = file.read()
    for each in members.values():
        yield json.loads(each["json"]), each["jpg"]


def compare_outputs(peer: list[Path], ours: list[Path]) -> dict[str, Any]:
    """Raises RuntimeError when one kept an image that the other did not, or when sizes or pixels do not agree."""
    theirs, own = images_by_path(peer), images_by_path(ours)
    if theirs.keys() != own.keys():
        only_peer, only_ours = sorted(theirs.keys() - own.keys()), sorted(own.keys() - theirs.keys())
        raise RuntimeError(f"kept by the peer alone: {only_peer[:10]}; by ours alone: {only_ours[:10]}")
    differences = [mean_difference(theirs[name], own[name], name) for name in theirs]
    mean, largest = float(np.mean(differences)), float(np.max(differences))
    if mean > LARGEST_MEAN_DIFFERENCE:
        raise RuntimeError(f"the pixels differ by {mean:.2f} grey levels on average; {LARGEST_MEAN_DIFFERENCE} are allowed")
    sizes = {role: sum(map(len, images.values())) for role, images in (("peer", theirs), ("ours", own))}
    return {"images": len(own), "grey_levels_off": {"mean": mean, "largest_of_an_image": largest}, "image_bytes": sizes}


def mean_difference(one: bytes, other: bytes, name: str) -> float:
    """Of the grey levels of one image, over all pixels and channels."""
    pixels = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.int16) for content in (one, other)]
    if pixels[0].shape != pixels[1].shape:
        raise RuntimeError(f"{name} is {pixels[0].shape} for the peer and {pixels[1].shape} for ours (rows, columns, channels)")
    return float(np.abs(pixels[0] - pixels[1]).mean())


def cut_tars(folder: Path) -> list[str]:
    """Files whose name says tar and that do not end as one: a reader fails on them, or stops early and says nothing."""
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.tar")) if not is_whole(path)]


def is_whole(tar: Path) -> bool:
    end_mark = bytes(2 * tarfile.BLOCKSIZE)
    if tar.stat().st_size < len(end_mark):
        return False
    with open(tar, "rb") as file:
        file.seek(-len(end_mark), io.SEEK_END)
        if file.read() != end_mark:
            return False
    with tarfile.open(tar) as archive:
        return len(archive.getmembers()) > 0


def tar_digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(folder.rglob("*.tar"))}
