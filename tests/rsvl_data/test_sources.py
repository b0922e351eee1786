import csv
import hashlib
import json

import pytest
from PIL import Image

from rsvl_data.errors import DataError, OptionError
from rsvl_data.sample import Sample
from rsvl_data.sources import open_source
from rsvl_data.stage import Dropped


def picture(path, colour=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def read_all(source):
    return [(entry, source.read(entry)) for entry in source.entries()]


# --- class folders


def test_class_folders_with_official_fixture(shared):
    root = shared / "fixtures" / "formats" / "08_class_folders"
    expected = json.loads((root / "expected.json").read_text())["sets"]
    for name in ("camel", "underscore"):
        samples = [sample for _, sample in read_all(open_source(root / name))]
        counts: dict[str, int] = {}
        for sample in samples:
            counts[sample.label] = counts.get(sample.label, 0) + 1
        assert len(samples) == expected[name]["samples"] and counts == expected[name]["per_class"]
        assert sorted(counts) == expected[name]["classes_raw"]
        first = expected[name]["first"]
        assert first["sha256"] in {hashlib.sha256(s.image).hexdigest() for s in samples if s.label == first["label_raw"]}
    splits: dict[str, int] = {}
    for entry in open_source(root / "split_mixed").entries():
        splits[entry.split] = splits.get(entry.split, 0) + 1
    assert splits == expected["split_mixed"]["samples"]


def test_splits_csv_and_stray_files(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.PNG"):
        picture(tmp_path / "images" / name)
    (tmp_path / "images" / "a" / "Thumbs.db").write_text("x")
    (tmp_path / "images" / ".DS_Store").write_text("x")
    with (tmp_path / "splits.csv").open("w") as file:
        csv.writer(file).writerows([["filename", "split"], ["1.png", "train"], ["b/3.PNG", "valid"]])
    entries = {entry.id: entry.split for entry in open_source(tmp_path, "class-folders").entries()}
    assert entries == {"a/1.png": "train", "a/2.png": None, "b/3.PNG": "val"}


def test_label_becomes_five_captions(tmp_path):
    picture(tmp_path / "golf_course" / "1.png")
    [(_, sample)] = read_all(open_source(tmp_path))
    assert sample.label == "golf_course" and len({c.text for c in sample.captions}) == 5
    assert all("golf course" in c.text and c.kind == "label" for c in sample.captions)


# --- Karpathy JSON


def test_karpathy_with_official_fixture(shared):
    root = shared / "fixtures" / "formats" / "06_rsicd_karpathy"
    expected = json.loads((root / "expected.json").read_text())
    read = read_all(open_source(root))
    assert len(read) == expected["samples"]
    assert sum(len(sample.captions) for _, sample in read) == expected["sentences"]
    splits = [entry.split for entry, _ in read]
    assert {split: splits.count(split) for split in set(splits)} == expected["by_split"]
    first = read[0][1]
    assert [c.text for c in first.captions] == expected["first"]["captions"] and first.sha256 == expected["first"]["sha256"]


def karpathy(tmp_path, *images):
    (tmp_path / "dataset_x.json").write_text(json.dumps({"images": list(images)}))
    return open_source(tmp_path)


def test_karpathy_missing_file_and_no_sentence(tmp_path):
    picture(tmp_path / "images" / "here.png")
    source = karpathy(
        tmp_path,
        {"filename": "gone.png", "split": "train", "sentences": [{"raw": "x"}]},
        {"filename": "here.png", "split": "test", "sentences": []},
        {"filename": "../../etc/passwd", "split": "test", "sentences": [{"raw": "x"}]},
    )
    assert [outcome.reason for _, outcome in read_all(source)] == ["missing_file", "no_caption", "path_outside"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "Karpathy"), ('{"pictures": []}', "Karpathy"), ('{"images": [{"split": "train"}]}', "image 0 lacks 'filename'")],
)
def test_karpathy_of_another_form(tmp_path, content, message):
    (tmp_path / "dataset_x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        list(open_source(tmp_path).entries())


def test_karpathy_unknown_split(tmp_path):
    source = karpathy(tmp_path, {"filename": "a.png", "split": "dev", "sentences": [{"raw": "x"}]})
    with pytest.raises(DataError, match="a.png has split 'dev'; allowed are train"):
        list(source.entries())


# --- tables

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
        ("t.jsonl", '{"image": "a.png"}\nnot json\n', "line 2 is not a JSON object"),
        ("t.jsonl", "[1, 2]\n", "line 1 is not a JSON object"),
    ],
)
def test_bad_tables(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        list(open_source(tmp_path / name).entries())


# --- all kinds


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: (p / "notes.txt").write_text("x"), lambda p: (p / "empty class").mkdir()]
)
def test_nothing_to_import(tmp_path, make):
    make(tmp_path)
    with pytest.raises(DataError, match="holds nothing that can be imported"):
        open_source(tmp_path)


def test_missing_path_and_wrong_format(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    picture(tmp_path / "forest" / "1.png")
    with pytest.raises(OptionError, match="karpathy: dataset_"):
        open_source(tmp_path, "karpathy")


def test_one_unreadable_image_is_a_counted_drop(tmp_path):
    picture(tmp_path / "forest" / "1.png")
    (tmp_path / "forest" / "2.jpg").write_bytes(b"no image")
    outcomes = [outcome for _, outcome in read_all(open_source(tmp_path))]
    assert isinstance(outcomes[0], Sample)
    assert isinstance(outcomes[1], Dropped) and outcomes[1].reason == "not_an_image" and "2.jpg" in outcomes[1].detail


# --- what `datasets` loads


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_that_datasets_loads(tmp_path, monkeypatch):
    """`hub:org/name` takes the same way: datasets.load_dataset, then rows."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for split, label, number in [("train", "forest", 0), ("train", "river", 1), ("test", "forest", 2)]:
        picture(tmp_path / "set" / split / label / f"{number}.png", (number, 0, 0))
    read = read_all(open_source(tmp_path / "set", "hugging-face"))
    assert [(entry.split, sample.label) for entry, sample in read] == [
        ("train", "forest"),
        ("train", "river"),
        ("test", "forest"),
    ]
    assert all(sample.captions[0].kind == "label" for _, sample in read)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_captions_of_a_datasets_table(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    picture(folder / "a.png")
    (folder / "metadata.jsonl").write_text(
        json.dumps({"file_name": "a.png", "captions": ["one", " two  words "], "text": "three"}) + "\n"
    )
    [(_, sample)] = read_all(open_source(folder, "hugging-face"))
    assert [c.text for c in sample.captions] == ["one", "two words", "three"]


def test_a_hub_name_that_cannot_be_loaded(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="load_dataset\\('nobody/nothing'\\) failed"):
        list(open_source("hub:nobody/nothing").entries())
