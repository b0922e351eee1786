import csv
import hashlib
import io
import json

import pytest
from PIL import Image

from rsvl_data.errors import DataError, OptionError
from rsvl_data.image_form import ImageForm
from rsvl_data.sample import Sample
from rsvl_data.sources import open_source
from rsvl_data.sources.base import captions_of, make_sample
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
        {"filename": "/etc/passwd", "split": "test", "sentences": [{"raw": "x"}]},
        {"filename": "y" * 400, "split": "test", "sentences": [{"raw": "x"}]},
    )
    reasons = ["missing_file", "no_caption", "path_outside", "path_outside", "unreadable_file"]
    assert [outcome.reason for _, outcome in read_all(source)] == reasons


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "Karpathy"), ('{"pictures": []}', "Karpathy"), ('{"images": [{"split": "train"}]}', "image 0 lacks 'filename'")],
)
def test_karpathy_of_another_form(tmp_path, content, message):
    (tmp_path / "dataset_x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        list(open_source(tmp_path).entries())


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "x",
        {"filename": "a.png"},
        {"filename": 5, "sentences": []},
        {"filename": "a\0.png", "sentences": []},
        {"filename": "a.png", "sentences": "a road"},
        {"filename": "a.png", "sentences": [{"raw": None}]},
        {"filename": "a.png", "sentences": [{"raw": "\ud83d"}]},
        {"filename": "a.png", "sentences": [], "class": 7},
        {"filename": "a.png", "sentences": [], "split": 7},
    ],
)
def test_karpathy_one_bad_record(tmp_path, bad):
    picture(tmp_path / "images" / "here.png")
    source = karpathy(tmp_path, bad, {"filename": "here.png", "sentences": [{"raw": " a  road "}]})
    (_, dropped), (_, sample) = read_all(source)
    assert dropped.reason == "bad_record" and "image 0" in dropped.detail and sample.captions[0].text == "a road"


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"images": {"a": 1}}', '{"images": ["Größe é'.encode("latin-1"), b"\xff\xfea"]
)
def test_karpathy_hostile_files(tmp_path, content):
    (tmp_path / "dataset_x.json").write_bytes(content)
    with pytest.raises(DataError, match="not in Karpathy's form"):
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
    monkeypatch.setattr("rsvl_data.sources.table._ENCODING_SAMPLE_BYTES", 30)
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
        "unreadable_file",
        "path_outside",
    ]


def test_a_broken_table_does_not_hide_class_folders(tmp_path):
    picture(tmp_path / "forest" / "1.png")
    (tmp_path / "t.csv").write_bytes(b"")
    [(_, sample)] = read_all(open_source(tmp_path))
    assert sample.label == "forest"


# --- words, whatever the source


def test_captions_are_cleaned_and_what_is_dropped_is_counted(tmp_path):
    picture(tmp_path / "a.png")
    captions = ["<p>a road", "null", "", "https://x.org", "a b\u202eridge"]
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.png", "captions": captions}))
    [(_, sample)] = read_all(open_source(tmp_path))
    assert [c.text for c in sample.captions] == ["a road", "a bridge"] and sample.scores == {"captions_dropped": 2.0}


@pytest.mark.parametrize(
    ("caption", "label", "reason"),
    [("null", None, "caption_placeholder"), ("", None, "no_caption"), ("null", "__", "caption_placeholder")],
)
def test_no_caption_left(tmp_path, caption, label, reason):
    picture(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.png", "caption": caption, "label": label}))
    [(_, dropped)] = read_all(open_source(tmp_path))
    assert dropped.reason == reason


def test_a_label_speaks_where_the_captions_were_dropped(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.png", "caption": "nan", "label": "golf_course"}))
    [(_, sample)] = read_all(open_source(tmp_path))
    assert len(sample.captions) == 5 and sample.scores == {"captions_dropped": 1.0}


def test_a_parent_follows_its_caption():
    given = ["null", "a road", {"text": "eine Straße", "lang": "de", "parent": 1}, {"text": "x road", "parent": 0}]
    captions, refused = captions_of(given, None)
    assert [c.parent for c in captions] == [None, 0, None] and refused == ["caption_placeholder"]


def test_what_a_record_cannot_hold_is_a_counted_drop(tmp_path):
    picture(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for more in ({"geo": {"acquired": "yesterday"}}, {"captions": [{"text": "x", "lang": "e"}]}, {"geo": {"lat": 95}}):
        words = {"captions": ["x"], **more}
        dropped = make_sample(content, "a", dataset="t", label=None, image_form=ImageForm("png"), **words)
        assert dropped.reason == "bad_record" and ("acquired" in dropped.detail or "l" in dropped.detail)


def test_an_applied_orientation_is_recorded():
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("RGB", (8, 6)).save(out, "PNG", exif=exif)
    sample = make_sample(out.getvalue(), "a", dataset="t", captions=["x"], label=None, image_form=ImageForm("png"))
    assert (sample.width, sample.height) == (6, 8) and sample.scores == {"exif_orientation": 6.0}


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
