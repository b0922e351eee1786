import json

import pytest
from foreign_tars import picture, read_all, texts

from rsvl_data.errors import DataError
from rsvl_data.sources import skyscript

HEADER = "filepath,title,title_multi_objects\n"


def table(tmp_path, name, text):
    (tmp_path / "images2").mkdir(exist_ok=True)
    (tmp_path / "images2" / "a.jpg").write_bytes(picture())
    (tmp_path / name).write_text(HEADER + text, encoding="utf-8")


def test_official(shared):
    root = shared / "fixtures" / "formats" / "05_skyscript"
    expected = json.loads((root / "expected.json").read_text())
    entries, samples, dropped = read_all(skyscript, root)
    assert len(samples) == len(entries) == expected["images"] and not dropped
    first = samples[0]
    assert first.sha256 == expected["first"]["sha256"] and entries[0].id == expected["first"]["file"]
    assert texts(first) == expected["first"]["all_captions_when_grouped"]
    assert {entry.split for entry in entries} == {"train"}


def test_rows_of_one_image_are_joined_and_bad_ones_counted(tmp_path):
    rows = 'images2/a.jpg,wood,"wood, brook"\n,x,y\nimages2/none.jpg,x,\nimages2/a.jpg,wood,wood\n../a.jpg,x,y\nimages2/a.jpg\n'
    table(tmp_path, "SkyScript_val_5K.csv", rows)
    entries, [sample], dropped = read_all(skyscript, tmp_path)
    assert texts(sample) == ["wood", "wood, brook"] and sample.captions[0].kind == "label"
    assert [outcome.reason for outcome in dropped] == ["bad_row", "missing_file", "path_outside"]
    assert {entry.split for entry in entries} == {"val"}


def test_one_table_or_all_of_a_folder(tmp_path):
    table(tmp_path, "SkyScript_train.csv", "images2/a.jpg,wood,\n")
    table(tmp_path, "SkyScript_train_top30pct.csv", "images2/a.jpg,forest,\n")
    (tmp_path / "other.csv").write_text("a,b\n")
    assert texts(read_all(skyscript, tmp_path)[1][0]) == ["wood", "forest"]
    assert texts(read_all(skyscript, tmp_path / "SkyScript_train_top30pct.csv")[1][0]) == ["forest"]


def test_other_tables(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"filepath,title\n")
    (tmp_path / "u.csv").write_bytes(b"\xff\xfe\n")
    assert skyscript.find(tmp_path) is None
    table(tmp_path, "v.csv", 'a,"' + "x" * 200_000)
    with pytest.raises(DataError, match="field larger than field limit"):
        list(skyscript.list_entries(tmp_path))
