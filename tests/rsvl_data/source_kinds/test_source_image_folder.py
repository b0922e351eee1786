import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_tars import picture, read_all, texts

from rsvl_data.errors import DataError
from rsvl_data.sources import image_folder, open_source


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def put(path, colour=(1, 2, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(colour))


def test_official_fixture(shared):
    root = shared / "fixtures" / "formats" / "14_hf"
    expected = json.loads((root / "expected.json").read_text())["imagefolder"]
    source = open_source(root / "imagefolder")
    entries = list(source.entries())
    assert {split: sum(e.split == split for e in entries) for split in ("train", "test")} == expected["samples"]
    for split in ("train", "test"):
        first = expected[f"first_{split}"]
        sample = source.read(next(entry for entry in entries if entry.split == split))
        assert sample.sha256 == first["sha256"] and texts(sample) == first["captions"] and sample.label == first["label"]
        assert (sample.geo.lat, sample.geo.lon) == (first["lat"], first["lon"])
        assert sample.provenance.original_id == f"{split}/{first['file_name']}"


def test_one_split_of_it(shared):
    folder = shared / "fixtures" / "formats" / "14_hf" / "imagefolder" / "train"
    for path in (folder, folder / "metadata.jsonl"):
        source = open_source(path)
        assert source.name == "train" and len(list(source.entries())) == 6


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_every_table(tmp_path, suffix):
    put(tmp_path / "data" / "sub" / "a.jpg")
    table = tmp_path / "data" / f"metadata.{suffix}"
    row = {"file_name": "sub/a.jpg", "text": "a road", "latitude": 1.5, "longitude": -2.0, "license": "CC0"}
    if suffix == "jsonl":
        write_rows(table, [row])
    elif suffix == "csv":
        table.write_text(",".join(row) + "\n" + ",".join(map(str, row.values())))
    else:
        pq.write_table(pa.Table.from_pylist([row]), table)
    _, [sample], _ = read_all(image_folder, tmp_path)
    assert texts(sample) == ["a road"] and (sample.geo.lat, sample.geo.lon) == (1.5, -2)
    assert sample.label is None and sample.provenance.licence == "CC0"


@pytest.mark.parametrize(("folder", "found"), [("", 1), ("train", 1), ("data/train", 1), ("a/data/train", 0), (".git", 0)])
def test_how_deep_the_table_may_lie(tmp_path, folder, found):
    put(tmp_path / folder / "a.jpg")
    write_rows(tmp_path / folder / "metadata.jsonl", [{"file_name": "a.jpg", "text": "x"}])
    assert (image_folder.find(tmp_path) is not None) == found


def test_the_split_of_a_row(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nlicense: cc-by-4.0\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: validation\n    path: 'b/**'\n  - split: test\n    path: [c/*.jpg]\n---\n"
    )
    names = {
        "a/x.jpg": None,
        "b/y.jpg": "val",
        "b/z/y.jpg": "val",
        "c/x.jpg": "test",
        "train/b/x.jpg": "train",
        "c/w.jpg": "train",
    }
    for name in names:
        put(tmp_path / name)
    rows = [{"file_name": name, "text": "x", **({"split": "train"} if name == "c/w.jpg" else {})} for name in names]
    write_rows(tmp_path / "metadata.jsonl", rows)
    entries, samples, _ = read_all(image_folder, tmp_path)
    assert {entry.id: entry.split for entry in entries} == names
    assert {sample.provenance.licence for sample in samples} == {"cc-by-4.0"}


def test_labels_by_number_need_their_names(tmp_path):
    put(tmp_path / "a.jpg")
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "a.jpg", "label": 1}])
    _, _, [dropped] = read_all(image_folder, tmp_path)
    assert dropped.reason == "no_caption"
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': lake\n"
        "          '1': forest\n---\n"
    )
    _, [sample], _ = read_all(image_folder, tmp_path)
    assert sample.label == "forest" and sample.captions[0].kind == "label"


def test_rows_of_one_image_are_joined_and_bad_rows_counted(tmp_path):
    put(tmp_path / "train" / "a.jpg")
    write_rows(
        tmp_path / "train" / "metadata.jsonl",
        [
            {"file_name": "a.jpg", "text": "one"},
            {"file_name": "a.jpg", "text": "two"},
            {"file_name": "gone.jpg", "text": "x"},
            {"file_name": "../../../etc/passwd", "text": "x"},
            {"file_name": "/etc/passwd", "text": "x"},
            {"file_name": "a\0.jpg", "text": "x"},
            {"file_name": "y" * 2000, "text": "x"},
            {"file_name": None, "text": "x"},
            {"file_name": ["a.jpg"], "text": "x"},
            7,
        ],
    )
    _, [sample], dropped = read_all(image_folder, tmp_path)
    assert texts(sample) == ["one", "two"]
    assert [drop.reason for drop in dropped] == [
        "missing_file",
        "path_outside",
        "path_outside",
        "bad_path",
        "bad_path",
        "no_image",
        "no_image",
        "not_json",
    ]
    assert dropped[-1].key == "train/metadata.jsonl:10"


def test_captions_as_records_and_as_nonsense(tmp_path):
    put(tmp_path / "a.jpg")
    captions = [
        {"text": "de", "lang": "de", "kind": "vlm"},
        {"text": "other terms", "kind": "synthetic"},
        {"words": "none"},
        5,
        "plain",
        {"text": "parent", "parent": [1]},
    ]
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "a.jpg", "captions": captions, "text": " plain "}])
    _, [sample], _ = read_all(image_folder, tmp_path)
    assert [(c.text, c.lang, c.kind) for c in sample.captions] == [
        ("de", "de", "vlm"),
        ("other terms", "en", "human"),
        ("plain", "en", "human"),
        ("parent", "en", "human"),
    ]


@pytest.mark.parametrize(
    "position", [{"lat": 91, "lon": 0}, {"lat": "x", "lon": 0}, {"lat": 5}, {"lat": True, "lon": 1}, {"lat": None, "lon": 1}]
)
def test_a_position_is_whole_or_absent(tmp_path, position):
    put(tmp_path / "a.jpg")
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "a.jpg", "text": "x", **position}])
    _, [sample], _ = read_all(image_folder, tmp_path)
    assert sample.geo is None


def test_what_is_no_image_folder(tmp_path):
    put(tmp_path / "forest" / "a.jpg")
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "forest/a.jpg", "lat": 1}])  # says neither caption nor label
    assert image_folder.find(tmp_path) is None
    [entry] = open_source(tmp_path).entries()
    assert entry.facts["label"] == "forest"
    (tmp_path / "metadata.jsonl").write_text("")
    assert image_folder.find(tmp_path) is None and image_folder.find(tmp_path / "metadata.jsonl") is None
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "none")
