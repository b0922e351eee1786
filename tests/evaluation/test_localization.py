import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from colour_encoder import ColourEncoder
from PIL import Image

from evaluation.benchmarks.localization import localization
from evaluation.bootstrap import intervals
from evaluation.datasets.air_slt import open_air_slt
from evaluation.dense_items import of_queries
from evaluation.embedding_cache import EmbeddingCache
from evaluation.heat_map_files import overlay
from evaluation.localization_map import Window, windows
from evaluation.scene_windows import WindowSet, cubic_without_smoothing, open_scene
from recipes.cli import main
from rsvl_data.errors import DataError

AUTHORS = "semantic_localization_metrics"
RED, BLUE = [[40, 60], [320, 60], [320, 340], [40, 340]], [[480, 300], [600, 300], [600, 420], [480, 420]]
SMALL = {"scales_px": (96, 128), "num_bootstrap": 50, "batch_size": 16}


def scene_pixels() -> np.ndarray:
    """Green with a red and a blue block."""
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[...] = (10, 200, 10)
    for channel, region in ((0, RED), (2, BLUE)):
        (left, top), (right, bottom) = region[0], region[2]
        pixels[top:bottom, left:right] = 0
        pixels[top:bottom, left:right, channel] = 250
    return pixels


def write(folder: Path, entries: list[tuple[str, list]], scene: str = "0.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene_pixels()).save(folder / scene)
    told = [{"caption": text, "jpg_name": scene, "points": points} for text, points in entries]
    (folder / "anno.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "data", [("a red roof", [RED]), ("blue water", [BLUE]), ("red, but not there", [BLUE])])


def write_geotiff(path: Path, pixels: np.ndarray, **profile) -> None:
    rasterio = pytest.importorskip("rasterio")
    height, width, bands = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=pixels.dtype, **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))


def georeferenced() -> dict:
    rasterio = pytest.importorskip("rasterio")
    return {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)}


def test_a_model_that_sees_colours_finds_them(folder, encoder):
    result = localization(encoder, open_air_slt(folder), **SMALL)
    assert result.task == "localization" and result.n == 3 and result.protocol == "rsvl"
    items = result.details["items"]
    assert items["query"] == ["0", "1", "2"] and items["scene"] == ["0.png"] * 3
    assert min(items["rmi"][:2]) > 0.6 > items["rmi"][2] and items["rsu"][2] < 0.1
    for name in ("rsu", "ras", "rda", "rmi"):
        metric = result.metrics[name]
        assert metric.value == pytest.approx(np.mean(items[name]))
        assert metric.low is None and metric.high is None  # three queries, but one scene
    assert result.metrics["rsu"].chance == pytest.approx(0.507, abs=1e-3) and result.metrics["rmi"].chance is None
    assert not result.metrics["ras"].higher_is_better and result.metrics["rmi"].higher_is_better
    rmi = 0.4 * np.array(items["rsu"]) + 0.35 * (1 - np.array(items["ras"])) + 0.25 * np.array(items["rda"])
    assert items["rmi"] == pytest.approx(rmi.tolist())


def test_each_query_is_asked_of_its_own_scene(folder, encoder):
    Image.fromarray(scene_pixels()[:, ::-1]).save(folder / "mirrored.png")
    there = [[640 - x, y] for x, y in RED]
    told = [{"caption": "red", "jpg_name": name, "points": [at]} for name, at in (("mirrored.png", there), ("0.png", RED))]
    (folder / "anno.json").write_text(json.dumps(told))
    items = localization(encoder, open_air_slt(folder), **SMALL).details["items"]
    assert (
        items["query"] == ["0", "1"] and items["rmi"][0] == pytest.approx(items["rmi"][1], abs=0.05) and min(items["rsu"]) > 0.6
    )


def test_windows_are_encoded_once_a_scene_in_full_batches(folder, encoder):
    localization(encoder, open_air_slt(folder), **SMALL)
    num_windows = len(windows(480, 640, (96, 128)))
    batches = [call for call in encoder.calls if isinstance(call, int)]
    assert batches == [16] * -(-num_windows // 16)


def test_batch_threads_engine_and_cache_do_not_change_the_maps(folder, encoder, tmp_path):
    data = open_air_slt(folder)
    items = localization(encoder, data, **SMALL).details["items"]
    others = (
        {"batch_size": 7}, {"workers": 1}, {"engine": "fast"}, {"cache": EmbeddingCache(tmp_path / "cache")},
        {"cache": EmbeddingCache(tmp_path / "cache")},
    )  # fmt: skip
    for other in others:
        encoder.calls.clear()
        again = localization(encoder, data, **(SMALL | other)).details["items"]
        for name in ("rsu", "ras", "rda"):
            assert again[name] == pytest.approx(items[name], abs=0.02), other
    assert not [call for call in encoder.calls if isinstance(call, int)]  # the last found all in the cache


def test_protocol_scales_and_seed_change_the_outcome(folder, encoder):
    data = open_air_slt(folder)
    first = localization(encoder, data, **SMALL)
    assert localization(encoder, data, **SMALL).details == first.details
    theirs = localization(encoder, data, protocol=AUTHORS, **SMALL)
    assert theirs.protocol == AUTHORS and theirs.details["items"] != first.details["items"]
    coarse = localization(encoder, data, **(SMALL | {"scales_px": (256,)}))
    assert coarse.details["items"] != first.details["items"] and coarse.data["scales_px"] == "256"


def test_scenes_are_resampled_with_all_their_queries(tmp_path, encoder):
    """Six scenes have an interval, which the seed moves; twice as many queries of each leave it as it is."""
    options, half = SMALL | {"scales_px": (128,)}, [[20, 30], [160, 30], [160, 170], [20, 170]]
    for place in range(6):
        Image.fromarray(scene_pixels()[::2, ::2]).save(tmp_path / f"{place}.png")
    told = [{"caption": text, "jpg_name": f"{i}.png", "points": [half]} for i, text in enumerate(("red", "blue", "green") * 2)]
    (tmp_path / "anno.json").write_text(json.dumps(told))
    one, other = (localization(encoder, open_air_slt(tmp_path), **options, seed=seed) for seed in (0, 4))
    assert all(metric.low < metric.value < metric.high for metric in one.metrics.values())
    assert other.metrics["rmi"].low != one.metrics["rmi"].low
    statistics, num_scenes = of_queries({name: value * 2 for name, value in one.details["items"].items()})
    found = intervals(statistics, num_scenes, num_bootstrap=options["num_bootstrap"])
    for name, metric in one.metrics.items():
        assert (found[name].low, found[name].high) == pytest.approx((metric.low, metric.high))


def test_regions_that_cannot_be_measured_by_are_counted(tmp_path, encoder):
    outside, flat = [[900, 10], [950, 10], [950, 90]], [[5, 5], [5, 5], [5, 5]]
    entries = [("red", [RED]), ("red", [outside]), ("red", [flat]), ("", [RED])]
    result = localization(encoder, open_air_slt(write(tmp_path, entries)), **SMALL)
    facts = {name: value for name, value in result.data.items() if name.startswith("dropped")}
    assert facts == {"dropped_no_text": 1, "dropped_region_outside": 1, "dropped_degenerate_region": 1}
    assert result.n == 1 and result.details["items"]["query"] == ["0"]
    with pytest.raises(DataError, match="no query is left to measure: region_outside 1"):
        localization(encoder, open_air_slt(write(tmp_path, entries[1:2])), **SMALL)


@pytest.mark.parametrize("protocol", ["rsvl", AUTHORS])
def test_a_scene_smaller_than_a_window_is_measured(tmp_path, encoder, protocol):
    result = localization(encoder, open_air_slt(write(tmp_path, [("red", [RED])])), protocol=protocol, num_bootstrap=10)
    assert result.n == 1 and np.isfinite(result.metrics["rmi"].value)


@pytest.mark.parametrize("content", [b"", b"no image", b"II*\0 broken"])
@pytest.mark.parametrize("name", ["0.jpg", "0.tif"])
def test_a_broken_scene_is_named(tmp_path, encoder, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "anno.json").write_text(json.dumps([{"caption": "red", "jpg_name": name, "points": [RED]}]))
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        localization(encoder, open_air_slt(tmp_path), **SMALL)


# --- Scenes and heat maps as files ---


def test_a_geotiff_is_read_by_windows_with_the_pixels_of_the_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (90, 140, 3), dtype=np.uint8)
    write_geotiff(tmp_path / "a.tif", pixels, **georeferenced(), photometric="RGB")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with open_scene(tmp_path / name) as scene:
            assert (scene.height, scene.width) == (90, 140) and np.array_equal(scene.rows(10, 30), pixels[10:30])
            crops = WindowSet(scene, name, [Window(0, 64, 5, 69), Window(26, 90, 0, 64), Window(0, 90, 0, 20)])
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(crops.image(1)))), pixels[26:90, :64])
            assert np.asarray(Image.open(io.BytesIO(crops.image(2)))).shape == (90, 90, 3)  # squeezed into a square


def test_rows_of_a_band_are_read_once():
    class Counted:
        height, width, crs, transform = 64, 64, None, None

        def __init__(self):
            self.asked = []

        def rows(self, top, bottom):
            self.asked.append((top, bottom))
            return np.zeros((bottom - top, 64, 3), np.uint8)

        def overview(self, width, height):
            raise AssertionError

    found = sorted(windows(64, 64, (16, 32)))
    scene = Counted()
    crops = WindowSet(scene, "x", found)
    for index in range(len(found)):
        crops.image(index)
    assert len(scene.asked) == len({window[:2] for window in found})


def test_the_authors_crops_are_enlarged_without_smoothing():
    """Stripes of one pixel at half the size: smoothing would make them grey, the bare cubic kernel (a = -0.75) does so in the middle
    only. By hand at 2 -> 4 px, a quarter of the way: -0.1055 and 0.8789 of the two nearest, 0.2617 and -0.0352 beyond."""
    step = np.zeros((2, 2, 3), np.uint8)
    step[:, 1] = 200
    row = cubic_without_smoothing(step, 4)[0, :, 0]
    assert row.tolist() == [0, 45, 155, 221]  # 221 overshoots, -21 is cut
    stripes = np.tile(np.array([0, 0, 255, 255, 255], np.uint8), 102)[None, :510, None].repeat(510, 0).repeat(3, 2)
    bare, smooth = cubic_without_smoothing(stripes, 170), Image.fromarray(stripes).resize((170, 170), Image.Resampling.BICUBIC)
    assert bare.std() > 1.3 * np.asarray(smooth).std()
    crops = WindowSet(_Plain(stripes), "x", [Window(0, 510, 0, 510)], AUTHORS)
    assert Image.open(io.BytesIO(crops.image(0))).size == (256, 256)


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (768, 768), (300, 500), (100, 80), (1, 1), (256, 768)])
def test_the_authors_crops_are_those_of_torchs_kernel(size):
    crop = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)[..., :3]
    levels = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float()
    theirs = F.interpolate(levels, size=(256, 256), mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
    off = np.abs(cubic_without_smoothing(crop, 256) - theirs.clamp(0, 255).numpy())
    assert off.max() <= 0.5 + 1e-3


class _Plain:
    crs = transform = None

    def __init__(self, pixels):
        self.pixels, (self.height, self.width) = pixels, pixels.shape[:2]

    def rows(self, top, bottom):
        return self.pixels[top:bottom]

    def overview(self, width, height):
        return np.asarray(Image.fromarray(self.pixels).resize((width, height)))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_heat_maps_lie_where_the_scene_lies(tmp_path, encoder, dtype):
    rasterio = pytest.importorskip("rasterio")
    folder = write(tmp_path / "data", [("a red roof", [RED])], "scene.tif")
    place = georeferenced()
    write_geotiff(folder / "scene.tif", scene_pixels(), **place, photometric="RGB")
    localization(encoder, open_air_slt(folder), heat_maps=tmp_path / "maps", heat_map_type=dtype, **SMALL)
    with rasterio.open(tmp_path / "maps" / "0.tif") as file:
        assert file.crs == place["crs"] and file.transform == place["transform"] and file.dtypes == (dtype,)
        assert file.descriptions == ("a red roof",)
        levels = file.read(1)
    assert levels.shape == (480, 640) and 0.7 < levels.max() / (255 if dtype == "uint8" else 1) <= 1
    assert levels[200, 180] > 0.8 * levels.max() > levels[400, 40]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["0.png", "0.tif"]


def test_a_scene_without_crs_gives_a_plain_tiff(folder, encoder, tmp_path):
    pytest.importorskip("rasterio")
    localization(encoder, open_air_slt(folder), heat_maps=tmp_path / "maps", **SMALL)
    assert len(list((tmp_path / "maps").glob("*.tif"))) == 3
    with Image.open(tmp_path / "maps" / "0.tif") as image:
        assert image.size == (640, 480)


def test_sixteen_bit_scenes_without_crs_are_shown_by_their_percentiles(tmp_path, encoder):
    folder = write(tmp_path, [("red", [RED])], "s.tif")
    with pytest.warns(Warning, match="no geotransform"):
        write_geotiff(folder / "s.tif", scene_pixels().astype(np.uint16) * 40, photometric="RGB")
    assert localization(encoder, open_air_slt(folder), **SMALL).metrics["rmi"].value > 0.5


def test_the_picture_has_map_outline_and_bar():
    pixels = scene_pixels()
    levels = np.zeros((480, 640), np.uint8)
    levels[:240] = 255
    plain, outlined = (np.asarray(overlay(levels, _Plain(pixels), regions, 320)) for regions in ((), [RED]))
    assert plain.shape == (240, 320 + 64, 3) and not np.array_equal(plain, outlined)
    assert outlined[30, 90].tolist() == [255, 255, 255]  # the upper side of the region, at half the size
    assert not np.array_equal(plain[10, 300], plain[230, 300])  # one green, two levels
    bar = plain[:, 320 + 16]
    assert len(np.unique(bar[10:-10], axis=0)) > 100


def test_pictures_of_a_few_queries_are_in_the_result(folder, encoder):
    shown = localization(encoder, open_air_slt(folder), **SMALL).details["heat_maps"]
    assert [each["query"] for each in shown] == ["a red roof", "blue water", "red, but not there"]
    for each in shown:
        picture = Image.open(io.BytesIO(base64.b64decode(each["image_base64"])))
        assert picture.format == "WEBP" and picture.size[0] == 320 + 64 and set(each["scores"]) == {"rsu", "ras", "rda", "rmi"}
        assert len(each["image_base64"]) < 40_000 and each["scene"] == "0.png"


# --- The command ---


def test_the_command_writes_a_result_and_maps(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("rasterio")
    monkeypatch.setattr("recipes._eval_measured.DualEncoder.load", lambda *_: ColourEncoder())
    out = tmp_path / "result.json"
    words = ["eval", "localization", "--model", "any", "--data", str(folder), "--out", str(out), "--scales-px", "64", "128"]
    words += ["--num-bootstrap", "20", "--heat-maps", str(tmp_path / "maps"), "--heat-map-type", "float32", "--limit", "2"]
    assert main([*words, "--protocol", AUTHORS]) == 0
    told = json.loads(out.read_text())
    assert told["n"] == 2 and told["protocol"] == AUTHORS and told["data"]["scales_px"] == "64 128"
    assert told["contamination"]["trained_on"] == "unknown"
    assert len(list((tmp_path / "maps").iterdir())) == 4 and "rmi" in capsys.readouterr().out.lower()
