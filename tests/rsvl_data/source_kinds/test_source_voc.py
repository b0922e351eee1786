import json
import shutil

import pytest
from PIL import Image

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources import voc
from rsvl_data.stage import Dropped

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>30.5</ymax></bndbox>"


def dataset(root, documents, *, images=("scene",), size=(128, 128)):
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, document in documents.items():
        (root / "Annotations" / f"{stem}.xml").write_bytes(document if isinstance(document, bytes) else document.encode())
    for stem in images:
        Image.new("RGB", size).save(root / "JPEGImages" / f"{stem}.jpg")
    return root


def document(*objects, size="<size><width>128</width><height>128</height></size>", filename="scene.jpg"):
    return (
        f"<annotation><filename>{filename}</filename>{size}{''.join(f'<object>{item}</object>' for item in objects)}</annotation>"
    )


def read_all(root):
    source = voc.open(voc.find(root), root.name, ImageForm())
    entries = [type(entry)(entry.id, entry.split, json.loads(json.dumps(entry.facts))) for entry in source.entries()]
    return [(entry, source.read(entry)) for entry in entries]


def test_fixture(shared):
    folder = shared / "fixtures" / "formats" / "09_boxes"
    expected = json.loads((folder / "expected.json").read_text())["voc"]
    read = read_all(folder / "voc")
    splits = [entry.split for entry, _ in read]
    assert {split: splits.count(split) for split in splits} == expected["by_split"]
    regions = [region for _, sample in read for region in sample.regions]
    assert (len(read), len(regions)) == (expected["samples"], expected["regions"])
    assert sum(region.difficult for region in regions) == expected["difficult"]
    first = [{"bbox": list(region.bbox), "category": region.category} for region in read[0][1].regions]
    assert read[0][0].id == "000100" and first == expected["first"]["regions"]


def test_bad_files_of_the_fixture(shared, tmp_path):
    folder = shared / "fixtures" / "bad"
    cases = [
        case for case in json.loads((folder / "expected.json").read_text())["files"] if case["file"].startswith("boxes/voc_")
    ]
    assert len(cases) == 10
    for case in cases:
        root = dataset(tmp_path / case["file"], {"scene": (folder / case["file"]).read_bytes()}, images=())
        shutil.copy(folder / "boxes" / "scene.jpg", root / "JPEGImages")
        [(_, outcome)] = read_all(root)
        if case.get("reason") in ("unsafe_xml", "not_xml"):
            assert isinstance(outcome, Dropped) and outcome.reason == case["reason"], case
        elif case["outcome"] == "reject":
            assert outcome.regions == [] and outcome.scores == {"regions_dropped": 1}, case
        elif case["outcome"] == "repair":
            assert len(outcome.regions) == 1 and set(outcome.scores) < {"regions_repaired", "size_unstated"}, case
            assert outcome.regions[0].bbox in ((100, 100, 128, 128), (1, 1, 20, 20))
        else:
            assert list(outcome.regions[0].bbox) == case["bbox"] and outcome.scores == {}, case


def test_boxes_and_difficult(tmp_path):
    document_ = document(f"<name>tennis_court</name><difficult>1</difficult>{BOX}", f"{BOX}<name> storage  tank </name>")
    [(entry, sample)] = read_all(dataset(tmp_path, {"scene": document_}))
    assert entry.split is None
    assert [(r.category, r.bbox, r.difficult) for r in sample.regions] == [
        ("tennis_court", (1, 2, 20, 30.5), 1),
        ("storage tank", (1, 2, 20, 30.5), 0),
    ]
    assert sample.captions[0].text == "an aerial image with one storage tank and one tennis court."


@pytest.mark.parametrize(
    "broken",
    [BOX, "<name>ship</name>", "<name> </name>" + BOX, "<name>-</name>" + BOX, "<name>a</name>" + BOX.replace("20", "x")],
)
def test_bad_objects_are_counted(tmp_path, broken):
    [(_, sample)] = read_all(dataset(tmp_path, {"scene": document(f"<name>ship</name>{BOX}", broken)}))
    assert len(sample.regions) == 1 and sample.scores == {"regions_dropped": 1}
    assert sample.captions[0].text == "an aerial image with objects of the kind ship."


@pytest.mark.parametrize(
    "text",
    [
        b'<!DOCTYPE a [<!ENTITY x "y">]><annotation/>',
        b"<!doctype a><annotation/>",
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY x "y">]><annotation/>'.encode("utf-16"),
    ],
)
def test_document_types_are_refused(tmp_path, text):
    [(_, dropped)] = read_all(dataset(tmp_path, {"scene": text}))
    assert dropped.reason == "unsafe_xml"


@pytest.mark.parametrize("text", [b"", b"<annotation>", b"\xff\x00", b'<?xml version="1.0" encoding="nowhere"?><annotation/>'])
def test_no_xml(tmp_path, text):
    [(_, dropped)] = read_all(dataset(tmp_path, {"scene": text}))
    assert dropped.reason == "not_xml"


@pytest.mark.parametrize(
    ("size", "scores"),
    [("", {"size_unstated": 1}), ("<size><width>inf</width><height>1</height></size>", {"size_unstated": 1})],
)
def test_sizes_that_are_none(tmp_path, size, scores):
    [(_, sample)] = read_all(dataset(tmp_path, {"scene": document(size=size)}))
    assert sample.scores == scores and sample.captions[0].text == "an aerial image."


def test_another_size(tmp_path):
    [(_, dropped)] = read_all(dataset(tmp_path, {"scene": document()}, size=(64, 128)))
    assert dropped.reason == "size_mismatch" and "64 x 128" in dropped.detail


def test_names_and_missing_files(tmp_path):
    root = dataset(
        tmp_path,
        {
            "1": document(),
            "2": document(filename="../../etc/passwd"),
            "3": document(filename=""),
            "4": document(filename="4.jpg"),
        },
        images=("scene", "unlabelled"),
    )
    outcomes = {entry.id: outcome for entry, outcome in read_all(root)}
    assert outcomes.pop("1").width == 128  # the image that `filename` says
    assert {name: outcome.reason for name, outcome in outcomes.items()} == {
        "2": "path_outside",
        "3": "missing_file",
        "4": "missing_file",
        "scene": "no_annotation",  # no XML of that name: which image another XML means is not known before it is read
        "unlabelled": "no_annotation",
    }


def test_the_later_split_wins(tmp_path):
    root = dataset(tmp_path, {"a": document(), "b": document(), "c": document()}, images="abc")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, text in (("train", "a\nb\n\n"), ("test", "b  1\n"), ("ship_train", "c 1\n"), ("trainval", "c\n")):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)
    assert {entry.id: entry.split for entry, _ in read_all(root)} == {"a": "train", "b": "test", "c": None}


def test_a_split_that_is_no_text(tmp_path):
    root = dataset(tmp_path, {"scene": document()})
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="train.txt is not UTF-8"):
        read_all(root)


def test_other_folders_are_not_taken(tmp_path):
    (tmp_path / "Annotations").mkdir()
    assert voc.find(tmp_path) is None and voc.find(tmp_path / "nowhere") is None
