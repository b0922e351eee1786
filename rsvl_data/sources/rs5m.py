"""RS5M, https://github.com/om-ai-lab/RS5M (arXiv:2306.11300): 5,070,186 aerial and satellite pairs, in tars or as label CSVs.

Tars `{train,val}/{pub11,rs3}-{train,val}-{0000..0031}.tar` hold KEY.img_content (encoded bytes; JPEG, PNG and WebP occur, whatever
the name says), KEY.img_name and KEY.caption. A folder, one tar or a brace pattern is taken.

Label CSVs `{pub11,rs3}_*.csv` have the image name in column 0 and the caption in column 1, whatever the header calls them; the images
lie in the CSV's folder or in `images/` or a folder of the CSV's stem beside it. UTF-8, or GB18030 where that fails. A name with
several rows is one image with several captions. The CSVs of a folder that has tars are not read: the tars hold the captions.

PUB11 texts come from the web (`alt`), those of RS3 from BLIP-2 (`vlm`), led by sentences made of geo-metadata in part.
"""

import codecs
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources.base import Entry
from rsvl_data.sources.tar_index import first_suffixes
from rsvl_data.sources.tar_members import (
    Described,
    MemberSource,
    list_tars,
    member,
    problem,
    split_of_path,
    tar_entries,
    text_member,
)

EXPECTS = (
    "tars with KEY.img_content, KEY.img_name and KEY.caption, or pub11_*.csv / rs3_*.csv with image names and captions (RS5M)"
)
_MAX_FIELD_CHARS = 131_072
_MEMBERS = {"img_content", "caption"}
_LABELS = re.compile(r"(pub11|rs3)[_-].*\.csv")
_RS3_CAPTIONER = {"engine": "RS5M", "model": "Salesforce/blip2-opt-6.7b"}


def find(path: Path) -> Path | None:
    """The path itself, when its first tar is RS5M's or it is (or holds) label CSVs."""
    root, tars = list_tars(path)
    first = next((root / tar for tar in tars if (root / tar).is_file()), None)
    if first is not None:
        return path if first_suffixes(first) >= _MEMBERS else None
    return path if _label_tables(path) else None


def open(path: Path, name: str, image_form: ImageForm) -> MemberSource:
    root = list_tars(path)[0]
    return MemberSource(name, root, lambda: list_entries(path), _describe, image_form)


def list_entries(path: Path) -> Iterator[Entry]:
    root, tars = list_tars(path)
    for tar in tars:
        yield from tar_entries(root, tar, split_of_path(tar))
    if not tars:
        for table in _label_tables(path):
            yield from _table_entries(table)


def read_labels(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row after the header. Raises DataError for what is no text or no CSV."""
    csv.field_size_limit(_MAX_FIELD_CHARS)  # the setting is the process's: the reader of tables has another
    with path.open(newline="", encoding=_encoding(path)) as lines:
        rows = csv.reader(lines)
        try:
            next(rows, None)
            for row in rows:
                yield rows.line_num, row
        except csv.Error as error:
            raise DataError(f"{path}: line {rows.line_num}: {error}. Expected {EXPECTS}") from error


def _label_tables(path: Path) -> list[Path]:
    tables = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return [table for table in tables if _LABELS.fullmatch(table.name) and table.is_file()]


def _encoding(path: Path) -> str:
    for encoding in ("utf-8-sig", "gb18030"):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            return encoding
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path} is neither UTF-8 nor GB18030")


def _table_entries(table: Path) -> Iterator[Entry]:
    split = split_of_path(table.name)
    captions: dict[str, list[str]] = {}
    for line, row in read_labels(table):
        if len(row) < 2 or not row[0].strip():
            yield problem(f"{table.stem}/line {line}", "bad_row", f"{table}: line {line} lacks a name or a caption", split)
        else:
            captions.setdefault(row[0].strip(), []).append(row[1])
    folder = next((name for name in (table.stem, "images") if (table.parent / name).is_dir()), ".")
    for image, texts in captions.items():
        path = (Path(folder) / image).as_posix()
        yield Entry(f"{table.stem}/{image}", split, {"files": {"img_content": path}, "img_name": image, "captions": texts})


def _describe(entry: Entry, members: dict[str, bytes]) -> Described:
    given = entry.facts.get("captions") or [text_member(members, "caption")]
    image = member(members, "img_content")
    img_name = entry.facts.get("img_name") or text_member(members, "img_name").strip()
    return Described(image, [_caption(text, entry.id) for text in given], provenance={"img_name": img_name})


def _caption(text: str, id: str) -> dict[str, Any]:
    words = re.findall(r"[a-z0-9]+", id.lower())
    if "rs3" in words:
        return {"text": text, "kind": "vlm", "source": _RS3_CAPTIONER}
    return {"text": text, "kind": "alt"} if "pub11" in words else {"text": text}
