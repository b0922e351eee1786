"""Masks as files: where the scene lies, in its palette, the same by bands as in memory, and an overlay with a legend."""

import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsvl_data.errors import DataError, OptionError
from rsvl_segment.classes import Classes
from rsvl_segment.mask_writer import open_mask
from rsvl_segment.overlay import overlay_png
from rsvl_segment.postprocess import NO_CLASS
from rsvl_segment.predict import predict
from rsvl_segment.protocols import SegmentOptions
from rsvl_segment.scenes import Pixels, open_picture
from rsvl_segment.segmenter import Segmenter

rasterio = pytest.importorskip("rasterio")
CLASSES = Classes.parse("water,building|house,road")
UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)}


def write_scene(path, pixels, **profile):
    """[h, w, 3]"""
    height, width, count = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, count=count, dtype=pixels.dtype, **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    return path


def shown(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def segmenter(encoder):
    return Segmenter(encoder, CLASSES, SegmentOptions(window_px=32, stride_px=24), batch_size=5)


def test_a_mask_lies_where_its_scene_lies(tmp_path, segmenter, picture):
    scene = picture(300, 280)
    path = write_scene(tmp_path / "scene.tif", scene.pixels, **UTM)
    with open_picture(path) as opened:
        found = predict(segmenter, opened, tmp_path / "out" / "mask.tif", tags={"MODEL": "tiny"})
    with rasterio.open(tmp_path / "out" / "mask.tif") as mask:
        ids = mask.read(1)
        assert (mask.crs, mask.transform, mask.shape) == (rasterio.CRS.from_epsg(32633), UTM["transform"], (300, 280))
        assert (mask.profile["compress"], mask.profile["tiled"], mask.profile["blockxsize"], mask.nodata) == (
            "lzw",
            True,
            256,
            NO_CLASS,
        )
        assert [mask.colormap(1)[i][:3] for i in range(3)] == list(CLASSES.palette())
        assert json.loads(mask.tags()["CLASSES"]) == ["water", "building", "road"] and mask.tags()["MODEL"] == "tiny"
    np.testing.assert_array_equal(ids, segmenter.segment(scene).numpy())  # by bands is in memory
    assert found.shares == {name: pytest.approx((ids == i).mean()) for i, name in enumerate(CLASSES.names)}
    assert found.without_class == 0 and len(np.unique(ids)) > 1
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mask.tif"]


def test_a_png_has_the_palette(tmp_path, segmenter, picture):
    scene = picture(50, 70)
    Image.fromarray(scene.pixels).save(tmp_path / "image.png")
    with open_picture(tmp_path / "image.png") as opened:
        predict(segmenter, opened, tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        mask.load()
    assert mask.mode == "P" and mask.getpalette()[:9] == [value for colour in CLASSES.palette() for value in colour]
    np.testing.assert_array_equal(np.asarray(mask), segmenter.segment(scene).numpy())
    assert json.loads(mask.text["CLASSES"]) == list(CLASSES.names)


def test_a_png_keeps_what_has_no_class(tmp_path):
    rows = np.array([[0, 1, NO_CLASS], [2, NO_CLASS, 0]], np.uint8)
    with open_mask(tmp_path / "mask.png", (2, 3), CLASSES, place={}, tags={}) as mask:
        mask.write(0, rows[:1])
        mask.write(1, rows[1:])
    with Image.open(tmp_path / "mask.png") as written:
        np.testing.assert_array_equal(np.asarray(written), rows)


def test_pixels_without_data_get_no_class(tmp_path, segmenter, picture):
    pixels = picture(64, 64).pixels.copy()
    pixels[pixels == 0] = 1
    pixels[:20, :30] = 0
    path = write_scene(tmp_path / "scene.tif", pixels, nodata=0, **UTM)
    with open_picture(path) as opened:
        found = predict(segmenter, opened, tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "mask.tif") as mask:
        ids = mask.read(1)
    assert (ids[:20, :30] == NO_CLASS).all() and (ids[20:] != NO_CLASS).all()
    assert found.without_class == pytest.approx(600 / 4096) and sum(found.shares.values()) == pytest.approx(1 - 600 / 4096)


def test_scenes_of_other_depths_and_without_a_place(tmp_path, segmenter, picture):
    deep = picture(40, 40).pixels.astype(np.uint16) * 40
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write_scene(tmp_path / "deep.tif", deep)
    with open_picture(path) as opened:
        assert opened.place == {} and opened.rows(0, 40).dtype == torch.uint8
        predict(segmenter, opened, tmp_path / "mask.tif")
        with (
            pytest.raises(ValueError, match="is allowed|stopped"),
            open_mask(tmp_path / "other.tif", (40, 40), CLASSES, place=opened.place, tags={}) as mask,
        ):
            mask.write(0, np.zeros((40, 40), np.uint8))
            raise ValueError("stopped")
    assert not (tmp_path / "other.tif").exists() and not list(tmp_path.glob("*.tmp"))


def test_ground_control_points_are_taken_over(tmp_path, segmenter, picture):
    points = [rasterio.control.GroundControlPoint(r, c, 10 + c / 100, 50 - r / 100) for r, c in ((0, 0), (0, 40), (40, 0))]
    path = write_scene(tmp_path / "scene.tif", picture(40, 40).pixels, gcps=points, crs="EPSG:4326")
    with open_picture(path) as opened:
        predict(segmenter, opened, tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "mask.tif") as mask:
        found, crs = mask.gcps
        assert [(point.row, point.col, point.x) for point in found] == [(point.row, point.col, point.x) for point in points]
        assert crs.to_epsg() == 4326


def test_an_overlay_shows_classes_over_the_picture(tmp_path, segmenter, picture):
    scene = picture(120, 90)
    predict(segmenter, scene, tmp_path / "mask.png", overlay=tmp_path / "overlay.png")
    page = shown(tmp_path / "overlay.png").astype(int)
    ids = segmenter.segment(scene).numpy()
    colours = np.array(CLASSES.palette())
    np.testing.assert_allclose(page[:120, :90], scene.pixels * 0.55 + colours[ids] * 0.45, atol=1)
    legend = {tuple(colour) for colour in page[:, 90:].reshape(-1, 3)}
    assert legend >= {tuple(colour) for colour in colours.tolist()}


def test_large_pictures_are_shown_smaller(tmp_path, encoder, picture):
    scene = picture(60, 2 * 2048 + 10)
    segmenter = Segmenter(encoder, CLASSES, SegmentOptions(window_px=32, stride_px=32), batch_size=64)
    predict(segmenter, scene, tmp_path / "mask.png", overlay=tmp_path / "overlay.png")
    page = shown(tmp_path / "overlay.png")
    small = segmenter.segment(scene).numpy()[::3, ::3]
    tint = (np.array(CLASSES.palette()) * 0.45)[small]
    assert small.shape == (20, 1369) and page.shape[1] < 2048
    assert (page[:20, :1369] >= tint - 1).all()  # the picture shines through, the class is there
    many = Classes(tuple((f"class number {i}",) for i in range(40)))
    columns = Image.open(io.BytesIO(overlay_png(np.zeros((100, 50, 3), np.uint8), np.zeros((100, 50), np.uint8), many, {})))
    assert columns.height < 300


@pytest.mark.parametrize(
    "content, message",
    [(b"no image", "not a readable image"), (b"", "not a readable image"), (b"II*\0broken", "not a readable GeoTIFF")],
)
def test_files_that_are_no_pictures(tmp_path, content, message):
    (tmp_path / "file.tif").write_bytes(content)
    with pytest.raises(DataError, match=message), open_picture(tmp_path / "file.tif"):
        pass
    with pytest.raises(DataError, match="cannot be read"), open_picture(tmp_path / "absent.tif"):
        pass


def test_a_damaged_scene_leaves_no_mask(tmp_path, segmenter, picture):
    path = write_scene(tmp_path / "scene.tif", picture(400, 400).pixels, compress="deflate", **UTM)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\0" * (len(content) // 4) + content[3 * len(content) // 4 :])
    with pytest.raises(DataError, match="rows .* cannot be read"), open_picture(path) as opened:
        predict(segmenter, opened, tmp_path / "mask.tif")
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]


def test_other_suffixes_are_refused(tmp_path, segmenter):
    with pytest.raises(OptionError, match=r"\.tif, \.tiff, \.png; got mask\.jpg"):
        predict(segmenter, Pixels(np.zeros((8, 8, 3), np.uint8)), tmp_path / "mask.jpg")


@pytest.mark.slow
def test_a_scene_of_ten_thousand_pixels_fits_in_four_gib(tmp_path):
    """100 megapixels, 20 classes, a tiny model: read, segmented and written by bands."""
    script = """
        import resource, sys
        from pathlib import Path
        import numpy as np, rasterio, torch
        sys.path.insert(0, sys.argv[2])
        from conftest import TinyEncoder
        from rsvl_segment.classes import Classes
        from rsvl_segment.predict import predict
        from rsvl_segment.protocols import SegmentOptions
        from rsvl_segment.scenes import open_picture
        from rsvl_segment.segmenter import Segmenter
        folder = Path(sys.argv[1])
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 500_000, 0, -1, 5_400_000)}
        profile = {"driver": "GTiff", "height": 10_000, "width": 10_000, "count": 3, "dtype": "uint8", "tiled": True}
        generator = np.random.default_rng(0)
        with rasterio.open(folder / "scene.tif", "w", **profile, **place) as file:
            for row in range(0, 10_000, 1000):
                block = generator.integers(0, 256, (3, 20, 200), np.uint8).repeat(50, 1).repeat(50, 2)
                file.write(block, window=((row, row + 1000), (0, 10_000)))
        classes = Classes(tuple((f"class {i}",) for i in range(20)))
        segmenter = Segmenter(TinyEncoder(), classes, SegmentOptions(window_px=224, stride_px=112), templates=("{}",))
        with open_picture(folder / "scene.tif") as scene:
            found = predict(segmenter, scene, folder / "mask.tif", overlay=folder / "overlay.png")
        assert abs(sum(found.shares.values()) - 1) < 1e-9
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    words = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak_mib = int(done.stdout.split()[-1]) / 1024
    assert peak_mib < 4096, peak_mib
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.shape == (10_000, 10_000) and (mask.read(1) < 20).all()
