"""Every bad tar of the corpus as a shard of each layout, from `open_source` through a build: what is lost is lost under a reason."""

import json
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_tars import picture, write_tar

from rsvl_data.errors import DataError
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sources import open_source
from rsvl_data.validate import problems

ROWS = [{"key": f"a000{n}", "status": "success", "error_message": None, "url": "http://x.org/"} for n in range(3)]


def laid_out(folder, layout, content):
    """The layout with one sound shard beside the bad one."""
    if layout == "clip-benchmark":
        paths = [folder / "test" / "0.tar", folder / "test" / "1.tar"]
        sound = [("good.jpg", picture((200, 0, 0))), ("good.txt", "a river")]
    else:
        paths = [folder / "00000.tar", folder / "00001.tar"]
        sound = [("good.jpg", picture((200, 0, 0))), ("good.txt", "a river"), ("good.json", "{}")]
    write_tar(paths[0], sound)
    paths[1].write_bytes(content)
    if layout == "clip-benchmark":
        (folder / "test" / "nshards.txt").write_text("2")
    else:
        pq.write_table(pa.Table.from_pylist([{**ROWS[0], "key": "good"}]), folder / "00000.parquet")
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "00001.parquet")


def dropped(out):
    rows = [row for path in sorted((out / "dropped").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert all(row["reason"] and row["detail"] for row in rows)
    return Counter(row["reason"] for row in rows)


def cases(shared):
    root = shared / "fixtures" / "bad"
    return [c for c in json.loads((root / "expected.json").read_text())["files"] if c["file"].startswith("tars/")], root


# Fewer or more samples than the corpus' first choice, as the other outcomes that it allows; see also test_source_tar_index.py.
NUM_SAMPLES = {
    "duplicate_member.tar": 2,
    "dots_in_key.tar": 0,
    "two_images.tar": 2,
}
WITHOUT_JSON = {"missing_json.tar": 3, "bad_json_member.tar": 3}  # CLIP_benchmark's layout has no json
REASONS = {"dots_in_key.tar": "missing_member", "zero_members_10000.tar.gz": "empty", "one_bad_image.tar": "truncated"}
REASONS |= {"bad_json_member.tar": "bad_json"}
OF_IMG2DATASET = {"zero_members_10000.tar.gz": "missing_member"}
NOT_A_FAULT = {"not_adjacent", "key_mismatch"}  # joined by key; the key inside the record is img2dataset's own matter


@pytest.mark.parametrize("layout", ["img2dataset", "clip-benchmark"])
def test_reading(shared, tmp_path, layout):
    for case in cases(shared)[0]:
        name = case["file"].removeprefix("tars/")
        laid_out(tmp_path / name, layout, (shared / "fixtures" / "bad" / case["file"]).read_bytes())
        source = open_source(tmp_path / name, layout)
        outcomes = [source.read(entry) for entry in source.entries()]
        samples = [outcome for outcome in outcomes if hasattr(outcome, "image")]
        reasons = Counter(outcome.reason for outcome in outcomes if not hasattr(outcome, "image"))
        num = NUM_SAMPLES | (WITHOUT_JSON if layout == "clip-benchmark" else {})
        wanted = num.get(name, case.get("samples", case.get("samples_before_error"))) + 1  # the sound shard's
        assert len(samples) == wanted, (name, reasons)
        if name in WITHOUT_JSON and layout == "clip-benchmark":
            continue
        reason = (REASONS | (OF_IMG2DATASET if layout == "img2dataset" else {})).get(name, case.get("reason"))
        if reason is not None and reason not in NOT_A_FAULT and not (case["outcome"] == "accept" and name not in REASONS):
            words = {reason, *case.get("also_ok_reasons", [])}
            assert words & {*reasons} or name == "truncated_at_member_border.tar", (name, reasons)
        if layout == "img2dataset":  # the table knows three: each is a sample or counted
            lost = [
                key for key in ("a0000", "a0001", "a0002") if not any(s.provenance.original_id.endswith(key) for s in samples)
            ]
            assert reasons.total() >= len(lost), (name, reasons)


BUILDS = [(name, "img2dataset", 1) for name in ("truncated_in_member.tar", "header_checksum.tar", "html.tar")]
BUILDS += [("gzip_truncated.tar.gz", "clip-benchmark", 1), ("normal.tar.gz", "clip-benchmark", 2)]


@pytest.mark.parametrize(("name", "layout", "workers"), BUILDS)
def test_building(shared, tmp_path, name, layout, workers):
    laid_out(tmp_path / "in", layout, (shared / "fixtures" / "bad" / "tars" / name).read_bytes())
    source = open_source(tmp_path / "in", layout)
    dataset = build(
        source, [], BuildOptions(out=tmp_path / "out", workers=workers, samples_per_shard=2, val=0, test=0), recipe="test"
    )
    [case] = [case for case in cases(shared)[0] if case["file"] == f"tars/{name}"]
    wanted = case.get("samples", case.get("samples_before_error")) + 1
    assert sum(dataset.splits.values()) == wanted and not list(problems(dataset))
    assert (case["outcome"] == "accept") is not bool(dropped(tmp_path / "out")[case.get("reason", "")])


def test_rs5m_shards_of_other_members_are_not_taken_for_them(shared):
    """The corpus holds jpg, txt, json; RS5M's own members damaged in the same ways are in test_source_rs5m.py and tests/fuzz."""
    for case in cases(shared)[0]:
        with pytest.raises((DataError, ValueError), match="holds nothing that can be imported"):
            open_source(cases(shared)[1] / case["file"], "rs5m")


def renamed(content):
    """The same tar with the member names of RS5M. A header that fails its checksum is left as it is."""
    blocks = [content[place : place + 512] for place in range(0, len(content), 512)]
    for number, block in enumerate(blocks):
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except (tarfile.HeaderError, ValueError):
            continue
        name = info.name
        for suffix, ours in ((".jpg", ".img_content"), (".json", ".img_name"), (".txt", ".caption")):
            name = name.removesuffix(suffix) + ours if name.endswith(suffix) else name
        header = bytearray(name.encode().ljust(100, b"\0") + block[100:148] + b" " * 8 + block[156:])
        header[148:156] = b"%06o\0 " % sum(header)
        blocks[number] = bytes(header)
    return b"".join(blocks)


RS5M_CASES = {
    "normal.tar": (3, {}),
    "truncated_in_member.tar": (2, {"truncated": 1}),
    "truncated_in_header.tar": (2, {"truncated": 1}),
    "header_checksum.tar": (2, {"corrupt": 1}),
    "path_traversal_0.tar": (3, {"unsafe_path": 1}),
    "symlink.tar": (3, {"unsafe_member": 1}),
    "missing_image.tar": (2, {"missing_member": 1}),
    "duplicate_key.tar": (3, {"duplicate_key": 1}),
    "claims_huge_member.tar": (3, {"truncated": 1}),
    "negative_size.tar": (3, {"corrupt": 1}),
    "one_bad_image.tar": (2, {"truncated": 1}),
    "all_images_first.tar": (3, {}),
}


@pytest.mark.parametrize("name", RS5M_CASES)
def test_rs5m(shared, tmp_path, name):
    num_samples, reasons = RS5M_CASES[name]
    write_tar(tmp_path / "a.tar", [("z.img_content", picture()), ("z.img_name", "z.jpg"), ("z.caption", "a river")])
    (tmp_path / "b.tar").write_bytes(renamed((shared / "fixtures" / "bad" / "tars" / name).read_bytes()))
    source = open_source(tmp_path)
    outcomes = [source.read(entry) for entry in source.entries()]
    samples = [outcome for outcome in outcomes if hasattr(outcome, "image")]
    assert len(samples) == num_samples + 1
    assert Counter(outcome.reason for outcome in outcomes if not hasattr(outcome, "image")) == reasons
