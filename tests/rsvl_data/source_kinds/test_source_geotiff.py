import importlib
import io
import json
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from rsvl_data.errors import OptionError, RsvlError
from rsvl_data.image_form import ImageForm
from rsvl_data.sample import Sample
from rsvl_data.sources import geotiff
from rsvl_data.stage import Dropped

rasterio = pytest.importorskip("rasterio")

UTM33 = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 400000, 0, -10, 5800000)}


def write_tif(path, pixels, *, tags=None, imagery=None, names=None, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.asarray(pixels)
    facts = {"driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **facts, **profile) as scene:
            scene.write(pixels)
            scene.update_tags(**(tags or {}))
            if imagery:
                scene.update_tags(ns="IMAGERY", **imagery)
            if names:
                scene.descriptions = names
    return path


def noise(*shape, low=1, high=255, dtype=np.uint8):
    return np.random.default_rng(0).integers(low, high, shape).astype(dtype)


def read_all(path, **options):
    source = geotiff.open(path, "scenes", ImageForm("png"), **options)
    return {entry.id: source.read(entry) for entry in source.entries()}


def pixels_of(sample):
    return np.asarray(Image.open(io.BytesIO(sample.image)))


# --- finding


def test_find(tmp_path):
    assert geotiff.find(tmp_path) is None
    file = write_tif(tmp_path / "deep" / "a.TIFF", noise(3, 8, 8))
    (tmp_path / "table.csv").write_text("x")
    assert geotiff.find(tmp_path) == tmp_path and geotiff.find(file) == file
    assert geotiff.find(tmp_path / "table.csv") is None
    assert list(read_all(file)) == ["a.TIFF#0,0"]


def test_entries_are_sorted_and_hidden_files_are_skipped(tmp_path):
    for name in ("b.tif", "a/z.tif", ".c.tif", ".git/d.tif"):
        write_tif(tmp_path / name, noise(1, 8, 8))
    assert list(read_all(tmp_path)) == ["a/z.tif#0,0", "b.tif#0,0"]


# --- official files


def assert_near(found, expected):
    """`expected` is {value, tolerance} or {range}."""
    low, high = expected.get("range") or (
        expected["value"] - expected["tolerance"],
        expected["value"] + expected["tolerance"],
    )
    assert low <= found <= high


def test_official_fixture(shared):
    root = shared / "fixtures" / "formats" / "12_geotiff"
    expected = json.loads((root / "expected.json").read_text())
    read = read_all(root)
    assert len(read) == expected["samples"]
    for name, facts in expected["files"].items():
        sample = read[f"{name}#0,0"]
        assert isinstance(sample, Sample), name
        geo = sample.geo.model_dump() if sample.geo else dict.fromkeys(("crs", "lon", "gsd_m", "acquired", "season", "footprint"))
        assert (sample.width, sample.height) == (facts["width"], facts["height"])
        assert geo["crs"] == facts["crs"] and geo["season"] == facts["season"], name
        assert (geo["acquired"] and geo["acquired"][:19]) == (facts["acquired"] and facts["acquired"][:19])
        for key in ("platform", "utm_zone"):
            assert key not in facts or geo[key] == facts[key], name
        if facts["centre"] is None:
            assert geo["lon"] is None and geo["gsd_m"] is None and geo["footprint"] is None
            continue
        assert geo["lon"] == pytest.approx(facts["centre"]["lon"], abs=facts["centre"]["tolerance_deg"])
        assert geo["lat"] == pytest.approx(facts["centre"]["lat"], abs=facts["centre"]["tolerance_deg"])
        assert_near(geo["gsd_m"], facts["gsd_m"])
        for found, corner in zip(geo["footprint"], facts["corners_lonlat"], strict=True):
            assert found == pytest.approx(corner, abs=1e-4), name
        if "band_descriptions" in facts:
            assert geo["bands"] == facts["band_descriptions"]
        if "valid_pixels" in facts:
            black = (pixels_of(sample) == 0).all(axis=2).sum()
            assert facts["width"] * facts["height"] - facts["valid_pixels"] <= black < facts["width"] * facts["height"] * 0.2


def test_official_scenes(shared):
    root = shared / "data" / "geotiff"
    read = read_all(root, tile_px=256)
    dropped = [key for key, outcome in read.items() if isinstance(outcome, Dropped)]
    assert {read[key].reason for key in dropped} == {"nodata"}
    assert sum(key.startswith("alpha.tif") for key in dropped) == 25  # almost all transparent
    assert "RGB.byte.tif#0,0" in dropped and "RGB.byte.tif#256,256" in read
    disk = read["goes.tif#0,0"].geo
    assert disk.footprint is None and disk.crs.startswith("PROJCS")  # its corner lies off the Earth
    assert read["world.rgb.tif#0,256"].geo.footprint == [(0, 90), (180, 90), (180, -90), (0, -90)]


# --- facts


def test_facts_and_sentence(tmp_path):
    path = write_tif(
        tmp_path / "a.tif",
        noise(4, 32, 32, low=300, high=3000, dtype=np.uint16),
        names=("B2", "B3", "B4", "B8"),
        imagery={"ACQUISITIONDATETIME": "2022-02-09T10:16:01Z", "SATELLITEID": "SENTINEL-2A"},
        tags={"TIFFTAG_DATETIME": "2024:07:01 00:00:00", "sensor": "MSI", "SatelliteId": "MY-DISK"},
        **UTM33,
    )
    sample = read_all(path)["a.tif#0,0"]
    geo = sample.geo.model_dump(exclude={"lon", "lat", "footprint", "stretch"}, exclude_none=True)
    assert geo == {
        "crs": "EPSG:32633",
        "gsd_m": 10.0,
        "acquired": "2022-02-09T10:16:01Z",  # not when the file was made
        "platform": "SENTINEL-2A",
        "sensor": "MSI",
        "bands": ["B2", "B3", "B4", "B8"],
        "season": "winter",
        "utm_zone": "33N",
    }
    assert sample.geo.stretch.startswith("bands 3, 2, 1 (B4, B3, B2) by band name; percentiles 2 to 98: ")
    [caption] = sample.captions
    assert (caption.text, caption.kind) == ("a satellite image taken in winter at 10 metres per pixel.", "meta")
    assert sample.provenance.original_id == "a.tif#0,0" and sample.provenance.dataset == "scenes"


def test_absent_is_absent(tmp_path):
    write_tif(tmp_path / "plain.tif", noise(3, 8, 8), photometric="RGB")
    write_tif(
        tmp_path / "no_crs.tif", noise(3, 8, 8), transform=UTM33["transform"], tags={"TIFFTAG_DATETIME": "2020:01:15 12:00:00"}
    )
    write_tif(tmp_path / "no_transform.tif", noise(3, 8, 8), crs="EPSG:4326")
    read = read_all(tmp_path)
    assert read["plain.tif#0,0"].geo is None and read["plain.tif#0,0"].captions[0].text == "an overhead image."
    assert read["no_crs.tif#0,0"].geo.model_dump(exclude_none=True).keys() <= {"acquired", "stretch"}
    assert read["no_crs.tif#0,0"].geo.acquired == "2020-01-15T12:00:00"
    geo = read["no_transform.tif#0,0"].geo
    assert geo is None or (geo.lon is None and geo.crs is None)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"TIFFTAG_DATETIME": "2021:07:14 10:23:45"}, "2021-07-14T10:23:45"),
        ({"TIFFTAG_DATETIME": "2021:07:14 10:23:45", "DATE_ACQUIRED": "2020-05-06"}, "2020-05-06"),
        ({"ACQUISITIONDATETIME": "unknown", "TIFFTAG_DATETIME": "2021:07:14 10:23:45"}, "2021-07-14T10:23:45"),
        ({"SENSING_TIME": "2021-07-14T10:23:45.123456Z"}, "2021-07-14T10:23:45.123456Z"),
        ({"SENSING_TIME": "2021-07-14T10:23:45+02:00"}, "2021-07-14T10:23:45+02:00"),
        ({"TIFFTAG_DATETIME": "0000:00:00 00:00:00"}, None),
        ({"TIFFTAG_DATETIME": "0001:01:01 00:00:00"}, None),
        ({"TIFFTAG_DATETIME": "yesterday"}, None),
        ({"TIFFTAG_DATETIME": ""}, None),
        ({}, None),
    ],
)
def test_acquired(tags, expected):
    assert geotiff.acquired_from(tags) == expected


@pytest.mark.parametrize(
    ("geo", "from_satellite", "expected"),
    [
        ({}, False, "an overhead image."),
        ({"platform": "X"}, True, "a satellite image."),
        ({"season": "summer"}, False, "an overhead image taken in summer."),
        ({"gsd_m": 1.0}, False, "an overhead image at 1 metre per pixel."),
        ({"gsd_m": 0.3048006}, False, "an overhead image at 0.305 metres per pixel."),
        ({"gsd_m": 1234567.0}, False, "an overhead image at 1230000 metres per pixel."),
        ({"season": "spring", "gsd_m": 12.5}, True, "a satellite image taken in spring at 12.5 metres per pixel."),
    ],
)
def test_sentence(geo, from_satellite, expected):
    assert geotiff.fact_caption(geo, from_satellite=from_satellite)["text"] == expected


# --- tiles


def test_tiles_cover_the_scene_and_know_their_place(tmp_path):
    pixels = noise(3, 100, 70)
    path = write_tif(tmp_path / "a.tif", pixels, photometric="RGB", **UTM33)
    read = read_all(path, tile_px=32, overlap_px=8)
    offsets = [tuple(map(int, key.split("#")[1].split(","))) for key in read]
    assert offsets == [(row, column) for row in (0, 24, 48, 68) for column in (0, 24, 38)]
    covered = np.zeros((100, 70), bool)
    for (row, column), sample in zip(offsets, read.values()):
        assert (pixels_of(sample) == np.moveaxis(pixels[:, row : row + 32, column : column + 32], 0, -1)).all()
        covered[row : row + 32, column : column + 32] = True
    assert covered.all()
    first, below = read["a.tif#0,0"].geo, read["a.tif#68,0"].geo
    assert below.lat == pytest.approx(first.lat - 680 / 111_260, abs=1e-4) and below.gsd_m == first.gsd_m == 10.0
    assert first.footprint[0] == pytest.approx((13.53, 52.34), abs=0.01) and len(first.footprint) == 4
    assert len({sample.key for sample in read.values()}) == 12


def test_tiles_of_a_scene_share_one_stretch(tmp_path):
    pixels = np.zeros((1, 32, 64), np.uint16)
    pixels[..., :32], pixels[..., 32:] = 1000, 3000
    read = read_all(write_tif(tmp_path / "a.tif", pixels), tile_px=32)
    dark, bright = read.values()
    assert dark.geo.stretch == bright.geo.stretch == "band 1 the first as grey; percentiles 2 to 98: 1000 to 3000"
    assert pixels_of(dark).max() == 0 and pixels_of(bright).min() == 255


def test_stretch_and_bands_are_options(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.full((4, 16, 16), 1000, np.uint16))
    sample = read_all(path, stretch="divide:2000", bands=(4,))["a.tif#0,0"]
    assert (pixels_of(sample) == 128).all() and sample.geo.stretch == "band 4 as asked; divided by 2000"
    assert read_all(path, bands=(1, 2, 5))["a.tif#0,0"].reason == "missing_band"


def test_least_valid_share(tmp_path):
    pixels = noise(3, 16, 32)
    pixels[:, :, :12] = 0  # a quarter of the left tile is valid, all of the right one
    path = write_tif(tmp_path / "a.tif", pixels, nodata=0, **UTM33)
    left, right = read_all(path, tile_px=16).values()
    assert isinstance(right, Sample)
    assert (left.reason, left.score, left.detail) == ("nodata", 0.25, "a.tif#0,0: 25.0% of the tile is valid")
    kept = read_all(path, tile_px=16, min_valid=0.25)["a.tif#0,0"]
    assert (pixels_of(kept)[:, :12] == 0).all()


def test_nothing_valid_is_no_picture(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.full((1, 16, 16), np.nan, np.float32))
    assert read_all(path, min_valid=0)["a.tif#0,0"].reason == "nodata"


def test_nan_without_a_nodata_tag(tmp_path):
    pixels = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 16, 16)
    pixels[0, :4] = np.nan
    sample = read_all(write_tif(tmp_path / "a.tif", pixels))["a.tif#0,0"]
    assert (pixels_of(sample)[:4] == 0).all() and pixels_of(sample)[15, 15, 0] == 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_px": 8}, "tile_px 8"),
        ({"tile_px": 9000}, "tile_px 9000"),
        ({"tile_px": 64, "overlap_px": 64}, "overlap_px 64"),
        ({"min_valid": 1.5}, "min_valid 1.5"),
        ({"bands": (1, 2)}, "one or three"),
        ({"bands": (0,)}, "the first band being 1"),
        ({"stretch": "log"}, "stretch 'log'"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        geotiff.open(tmp_path, "x", ImageForm(), **options)


def test_missing_library_is_told_before_the_work(tmp_path, monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(RsvlError, match=r"rasterio is not installed.*pip install 'rsvl\[geo\]'"):
        geotiff.open(tmp_path, "x", ImageForm())


# --- bad files


def test_bad_files_are_answers(tmp_path):
    whole = write_tif(tmp_path / "src" / "whole.tif", noise(3, 64, 64)).read_bytes()
    whole_zip = write_tif(tmp_path / "zip.tif", noise(3, 64, 64), compress="deflate").read_bytes()
    root = tmp_path / "src"
    (root / "cut.tif").write_bytes(whole[: len(whole) // 2])  # its directory is lost
    (root / "damaged.tif").write_bytes(whole_zip[:600] + bytes(400) + whole_zip[1000:])
    (root / "empty.tif").write_bytes(b"")
    (root / "page.tif").write_text("<html>not found</html>")
    (root / "vrt.tif").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path / 'zip.tif'}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )  # a picture to GDAL, made of a file that is none of ours
    (root / "outside.tif").symlink_to(write_tif(tmp_path / "secret.tif", noise(3, 8, 8)))
    (root / "dangling.tif").symlink_to(root / "gone")
    write_tif(root / "complex.tif", np.ones((1, 8, 8), np.complex64))
    reasons = {key: "" if isinstance(outcome, Sample) else outcome.reason for key, outcome in read_all(root).items()}
    assert reasons == {
        "complex.tif#0,0": "unsupported_dtype",
        "cut.tif#0,0": "corrupt",
        "damaged.tif#0,0": "corrupt",
        "dangling.tif#0,0": "missing_file",
        "empty.tif#0,0": "empty",
        "outside.tif#0,0": "path_outside",
        "page.tif#0,0": "not_an_image",
        "vrt.tif#0,0": "not_an_image",
        "whole.tif#0,0": "",
    }


def test_a_header_that_promises_too_much(tmp_path):
    facts = {"driver": "GTiff", "count": 1, "dtype": "uint8", "sparse_ok": True, "bigtiff": "yes", "compress": "deflate"}
    blocks = {"blockxsize": 29_696, "blockysize": 29_696}
    for name, size, layout in (("wide", 400_000, {"tiled": True}), ("block", 30_000, {"tiled": True, **blocks})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            rasterio.open(tmp_path / f"{name}.tif", "w", height=size, width=size, **facts, **layout).close()
    read = read_all(tmp_path)
    assert {key: outcome.reason for key, outcome in read.items()} == {
        "block.tif#0,0": "block_too_large",
        "wide.tif#0,0": "too_many_pixels",
    }


def test_a_file_that_vanishes_or_shrinks_after_listing(tmp_path):
    path = write_tif(tmp_path / "a.tif", noise(3, 64, 64))
    source = geotiff.open(path, "x", ImageForm("png"), tile_px=32)
    entries = list(source.entries())
    write_tif(path, noise(3, 16, 16))
    assert source.read(entries[3]).reason == "corrupt"
    path.unlink()
    assert source.read(entries[0]).reason == "missing_file"


# --- work in other processes, and memory


def test_workers_open_their_own_files(tmp_path):
    path = write_tif(tmp_path / "a.tif", noise(3, 64, 64, high=3000, dtype=np.uint16), **UTM33)
    source = geotiff.open(path, "x", ImageForm("png"), tile_px=32)
    entries = list(source.entries())
    here = [source.read(entry) for entry in entries]  # this process now holds the file open
    assert pickle.loads(pickle.dumps(source)) == source
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        there = list(pool.map(source.read, entries))
    assert [sample.image for sample in there] == [sample.image for sample in here]


MEASURE = """
import sys
from pathlib import Path
from rsvl_data.image_form import ImageForm
from rsvl_data.sources import geotiff
def peak_kb():  # getrusage would begin with the peak of the process that forked this one
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
source = geotiff.open(Path(sys.argv[1]), "x", ImageForm(), tile_px=512, overlap_px=64)
entries = list(source.entries())
outcomes = [type(source.read(entries[0])).__name__]
before = peak_kb()
outcomes += [type(source.read(entry)).__name__ for entry in entries[1::16] if not entry.id.endswith("#4032,4032")]
outcomes += [type(source.read(entry)).__name__ for entry in entries if entry.id.endswith("#4032,4032")]
after = peak_kb()
print(len(entries), outcomes.count("Sample"), outcomes.count("Dropped"), after, after - before)
"""


def test_memory_follows_the_tile_and_not_the_scene(tmp_path):
    path = tmp_path / "large.tif"
    facts = {"count": 3, "height": 20_000, "width": 20_000, "dtype": "uint16", "nodata": 0, "tiled": True, "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", **facts, **UTM33) as scene:
        scene.write(noise(3, 512, 512, high=3000, dtype=np.uint16), window=((4096, 4608), (4096, 4608)))
    assert path.stat().st_size < 20_000_000  # 2.4 GB of pixels, mostly holes
    run = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    num_entries, num_samples, num_dropped, peak_kb, growth_kb = map(int, run.stdout.split())
    assert num_entries == 45 * 45 and num_samples == 1 and num_dropped > 100
    assert peak_kb < 500_000 and growth_kb < 150_000
