"""SkyScript's benchmark files: FOLDER/TABLE.csv and classnames.txt."""

import pytest
from small_trees import grow, images

from evaluation.datasets import open_dataset
from rsvl_data.errors import DataError

NAMES = "river bank\nbeach\n"
ROWS = "filepath,label\nnwpu/b/1.jpg,beach\nnwpu/r/1.jpg,river bank\n"
TABLE = "nwpu/img_txt_pairs_train.csv"


def benchmark(tmp_path, table=ROWS, names=NAMES, *pictures):
    return grow(tmp_path, {TABLE: table, "nwpu/classnames.txt": names, **images(*(pictures or ("nwpu/b/1.jpg", "nwpu/r/1.jpg")))})


def test_classes_and_order_are_those_of_the_files(tmp_path):
    """Paths begin at the root of all benchmarks. The table called train is the whole set."""
    data = open_dataset("resisc45", benchmark(tmp_path))
    assert (data.split, data.classes) == ("all", ("river bank", "beach"))
    assert [(item.key, item.label) for item in data.items] == [("nwpu/b/1.jpg", "beach"), ("nwpu/r/1.jpg", "river bank")]
    assert data.image(0) == b"nwpu/b/1.jpg"
    assert "2 images here, 31,500 as published" in data.note


def test_labels_may_be_line_numbers_or_missing(tmp_path):
    """Rows without a label are left in: whoever classifies leaves them out and counts them."""
    root = benchmark(tmp_path, "filepath,label\nb/1.jpg,1\nr/1.jpg,\n")
    assert [item.label for item in open_dataset("resisc45", root).items] == ["beach", None]


@pytest.mark.parametrize(
    ("name", "folder", "table", "split"),
    [
        ("aid", "aid", "aid_img_txt_pairs_test.csv", "skyscript_test"),
        ("eurosat", "eurosat", "eurosat_img_txt_pairs_test.csv", "skyscript_test"),
        ("fmow", "fmow", "fmow_img_txt_pairs_val.csv", "val"),
        ("patternnet", "patternnet", "img_txt_pairs_train.csv", "all"),
        ("rsicb256", "rsicb256", "img_txt_pairs_train.csv", "all"),
        ("millionaid", "millionaid", "img_txt_pairs_train.csv", "train"),
        ("skyscript-cls", "SkyScript_cls", "img_txt_pairs_val.csv", "val"),
    ],
)
def test_every_table_of_the_benchmark(tmp_path, name, folder, table, split):
    files = {f"{folder}/{table}": f"filepath,label\n{folder}/x/1.jpg,beach\n", f"{folder}/classnames.txt": NAMES}
    root = grow(tmp_path, {**files, **images(f"{folder}/x/1.jpg")})
    data = open_dataset(name, root)
    assert (data.split, len(data.items)) == (split, 1)
    with pytest.raises(DataError, match=f"has no split 'exam'; it has {split}"):
        open_dataset(name, root, "exam")


@pytest.mark.parametrize(
    ("table", "names", "message"),
    [
        (
            ROWS,
            "river\nbeach\n",
            r"row 2 has label 'river bank', which is neither a line of classnames\.txt nor its number \(0 to 1\)",
        ),
        (ROWS.replace("beach", "7"), NAMES, "row 1 has label '7'"),
        (ROWS, "beach\nbeach\nriver bank\n", "has 3 lines, 2 of them different"),
        (ROWS, "", "has 0 lines"),
        (ROWS, b"\xff\xfe\xff", r"classnames\.txt cannot be read"),
        (ROWS + "nwpu/r/2.jpg,beach\n", NAMES, r"1 of 3 images are not there, such as .*2\.jpg"),
        (ROWS + "nwpu/r/1.jpg,beach\n", NAMES, r"1 image ids .* occur more than once"),
        (ROWS + "../x.jpg,beach\n", NAMES, r"lead out of the folder, such as '\.\./x\.jpg'"),
        ("filepath;label\n", NAMES, "has no rows|names no image"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, table, names, message):
    with pytest.raises(DataError, match=message):
        open_dataset("resisc45", benchmark(tmp_path, table, names))


def test_a_table_without_classnames(tmp_path):
    root = benchmark(tmp_path)
    (root / "nwpu/classnames.txt").unlink()
    with pytest.raises(DataError, match=r"classnames\.txt cannot be read .* names the classes, one a line"):
        open_dataset("resisc45", root)
