import json

import pytest
from foreign_tars import picture, write_tar

from rsvl_data.errors import DataError
from rsvl_data.sample import Sample
from rsvl_data.sources.base import Entry
from rsvl_data.sources.tar_members import (
    Described,
    MemberSource,
    expand_braces,
    image_member,
    json_member,
    list_tars,
    problem,
    split_of_path,
    tar_entries,
    text_member,
)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("plain.tar", ["plain.tar"]),
        ("{a,b}-{1..3}", ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]),
        ("{0008..0011}", ["0008", "0009", "0010", "0011"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{x/{p,q}-{0..1},y}.tar", ["x/p-0.tar", "x/p-1.tar", "x/q-0.tar", "x/q-1.tar", "y.tar"]),
        ("{{p,q}1,z}", ["p1", "q1", "z"]),
        ("{a..b}", ["a..b"]),
        ("{", ["{"]),
        ("a}{b", ["a}{b"]),
    ],
)
def test_braces(pattern, names):
    assert expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..999999999}", "{0..999}{0..999}"])
def test_braces_that_name_too_much(pattern):
    with pytest.raises(DataError, match="names more than 100000 files"):
        expand_braces(pattern)


def test_the_release_of_rs5m_is_one_pattern(tmp_path):
    root, tars = list_tars(tmp_path / "train" / "{pub11,rs3}-train-{0000..0031}.tar")
    assert root == tmp_path / "train" and len(tars) == 64
    assert tars[0] == "pub11-train-0000.tar" and tars[-1] == "rs3-train-0031.tar"


@pytest.mark.parametrize(
    ("path", "split"),
    [("val/rs3-train-0000.tar", "train"), ("SkyScript_val_5K.csv", "val"), ("validation/1.tar", "val"), ("training.csv", None)],
)
def test_split_of_path(path, split):
    assert split_of_path(path) == split


def made(root, entry):
    def describe(entry, members):
        return Described(image_member(members), [text_member(members, "txt")], geo=entry.facts.get("geo", {}))

    return MemberSource("made", root, lambda: iter([entry]), describe).read(entry)


def test_a_sample_of_a_tar_is_read_by_offset(tmp_path):
    write_tar(
        tmp_path / "s" / "x.tar", [("a.jpg", picture()), ("a.txt", "words"), ("b.jpg", picture((99, 0, 0))), ("b.txt", "more")]
    )
    entries = list(tar_entries(tmp_path, "s/x.tar", "train"))
    assert [entry.id for entry in entries] == ["s/x/a", "s/x/b"] and entries[0].split == "train"
    assert json.loads(json.dumps(entries[1].facts)) == entries[1].facts
    sample = made(tmp_path, entries[1])
    assert isinstance(sample, Sample) and sample.image == picture((99, 0, 0)) and sample.captions[0].text == "more"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"problem": ["why", "text"]}, "why"),
        ({"files": {"jpg": "../a.jpg", "txt": "a.txt"}}, "path_outside"),
        ({"files": {"jpg": "/etc/passwd", "txt": "a.txt"}}, "path_outside"),
        ({"files": {"jpg": "link.jpg", "txt": "a.txt"}}, "path_outside"),
        ({"files": {"jpg": "a\0.jpg", "txt": "a.txt"}}, "bad_path"),
        ({"files": {"jpg": "none.jpg", "txt": "a.txt"}}, "missing_file"),
        ({"files": {"jpg": "folder", "txt": "a.txt"}}, "unreadable_file"),
        ({"files": {"jpg": "n" * 300, "txt": "a.txt"}}, "bad_path"),
        ({"files": {"jpg": "a.jpg"}}, "missing_member"),
        ({"files": {"txt": "a.txt"}}, "missing_member"),
        ({"files": {"jpg": "a.jpg", "png": "a.jpg", "txt": "a.txt"}}, "ambiguous_image"),
        ({"files": {"jpg": "a.txt", "txt": "a.txt"}}, "not_an_image"),
        ({"files": {"jpg": "a.jpg", "txt": "a.jpg"}}, "bad_encoding"),
        ({"files": {"jpg": "a.jpg", "txt": "a.txt"}, "geo": {"lat": 95}}, "bad_record"),
        ({"tar": "x.tar", "members": {"jpg": [512, 10**15], "txt": [0, 1]}}, "truncated"),
        ({"tar": "none.tar", "members": {}}, "missing_file"),
        ({"tar": "../x.tar", "members": {}}, "path_outside"),
    ],
)
def test_bad_input_is_an_answer(tmp_path, facts, reason):
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "a.jpg").write_bytes(picture())
    (root / "a.jpg").write_bytes(picture())
    (root / "a.txt").write_text("words")
    (root / "link.jpg").symlink_to(tmp_path / "a.jpg")
    write_tar(root / "x.tar", [("a.jpg", picture())])
    dropped = made(root, Entry("id", None, facts))
    assert dropped.key == "id" and dropped.reason == reason


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_what_is_no_json_object(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    source = MemberSource("x", tmp_path, lambda: iter([]), lambda entry, members: Described(b"", [str(json_member(members))]))
    assert source.read(Entry("a", None, {"files": {"json": "a.json"}})).reason == "bad_json"


@pytest.mark.parametrize(("content", "reason"), [(None, "missing_file"), (b"", "empty_file"), (b"<html>" * 99, "not_a_tar")])
def test_a_tar_that_is_none_is_counted_once(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "x.tar").write_bytes(content)
    [entry] = tar_entries(tmp_path, "x.tar", "val")
    assert entry.facts["problem"][0] == reason and entry.split == "val"


def test_a_problem_is_an_entry():
    assert problem("a", "bad_row", "text", "test") == Entry("a", "test", {"problem": ["bad_row", "text"]})
