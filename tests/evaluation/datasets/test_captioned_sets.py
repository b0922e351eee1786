"""Caption sets in the layouts of their authors, of SkyScript and of GeoRSCLIP; translations beside them."""

import json

import pytest
from small_trees import grow, images, karpathy

from evaluation.datasets import open_dataset
from rsvl_data.errors import DataError

TWO = karpathy(
    ("1.tif", "train", ["a road"]),
    ("2.tif", "test", ["a river .", "a river .", "water"]),
    ("3.tif", "test", ["a field", "crops"]),
)
RIVER = [("a river .", "en"), ("a river .", "en"), ("water", "en")]
FIELD = [("a field", "en"), ("crops", "en")]
NWPU = {
    "airport": [
        {"filename": "airport_001.jpg", "split": "train", "raw": "a plane", "raw_1": "planes", "imgid": 0},
        {"filename": "airport_002.jpg", "split": "test", "raw": "a river .", "raw_1": "a river .", "raw_2": "water", "sentid": 3},
    ],
    "farm": [{"filename": "farm_001.jpg", "split": "test", "raw": "a field", "raw_4": "crops"}],
}
GAIA = [
    {
        "id": 7,
        "image_src": "https://a.example/x/river.png?s=1",
        "image_alt": "alt",
        "captions": ["a river .", "a river .", "water"],
    },
    {"id": 8, "image_src": "https://a.example/my%20field.png", "captions": ["a field", "crops"]},
]

# what, name, files, keys of the two images of test
LAYOUTS = [
    (
        "RSICD",
        "rsicd",
        {"RSICD/dataset_rsicd.json": TWO, **images("RSICD/RSICD_images/2.tif", "RSICD/RSICD_images/3.tif")},
        ["2.tif", "3.tif"],
    ),
    (
        "RSITMD",
        "rsitmd",
        {"RSITMD/dataset_RSITMD.json": TWO, **images("RSITMD/images/2.tif", "RSITMD/images/3.tif")},
        ["2.tif", "3.tif"],
    ),
    (
        "UCM",
        "ucm-captions",
        {"UCM_captions/dataset.json": TWO, **images("UCM_captions/imgs/2.tif", "UCM_captions/imgs/3.tif")},
        ["2.tif", "3.tif"],
    ),
    (
        "Sydney",
        "sydney-captions",
        {"Sydney/dataset.json": TWO, **images("Sydney/images/2.tif", "Sydney/images/3.tif")},
        ["2.tif", "3.tif"],
    ),
    (
        "NWPU in classes",
        "nwpu-captions",
        {
            "NWPU-Captions/dataset_nwpu.json": NWPU,
            **images("NWPU-Captions/NWPU_images/airport/airport_002.jpg", "NWPU-Captions/NWPU_images/farm/farm_001.jpg"),
        },
        ["airport_002.jpg", "farm_001.jpg"],
    ),
    (
        "NWPU flat",
        "nwpu-captions",
        {
            "nwpu_captions/dataset_nwpu.json": NWPU,
            **images("nwpu_captions/images/airport_002.jpg", "nwpu_captions/images/farm_001.jpg"),
        },
        ["airport_002.jpg", "farm_001.jpg"],
    ),
    (
        "SkyScript's table, paths from the root of all benchmarks",
        "ucm-captions",
        {
            "ucmcaptions/ucmcaptions_img_txt_pairs_test.csv": "filepath,title\n"
            + "".join(f"ucmcaptions/imgs/2.tif,{text}\n" for text, _ in RIVER)
            + "".join(f"ucmcaptions/imgs/3.tif,{text}\n" for text, _ in FIELD),
            **images("ucmcaptions/imgs/2.tif", "ucmcaptions/imgs/3.tif"),
        },
        ["ucmcaptions/imgs/2.tif", "ucmcaptions/imgs/3.tif"],
    ),
    (
        "GeoRSCLIP's table, rows of one image apart",
        "rsitmd",
        {
            "rsitmd/rsitmd_test.csv": "filename,title\n2.tif,a river .\n3.tif,a field\n2.tif,a river .\n2.tif,water\n3.tif,crops\n",
            **images("rsitmd/images/2.tif", "rsitmd/images/3.tif"),
        },
        ["2.tif", "3.tif"],
    ),
    (
        "GAIA rows",
        "gaia",
        {"GAIA/test_data.json": GAIA, **images("GAIA/images/river.png", "GAIA/images/my field.png")},
        ["7", "8"],
    ),
    (
        "GAIA columns",
        "gaia",
        {
            "GAIA/test_data.json": {name: [row[name] for row in GAIA] for name in ("id", "image_src", "captions")},
            **images("GAIA/images/river.png", "GAIA/images/my field.png"),
        },
        ["7", "8"],
    ),
]


@pytest.mark.parametrize(("name", "files", "keys"), [case[1:] for case in LAYOUTS], ids=[case[0] for case in LAYOUTS])
def test_the_test_split_in_each_layout(tmp_path, name, files, keys):
    """The same two images with the same captions, in the order of the file, repeated sentences kept."""
    data = open_dataset(name, grow(tmp_path, files))
    assert (data.name, data.split) == (name, "test")
    assert [item.key for item in data.items] == keys
    assert [list(item.captions) for item in data.items] == [RIVER, FIELD]
    stored = [content for content in files.values() if isinstance(content, bytes)]
    assert [data.image(i) for i in (0, 1)] == stored
    assert len(data.sha256()) == 64


def test_labels_where_the_authors_give_them(tmp_path):
    data = open_dataset("nwpu-captions", grow(tmp_path, dict(LAYOUTS[4][2])))
    assert [item.label for item in data.items] == ["airport", "farm"]
    assert data.classes == ("airport", "farm")
    files = {
        "RSITMD/dataset_RSITMD.json": karpathy(("b.tif", "test", ["x y"]), **{"class": "boat"}),
        **images("RSITMD/images/b.tif"),
    }
    assert open_dataset("rsitmd", grow(tmp_path, files)).items[0].label == "boat"


def test_skyscript_retrieval_takes_the_captions_of_all_objects(tmp_path):
    head = "filepath,title,title_multi_objects\n"
    root = grow(
        tmp_path,
        {
            "SkyScript/dataframe/SkyScript_test_30K_filtered_by_CLIP_openai.csv": head + "images2/a.jpg,one,one beside two\n",
            "SkyScript/SkyScript_val_5K_filtered_by_CLIP_laion_RS.csv": head + "images2/a.jpg,other,other beside two\n",
            **images("SkyScript/images2/a.jpg"),
        },
    )
    data = open_dataset("skyscript", root)
    assert (data.items[0].captions, data.note) == ((("one beside two", "en"),), None)
    assert open_dataset("skyscript", root, "val_laion_rs").items[0].captions == (("other beside two", "en"),)
    with pytest.raises(DataError, match="has no split 'val'; it has test, val_laion_rs"):
        open_dataset("skyscript", root, "val")


def test_a_table_in_gb18030_as_georsclip_ships_rsicd(tmp_path):
    text = "filename,title\n1.jpg,a river 河流旁边有许多绿色的树木\n"
    root = grow(tmp_path, {"rsicd/rsicd_test.csv": text.encode("gb18030"), **images("rsicd/RSICD_images/1.jpg")})
    assert open_dataset("rsicd", root).items[0].captions[0][0] == "a river 河流旁边有许多绿色的树木"


def test_splits_are_kept_apart_and_counted(tmp_path):
    root = grow(tmp_path, {"RSICD/dataset_rsicd.json": TWO, **images("RSICD/RSICD_images/1.tif")})
    data = open_dataset("rsicd", root, "train")
    assert [item.key for item in data.items] == ["1.tif"]
    assert data.note == "RSICD, split train: 1 images here, 8,734 as published; numbers do not compare with published ones."
    with pytest.raises(DataError, match="has no split 'val'; it has train, test"):
        open_dataset("rsicd", root, "val")


def test_the_published_test_of_rsitmd_has_no_note(tmp_path, shared):
    """452 images by name, as the public pack has them; the images here are empty files."""
    document = json.loads((shared / "data/rsitmd_text/dataset_rsitmd_test_text_only.json").read_text())
    names = [f"RSITMD/images/{image['filename']}" for image in document["images"]]
    data = open_dataset("rsitmd", grow(tmp_path, {"RSITMD/dataset_RSITMD.json": document, **images(*names)}))
    assert (len(data.items), data.note) == (452, None)
    assert sum(len(item.captions) for item in data.items) == 2260


def test_the_small_copy_of_ucm_captions(shared):
    data = open_dataset("ucm-captions", shared / "data")
    assert (len(data.items), {len(item.captions) for item in data.items}) == (105, {5})
    assert "105 images here, 210 as published" in data.note


def test_blank_captions_are_left_out_and_counted(tmp_path):
    root = grow(
        tmp_path, {"RSITMD/dataset_RSITMD.json": karpathy(("1.tif", "test", ["a", " ", ""])), **images("RSITMD/images/1.tif")}
    )
    data = open_dataset("rsitmd", root)
    assert data.items[0].captions == (("a", "en"),)
    assert data.note.endswith("2 blank captions are left out.")


def test_images_of_gaia_that_are_gone_are_counted(tmp_path):
    files = dict(LAYOUTS[8][2])
    del files["GAIA/images/my field.png"]
    data = open_dataset("gaia", grow(tmp_path, files))
    assert [item.key for item in data.items] == ["7"]
    assert data.note == "1 of 2 images are not there and left out."
    (tmp_path / "GAIA/images/river.png").unlink()
    with pytest.raises(DataError, match="none of the 2 images is there"):
        open_dataset("gaia", tmp_path)


# --- translations ---------------------------------------------------------------------------------------------------------


def test_translations_beside_the_captions(tmp_path):
    german = karpathy(
        ("1.tif", "train", ["eine Straße"]), ("2.tif", "test", ["ein Fluss", "Wasser"]), ("3.tif", "test", ["ein Feld"])
    )
    portuguese = {"images": [{"filename": name, "sentences": [{"raw": "um rio"}]} for name in ("2.tif", "3.tif")]}
    files = dict(LAYOUTS[0][2]) | {
        "RSICD/captions.de.json": german,
        "RSICD/captions.pt.json": portuguese,
        "RSICD/captions.json": "no",
    }
    items = open_dataset("rsicd", grow(tmp_path, files)).items
    assert list(items[0].captions) == [*RIVER, ("ein Fluss", "de"), ("Wasser", "de"), ("um rio", "pt")]
    assert list(items[1].captions) == [*FIELD, ("ein Feld", "de"), ("um rio", "pt")]


def test_translations_of_a_table_go_by_the_name_of_the_file(tmp_path):
    french = karpathy(("2.tif", "test", ["une rivière"]), ("3.tif", "test", ["un champ"]))
    root = grow(tmp_path, dict(LAYOUTS[6][2]) | {"ucmcaptions/captions.fr.json": french})
    assert open_dataset("ucm-captions", root).items[0].captions[-1] == ("une rivière", "fr")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (karpathy(("2.tif", "test", ["ein Fluss"])), r"captions\.de\.json has no caption for 1 of 2 images, such as 3\.tif"),
        (karpathy(("2.tif", "test", ["x"]), ("3.tif", "test", ["  "])), "no caption for 1 of 2 images"),
        ({"annotations": []}, r"captions\.de\.json is not a file of translations \(KeyError: 'images'\)"),
        ({"images": [{"filename": "2.tif", "sentences": ["text"]}]}, "is not a file of translations"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_translations_that_do_not_fit(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        open_dataset("rsicd", grow(tmp_path, dict(LAYOUTS[0][2]) | {"RSICD/captions.de.json": content}))


# --- what is not whole ----------------------------------------------------------------------------------------------------


def absent(count: int) -> list[tuple[str, str, list[str]]]:
    return [(f"gone_{number}.tif", "test", ["x"]) for number in range(count)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"RSICD/dataset_rsicd.json": karpathy(("2.tif", "test", ["x"]), *absent(5))},
            r"5 of 6 images are not there, such as .*gone_0\.tif",
        ),
        (
            {"RSICD/dataset_rsicd.json": karpathy(*[("2.tif", "test", ["x"])] * 2)},
            "1 records that cannot be used.*the file of one before it",
        ),
        ({"RSICD/dataset_rsicd.json": karpathy(("2.tif", "holdout", ["x"]))}, "has split 'holdout'"),
        ({"RSICD/dataset_rsicd.json": {"images": [{"filename": "2.tif"}, *TWO["images"]]}}, "lacks 'sentences'"),
        ({"RSICD/dataset_rsicd.json": "[1, 2"}, "is not in Karpathy's form"),
        ({"RSICD/dataset_rsicd.json": karpathy(("../../secret.tif", "test", ["x"]))}, "1 names lead out of the folder"),
        ({"RSICD/dataset_rsicd.json": karpathy(("/etc/passwd", "test", ["x"]))}, "lead out of the folder, such as '/etc/passwd'"),
        ({"RSICD/rsicd_test.csv": "filename,title\n"}, "has no rows; expected the columns filename, title"),
        ({"RSICD/rsicd_test.csv": "name,title\nx,y\n"}, "row 1 has .* and names no image; expected the columns filename, title"),
        ({"RSICD/rsicd_test.csv": "filename,caption\n2.tif,y\n"}, "row 1 has no title"),
        ({"RSICD/rsicd_test.csv": "filename,title\n2.tif,y\n9.tif,y\n"}, "1 of 2 images are not there"),
        ({"RSICD/rsicd_test.csv": b"\x00\xff\xfe\x81"}, r"rsicd_test\.csv"),
        (
            {"RSICD/txtclasses_rsicd/airport.txt": "1.jpg"},
            r"RSICD holds nothing of RSICD\. Expected one of\n  dataset_rsicd\.json beside",
        ),
    ],
)
def test_trees_that_are_not_whole(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        open_dataset("rsicd", grow(tmp_path, {**files, **images("RSICD/RSICD_images/2.tif")}))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "is not in the form of NWPU-Captions"),
        ({"airport": [{"filename": "a.jpg", "split": "test"}]}, "airport, record 0 is .* expected filename, split and raw"),
        ({"airport": [{"filename": "a.jpg", "split": "exam", "raw": "x"}]}, "airport, record 0 has split 'exam'"),
        (
            {"airport": [{"filename": "a.jpg", "split": "test", "raw": "x"}] * 2},
            r"1 image ids .* occur more than once, such as a\.jpg",
        ),
    ],
)
def test_records_of_nwpu_that_cannot_be_used(tmp_path, document, message):
    files = {"NWPU-Captions/dataset_nwpu.json": document, **images("NWPU-Captions/NWPU_images/airport/a.jpg")}
    with pytest.raises(DataError, match=message):
        open_dataset("nwpu-captions", grow(tmp_path, files))


def test_records_of_gaia_that_cannot_be_used(tmp_path):
    for record, message in (
        ({"image_src": "https://a.example/x.png"}, "expected image_src and a list of captions"),
        (3, "record 0 is 3"),
    ):
        grow(tmp_path, {"GAIA/test_data.jsonl": json.dumps(record) + "\n"})
        with pytest.raises(DataError, match=message):
            open_dataset("gaia", tmp_path)
