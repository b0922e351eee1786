"""What lies at a path is found out, and every kind builds into a dataset that validates."""

import json

import pytest
from small_pictures import picture, read_all

from recipes.cli import main
from rsvl_data.errors import DataError, OptionError
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Sample
from rsvl_data.sources import open_source
from rsvl_data.stage import Dropped
from rsvl_data.validate import problems

FORMATS = {  # folder below the fixtures of formats: the format that `auto` must find
    "01_img2dataset/out": "img2dataset",
    "01_img2dataset/out_files": "img2dataset",
    "02_rs5m": "rs5m",
    "02_rs5m/train": "rs5m",
    "03_gaia": "gaia",
    "03_gaia/shards": "gaia",
    "04_mgrs": "mgrs",
    "05_skyscript": "skyscript",
    "06_rsicd_karpathy": "karpathy",
    "08_class_folders/camel": "class-folders",
    "08_class_folders/split_mixed": "class-folders",
    "09_boxes/coco": "coco",
    "09_boxes/dota": "dota",
    "09_boxes/voc": "voc",
    "11_clip_benchmark/wds_fixture_eurosat": "clip-benchmark",
    "11_clip_benchmark/wds_fixture_ucm_retrieval": "clip-benchmark",
    "12_geotiff": "geotiff",
    "13_referring/refsegrs": "referring",
    "13_referring/rrsisd": "referring",
    "14_hf/imagefolder": "image-folder",
    "14_hf/webdataset_repo": "webdataset",
}
DATA = {
    "dota_sample": "dota",
    "geotiff": "geotiff",
    "isaid_sample": "masks",
    "isprs_vaihingen_sample": "masks",
    "loveda_sample": "masks",
    "nwpu_vhr10": "coco",
}


@pytest.mark.parametrize(
    ("folder", "format"),
    [*((f"fixtures/formats/{k}", v) for k, v in FORMATS.items()), *((f"data/{k}", v) for k, v in DATA.items())],
)
def test_every_format_is_found_and_builds(shared, tmp_path, folder, format):
    wanted = "auto" if folder != "data/nwpu_vhr10" else format
    source = open_source(shared / folder, wanted)
    assert type(source) is type(open_source(shared / folder, format))
    dataset = build(source, [], BuildOptions(out=tmp_path / "out", workers=1, samples_per_shard=40, limit=60), recipe="test")
    assert sum(dataset.splits.values()) > 0
    assert list(problems(dataset)) == []
    read = dataset.manifest["stages"][0]
    assert read["in"] == read["kept"] + sum(read["dropped"].values())


def test_tiles_of_one_scene_stay_together(shared, tmp_path):
    source = open_source(shared / "data" / "geotiff", options={"geotiff": {"tile_px": 128, "min_valid": 0.1}})
    dataset = build(source, [], BuildOptions(out=tmp_path / "out", val=0.3, test=0.3, workers=1), recipe="test")
    homes: dict[str, set[str]] = {}
    for split in dataset.splits:
        for sample in dataset.samples(split):
            homes.setdefault(sample.provenance.original_id.split("#")[0], set()).add(split)
    assert len(homes) == 4 and all(len(splits) == 1 for splits in homes.values())


def test_options_of_a_format_reach_it(shared, tmp_path):
    source = str(shared / "fixtures" / "formats" / "12_geotiff")
    counts = []
    for tile_px in ("32", "64"):
        out = tmp_path / tile_px
        assert main(["run", "data/import", "--source", source, "--out", str(out), "--geotiff.tile-px", tile_px]) == 0
        counts.append(json.loads((out / "manifest.json").read_text())["stages"][0]["in"])
    assert counts[0] > counts[1]
    assert main(["run", "data/import", "--source", source, "--out", str(tmp_path / "bad"), "--geotiff.tile-px", "1"]) == 2


def test_a_pattern_of_shards(shared):
    source = open_source(shared / "fixtures" / "formats" / "02_rs5m" / "train" / "{pub11,rs3}-train-{0000..0001}.tar")
    assert len(list(source.entries())) > 0


def test_a_format_that_does_not_fit_says_what_it_expects(shared):
    with pytest.raises(OptionError, match="Pascal VOC"):
        open_source(shared / "data" / "ucm", "voc")


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
