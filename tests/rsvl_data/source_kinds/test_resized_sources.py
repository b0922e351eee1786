"""Sources whose images are stored in another size: boxes, masks, words and places of the ground follow."""

import io
import json

import numpy as np
import pytest
from foreign_tars import read_all
from PIL import Image

from rsvl_data.image_form import ImageForm
from rsvl_data.shards import parquet_row
from rsvl_data.sources import coco, geotiff, masks, mgrs, open_source, referring
from rsvl_data.sources.base import make_sample

HALF = ImageForm("png", size_px=50, resize="keep_ratio")
CROP = ImageForm("png", size_px=50, resize="center_crop")
BORDER = ImageForm("png", size_px=100, resize="border")


def picture(path, size=(200, 100), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(path, **options)


def ids_of(sample):
    return np.asarray(Image.open(io.BytesIO(sample.mask)))


def test_boxes_and_the_words_made_of_them(tmp_path):
    picture(tmp_path / "a.png")
    categories = [{"id": 1, "name": "ship"}, {"id": 2, "name": "bridge"}]
    boxes = [(1, [80, 20, 40, 40]), (2, [0, 0, 30, 30])]
    rows = [{"id": n, "image_id": 5, "category_id": category, "bbox": box} for n, (category, box) in enumerate(boxes)]
    images = [{"id": 5, "file_name": "a.png", "width": 200, "height": 100}]
    (tmp_path / "instances.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    _, [whole], _ = read_all(coco, tmp_path, HALF)
    assert [region.bbox for region in whole.regions] == [(40, 10, 60, 30), (0, 0, 15, 15)]
    assert (whole.width, whole.height, whole.original_width, whole.original_height) == (100, 50, 200, 100)
    assert "ship" in whole.captions[0].text and "bridge" in whole.captions[0].text
    _, [cropped], _ = read_all(coco, tmp_path, CROP)
    assert [(region.category, region.bbox) for region in cropped.regions] == [("ship", (15, 10, 35, 30))]
    assert cropped.scores == {"regions_outside_crop": 1} and "bridge" not in cropped.captions[0].text


def test_what_was_not_resized_remembers_no_other_size(tmp_path):
    picture(tmp_path / "forest" / "a.png")
    for form, size in ((HALF, (200, 100)), (ImageForm("png"), (None, None))):
        [sample] = [source.read(entry) for source in [open_source(tmp_path, "auto", form)] for entry in source.entries()]
        row = parquet_row(sample, {})
        assert (sample.original_width, row["original_width"], row["original_height"]) == (size[0], *size)
        assert ("original_width" in json.loads(sample.to_json())) is (size[0] is not None)


def test_masks_and_the_words_made_of_them(tmp_path):
    picture(tmp_path / "images" / "a.png")
    ids = np.zeros((100, 200), np.uint8)
    ids[:, 60:140], ids[:, 195:] = 1, 2
    (tmp_path / "masks").mkdir()
    Image.fromarray(ids).save(tmp_path / "masks" / "a.png")
    (tmp_path / "legend.json").write_text(json.dumps({"0": "forest", "1": "river", "2": "road"}))
    _, [half], _ = read_all(masks, tmp_path, HALF)
    assert np.array_equal(ids_of(half), ids[1::2, 1::2]) and "road" in half.captions[0].text
    _, [cropped], _ = read_all(masks, tmp_path, CROP)
    assert np.array_equal(ids_of(cropped), ids[1::2, 51:150:2]) and "road" not in cropped.captions[0].text
    _, [bordered], _ = read_all(masks, tmp_path, BORDER)
    assert (ids_of(bordered)[:25] == 255).all() and np.array_equal(ids_of(bordered)[25:75], ids[1::2, 1::2])


@pytest.mark.parametrize(("begin", "outcome"), [(90, None), (0, "empty_mask")])
def test_a_phrase_whose_object_was_cut_away(tmp_path, begin, outcome):
    (tmp_path / "masks").mkdir()
    picture(tmp_path / "images" / "1.png")
    mask = np.zeros((100, 200), np.uint8)
    mask[10:30, begin : begin + 20] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "1.png")
    (tmp_path / "output_phrase_train.txt").write_text("1 the road\n")
    _, samples, dropped = read_all(referring, tmp_path, CROP)
    assert [drop.reason for drop in dropped] == ([outcome] if outcome else [])
    assert all(ids_of(sample).sum() == 100 for sample in samples)


def test_mgrs_boxes_are_of_the_image_as_it_came(tmp_path):
    picture(tmp_path / "global_imgs" / "a.png")
    bbox = {"x1": 20, "y1": 40, "x2": 60, "y2": 80, "W": 200, "H": 100}
    segments = [{"bbox": bbox, "category": "ship"}]
    record = {"global_filepath": "a.png", "brief_caption": "short", "detailed_caption": "long", "segment": segments}
    (tmp_path / "text_info.json").write_text(json.dumps([record]))
    _, [sample], _ = read_all(mgrs, tmp_path, HALF)
    assert sample.regions[0].bbox == (10, 20, 30, 40) and sample.scores == {}


@pytest.mark.parametrize(
    "annotation", [{"regions": [{"bbox": (0, 0, 9, 9), "category": "ship"}]}, {"mask": np.ones((100, 200))}, {}]
)
def test_an_annotation_of_an_image_that_exif_turns_is_refused(tmp_path, annotation):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.png", exif=exif)
    content = (tmp_path / "a.png").read_bytes()
    outcome = make_sample(content, "a", dataset="x", captions=["x"], label=None, image_form=HALF, **annotation)
    if annotation:
        assert outcome.reason == "turned_by_exif"
    else:
        assert (outcome.width, outcome.height, outcome.original_width, outcome.original_height) == (50, 100, 100, 200)


def test_tiles_know_their_ground(tmp_path):
    """256 x 128 pixels of 10 m in UTM 33N."""
    rasterio = pytest.importorskip("rasterio")
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    facts = {"driver": "GTiff", "count": 3, "dtype": "uint8", "width": 256, "height": 128, "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=transform, **facts) as scene:
        scene.write(np.random.default_rng(0).integers(1, 255, (3, 128, 256)).astype(np.uint8))

    def tile(form):
        _, [sample], _ = read_all(geotiff, tmp_path / "a.tif", form)
        return sample

    whole, half = tile(ImageForm("png")), tile(ImageForm("png", size_px=64, resize="keep_ratio"))
    assert half.geo == whole.geo.model_copy(update={"gsd_m": 20.0})
    assert "10 metres" in whole.captions[0].text and "20 metres" in half.captions[0].text
    cropped = tile(ImageForm("png", size_px=64, resize="center_crop"))
    with rasterio.open(tmp_path / "a.tif") as scene:  # the same ground as a scene of its own
        window = rasterio.windows.Window(64, 0, 128, 128)
        part = {**facts, "width": 128, "transform": rasterio.Affine(10, 0, 500_640, 0, -10, 5_000_000)}
        with rasterio.open(tmp_path / "b.tif", "w", **part) as middle:
            middle.write(scene.read(window=window))
    _, [middle_tile], _ = read_all(geotiff, tmp_path / "b.tif", ImageForm("png"))
    assert cropped.geo == middle_tile.geo.model_copy(update={"gsd_m": 20.0, "stretch": cropped.geo.stretch})
