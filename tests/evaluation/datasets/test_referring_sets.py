"""Referring sets on small trees in the layouts of their authors, and on phrases made by rule over real data."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from small_trees import grow

from evaluation.datasets.referring_sets import open_referring
from rsvl_data.errors import DataError, OptionError


def file(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(out, kind)
    return out.getvalue()


IMAGE = file(np.zeros((3, 4, 3)))
TIFF = file(np.zeros((3, 4, 3)), "TIFF")
TARGET = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
RUNS = {"size": [3, 4], "counts": [4, 1, 1, 2, 4]}  # column by column


def ref(number, split, file_name="1.jpg", ann_id=7, **more):
    sentences = [{"sent": "the dam", "sent_id": 0}, {"sent": "a dam", "sent_id": 1}]
    return {"ref_id": number, "split": split, "file_name": file_name, "ann_id": ann_id, "sentences": sentences} | more


def rrsis_d(refs, name="refs(unc).p", runs=RUNS):
    instances = {
        "images": [],
        "annotations": [{"id": 7, "categories_id": 8, "segmentation": [runs], "bbox": [1, 0, 3, 2], "area": 999}],
        "categories": [{"id": 8, "name": "dam"}],
    }
    content = pickle.dumps(refs) if name.endswith(".p") else json.dumps(refs)
    return {
        "RRSIS-D/rrsisd/instances.json": instances,
        f"RRSIS-D/rrsisd/{name}": content,
        "RRSIS-D/images/rrsisd/JPEGImages/1.jpg": IMAGE,
    }


@pytest.mark.parametrize("name", ["refs(unc).p", "refs(unc).json"])
def test_rrsis_d(tmp_path, name):
    data = open_referring("RRSIS-D", grow(tmp_path, rrsis_d([ref(3, "train"), ref(4, "test")], name)))
    assert (data.split, [item.key for item in data.items]) == ("test", ["1_4_0", "1_4_1"])
    assert data.items[1].captions == (("a dam", "en"),)
    assert (data.items[0].label, data.classes, list(data.image_of)) == ("dam", ("dam",), [0, 0])
    assert (data.mask(0) == TARGET).all() and data.mask(0).dtype == bool
    assert "2 phrases here, 3,481 as published" in data.note
    assert data.image(0) == IMAGE
    before, image = data.sha256(), tmp_path / "RRSIS-D/images/rrsisd/JPEGImages/1.jpg"
    image.write_bytes(IMAGE[:-1] + bytes([IMAGE[-1] ^ 1]))
    os.utime(image, ns=(0, 0))  # clocks of file systems may be coarse
    assert data.sha256() != before
    assert len(open_referring("rrsis-d", tmp_path, "train").items) == 2


def test_a_pickle_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Image.new, ("RGB", (1, 1)))

    with pytest.raises(DataError, match=r"not the pickle of plain lists .*: it names PIL\.Image\.new, and could run it"):
        open_referring("rrsis-d", grow(tmp_path, rrsis_d([Evil()])))
    grow(tmp_path, {"RRSIS-D/rrsisd/refs(unc).p": b"no pickle"})
    with pytest.raises(DataError, match="not the pickle of plain lists"):
        open_referring("rrsis-d", tmp_path)


def test_refsegrs(tmp_path):
    files = {f"RefSegRS/{folder}/{n}.tif": TIFF for folder in ("images", "masks") for n in (12, 13)}
    files |= {
        "RefSegRS/output_phrase_test.txt": "12 road\n\n12 vehicle on the road\n13 road\n",
        "RefSegRS/masks/12.tif": file(TARGET * 255, "TIFF"),
    }
    data = open_referring("refsegrs", grow(tmp_path, files))
    assert [(item.key, item.captions[0][0]) for item in data.items] == [
        *(("12_1", "road"), ("12_3", "vehicle on the road"), ("13_4", "road")),
    ]
    assert (data.mask(0) == TARGET).all() and not data.mask(2).any()
    assert list(data.image_of) == [0, 0, 1]


@pytest.mark.parametrize("image", ["val_11_4.png", "val_11.png"])
def test_risbench(tmp_path, image):
    files = {f"RISBench/img_rgb/{image}": IMAGE, "RISBench/mask/val_11_4.png": file(TARGET * 255)}
    data = open_referring("risbench", grow(tmp_path, files | {"RISBench/output_phrase_val.txt": "val_11_4.png The dam, left.\n"}))
    assert (data.split, data.items[0].key, data.image(0)) == ("val", "val_11_4_1", IMAGE)
    assert (data.mask(0) == TARGET).all()


def test_lines_of_json(tmp_path):
    record = {"split": "test", "image_id": 1, "sent": "the dam", "file_name": "1.png", "segmentation": RUNS}
    lines = [record, record | {"split": "train"}, record | {"category_name": "dam", "segmentation": [RUNS]}]
    files = {"RISBench/all.jsonl": "\n".join(map(json.dumps, lines)), "RISBench/images/1.png": IMAGE}
    data = open_referring("risbench", grow(tmp_path, files))
    assert [(item.key, item.label) for item in data.items] == [("1_0", None), ("1_1", "dam")]
    assert (data.mask(0) == TARGET).all() and (data.mask(1) == TARGET).all()


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("rrsis-d", rrsis_d([ref(4, "test", ann_id=99)]), r"do not fit: KeyError\(99\)"),
        ("rrsis-d", rrsis_d([ref(4, "test", file_name="2.jpg")]), r"1 of 1 images are not there, such as .*2\.jpg"),
        ("rrsis-d", rrsis_d([ref(4, "test", file_name="../../x.jpg")]), "lead out of the folder"),
        ("rrsis-d", rrsis_d([ref(4, "val")]), "has no split 'test'; it has val"),
        ("rrsis-d", rrsis_d({"refs": 3}), "do not fit: TypeError"),
        (
            "refsegrs",
            {"RefSegRS/images/1.tif": TIFF, "RefSegRS/masks/1.tif": TIFF, "RefSegRS/output_phrase_test.txt": "1\n"},
            r"line 1: '1'; expected an id, a space and a phrase",
        ),
        ("risbench", {"RISBench/a.jsonl": "{"}, r"a\.jsonl, line 1 is not JSON"),
        ("risbench", {"RISBench/a.jsonl": '{"split": "test"}'}, r"a record is not whole: KeyError\('file_name'\)"),
    ],
)
def test_refused(tmp_path, name, files, message):
    with pytest.raises(DataError, match=message):
        open_referring(name, grow(tmp_path, files), "test")


def test_a_mask_of_another_size_is_named(tmp_path):
    data = open_referring("rrsis-d", grow(tmp_path, rrsis_d([ref(4, "test")], runs={"size": [4, 3], "counts": [12]})))
    with pytest.raises(DataError, match=r"the mask of 1_4_0 \(its annotation\) cannot be used: run lengths of 3 x 4"):
        data.mask(0)


def test_a_name_that_nobody_knows(tmp_path):
    with pytest.raises(OptionError, match="no referring set is called 'x'; known: refsegrs, rrsis-d, risbench"):
        open_referring("x", tmp_path)


def test_phrases_by_rule_over_real_data(shared):
    pytest.importorskip("pycocotools")
    data = open_referring("nwpu-vhr10-refs", shared / "data")
    assert data.split == "val" and data.mask(0).any() and "airplane" in data.classes
    whole = [open_referring("nwpu-vhr10-refs", shared / "data", split) for split in ("train", "val")]
    assert sum(len(each.items) for each in whole) == 54
