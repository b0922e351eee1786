import io
import json

import numpy as np
import pytest
from PIL import Image

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources import referring
from rsvl_data.stage import Dropped

RUNS = {"size": [6, 8], "counts": [12, 4, 2, 4, 26]}  # columns 2 and 3, rows 0 to 3


def read_all(path):
    source = referring.open(referring.find(path), path.name, ImageForm())
    entries = [type(entry)(entry.id, entry.split, json.loads(json.dumps(entry.facts))) for entry in source.entries()]
    return [(entry, source.read(entry)) for entry in entries]


def area(sample):
    with Image.open(io.BytesIO(sample.mask)) as image:
        pixels = np.asarray(image)
    assert set(np.unique(pixels)) <= {0, 1} and pixels.shape == (sample.height, sample.width)
    return int(pixels.sum())


def rrsisd(root, *, target=None, ref=None, categories=({"id": 0, "name": "ship"},)):
    (root / "images" / "JPEGImages").mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(root / "images" / "JPEGImages" / "a.jpg")
    row = {
        "id": 4,
        "image_id": 0,
        "bbox": [2, 0, 4, 4],
        "area": 99999,
        "segmentation": [RUNS],
        "categories_id": 0,
        **(target or {}),
    }
    instances = {"images": [], "annotations": [{key: value for key, value in row.items() if value != "absent"}]}
    (root / "instances.json").write_text(json.dumps({**instances, "categories": list(categories)}))
    sentences = [{"sent": "the ship on the left", "raw": "The ship"}]
    refs = [{"ref_id": 3, "ann_id": 4, "file_name": "a.jpg", "split": "val", "sentences": sentences, **(ref or {})}]
    (root / "refs_unc.json").write_text(json.dumps(refs))
    return root


def test_rrsisd_fixture(shared):
    folder = shared / "fixtures" / "formats" / "13_referring"
    expected = json.loads((folder / "expected.json").read_text())["rrsisd"]
    read = read_all(folder / "rrsisd")
    splits = [entry.split for entry, _ in read]
    assert {split: splits.count(split) for split in splits} == expected["by_split"] and len(read) == expected["samples"]
    samples = {entry.id.partition("#")[2]: outcome for entry, outcome in read}
    dropped = samples.pop(str(expected["zero_area_mask"]["ref_id"]))
    assert isinstance(dropped, Dropped) and dropped.reason == "empty_mask" and len(samples) == 8
    first, wanted = samples["0"], expected["first"]
    [region] = first.regions
    assert first.captions[0].text == region.caption == wanted["sentence"] and first.captions[0].kind == "human"
    assert (list(region.bbox), region.category, first.sha256) == (wanted["bbox"], wanted["category"], wanted["sha256"])
    assert area(first) == region.area_px == wanted["mask_area_px"]
    assert area(samples[str(expected["wrong_area_field"]["ann_id"])]) == expected["wrong_area_field"]["mask_area_px"]
    assert {sample.regions[0].category for sample in samples.values()} <= set(expected["classes"])


def test_refsegrs_fixture(shared):
    folder = shared / "fixtures" / "formats" / "13_referring"
    expected = json.loads((folder / "expected.json").read_text())["refsegrs"]
    read = read_all(folder / "refsegrs")
    splits = [entry.split for entry, _ in read]
    assert {split: splits.count(split) for split in splits} == expected["samples"]
    [first] = [sample for entry, sample in read if entry.id.startswith("0#")]
    assert first.captions[0].text == expected["first"]["sentence"] and area(first) == expected["first"]["mask_area_px"]
    assert len({sample.key for _, sample in read}) == 7  # two phrases of one image


def test_real_refs(shared):
    pytest.importorskip("pycocotools")
    read = read_all(shared / "data" / "nwpu_vhr10")
    assert len(read) == 54 and {entry.split for entry, _ in read} == {"train", "val"}
    for _, sample in read:
        x0, y0, x1, y1 = sample.regions[0].bbox
        assert 0 < area(sample) <= (x1 - x0 + 1) * (y1 - y0 + 1)


@pytest.mark.parametrize(
    ("target", "box", "scores"),
    [
        ({}, (2, 0, 4, 4), {}),
        ({"categories_id": "absent", "category_id": 0}, (2, 0, 6, 4), {}),
        ({"bbox": [1, 0, 40, 4]}, (1, 0, 8, 4), {"regions_repaired": 1}),
        ({"bbox": [0, 0, 0, 0]}, (2, 0, 4, 4), {"regions_repaired": 1}),
        ({"bbox": "absent"}, (2, 0, 4, 4), {"regions_repaired": 1}),
    ],
)
def test_boxes(tmp_path, target, box, scores):
    [(entry, sample)] = read_all(rrsisd(tmp_path, target=target))
    assert (entry.id, entry.split) == ("a.jpg#3", "val") and area(sample) == 8
    assert sample.regions[0].bbox == box and sample.regions[0].area_px == 8 and sample.scores == scores


def test_several_sentences(tmp_path):
    sentences = [{"sent": " "}, {"sent": "the  ship"}, {"sent": "a boat"}]
    [(_, sample)] = read_all(rrsisd(tmp_path, ref={"sentences": sentences}))
    assert [c.text for c in sample.captions] == ["the ship", "a boat"] and sample.regions[0].caption == "the ship"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target": {"segmentation": [{"size": [6, 8], "counts": [48]}]}}, "empty_mask"),
        ({"target": {"segmentation": [{"size": [8, 6], "counts": [0, 48]}]}}, "size_mismatch"),
        ({"target": {"segmentation": None}}, "bad_rle"),
        ({"target": {"segmentation": "absent"}}, "bad_rle"),
        ({"target": {"categories_id": 7}}, "bad_reference"),
        ({"categories": [{"id": 0}]}, "bad_reference"),
        ({"ref": {"ann_id": 99}}, "bad_reference"),
        ({"ref": {"ann_id": [4]}}, "bad_reference"),
        ({"ref": {"sentences": None}}, "bad_reference"),
        ({"ref": {"sentences": [{"sent": None}]}}, "bad_reference"),
        ({"ref": {"sentences": []}}, "no_caption"),
        ({"ref": {"file_name": None}}, "bad_reference"),
        ({"ref": {"file_name": "gone.jpg"}}, "missing_file"),
        ({"ref": {"file_name": "../../../../../../etc/passwd"}}, "path_outside"),
    ],
)
def test_bad_refs_are_counted(tmp_path, changes, reason):
    [(_, dropped)] = read_all(rrsisd(tmp_path, **changes))
    assert isinstance(dropped, Dropped) and dropped.reason == reason


def test_a_ref_given_twice(tmp_path):
    root = rrsisd(tmp_path)
    refs = json.loads((root / "refs_unc.json").read_text())
    (root / "refs_unc.json").write_text(json.dumps({"refs": refs * 2}))
    [(_, first), (_, second)] = read_all(root)
    assert area(first) == 8 and second.reason == "duplicate_id"


def test_the_pickle_is_not_read(tmp_path):
    root = rrsisd(tmp_path)
    (root / "refs_unc.json").unlink()
    (root / "refs(unc).p").write_bytes(b"anything")
    with pytest.raises(DataError, match=r"refs\(unc\).p is a pickle, which can run any code"):
        referring.open(referring.find(root), "x", ImageForm())


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '{"refs": 3}'])
def test_files_of_another_form(tmp_path, text):
    root = rrsisd(tmp_path)
    (root / "refs_unc.json").write_text(text)
    with pytest.raises(DataError, match=r"Expected instances.json beside refs\*.json"):
        read_all(root)


def refsegrs(root, lines, images=("0", "11"), masks=("0", "11")):
    for folder, names, mode in (("images", images, "RGB"), ("masks", masks, "L")):
        (root / folder).mkdir()
        for name in names:
            image = Image.new(mode, (8, 6))
            image.paste((1, 1, 1) if mode == "RGB" else 1, (0, 0, 2, 3))
            image.save(root / folder / f"{name}.tif")
    (root / "output_phrase_train.txt").write_bytes(lines)
    return root


def test_refsegrs_lines(tmp_path):
    read = read_all(refsegrs(tmp_path, b"0 road along  the trees\r\n11 street\n\n11 street\n", masks=("0", "11")))
    assert [(entry.split, sample.captions[0].text, area(sample)) for entry, sample in read] == [
        ("train", "road along the trees", 6),
        ("train", "street", 6),
        ("train", "street", 6),
    ]
    assert len({sample.key for _, sample in read}) == 3


def test_refsegrs_lines_that_lead_nowhere(tmp_path):
    root = refsegrs(tmp_path, b"0\n11 street\n5 road\n../masks/0 road\n", masks=("0",))
    assert [outcome.reason for _, outcome in read_all(root)] == ["no_caption", "no_mask", "missing_file", "missing_file"]
    (root / "output_phrase_test.txt").write_bytes(b"0 \xff\n")
    with pytest.raises(DataError, match="output_phrase_test.txt is not UTF-8"):
        read_all(root)
