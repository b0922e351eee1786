"""Samples that are made of members, in tars that others wrote or as files of one stem: what the readers of such formats share.

Nothing is extracted: a sample of a tar is read by the offsets its entry carries (`tar_index` finds them), one of files by their paths.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.images import READABLE_SUFFIXES
from rsvl_data.sources.base import Entry, make_sample, split_of_name
from rsvl_data.sources.tar_index import MAX_MEMBER_BYTES, index_tar
from rsvl_data.stage import Dropped, Outcome

_MAX_EXPANDED = 100_000


class Refused(Exception):
    """Why one sample cannot be had: `reason` a short word for counting, the text a sentence."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


# --- from members to a sample ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Described:
    """What a format makes of one sample's members: the encoded image and what is said of it, as `make_sample` takes it."""

    image: bytes
    captions: Sequence[str | dict[str, Any]] = ()
    label: str | None = None
    geo: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MemberSource:
    """Samples whose members lie under `root`.

    The facts of an entry: `tar` and `members` {suffix: [offset, size]}, or `files` {suffix: path}, or `problem` [reason, detail] for
    what is counted and not read; all paths relative to root. Further facts are for `describe`, which may raise Refused.
    """

    name: str
    root: Path
    list_entries: Callable[[], Iterator[Entry]]
    describe: Callable[[Entry, dict[str, bytes]], Described]
    image_form: ImageForm = DEFAULT_FORM
    note: str | None = None
    mask: dict[str, Any] | None = None

    def entries(self) -> Iterator[Entry]:
        return self.list_entries()

    def read(self, entry: Entry) -> Outcome:
        if "problem" in entry.facts:
            return Dropped(entry.id, *entry.facts["problem"])
        try:
            said = self.describe(entry, self._contents(entry.facts))
            return make_sample(
                said.image,
                entry.id,
                dataset=self.name,
                captions=said.captions,
                label=said.label,
                geo=said.geo,
                provenance=said.provenance,
                image_form=self.image_form,
            )
        except Refused as error:
            return Dropped(entry.id, error.reason, f"{entry.id}: {error}")
        except FileNotFoundError as error:
            return Dropped(entry.id, "missing_file", f"{entry.id}: {error}")
        except OSError as error:
            return Dropped(entry.id, "unreadable_file", f"{entry.id}: {error}")

    def _contents(self, facts: dict[str, Any]) -> dict[str, bytes]:
        if "tar" in facts:
            return _read_members(_inside(self.root, facts["tar"]), facts["members"])
        return {suffix: _read_file(_inside(self.root, path)) for suffix, path in facts["files"].items()}


def problem(id: str, reason: str, detail: str, split: str | None = None) -> Entry:
    """An entry that is counted under `reason` and never becomes a sample."""
    return Entry(id, split, {"problem": [reason, detail]})


def image_member(members: dict[str, bytes]) -> bytes:
    """The one member with the suffix of an image. Raises Refused when there is none, or more than one."""
    found = [suffix for suffix in members if f".{suffix}" in READABLE_SUFFIXES]
    if len(found) == 1:
        return members[found[0]]
    if found:
        raise Refused("ambiguous_image", f"holds {' and '.join(found)}; expected one image")
    listed = ", ".join(list(members)[:6])
    raise Refused(
        "missing_member", f"holds no image, only {listed}. A key ends at the first dot of the base name; dots in keys split it"
    )


def member(members: dict[str, bytes], suffix: str) -> bytes:
    """Raises Refused when it is missing."""
    if suffix not in members:
        raise Refused("missing_member", f"holds {', '.join(list(members)[:6])}; expected {suffix}")
    return members[suffix]


def text_member(members: dict[str, bytes], suffix: str) -> str:
    """Raises Refused when it is missing or not UTF-8."""
    try:
        return member(members, suffix).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("bad_encoding", f"{suffix} is not UTF-8: {error}") from error


def json_member(members: dict[str, bytes], suffix: str = "json") -> dict[str, Any]:
    """Raises Refused when it is missing or not a JSON object."""
    try:
        record = json.loads(text_member(members, suffix))
    except (ValueError, RecursionError) as error:
        raise Refused("bad_json", f"{suffix} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise Refused("bad_json", f"{suffix} is not a JSON object")
    return record


def _inside(root: Path, relative: str) -> Path:
    path = root / relative
    if "\0" in relative or not path.resolve().is_relative_to(root.resolve()):
        raise Refused("path_outside", f"{relative!r} leads out of {root}")
    return path


def _read_file(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise Refused("missing_file", f"{path} is not a file")
    if (size := path.stat().st_size) > MAX_MEMBER_BYTES:
        raise Refused("too_large", f"{path} has {size} bytes; the limit is {MAX_MEMBER_BYTES}")
    return path.read_bytes()


def _read_members(tar: Path, members: dict[str, Sequence[int]]) -> dict[str, bytes]:
    with open(tar, "rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        cut = [suffix for suffix, (offset, size) in members.items() if offset + size > end]
        if cut:
            raise Refused("truncated", f"{tar} ends inside {', '.join(cut)}: it has changed since it was indexed")
        return {suffix: os.pread(file.fileno(), size, offset) for suffix, (offset, size) in members.items()}


# --- from tars to entries -------------------------------------------------------------------------------------------------


def list_tars(path: Path) -> tuple[Path, list[str]]:
    """A root and tars relative to it: of one tar, of a folder and the folders in it, or of a brace pattern, in its order.

    A pattern names tars whether they exist or not.
    """
    if "{" in str(path) and not path.exists():
        fixed = next(parent for parent in path.parents if "{" not in str(parent))
        return fixed, expand_braces(path.relative_to(fixed).as_posix())
    if path.is_dir():
        tars = sorted([*path.glob("*.tar"), *path.glob("*/*.tar")])
        return path, [tar.relative_to(path).as_posix() for tar in tars if tar.is_file()]
    return path.parent, [path.name] if path.suffix == ".tar" else []


def expand_braces(pattern: str) -> list[str]:
    """`{a,b}` and `{0000..0031}` as a shell expands them, nested too. Raises DataError beyond 100,000 names."""
    start = pattern.find("{")
    end = _closing_brace(pattern, start)
    if end is None:
        return [pattern]
    inner, tails = pattern[start + 1 : end], expand_braces(pattern[end + 1 :])
    choices = _number_range(inner)
    if choices is None:
        choices = [name for alternative in _split_at_commas(inner) for name in expand_braces(alternative)]
    if len(choices) * len(tails) > _MAX_EXPANDED:
        raise DataError(f"{pattern} names more than {_MAX_EXPANDED} files")
    return [f"{pattern[:start]}{choice}{tail}" for choice in choices for tail in tails]


def _closing_brace(pattern: str, start: int) -> int | None:
    depth = 0
    for place in range(max(start, 0), len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if pattern[place] == "}" and depth == 0:
            return place
    return None


def _split_at_commas(inner: str) -> list[str]:
    """At those outside of any pair of braces."""
    alternatives, depth = [""], 0
    for letter in inner:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            alternatives.append("")
        else:
            alternatives[-1] += letter
    return alternatives


def _number_range(inner: str) -> list[str] | None:
    numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", inner)
    if numbers is None:
        return None
    first, last = int(numbers[1]), int(numbers[2])
    if abs(last - first) >= _MAX_EXPANDED:
        raise DataError(f"{{{inner}}} names more than {_MAX_EXPANDED} files")
    width = len(numbers[1]) if numbers[1].startswith("0") else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}}" for number in range(first, last + step, step)]


def split_of_path(relative: str) -> str | None:
    """The last word of a path that names a split: `val/rs3-train-0000.tar` is train, `SkyScript_val_5K.csv` is val."""
    words = (split_of_name(word) for word in reversed(re.findall(r"[A-Za-z]+", relative)))
    return next((split for split in words if split), None)


def tar_entries(root: Path, tar: str, split: str | None) -> Iterator[Entry]:
    """One entry a sample, in the order of their first members, then one for each problem. The id is the tar's path and the key."""
    stem = tar.removesuffix(".tar")
    try:
        index = index_tar(_inside(root, tar))
    except Refused as error:
        yield problem(stem, error.reason, f"{tar}: {error}", split)
        return
    except OSError as error:
        reason = "missing_file" if isinstance(error, FileNotFoundError) else "unreadable_file"
        yield problem(stem, reason, f"{tar}: {error}", split)
        return
    for key, members in index.samples.items():
        places = {suffix: list(place) for suffix, place in members.items()}
        yield Entry(f"{stem}/{key}", split, {"tar": tar, "members": places})
    for name, reason, detail in index.problems:
        yield problem(f"{stem}/{name}", reason, f"{tar}: {detail}", split)
