"""Segmentation sets on small trees in the layouts of their authors, and on the small copies of real data."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from small_trees import grow

from evaluation.data import Thinned
from evaluation.datasets.segmentation import SEGMENTATION_SETS, open_segmentation
from evaluation.datasets.segmentation.masked_files import IGNORED, Labels
from evaluation.datasets.segmentation.tiles import Tiles, Window, cut, square_tiles
from rsvl_data.errors import DataError, OptionError
from rsvl_data.mask_files import KNOWN_LEGENDS, Legend

ISPRS = KNOWN_LEGENDS["ISPRS"].palette


def file(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(out, kind)
    return out.getvalue()


def picture(width=6, height=4, kind="PNG"):
    return file(np.arange(height * width * 3).reshape(height, width, 3) % 256, kind)


def ids(*values, width=6, height=4):
    """Rows of pixels with these ids, one after the other."""
    return np.resize(np.array(values, np.uint8), (height, width))


def colours(palette, *which, width=6, height=4):
    return np.array(palette, np.uint8)[ids(*which, width=width, height=height)]


def opened(tmp_path, name, files, split=None):
    return open_segmentation(name, grow(tmp_path, files), split)


LAYOUTS = {
    "loveda": (
        {"LoveDA/Val/Rural/images_png/2522.png": picture(), "LoveDA/Val/Rural/masks_png/2522.png": file(ids(0, 1, 7))},
        ("val", "2522", [255, 0, 6]),
    ),
    "openearthmap": (
        {
            "OpenEarthMap/aachen/images/aachen_1.tif": picture(kind="TIFF"),
            "OpenEarthMap/val.txt": "aachen_1.tif\nxbd_2.tif\n",
            "OpenEarthMap/aachen/labels/aachen_1.tif": file(ids(0, 1, 8), "TIFF"),
            "OpenEarthMap/xbd/labels/xbd_2.tif": b"",
            "OpenEarthMap/aachen/images/aachen_7.tif": b"of another split",
        },
        ("val", "aachen_1", [255, 0, 7]),
    ),
    "openearthmap-9": (
        {
            "OpenEarthMap/img_dir/val/a_1.tif": picture(kind="TIFF"),
            "OpenEarthMap/ann_dir/val/a_1.tif": file(ids(0, 1, 8), "TIFF"),
        },
        ("val", "a_1", [0, 1, 8]),
    ),
    "potsdam": (
        {
            "Potsdam/2_Ortho_RGB/top_potsdam_2_13_RGB.tif": picture(kind="TIFF"),
            "Potsdam/2_Ortho_RGB/top_potsdam_2_10_RGB.tif": b"of train",
            "Potsdam/5_Labels_all_noBoundary/top_potsdam_2_13_label_noBoundary.tif": file(colours(ISPRS, 0, 5, 6), "TIFF"),
        },
        ("test", "2_13_0_512_0_512", [0, 5, 255]),
    ),
    "potsdam-boundary": (
        {
            "Potsdam/2_Ortho_RGB/top_potsdam_2_13_RGB.tif": picture(kind="TIFF"),
            "Potsdam/5_Labels_all/top_potsdam_2_13_label.tif": file(colours(ISPRS, 1, 2, 3), "TIFF"),
            "Potsdam/5_Labels_all_noBoundary/top_potsdam_2_13_label_noBoundary.tif": file(colours(ISPRS, 6), "TIFF"),
        },
        ("test", "2_13_0_512_0_512", [1, 2, 3]),
    ),
    "vaihingen": (
        {
            "Vaihingen/top/top_mosaic_09cm_area38.tif": picture(kind="TIFF"),
            "Vaihingen/gt_eroded/top_mosaic_09cm_area38_noBoundary.tif": file(colours(ISPRS, 4, 6, 0), "TIFF"),
        },
        ("test", "38_0_512_0_512", [4, 255, 0]),
    ),
    "vaihingen-boundary": (
        {
            "Vaihingen/top/top_mosaic_09cm_area1.tif": picture(kind="TIFF"),
            "Vaihingen/gts_for_participants/top_mosaic_09cm_area1.tif": file(colours(ISPRS, 4, 3, 0), "TIFF"),
        },
        ("train", "1_0_512_0_512", [4, 3, 0]),
    ),
    "isaid": (
        {
            "iSAID/val/images/images/P0003.png": picture(),
            "iSAID/val/Semantic_masks/images/P0003_instance_color_RGB.png": file(
                colours(KNOWN_LEGENDS["iSAID"].palette, 0, 1, 15)
            ),
        },
        ("val", "P0003_0_896_0_896", [0, 1, 15]),
    ),
    "uavid": (
        {
            "UAVid/uavid_val/seq16/Images/000000.png": picture(),
            "UAVid/uavid_val/seq16/Labels/000000.png": file(colours(KNOWN_LEGENDS["UAVid"].palette, 4, 5, 7)),
        },
        ("val", "seq16_000000", [4, 5, 7]),
    ),
    "uavid-7": (
        {
            "UAVid/uavid_test/seq21/Images/000000.png": picture(),
            "UAVid/uavid_test/seq21/Labels/000000.png": file(colours(KNOWN_LEGENDS["UAVid"].palette, 4, 5, 7)),
        },
        ("test", "seq21_000000_0_1080_0_1280", [3, 3, 0]),
    ),
    "udd5": (
        {"UDD5/val/src/DJI_1.JPG": picture(kind="JPEG"), "UDD5/val/gt/DJI_1.png": file(ids(0, 3, 4))},
        ("val", "DJI_1", [0, 3, 4]),
    ),
    "vdd": ({"VDD/test/src/1.JPG": picture(kind="JPEG"), "VDD/test/gt/1.png": file(ids(0, 5, 6))}, ("test", "1", [0, 5, 6])),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_layouts(tmp_path, name):
    files, (split, key, expected) = LAYOUTS[name]
    data = opened(tmp_path, name, files)
    assert (data.split, [item.key for item in data.items]) == (split, [key])
    assert data.mask(0)[0, :3].tolist() == expected
    assert data.mask(0).dtype == np.uint8
    with Image.open(io.BytesIO(data.image(0))) as image:
        assert image.size == data.mask(0).shape[::-1]
    whole = name == "udd5" or "img_dir" in next(iter(files))
    assert whole if data.note is None else "as published" in data.note or "are here" in data.note
    assert len(data.synonyms) == len(data.classes) and all(data.synonyms)
    assert len(data.sha256()) == 64


def test_the_identity_follows_images_and_masks_of_equal_size(tmp_path):
    files, _ = LAYOUTS["vdd"]
    before = opened(tmp_path / "before", "vdd", files).sha256()
    assert opened(tmp_path / "again", "vdd", files).sha256() == before
    for name, content in files.items():
        other = content[:-1] + bytes([content[-1] ^ 1])
        assert opened(tmp_path / name.replace("/", "-"), "vdd", files | {name: other}).sha256() != before


def test_the_layouts_of_converters(tmp_path):
    masks = {
        "img_dir/val/P1_0_896_0_896.png": picture(),
        "ann_dir/val/P1_0_896_0_896_instance_color_RGB.png": file(ids(0, 15, 255)),
    }
    data = opened(tmp_path, "isaid", {f"iSAID/{name}": content for name, content in masks.items()})
    assert (data.items[0].key, data.mask(0)[0, :3].tolist(), data.note) == ("P1_0_896_0_896", [0, 15, 255], None)
    masks = {"img_dir/val/2_13_0_0_512_512.png": picture(), "ann_dir/val/2_13_0_0_512_512.png": file(ids(0, 1, 6))}
    data = opened(tmp_path, "potsdam", {f"potsdam/{name}": content for name, content in masks.items()})
    assert (data.split, data.mask(0)[0, :3].tolist()) == ("test", [255, 0, 5])


def test_synonyms_and_classes_are_those_of_the_published_tables(shared):
    tables = json.loads((shared / "fixtures/evaluation/prompts.json").read_text())["ovss"]["datasets"]
    ours = {entry.name: entry for entry in SEGMENTATION_SETS}
    for theirs, name in {
        "OpenEarthMap": "openearthmap-9",
        "LoveDA": "loveda",
        "Potsdam": "potsdam",
        "Vaihingen": "vaihingen",
        "UDD5": "udd5",
        "VDD": "vdd",
        "UAVid": "uavid-7",
        "iSAID": "isaid",
    }.items():
        layout = ours[name].layouts[0]
        synonyms = layout.synonyms or tuple((label,) for label in layout.labels.classes)
        assert [list(phrases) for phrases in synonyms] == tables[theirs]["classes_with_synonyms"], name


@pytest.mark.parametrize(
    ("name", "image", "mask", "message"),
    [
        ("loveda", picture(), file(ids(9)), r"masks_png/1\.png of image 1: ids outside the legend: 9 \(24 px\)"),
        ("loveda", picture(), file(ids(1, width=5)), "the mask is 5 x 4, its picture 6 x 4"),
        ("loveda", picture(), file(ids(1))[:40], r"masks_png/1\.png of image 1: the mask"),
        ("loveda", b"no image", file(ids(1)), "is no image that can be read"),
    ],
)
def test_bad_files_are_named(tmp_path, name, image, mask, message):
    data = opened(tmp_path, name, {"LoveDA/Val/Urban/images_png/1.png": image, "LoveDA/Val/Urban/masks_png/1.png": mask})
    with pytest.raises(DataError, match=message):
        data.mask(0)


def test_a_wrong_colour_is_named(tmp_path):
    files = dict(LAYOUTS["isaid"][0])
    files["iSAID/val/Semantic_masks/images/P0003_instance_color_RGB.png"] = file(np.full((4, 6, 3), 7))
    data = opened(tmp_path, "isaid", files)
    with pytest.raises(DataError, match=r"P0003_instance_color_RGB\.png of image P0003_0_896_0_896: .*\(7, 7, 7\) \(24 px\)"):
        data.mask(0)


def test_an_image_without_its_mask(tmp_path):
    files = {**LAYOUTS["loveda"][0], "LoveDA/Val/Urban/images_png/1.png": picture()}
    with pytest.raises(DataError, match=r"split val: 1 of 2 images have no mask, such as Val/Urban/images_png/1\.png"):
        opened(tmp_path, "loveda", files)


def test_two_files_of_one_key(tmp_path):
    files = {f"LoveDA/{copy}Val/Urban/{kind}_png/1.png": picture() for copy in ("", "old/") for kind in ("images", "masks")}
    with pytest.raises(DataError, match="are both 1. Remove one"):
        opened(tmp_path, "loveda", files)


def test_a_split_that_is_not_there_and_a_name_that_nobody_knows(tmp_path):
    with pytest.raises(DataError, match="has no split 'train'; it has val"):
        opened(tmp_path, "loveda", LAYOUTS["loveda"][0], "train")
    with pytest.raises(OptionError, match="no segmentation set is called 'nothing'; known: openearthmap, "):
        open_segmentation("nothing", tmp_path)
    with pytest.raises(DataError, match=r"VDD is not under .*\n  SPLIT/src"):
        open_segmentation("vdd", tmp_path)


def test_small_copies_of_real_data(shared):
    counts = {"loveda": 2, "vaihingen": 1, "isaid": 1, "epfl-roads": 30, "nwpu-vhr10": 78}
    for name, count in counts.items():
        data = open_segmentation(name, shared / "data")
        assert (data.split, len(data.items)) == ("all", count)
        found = set(np.unique(data.mask(0)).tolist())
        assert found - {IGNORED} <= set(range(len(data.classes))) and len(found) > 1, name
    colours_of = open_segmentation("isaid", shared / "data").mask(0)
    derived = np.asarray(Image.open(shared / "data/isaid_sample/masks/P0005_semantic_index.png"))
    assert (colours_of == derived).all()


def test_tiles_of_the_converters():
    potsdam = square_tiles(512).windows(6000, 6000)
    assert len(potsdam) * 14 == 2016  # as mmseg counts them
    isaid = square_tiles(896, overlap_px=384)
    assert [(w.x0, w.y0) for w in isaid.windows(1000, 896)] == [(0, 0), (104, 0)]
    assert len(Tiles(1280, 1080, 1280, 1080).windows(3840, 2160)) == 6
    for width, height in ((300, 200), (896, 500), (2000, 1337)):
        covered = np.zeros((height, width), bool)
        for window in isaid.windows(width, height):
            assert (window.x1 - window.x0, window.y1 - window.y0) == (896, 896) and window.x0 >= 0
            covered[window.y0 : window.y1, window.x0 : window.x1] = True
        assert covered.all()


def test_a_cut_is_padded_right_and_below():
    whole = np.arange(6).reshape(2, 3)
    assert cut(whole, Window(1, 0, 5, 3), fill=9).tolist() == [[1, 2, 9, 9], [4, 5, 9, 9], [9, 9, 9, 9]]


def test_tiles_hold_the_pixels_of_the_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (900, 1300, 3), np.uint8)
    labels = colours(KNOWN_LEGENDS["iSAID"].palette, 0, 3, 9, width=1300, height=900)
    files = {"images/images/P0001.png": file(pixels), "Semantic_masks/images/P0001_instance_color_RGB.png": file(labels)}
    data = opened(tmp_path, "isaid", {f"iSAID/val/{name}": content for name, content in files.items()})
    assert [item.key for item in data.items] == [
        *("P0001_0_896_0_896", "P0001_4_900_0_896", "P0001_0_896_404_1300", "P0001_4_900_404_1300"),
    ]
    with Image.open(io.BytesIO(data.image(3))) as image:
        assert (np.asarray(image) == pixels[4:900, 404:1300]).all()
    assert (data.mask(3) == ids(0, 3, 9, width=1300, height=900)[4:900, 404:1300]).all()
    assert len({data.image_sha256(index) for index in range(4)}) == 4
    assert Thinned(data, 4).sha256() == data.sha256()


def test_a_stored_class_that_nothing_is_said_about():
    with pytest.raises(DataError, match="the masks hold 'road', which is no class of water"):
        Labels(Legend(("water", "road")), ("water",)).table()
    assert Labels(Legend(("water", "road")), ("water",), merged=(("road", "water"),)).table()[:3].tolist() == [0, 0, 255]
    assert Labels(Legend(("water", "road")), ("water",), ignored=("road",)).table()[:2].tolist() == [0, 255]


def test_a_small_image_is_padded_with_ignored_pixels_and_the_next_image_is_another(tmp_path):
    palette = KNOWN_LEGENDS["iSAID"].palette
    files = {f"images/images/P000{n}.png": picture() for n in (1, 2)}
    files |= {f"Semantic_masks/images/P000{n}_instance_color_RGB.png": file(colours(palette, n)) for n in (1, 2)}
    data = opened(tmp_path, "isaid", {f"iSAID/val/{name}": content for name, content in files.items()})
    for index in (0, 1, 0):
        mask = data.mask(index)
        assert mask.shape == (896, 896) and (mask[:4, :6] == index + 1).all() and (mask == IGNORED).sum() == 896**2 - 24
