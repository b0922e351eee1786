import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsvl_data.downloading.url_tables import read_url_table
from rsvl_data.errors import DataError

ROWS = [
    {"url": "http://a.test/1", "caption": 'a "bridge",\nlong', "licence": "CC0", "lat": 1.5, "lon": -2.5},
    {"url": "http://a.test/2", "caption": "机场", "licence": None, "lat": None, "lon": None},
]


def write(folder, name, rows=ROWS):
    path = folder / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    kind = name.removesuffix(".gz").rpartition(".")[2]
    with (gzip.open if name.endswith(".gz") else open)(path, "wt", newline="", encoding="utf-8") as file:
        if kind == "json":
            json.dump(rows, file)
        elif kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def as_given(row):
    names = ("licence", "lat", "lon")
    return {"url": row.url, "caption": row.captions[0], **{name: row.facts.get(name) for name in names}}


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.csv.gz", "t.jsonl.gz", "T.JSON.gz"])
def test_all_forms_give_the_same_rows(tmp_path, name):
    path = write(tmp_path, name.lower())
    assert [as_given(row) for row in read_url_table(path)] == ROWS


def test_official_fixture(shared):
    folder = shared / "fixtures" / "formats" / "07_tables"
    expected = json.loads((folder / "expected.json").read_text())
    for name in expected["files"]:
        assert [as_given(row) for row in read_url_table(folder / name)] == expected["rows"], name
    laion = [as_given(row) | {"lat": 0, "lon": 0} for row in read_url_table(folder / "laion_columns.parquet")]
    assert laion == [row | {"lat": 0, "lon": 0} for row in expected["rows"]]


def test_bad_tables_of_the_official_fixture(shared):
    folder = shared / "fixtures" / "bad"
    for case in json.loads((folder / "expected.json").read_text())["files"]:
        if not case["file"].startswith("tables/"):
            continue
        try:
            rows = [row for row in read_url_table(folder / case["file"]) if not row.fault and row.url]
            outcome = "accept" if rows or case.get("rows") == 0 else "reject"
        except DataError as error:
            assert "\n" not in str(error)
            rows, outcome = [], "reject"
        allowed = {case["outcome"], *case.get("also_ok", [])}
        assert outcome in allowed or (outcome == "accept" and "repair" in allowed), case["file"]
        if outcome == "accept" and case["outcome"] != "reject":
            assert len(rows) == case["rows"], case["file"]


def test_names_of_laion_and_others(tmp_path):
    rows = [{"URL": "http://a.test/1", "TEXT": "x", "LICENSE": "?", "LANGUAGE": "de", "latitude": "95", "longitude": "3"}]
    [row] = read_url_table(write(tmp_path, "t.csv", rows))
    assert (row.captions, row.facts) == (["x"], {"lang": "de"})  # "?" is unknown, 95 is off the globe
    [row] = read_url_table(write(tmp_path, "t.csv", [{"address": "u", "words": "w"}]), "address", "words")
    assert (row.url, row.captions) == ("u", ["w"])
    [row] = read_url_table(write(tmp_path, "t.jsonl", [{"image_url": "u", "captions": ["a", " ", "b"], "split": "valid"}]))
    assert (row.captions, row.facts) == (["a", "b"], {"split": "val"})


@pytest.mark.parametrize(
    ("name", "content", "faults"),
    [
        ("t.csv", "url,caption\nu,c\nu\nu,c,d\n", ["", "ragged_row", "ragged_row"]),
        ("t.jsonl", '{"url": "u", "caption": "c"}\n[]\n{"url"\n\n{"url": 1}\n', ["", "not_json", "not_json", "wrong_type"]),
        ("t.json", '[{"url": "u", "caption": ""}, {"url": "u", "label": "river"}]', ["no_caption", ""]),
        ("t.csv", "url;caption\nu;a, b\n", [""]),
    ],
)
def test_bad_rows_do_not_vanish(tmp_path, name, content, faults):
    (tmp_path / name).write_text(content)
    assert [row.fault.reason if row.fault else "" for row in read_url_table(tmp_path / name)] == faults


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"address,caption\nx,y\n", "no column of URLs; it has 'address', 'caption'"),
        ("t.csv", b"url,url,caption\n1,2,3\n", "more than one column called url"),
        ("t.csv", b"url,caption\nu,\x81\x8d\n", "in no encoding we know"),
        ("t.csv", b'url,caption\nu,"never closed\nu,b\n', "cannot be read as csv: unexpected end"),
        ("t.jsonl", b'{"url": "u", "caption": "c", "split": "odd"}\n', "row 1 has split 'odd'"),
        ("t.json", b'{"url": "u"}', "holds one JSON dict"),
        ("t.json", b"[" * 100_000, "is not JSON"),
        ("t.csv.gz", b"url,caption\n", "not whole gzip"),
        ("t.csv.gz", gzip.compress(b"url,caption\n" + b"u,c\n" * 500, mtime=0)[:-12], "not whole gzip"),
        ("t.csv.gz", gzip.compress(b"url," + b"x" * 20_000_000, mtime=0), "a line of 16000000 characters or more"),
        ("t.parquet", b"PAR1PAR1PAR1", "cannot be read as parquet"),
        ("t.xlsx", b"x", "unknown ending"),
    ],
)
def test_files_of_another_form(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        list(read_url_table(tmp_path / name))
