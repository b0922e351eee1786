"""Samples that are made of members, in tars that others wrote or as files of one stem: what the readers of such formats share.

Nothing is extracted: a sample of a tar is read by the offsets its entry carries (`tar_index` finds them), one of files by their paths.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM, ImageForm
from rsvl_data.images import READABLE_SUFFIXES
from rsvl_data.json_records import parse
from rsvl_data.sample import Sample
from rsvl_data.sources.base import Entry, locate_inside, make_sample, read_inside, split_of_name
from rsvl_data.sources.tar_files import TAR_SUFFIXES, BadArchive, tar_bytes, without_tar_suffix
from rsvl_data.sources.tar_index import index_tar
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
    regions: Sequence[dict[str, Any]] = ()
    geo: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MemberSource:
    """Samples whose members lie under `root`.

    The facts of an entry: `tar` and `members` {suffix: [offset, size]}, or `files` {suffix: path}, or `problem` [reason, detail] for
    what is counted and not read; all paths relative to root. Further facts are for `describe`, which may raise Refused; it answers with a
    Sample where the members already are one.
    """

    name: str
    root: Path
    list_entries: Callable[[], Iterator[Entry]]
    describe: Callable[[Entry, dict[str, bytes]], Described | Sample]
    image_form: ImageForm = DEFAULT_FORM
    note: str | None = None
    mask: dict[str, Any] | None = None

    def entries(self) -> Iterator[Entry]:
        """An id that came before gets a number: keys are made of ids, and one key twice would end the build."""
        seen: Counter[str] = Counter()
        for entry in self.list_entries():
            seen[entry.id] += 1
            yield entry if seen[entry.id] == 1 else replace(entry, id=f"{entry.id} again, {seen[entry.id]}")

    def read(self, entry: Entry) -> Outcome:
        if "problem" in entry.facts:
            return Dropped(entry.id, *entry.facts["problem"])
        try:
            contents = self._contents(entry)
            if isinstance(contents, Dropped):
                return contents
            said = self.describe(entry, contents)
            if isinstance(said, Sample):
                return said
        except Refused as error:
            return Dropped(entry.id, error.reason, f"{entry.id}: {error}")
        except OSError as error:
            return Dropped(entry.id, "unreadable_file", f"{entry.id}: {error}")
        outcome = make_sample(
            said.image,
            entry.id,
            dataset=self.name,
            captions=said.captions,
            label=said.label,
            regions=said.regions,
            geo=said.geo,
            provenance=said.provenance,
            image_form=self.image_form,
        )
        if not isinstance(outcome, Dropped):
            outcome.scores.update(said.scores)
        return outcome

    def _contents(self, entry: Entry) -> dict[str, bytes] | Dropped:
        if "tar" in entry.facts:
            tar = locate_inside(self.root, entry.facts["tar"], entry.id)
            return tar if isinstance(tar, Dropped) else _read_members(tar, entry.facts["members"])
        contents: dict[str, bytes] = {}
        for suffix, path in entry.facts["files"].items():
            content = read_inside(self.root, path, entry.id)
            if isinstance(content, Dropped):
                return content
            contents[suffix] = content
        return contents


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
        record = parse(text_member(members, suffix))
    except ValueError as error:
        raise Refused("bad_json", f"{suffix} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise Refused("bad_json", f"{suffix} is not a JSON object")
    return record


def _read_members(tar: Path, members: dict[str, Sequence[int]]) -> dict[str, bytes]:
    try:
        with tar_bytes(tar, keep=True) as archive:
            cut = [suffix for suffix, (offset, size) in members.items() if offset + size > archive.size]
            if cut:
                raise Refused("truncated", f"{tar} ends inside {', '.join(cut)}: it has changed since it was indexed")
            return {suffix: archive.read(offset, size) for suffix, (offset, size) in members.items()}
    except BadArchive as error:
        raise Refused(error.reason, f"{tar}: {error}") from error


# --- from tars to entries -------------------------------------------------------------------------------------------------


def list_tars(path: Path) -> tuple[Path, list[str]]:
    """A root and tars relative to it: of one tar, of a folder and the folders in it, or of a brace pattern, in its order.

    A pattern names tars whether they exist or not.
    """
    if "{" in str(path) and not path.exists():
        fixed = next(parent for parent in path.parents if "{" not in str(parent))
        return fixed, expand_braces(path.relative_to(fixed).as_posix())
    if path.is_dir():
        files = sorted([*path.glob("*.*"), *path.glob("*/*.*")])
        return path, [file.relative_to(path).as_posix() for file in files if file.name.endswith(TAR_SUFFIXES) and file.is_file()]
    return path.parent, [path.name] if path.name.endswith(TAR_SUFFIXES) else []


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
    stem = without_tar_suffix(tar)
    path = locate_inside(root, tar, stem)
    if isinstance(path, Dropped):
        yield problem(stem, path.reason, path.detail, split)
        return
    try:
        index = index_tar(path)
    except OSError as error:
        yield problem(stem, "unreadable_file", f"{tar}: {error}", split)
        return
    for key, members in index.samples.items():
        places = {suffix: list(place) for suffix, place in members.items()}
        yield Entry(f"{stem}/{key}", split, {"tar": tar, "members": places})
    for name, reason, detail in index.problems:
        yield problem(f"{stem}/{name}", reason, f"{tar}: {detail}", split)
