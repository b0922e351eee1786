"""Scene sets in the folders of their authors, in copies of them, and in trees that are something else."""

from pathlib import Path

import pytest
from small_trees import grow_images

from evaluation.datasets import catalogue, open_dataset
from evaluation.datasets.class_folders import ClassFolders
from evaluation.datasets.entry import names_sha256
from rsvl_data.errors import DataError

ENTRIES = {entry.name: entry for entry in catalogue()}
RSSCN7_FOLDERS = {label: folder for folder, label in ENTRIES["rsscn7"].aliases.items()}

# name -> path of an image in the archive of the authors; {c} class, {C} class without separators, {n} number
ARCHIVES = {
    "aid": "AID/{c}/{C}_{n}.jpg",
    "resisc45": "NWPU-RESISC45/{c}/{c}_{n:03}.jpg",
    "eurosat": "EuroSAT/2750/{c}/{c}_{n}.jpg",
    "ucm": "UCMerced_LandUse/Images/{c}/{c}{n:02}.tif",
    "whu-rs19": "WHU-RS19/{c}/{c}_{n:02}.jpg",
    "patternnet": "PatternNet/images/{c}/{C}{n:03}.jpg",
    "rsicb256": "RSI-CB256/kind/{c}/{c}({n}).tif",
    "fmow": "fMoW-rgb/val/{c}/{c}_{n}/{c}_{n}_0_rgb.jpg",
    "millionaid": "Million-AID/train/kind/{c}/P{n}.jpg",
    "rsscn7": "RSSCN7/{c}/{c}{n}.jpg",
    "optimal-31": "OPTIMAL-31/Images/{c}/{c}({n}).jpg",
}


def folder_of(name: str, label: str) -> str:
    return RSSCN7_FOLDERS[label] if name == "rsscn7" else label


def paths_of(name: str, pattern: str, count: int = 2) -> list[str]:
    labels = [folder_of(name, label) for label in ENTRIES[name].classes]
    return [pattern.format(c=c, C=c.replace("_", ""), n=n) for c in labels for n in range(1, count + 1)]


def test_every_scene_set_that_has_class_folders_is_tried():
    with_folders = {e.name for e in catalogue() if any(isinstance(layout, ClassFolders) for layout in e.layouts)}
    assert with_folders == set(ARCHIVES)


@pytest.mark.parametrize(("name", "pattern"), ARCHIVES.items())
def test_the_layout_of_the_authors(tmp_path, name, pattern):
    entry = ENTRIES[name]
    root = grow_images(tmp_path, paths_of(name, pattern))
    data = open_dataset(name, root)
    assert (data.name, data.split, data.classes) == (name, entry.splits[0].name, entry.classes)
    assert [item.label for item in data.items] == [label for label in entry.classes for _ in range(2)]
    first = pattern.format(c=folder_of(name, entry.classes[0]), C=folder_of(name, entry.classes[0]).replace("_", ""), n=1)
    assert data.items[0].key == f"{entry.classes[0]}/{Path(first).name}"
    assert data.image(0) == first.encode()
    if entry.splits[0].num_images:
        assert f"{len(data.items)} images here, {entry.splits[0].num_images:,} as published" in data.note
    assert entry.find(root) == root / first.split("/")[0]


@pytest.mark.parametrize(
    ("folder", "spelled"),
    [
        ("eurosat-rgb/2750", str),
        ("EUROSAT/images", str.lower),
        ("eurosat", lambda label: "".join(f"_{c.lower()}" if c.isupper() else c for c in label)[1:]),
    ],
)
def test_copies_that_spell_folders_otherwise_give_the_same_items(tmp_path, folder, spelled):
    """The words of a prompt follow from the label, so the folder must not decide them."""
    classes = ENTRIES["eurosat"].classes
    root = grow_images(tmp_path, [f"{folder}/{spelled(label)}/{label}_{n}.jpg" for label in classes for n in (2, 1)])
    items = open_dataset("eurosat", root).items
    assert [(item.key, item.label) for item in items[:3]] == [
        ("AnnualCrop/AnnualCrop_1.jpg", "AnnualCrop"),
        ("AnnualCrop/AnnualCrop_2.jpg", "AnnualCrop"),
        ("Forest/Forest_1.jpg", "Forest"),
    ]


def test_the_folder_of_the_dataset_may_be_the_root(tmp_path):
    root = grow_images(tmp_path, paths_of("aid", ARCHIVES["aid"]))
    assert len(open_dataset("AID", root / "AID").items) == 60


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("rsscn7", [f"{letter}{n:03}" for letter in "abcdefg" for n in range(1, 401)]),
        ("ucm", [f"{label}{n:02}" for label in ENTRIES["ucm"].classes for n in range(100)]),
        ("optimal-31", [f"{label}({n})" for label in ENTRIES["optimal-31"].classes for n in range(1, 61)]),
        (
            "patternnet",
            [
                f"{c.replace('_', '').replace('treatment', '')}{n:03}"  # wastewaterplant001
                for c in ENTRIES["patternnet"].classes
                for n in range(1, 801)
            ],
        ),
    ],
)
def test_the_published_file_names_follow_a_rule(name, published):
    """The checksums were taken from lists; these sets name their files by a rule, which must give the same checksum."""
    official = ENTRIES[name].splits[0]
    assert official.num_images == len(published)
    assert names_sha256(f"{stem}.jpg" for stem in published) == official.files_sha256


def test_the_whole_published_set_has_no_note_and_renamed_files_have_one(tmp_path):
    names = [
        f"{RSSCN7_FOLDERS[c]}/{'abcdefg'[i]}{n:03}.jpg" for i, c in enumerate(ENTRIES["rsscn7"].classes) for n in range(1, 401)
    ]
    root = grow_images(tmp_path, [f"RSSCN7/{name}" for name in names])
    assert open_dataset("rsscn7", root).note is None
    (root / "RSSCN7/aGrass/a001.jpg").rename(root / "RSSCN7/aGrass/other.jpg")
    assert "other file names than published" in open_dataset("rsscn7", root).note


def test_folders_that_are_no_classes_and_classes_without_folder_are_named(tmp_path):
    paths = [path for path in paths_of("aid", ARCHIVES["aid"]) if "/Beach/" not in path and "/Pond/" not in path]
    root = grow_images(tmp_path, [*paths, "AID/beaches/1.jpg", "AID/beaches/2.jpg", "AID/sample.jpg", "AID/.cache/1.jpg"])
    with pytest.raises(DataError, match=r"30 classes of AID.*Missing: Beach, Pond\. Not a class: beaches \(2 images\)\."):
        open_dataset("aid", root)


def test_a_class_with_an_empty_folder_is_missing(tmp_path):
    root = grow_images(tmp_path, [path for path in paths_of("aid", ARCHIVES["aid"]) if "/Beach/" not in path])
    (root / "AID/Beach").mkdir()
    (root / "AID/Beach/readme.txt").write_text("no image")
    with pytest.raises(DataError, match=r"Missing: Beach\. Not a class: none"):
        open_dataset("aid", root)


def test_one_name_twice_in_a_class_is_refused(tmp_path):
    """RSI-CB256 has folders above the classes: two of them may hold the same class."""
    root = grow_images(tmp_path, [*paths_of("rsicb256", ARCHIVES["rsicb256"]), "RSI-CB256/other/sea/sea(1).tif"])
    with pytest.raises(DataError, match=r"1 image ids .* occur more than once, such as sea/sea\(1\)\.tif"):
        open_dataset("rsicb256", root)


def test_other_renderings_and_bands_are_passed_over(tmp_path):
    fmow = paths_of("fmow", ARCHIVES["fmow"])
    root = grow_images(
        tmp_path, [*fmow, *(path.replace("_rgb", "_msrgb") for path in fmow), *(p.replace("val", "train", 1) for p in fmow)]
    )
    assert len(open_dataset("fmow", root).items) == len(fmow)
    assert open_dataset("fmow", root, "train").image(0) == fmow[0].replace("val", "train", 1).encode()
    eurosat = paths_of("eurosat", ARCHIVES["eurosat"])
    root = grow_images(tmp_path, [*eurosat, *(path.replace("2750", "allBands").replace(".jpg", ".tif") for path in eurosat)])
    assert len(open_dataset("eurosat", root).items) == 20


def test_unlabelled_test_images_of_million_aid_are_not_looked_at(tmp_path):
    root = grow_images(tmp_path, [*paths_of("millionaid", ARCHIVES["millionaid"]), "Million-AID/test/P0.jpg"])
    assert len(open_dataset("millionaid", root).items) == 102
    with pytest.raises(DataError, match=r"Not a class: test \(1 images\)"):
        open_dataset("millionaid", root, "all")


def test_a_link_to_the_folder_itself_ends(tmp_path):
    root = grow_images(tmp_path, paths_of("aid", ARCHIVES["aid"]))
    (root / "AID/Airport/again").symlink_to(root / "AID")
    with pytest.raises(DataError, match="occur more than once"):
        open_dataset("aid", root)


def test_both_spellings_of_a_class_of_million_aid(tmp_path):
    paths = [path.replace("/basketball", "/bapsketball") for path in paths_of("millionaid", ARCHIVES["millionaid"])]
    labels = {item.label for item in open_dataset("millionaid", grow_images(tmp_path, paths)).items}
    assert "basketball_court" in labels


# --- splits ---------------------------------------------------------------------------------------------------------------


def with_splits(tmp_path: Path, rows: str, folder: str = "eurosat_rgb") -> Path:
    classes = ENTRIES["eurosat"].classes
    root = grow_images(tmp_path, [f"{folder}/images/{label}/{label}_{n}.jpg" for label in classes for n in (1, 2, 3)])
    (root / folder / "splits.csv").write_text("filename,class,split\n" + rows)
    return root


def rows_of(number: int, split: str, with_folder: bool = True) -> str:
    return "".join(f"{f'{c}/' * with_folder}{c}_{number}.jpg,{c},{split}\n" for c in ENTRIES["eurosat"].classes)


@pytest.mark.parametrize("with_folder", [True, False])
def test_a_table_of_splits_is_honoured(tmp_path, with_folder):
    root = with_splits(tmp_path, rows_of(1, "train", with_folder) + rows_of(2, "test", with_folder))
    assert [item.key for item in open_dataset("eurosat", root).items][:2] == [
        "AnnualCrop/AnnualCrop_2.jpg",
        "Forest/Forest_2.jpg",
    ]
    assert open_dataset("eurosat", root).split == "test"
    assert len(open_dataset("eurosat", root, "train").items) == 10
    assert len(open_dataset("eurosat", root, "all").items) == 30
    with pytest.raises(DataError, match="has no split 'val'; it has train, test, all"):
        open_dataset("eurosat", root, "val")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            rows_of(2, "test") + "Forest/Forest_9.jpg,Forest,test\n",
            r"11 images, of which 1 are not there, such as Forest/Forest_9\.jpg",
        ),
        (rows_of(2, "holdout"), "has split 'holdout'; allowed are train"),
        (rows_of(2, "test") + rows_of(2, "test"), r"names AnnualCrop/AnnualCrop_2\.jpg again"),
        (rows_of(2, "test").replace("River", "Fluss"), "names 10 images, of which 1 are not there"),
        ("\n".join(rows_of(2, "test").splitlines()[:5]), "Missing: Pasture, PermanentCrop"),
    ],
)
def test_tables_of_splits_that_do_not_fit(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        open_dataset("eurosat", with_splits(tmp_path, rows), "test")


@pytest.mark.parametrize("content", [b"name;part\n1;2\n", b"\xff\xfe\x00 no text \x81", b"", b"PK\x03\x04" + bytes(200)])
def test_unreadable_tables_of_splits(tmp_path, content):
    root = with_splits(tmp_path, "")
    (root / "eurosat_rgb/splits.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"splits\.csv"):
        open_dataset("eurosat", root, "test")


def test_published_lists_of_file_names(tmp_path):
    """They say .tif or .jpg as they like; ours is not the published one, and the note says so."""
    root = grow_images(tmp_path, paths_of("eurosat", ARCHIVES["eurosat"]))
    stems = [f"{label}_2" for label in ENTRIES["eurosat"].classes]
    (root / "EuroSAT/eurosat-test.txt").write_text("\n".join(f"{stem}.tif" for stem in stems))
    data = open_dataset("eurosat", root, "test")
    assert [item.key.split("/")[1] for item in data.items] == [f"{stem}.jpg" for stem in stems]
    assert "eurosat-test.txt is not the published list." in data.note
    assert open_dataset("eurosat", root).split == "all"
    (root / "EuroSAT/eurosat-test.txt").write_text("River_2.jpg\nRiver_3.jpg")
    with pytest.raises(DataError, match=r"names 2 images, of which 1 are not there, such as River_3\."):
        open_dataset("eurosat", root, "test")


def test_split_folders(tmp_path):
    """A copy of AID in train/ and test/: a split we do not know as published."""
    paths = [path.replace("AID/", f"AID/{split}/") for split in ("train", "test") for path in paths_of("aid", ARCHIVES["aid"])]
    root = grow_images(tmp_path, paths)
    data = open_dataset("aid", root, "test")
    assert (len(data.items), data.image(0)) == (60, b"AID/test/Airport/Airport_1.jpg")
    assert "split 'test' (60 images) is not a published one" in data.note
    with pytest.raises(DataError, match="has no split 'val'; it has train, test, all"):
        open_dataset("aid", root, "val")


# --- real images ----------------------------------------------------------------------------------------------------------


def test_the_small_copies_that_we_keep(shared):
    """Counts of its README; 120/20/60 images a class."""
    sizes = {split: len(open_dataset("eurosat", shared / "data", split).items) for split in ("train", "val", "test", "all")}
    assert sizes == {"train": 1200, "val": 200, "test": 600, "all": 2000}
    data = open_dataset("eurosat", shared / "data")
    assert data.split == "test" and "600 images here, 5,400 as published" in data.note
    sizes = {split: len(open_dataset("ucm", shared / "data", split).items) for split in ("train", "val", "test", "all")}
    assert sizes == {"train": 838, "val": 107, "test": 105, "all": 1050}
    assert open_dataset("ucm", shared / "data").image(0)[:2] == b"\xff\xd8"
