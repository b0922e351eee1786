import csv
import json

import pytest
from small_pictures import picture, read_all

from rsvl_data.errors import DataError
from rsvl_data.sample import Sample
from rsvl_data.sources import open_source

ROWS = [
    {"filepath": "a.png", "caption": "one, two", "license": "CC0", "lat": "12.5", "lon": "-3", "split": "train"},
    {"filepath": "a.png", "caption": "again", "license": "CC0", "lat": "12.5", "lon": "-3", "split": "train"},
    {"filepath": "b.png", "caption": "vue aérienne", "license": "", "lat": "", "lon": "nan", "split": ""},
]


def write_table(path):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables_of_every_kind_give_the_same(tmp_path, suffix):
    picture(tmp_path / "a.png")
    picture(tmp_path / "images" / "b.png")
    write_table(tmp_path / f"table{suffix}")
    (first_entry, first), (second_entry, second) = read_all(open_source(tmp_path))
    assert [c.text for c in first.captions] == ["one, two", "again"] and first_entry.split == "train"
    assert first.provenance.licence == "CC0" and (first.geo.lat, first.geo.lon) == (12.5, -3)
    assert [c.text for c in second.captions] == ["vue aérienne"] and second.geo is None and second_entry.split is None
    assert second.provenance.licence is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "picture,words\na,b\n", "row 1 has columns picture, words; none is"),
        ("t.csv", "image,caption,split\na.png,b,dev\n", "row 1 has split 'dev'"),
        ("t.jsonl", "[1, 2]\n", "line 1 is not a JSON object"),
        ("t.jsonl", '{"image": "a.png"}{"image": "b.png"}\n', "line 1 is not a JSON object"),
        ("t.jsonl", "[" * 100_000, "line 1 is not a JSON object"),
        ("t.jsonl", '{"image": "a.png", "caption": "\\ud83d"}\n', "surrogates not allowed"),
        ("t.csv", "", "is empty"),
        ("t.csv", "image,caption,Caption\na.png,b,c\n", "more than one column called caption"),
        ("t.csv", 'image,caption\na.png,"b\nb.png,c\n', "cannot be read as csv: unexpected end of data"),
        ("t.csv", "image,caption\na.png\n", "row 1 has 1 cells, the header has 2"),
        ("t.csv", "image,caption\na.png," + "x" * 16_000_000 + "\n", "has a line of 16000000 characters or more"),
        ("t.csv", "image,caption\na.png,\x81\x8d\n", "in no encoding we know"),
        ("t.parquet", "PAR1", "cannot be read as parquet"),
    ],
)
def test_bad_tables(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=message):
        list(open_source(tmp_path / name).entries())


@pytest.mark.parametrize(
    ("name", "bad", "reason", "number"),
    [
        ("t.jsonl", "not json", "not_json", 2),
        ("t.jsonl", "[1]", "not_json", 2),
        ("t.jsonl", '{"image": 5, "caption": "x"}', "wrong_type", 2),
        ("t.jsonl", '{"image": "a\\u0000.png", "caption": "x"}', "bad_path", 2),
        ("t.jsonl", '{"image": "a.png", "caption": 5}', "wrong_type", 2),
        ("t.jsonl", '{"image": "a.png", "caption": ["x", 5]}', "wrong_type", 2),
        ("t.jsonl", '{"image": "a.png", "caption": "x", "split": 5}', "wrong_type", 2),
        ("t.jsonl", '{"image": "a.png", "caption": "x", "lang": "English, mostly"}', "bad_lang", 2),
        ("t.jsonl", '{"caption": "x"}', "no_image", 2),
        ("t.csv", "a.png", "ragged_row", 1),
        ("t.csv", "a.png,x,y", "ragged_row", 1),
        ("t.csv", ",x", "no_image", 1),
        ("t.csv", "b.png," + "x" * 1_000_001, "caption_too_long", 1),
    ],
)
def test_a_bad_row_is_a_counted_drop(tmp_path, name, bad, reason, number):
    picture(tmp_path / "a.png")
    first, good = ("image,caption", "a.png,a road") if name == "t.csv" else ("", '{"image": "a.png", "caption": "a road"}')
    if name == "t.jsonl":  # the first line says what the columns are
        first, good = good, '{"image": "a.png", "caption": "two"}'
    (tmp_path / name).write_text(f"{first}\n{bad}\n{good}\n")
    (_, sample), (entry, dropped) = read_all(open_source(tmp_path))
    assert isinstance(sample, Sample) and entry.id == f"{name}:{number}"
    assert dropped.reason == reason and dropped.detail


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_how_spreadsheets_save(tmp_path, encoding, separator):
    picture(tmp_path / "a.png")
    rows = ["", " Image |CAPTION|lat|lon|", "a.png| 机场旁边有许多飞机 |48,5|2,2|", "| | ||"]
    (tmp_path / "t.csv").write_text(
        "\r\n".join(rows).replace(",", "." if separator == "," else ",").replace("|", separator), encoding
    )
    [(_, sample)] = read_all(open_source(tmp_path))
    assert sample.captions[0].text == "机场旁边有许多飞机" and (sample.geo.lat, sample.geo.lon) == (48.5, 2.2)


def test_utf_16_lines(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text('{"image": "a.png", "caption": "é"}\n' * 2, "utf-16")
    [(_, sample)] = read_all(open_source(tmp_path))
    assert [c.text for c in sample.captions] == ["é", "é"]


def test_an_encoding_is_told_from_a_part_that_ends_between_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("rsvl_data.table_rows._ENCODING_SAMPLE_BYTES", 30)
    picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("image,caption\na.png,x\na.png,ééééééééé\n")
    [(_, sample)] = read_all(open_source(tmp_path))
    assert [c.text for c in sample.captions] == ["x", "ééééééééé"]


@pytest.mark.parametrize(
    ("lat", "lon", "gsd_m", "geo"),
    [
        (95, 10, None, None),
        (10, 190, None, None),
        ("48.5N", 2, None, None),
        (48.5, None, None, None),
        (0, 0, 0.3, {"lat": 0.0, "lon": 0.0, "gsd_m": 0.3}),
        (None, None, -1, None),
    ],
)
def test_positions_off_the_globe_are_absent(tmp_path, lat, lon, gsd_m, geo):
    picture(tmp_path / "a.png")
    row = {"image": "a.png", "caption": "x", "lat": lat, "lon": lon, "gsd_m": gsd_m}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    [(_, sample)] = read_all(open_source(tmp_path))
    assert (sample.geo and sample.geo.model_dump(exclude_none=True)) == geo


def test_a_folder_or_an_endless_name_instead_of_an_image(tmp_path):
    (tmp_path / "t.csv").write_text("image,caption\n.,x\n" + "y" * 400 + ",x\n../../etc/passwd,x\n")
    assert [outcome.reason for _, outcome in read_all(open_source(tmp_path))] == [
        "unreadable_file",
        "bad_path",
        "path_outside",
    ]


def test_a_broken_table_does_not_hide_class_folders(tmp_path):
    picture(tmp_path / "forest" / "1.png")
    (tmp_path / "t.csv").write_bytes(b"")
    [(_, sample)] = read_all(open_source(tmp_path))
    assert sample.label == "forest"
