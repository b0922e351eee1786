import io
import json

import numpy as np
import pytest
from PIL import Image

from recipes.cli import main
from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.mask_files import KNOWN_LEGENDS, Legend
from rsvl_data.shards import Dataset
from rsvl_data.sources import masks, open_source

IDS = np.array([[0, 1, 1], [2, 1, 0]], np.uint8).repeat(2, axis=0).repeat(2, axis=1)
LEGEND = {"0": "background", "1": "low_vegetation", "2": "road"}


def dataset(root, names=("a",), *, legend=LEGEND, mask=IDS, ending="", folders=("images", "masks")):
    root.mkdir(exist_ok=True, parents=True)
    if legend is not None:
        (root / "legend.json").write_text(json.dumps(legend))
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for name in names:
        Image.new("RGB", (6, 4), (9, 9, 9)).save(root / folders[0] / f"{name}.jpg")
        Image.fromarray(mask).save(root / folders[1] / f"{name}{ending}.png")
    return root


def read_all(root, legend=None):
    source = masks.open(masks.find(root), root.name, ImageForm(), legend)
    entries = [type(entry)(entry.id, entry.split, json.loads(json.dumps(entry.facts))) for entry in source.entries()]
    return source, [(entry, source.read(entry)) for entry in entries]


def ids_of(sample):
    with Image.open(io.BytesIO(sample.mask)) as image:
        assert image.format == "PNG" and image.mode == "L"
        return np.asarray(image)


def counts_of(sample):
    return {int(value): int(count) for value, count in zip(*np.unique(ids_of(sample), return_counts=True))}


@pytest.mark.parametrize("name", ["index", "colour", "isaid", "binary"])
def test_fixture(shared, name):
    folder = shared / "fixtures" / "formats" / "10_masks"
    expected = json.loads((folder / "expected.json").read_text())["sets"][name]
    road = Legend(("background", "road"), binary=True) if name == "binary" else None
    source, read = read_all(folder / name, road)
    classes, first = source.mask["classes"], expected["first"]
    assert len(read) == expected["samples"] and all(sample.mask for _, sample in read)
    sample = read[0][1]
    assert read[0][0].id == first["file"].partition("/")[2] and (sample.width, sample.height) == (first["width"], first["height"])
    assert sample.sha256 == first["sha256"]
    if name == "index":
        assert classes == list(expected["classes"].values()) and source.mask["ignore_index"] == expected["ignore_index"]
        assert counts_of(sample) == {int(index): count for index, count in first["pixels_per_index"].items()}
    elif name == "binary":
        assert classes == list(expected["classes"].values()) and counts_of(sample)[1] == first["road_pixels"]
    else:
        assert dict(zip(classes, source.mask["palette"])) == expected["classes"]
        assert {classes[index]: count for index, count in counts_of(sample).items()} == first["pixels_per_class"]
    if name == "colour":
        assert classes[source.mask["ignore_index"]] == expected["ignore_class"]
    assert len(sample.regions) == first.get("instances", 0)


def test_palette_and_index_masks_are_one(shared, tmp_path):
    folder = shared / "fixtures" / "formats" / "10_masks" / "index"
    (tmp_path / "images").symlink_to(folder / "images")
    (tmp_path / "masks").symlink_to(folder / "masks_palette")
    legend = Legend(tuple(json.loads((folder / "legend.json").read_text()).values()))
    direct = masks.open(folder, "x", ImageForm())
    for entry in direct.entries():
        content = (folder / "masks_palette" / f"{entry.id.removeprefix('images/').removesuffix('.jpg')}.png").read_bytes()
        assert (masks.read_mask(content, legend, (168, 168)) == ids_of(direct.read(entry))).all()


@pytest.mark.parametrize("ending", ["", "_label", "_mask", "_instance_color_RGB"])
def test_ids_and_their_caption(tmp_path, ending):
    source, [(entry, sample)] = read_all(dataset(tmp_path, ending=ending))
    assert (ids_of(sample) == IDS).all() and entry.id == "images/a.jpg" and entry.split is None
    assert [(c.text, c.kind) for c in sample.captions] == [("an aerial image with low vegetation and road.", "mask")]
    assert source.mask["classes"] == list(LEGEND.values()) and source.mask["ignore_index"] == 255


def test_nothing_but_background_names_no_class(tmp_path):
    _, [(_, sample)] = read_all(dataset(tmp_path, mask=IDS * 0))
    assert sample.captions[0].text == "an aerial image."
    _, [(_, ignored)] = read_all(dataset(tmp_path / "b", mask=IDS * 0, legend={"0": "no-data", "1": "road"}))
    assert ignored.captions[0].text == "an aerial image."


def test_what_cannot_be_read_is_dropped(tmp_path):
    root = dataset(tmp_path, ["a", "b", "c", "d"])
    (root / "masks" / "a.png").unlink()
    Image.fromarray(IDS + 1).save(root / "masks" / "b.png")
    Image.fromarray(IDS.T.copy()).save(root / "masks" / "c.png")
    (root / "images" / "d.jpg").write_bytes(b"no image")
    _, read = read_all(root)
    assert [outcome.reason for _, outcome in read] == ["no_mask", "unknown_id", "size_mismatch", "not_an_image"]
    assert "3 (4 px)" in read[1][1].detail


def test_links_that_lead_out(tmp_path):
    root = dataset(tmp_path / "data")
    (root / "masks" / "a.png").rename(tmp_path / "outside.png")
    (root / "masks" / "a.png").symlink_to(tmp_path / "outside.png")
    _, [(_, dropped)] = read_all(root)
    assert dropped.reason == "path_outside"


def test_splits_and_deeper_folders(tmp_path):
    for folder in ("Train/Rural", "Train/Urban", "Val/Urban"):
        dataset(tmp_path / folder, legend=None, folders=("images_png", "masks_png"))
    (tmp_path / "legend.json").write_text('"LoveDA"')
    source, read = read_all(tmp_path)
    assert [(entry.id, entry.split) for entry, _ in read] == [
        ("Train/Rural/images_png/a.jpg", "train"),
        ("Train/Urban/images_png/a.jpg", "train"),
        ("Val/Urban/images_png/a.jpg", "val"),
    ]
    assert source.mask["ignore_index"] == 0 and read[0][1].captions[0].text == "an aerial image with building."


def test_instances_become_regions(tmp_path):
    root = dataset(tmp_path, legend=LEGEND, ending="_instance_color_RGB")
    instances = np.zeros((4, 6, 3), np.uint8)
    instances[:2, 2:] = instances[2:, 2] = (7, 0, 0)
    instances[3, 0] = (7, 0, 1)
    Image.fromarray(instances).save(root / "masks" / "a_instance_id_RGB.png")
    _, [(_, sample)] = read_all(root)
    assert [(r.bbox, r.category, r.category_id, r.area_px) for r in sample.regions] == [
        ((2, 0, 6, 4), "low_vegetation", 1, 10),
        ((0, 3, 1, 4), "road", 2, 1),
    ]


def test_a_legend_is_needed(tmp_path):
    root = dataset(tmp_path, legend=None)
    with pytest.raises(DataError, match="holds masks but no legend"):
        masks.open(root, "x", ImageForm())
    assert masks.open(root, "x", ImageForm(), KNOWN_LEGENDS["LoveDA"]).mask["classes"][0] == "no-data"


def test_other_folders_are_not_taken(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert masks.find(tmp_path) is None and masks.find(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("name", "images", "regions"),
    [("loveda_sample", 2, 0), ("isaid_sample", 1, 131), ("isprs_vaihingen_sample", 1, 0), ("epfl_roads", 30, 0)],
)
def test_real_data(shared, name, images, regions):
    road = Legend(("background", "road"), binary=True) if name == "epfl_roads" else None
    _, read = read_all(shared / "data" / name, road)
    assert len(read) == images and sum(len(sample.regions) for _, sample in read) == regions
    if name == "isaid_sample":
        index = shared / "data" / name / "masks" / "P0005_semantic_index.png"
        assert (np.asarray(Image.open(index)) == ids_of(read[0][1])).all()


def test_a_legend_from_elsewhere(tmp_path):
    """The folder of a data set may be closed to us."""
    for folder, colour in (("images", 90), ("masks", 255)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        Image.new("RGB" if folder == "images" else "L", (8, 8), colour if folder == "masks" else (colour,) * 3).save(
            tmp_path / "set" / folder / "a.png"
        )
    legend = tmp_path / "roads.json"
    legend.write_text('{"binary": "road"}')
    out = tmp_path / "out"
    assert main(["run", "data/import", "--source", str(tmp_path / "set"), "--out", str(out), "--masks.legend", str(legend)]) == 0
    dataset = Dataset.open(out)
    assert "road" in dataset.manifest["mask"]["classes"]
    with pytest.raises(DataError, match="--masks.legend"):
        open_source(tmp_path / "set")
