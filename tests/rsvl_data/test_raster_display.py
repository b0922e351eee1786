import numpy as np
import pytest

from rsvl_data.errors import OptionError
from rsvl_data.raster_display import Display, Stretch, choose_display, limits_of, pick_bands


class Scene:
    """What `choose_display` uses of an open rasterio dataset, over an array [C, H, W]; counts the pixels that are read."""

    def __init__(self, pixels, colours=None, names=None, nodata=None, palette=None):
        self.pixels, self.nodata, self.palette, self.pixels_read = np.asarray(pixels), nodata, palette, 0
        self.count, self.height, self.width = self.pixels.shape
        self.dtypes = [str(self.pixels.dtype)] * self.count
        self.descriptions = names or (None,) * self.count
        self.colorinterp = [type("Colour", (), {"name": name}) for name in colours or ["undefined"] * self.count]
        self.name = "scene.tif"

    def read(self, bands, window):
        (top, bottom), (left, right) = window
        found = np.stack([self.pixels[band - 1, top:bottom, left:right] for band in bands])
        self.pixels_read += found[0].size
        return found

    def read_masks(self, bands, window):
        found = self.read(bands, window)
        return np.where(found == self.nodata, 0, 255).astype(np.uint8)

    def colormap(self, band):
        return self.palette


RGB = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("colours", "names", "platform", "bands", "why"),
    [
        (RGB, [None] * 3, None, (1, 2, 3), "by colour interpretation"),
        (["blue", "green", "red", "undefined"], [None] * 4, None, (3, 2, 1), "by colour interpretation"),
        (["gray"] + ["undefined"] * 3, ["Blue", "Green", "Red", "NIR"], None, (3, 2, 1), "by band name"),
        (["gray"] + ["undefined"] * 3, ["B2", "B3", "B4", "B8"], None, (3, 2, 1), "by band name"),
        (["gray"] + ["undefined"] * 3, ["B02", "B03", "B04", "B08"], "SENTINEL-2A", (3, 2, 1), "by band name"),
        (["gray"] + ["undefined"] * 3, ["SR_B1", "SR_B2", "SR_B3", "SR_B4"], "LANDSAT_8", (4, 3, 2), "by band name"),
        (["gray"] + ["undefined"] * 3, ["SR_B1", "SR_B2", "SR_B3", "SR_B4"], "LANDSAT_7", (3, 2, 1), "by band name"),
        (["gray"] + ["undefined"] * 3, [None] * 4, None, (1, 2, 3), "the first three"),
        (["gray", "undefined"], ["VV", "VH"], None, (1,), "the first as grey"),
        (["gray", "alpha"], [None, None], None, (1,), "the first as grey"),
        (["alpha", "undefined", "undefined", "undefined"], [None] * 4, None, (2, 3, 4), "the first three"),
    ],
)
def test_pick_bands(colours, names, platform, bands, why):
    assert pick_bands(colours, names, platform) == (bands, why)


def test_eight_bits_stay_as_stored():
    pixels = np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4)
    display = choose_display(Scene(pixels, RGB))
    assert display == Display((1, 2, 3))
    assert (display.to_rgb(pixels, np.ones((4, 4), bool)) == np.moveaxis(pixels, 0, -1)).all()


def test_a_choice_among_eight_bit_bands_is_written_down():
    display = choose_display(Scene(np.zeros((4, 4, 4), np.uint8), ["blue", "green", "red", "undefined"]))
    assert display.text == "bands 3, 2, 1 by colour interpretation; as stored"


def test_sixteen_bits_by_percentiles_without_nodata():
    pixels = np.tile(np.arange(100, 201, dtype=np.uint16), (3, 4, 1))
    pixels[:, 0] = 0
    scene = Scene(pixels, names=("B4", "B3", "B2"), nodata=0)
    display = choose_display(scene)
    assert display.limits == ((102, 198),) * 3
    assert display.text == "bands 1, 2, 3 (B4, B3, B2) by band name; percentiles 2 to 98: 102 to 198, 102 to 198, 102 to 198"
    rgb = display.to_rgb(pixels, pixels[0] > 0)
    assert rgb[0].max() == 0
    assert rgb[1, [0, 2, 50, 98, 100], 0].tolist() == [0, 0, 128, 255, 255]


def test_floats_with_nan_and_infinity():
    pixels = np.linspace(-5, 5, 101, dtype=np.float32).reshape(1, 1, 101)
    pixels[0, 0, 3], pixels[0, 0, 4] = np.nan, np.inf
    display = choose_display(Scene(pixels), Stretch("minmax"))
    assert display.limits == ((-5, 5),) and display.text == "band 1 the first as grey; minimum to maximum: -5 to 5"
    rgb = display.to_rgb(pixels, np.isfinite(pixels[0]))
    assert rgb.shape == (1, 101, 3) and rgb[0, 3].max() == rgb[0, 4].max() == 0 and rgb[0, 100].tolist() == [255] * 3
    assert (rgb[..., 0] == rgb[..., 2]).all()


def test_divide():
    pixels = np.array([[[0, 1500, 3000, 9000]]] * 3, np.uint16)
    display = choose_display(Scene(pixels), Stretch.parse("divide:3000"))
    assert display.to_rgb(pixels, np.ones((1, 4), bool))[0, :, 1].tolist() == [0, 128, 255, 255]
    assert display.text == "bands 1, 2, 3 the first three; divided by 3000"


def test_stretch_of_eight_bits_when_asked():
    pixels = np.array([[[10, 20, 30]]], np.uint8)
    display = choose_display(Scene(pixels, ["gray"]), Stretch.parse("minmax"))
    assert display.to_rgb(pixels, np.ones((1, 3), bool))[0, :, 0].tolist() == [0, 128, 255]


def test_palette():
    pixels = np.array([[[0, 1, 7]]], np.uint8)
    display = choose_display(Scene(pixels, ["palette"], palette={0: (1, 2, 3, 255), 1: (200, 0, 0, 255)}))
    rgb = display.to_rgb(pixels, np.ones((1, 3), bool))
    assert rgb[0].tolist() == [[1, 2, 3], [200, 0, 0], [0, 0, 0]] and display.text == "band 1 by its palette"


def test_bands_as_asked():
    scene = Scene(np.zeros((5, 2, 2), np.uint8))
    assert choose_display(scene, bands=[5, 1, 2]).text == "bands 5, 1, 2 as asked; as stored"
    assert choose_display(scene, bands=[4]).bands == (4,)
    for wrong in ([6], [0, 1, 2], [1, 2]):
        with pytest.raises(OptionError, match="give one or three numbers from 1 to 5"):
            choose_display(scene, bands=wrong)


def test_sample_of_a_large_scene_is_bounded_and_spread():
    pixels = np.broadcast_to(np.arange(5000, dtype=np.uint16), (1, 3000, 5000))
    scene = Scene(pixels)
    [(low, high)] = choose_display(scene, Stretch("minmax")).limits
    assert scene.pixels_read == 2 * 1024 * 1024  # values and masks
    assert (low, high) == (0, 4999)  # both borders are seen
    small = Scene(pixels[:, :70, :100])
    choose_display(small)
    assert small.pixels_read == 2 * 70 * 100


@pytest.mark.parametrize(
    ("values", "stretch", "expected"),
    [
        ([], Stretch(), (0, 0)),
        ([7, 7, 7], Stretch(), (7, 7)),
        ([0] * 999 + [5], Stretch(), (0, 5)),  # coinciding percentiles give way to the extremes
        (range(101), Stretch.parse("percentile:10-90"), (10, 90)),
        (range(101), Stretch.parse("percentile:0.5-99.5"), (0.5, 99.5)),
    ],
)
def test_limits(values, stretch, expected):
    assert limits_of(np.array(values, np.float32), stretch) == expected


def test_a_flat_band_is_black_not_an_error():
    pixels = np.full((1, 2, 2), 7, np.uint16)
    assert choose_display(Scene(pixels)).to_rgb(pixels, np.ones((2, 2), bool)).max() == 0


@pytest.mark.parametrize("text", ["", "log", "percentile:98-2", "percentile:2-101", "divide:0", "divide:-3", "divide:x"])
def test_unknown_stretch(text):
    with pytest.raises(OptionError, match="allowed are auto, minmax, percentile"):
        Stretch.parse(text)
