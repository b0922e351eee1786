import json

import pytest
from foreign_tars import picture, read_all, texts, write_tar

from rsvl_data.errors import DataError
from rsvl_data.sources import clip_benchmark


def made(tmp_path, shards, split="test", num="1", classes="forest\nsea lake\n"):
    for number, members in enumerate(shards):
        write_tar(tmp_path / split / f"{number}.tar", members)
    (tmp_path / split).mkdir(exist_ok=True)
    (tmp_path / split / "nshards.txt").write_text(num)
    if classes:
        (tmp_path / "classnames.txt").write_text(classes)
    return tmp_path


def test_official_classification(shared):
    root = shared / "fixtures" / "formats" / "11_clip_benchmark"
    expected = json.loads((root / "expected.json").read_text())["classification"]
    entries, samples, dropped = read_all(clip_benchmark, root / expected["folder"])
    assert len(samples) == expected["samples"] and not dropped and {entry.split for entry in entries} == {expected["split"]}
    assert [expected["classes"].index(sample.label) for sample in samples] == expected["labels"]
    assert samples[0].sha256 == expected["first"]["sha256"] and entries[0].id == f"test/0/{expected['first']['key']}"


def test_official_retrieval(shared):
    root = shared / "fixtures" / "formats" / "11_clip_benchmark"
    expected = json.loads((root / "expected.json").read_text())["retrieval"]
    _, samples, dropped = read_all(clip_benchmark, root / expected["folder"])
    assert len(samples) == expected["samples"] and not dropped
    assert sum(len(sample.captions) for sample in samples) == expected["captions"]
    assert texts(samples[0]) == expected["first"]["captions"] and samples[0].sha256 == expected["first"]["sha256"]


def test_shards_in_the_order_of_numbers_and_missing_ones_counted(tmp_path):
    shards = [[(f"s{number}.jpg", picture()), (f"s{number}.cls", "1")] for number in range(11)]
    root = made(tmp_path, shards, num="12\n")
    entries, samples, dropped = read_all(clip_benchmark, root)
    assert [entry.id for entry in entries[:11]] == [f"test/{number}/s{number}" for number in range(11)]
    assert {sample.label for sample in samples} == {"sea lake"} and [outcome.reason for outcome in dropped] == ["missing_file"]


def test_a_split_folder_stands_for_itself(tmp_path):
    for split in ("train", "test"):
        made(tmp_path, [[("a.webp", picture(form="WEBP")), ("a.cls", "0\n")]], split)
    assert [entry.split for entry in read_all(clip_benchmark, tmp_path)[0]] == ["test", "train"]
    entries, [sample], _ = read_all(clip_benchmark, tmp_path / "train")
    assert [entry.split for entry in entries] == ["train"] and sample.label == "forest"


@pytest.mark.parametrize("text", ["2", "-1", "x", "", "9" * 5000, "²"])
def test_labels_that_name_no_class(tmp_path, text):
    [outcome] = read_all(clip_benchmark, made(tmp_path, [[("a.jpg", picture()), ("a.cls", text)]]))[2]
    assert outcome.reason == "bad_label" and "names 2 classes" in outcome.detail


def test_a_caption_a_line(tmp_path):
    members = [("a.jpg", picture()), ("a.txt", "one\r\n\n two \n"), ("b.jpg", picture()), ("c.txt", "x")]
    _, [sample], dropped = read_all(clip_benchmark, made(tmp_path, [members], classes=""))
    assert texts(sample) == ["one", "two"] and [outcome.reason for outcome in dropped] == ["no_caption", "missing_member"]


@pytest.mark.parametrize("num", ["", "two", "-1", "1000000", "9" * 5000])
def test_a_number_of_shards_that_is_none(tmp_path, num):
    with pytest.raises(DataError, match="expected the number of shards"):
        list(clip_benchmark.list_entries(made(tmp_path, [], num=num)))


def test_other_folders_are_not_found(tmp_path):
    write_tar(tmp_path / "test" / "0.tar", [("a.jpg", picture())])
    assert clip_benchmark.find(tmp_path) is None
