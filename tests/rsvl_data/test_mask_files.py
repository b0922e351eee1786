import io
import json

import numpy as np
import pytest
from PIL import Image

from rsvl_data.errors import DataError
from rsvl_data.mask_files import KNOWN_LEGENDS, BadMask, Legend, encode_mask, read_legend, read_mask

LEGEND = Legend(("background", "water", "road"), ((0, 0, 0), (0, 0, 255), (255, 255, 0)))
IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def encoded(image, format="PNG", **options):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, format, **options)
    return out.getvalue()


def palette_png(ids):
    image = Image.fromarray(ids, "L").convert("P")
    image.putpalette([90, 80, 70] * 256)
    return encoded(image)


FORMS = {
    "ids": encoded(IDS),
    "palette": palette_png(IDS),
    "16 bit": encoded(IDS.astype(np.uint16)),
    "float": encoded(IDS.astype(np.float32), "TIFF"),
    "colours": encoded(np.array(LEGEND.palette, np.uint8)[IDS]),
    "alpha": encoded(np.dstack([np.array(LEGEND.palette, np.uint8)[IDS], np.full((2, 3), 9, np.uint8)])),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_ids(form):
    found = read_mask(FORMS[form], LEGEND, (3, 2))
    assert found.dtype == np.uint8 and (found == IDS).all()
    assert (np.asarray(Image.open(io.BytesIO(encode_mask(found)))) == IDS).all()


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"", "empty", "no bytes"),
        (b"no image", "not_an_image", "identify"),
        (encoded(IDS.T.copy()), "size_mismatch", "2 x 3, its picture 3 x 2"),
        (encoded(IDS + 2), "unknown_id", r"3 \(2 px\), 4 \(2 px\)"),
        (encoded(IDS.astype(np.uint16) * 20000), "unknown_id", "40000"),
        (encoded(IDS + np.float32(0.5), "TIFF"), "unknown_id", "0.5"),
        (encoded(IDS, "JPEG"), "lossy_mask", "JPEG"),
        (encoded(np.full((2, 3, 3), (1, 2, 250), np.uint8)), "unknown_colour", r"\(1, 2, 250\) \(6 px\)"),
        (encoded(Image.new("CMYK", (3, 2)), "TIFF"), "unsupported_format", "CMYK"),
    ],
)
def test_bad_masks(content, reason, message):
    with pytest.raises(BadMask, match=message) as caught:
        read_mask(content, LEGEND, (3, 2))
    assert caught.value.reason == reason


def test_a_cut_mask():
    content = encoded(np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8))
    with pytest.raises(BadMask, match="truncated") as caught:
        read_mask(content[: len(content) // 2], LEGEND, (64, 64))
    assert caught.value.reason == "truncated"


def test_a_huge_mask_is_refused_by_its_header():
    with pytest.raises(BadMask, match="above 5 pixels"):
        read_mask(FORMS["ids"], LEGEND, (3, 2), max_pixels=5)


def test_colours_need_a_palette_and_ids_do_not():
    bare = Legend(("a", "b", "c"))
    assert (read_mask(FORMS["ids"], bare, (3, 2)) == IDS).all()
    with pytest.raises(BadMask, match="only ids"):
        read_mask(FORMS["colours"], bare, (3, 2))
    assert bare.to_manifest() == {
        "classes": ["a", "b", "c"],
        "palette": [[0, 0, 0], [127, 127, 127], [255, 255, 255]],
        "ignore_index": 255,
    }


def test_ignored_id_and_colour():
    legend = Legend(("road",), ((0, 0, 0),), ignore_index=255, ignore_colour=(255, 255, 255))
    white_and_black = np.array([[[255] * 3, [0] * 3]], np.uint8)
    assert read_mask(encoded(white_and_black), legend, (2, 1)).tolist() == [[255, 0]]
    assert read_mask(encoded(np.array([[255, 0]], np.uint8)), legend, (2, 1)).tolist() == [[255, 0]]


def test_black_and_white():
    road = Legend(("background", "road"), binary=True)
    grey = np.array([[0, 3, 127, 128, 255]], np.uint8)
    assert read_mask(encoded(grey), road, (5, 1)).tolist() == [[0, 0, 0, 1, 1]]
    assert read_mask(encoded(Image.fromarray(grey > 127)), road, (5, 1)).tolist() == [[0, 0, 0, 1, 1]]
    assert read_mask(encoded(np.zeros((1, 5), np.uint8)), road, (5, 1)).tolist() == [[0] * 5]
    with pytest.raises(BadMask, match="0 and 1, not black and white"):
        read_mask(encoded(np.array([[0, 1]], np.uint8)), road, (2, 1))
    with pytest.raises(BadMask, match="one channel"):
        read_mask(FORMS["colours"], road, (3, 2))


# --- legends


@pytest.mark.parametrize(
    ("content", "classes", "ignore_index"),
    [
        ({"0": "background", "1": "road"}, ("background", "road"), None),
        ({"1": "road", "0": "no-data"}, ("no-data", "road"), 0),
        ({"0": "road", "255": "ignore"}, ("road",), 255),
        ({"water": [0, 0, 255], "Boundary": [0, 0, 0]}, ("water", "Boundary"), 1),
        ({"0": {"name": "a", "rgb": [0, 0, 0]}, "255": {"name": "void", "rgb": [9, 9, 9]}}, ("a",), 255),
        ({"binary": "road"}, ("background", "road"), None),
        ("UAVid", KNOWN_LEGENDS["UAVid"].classes, 255),
    ],
)
def test_legends(tmp_path, content, classes, ignore_index):
    path = tmp_path / "legend.json"
    path.write_text(json.dumps(content))
    legend = read_legend(path)
    assert (legend.classes, legend.ignore_index) == (classes, ignore_index)


def test_legend_as_csv(tmp_path):
    (tmp_path / "legend.csv").write_text("name,r,g,b\nwater,0,0,255\nroad,255,255,0\n")
    assert read_legend(tmp_path / "legend.csv") == Legend(("water", "road"), ((0, 0, 255), (255, 255, 0)))


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '"Nowhere"',
        "{}",
        '{"1": "road"}',
        '{"0": "a", "2": "b"}',
        '{"0": "a", "00": "b"}',
        '{"0": "a", "1": "a"}',
        '{"0": " - "}',
        '{"0": "a\\u0000"}',
        '{"a": [1, 1, 1], "b": [1, 1, 1]}',
        '{"a": [300, 0, 0]}',
        '{"a": [1, 2]}',
        '{"0": {"name": "a"}}',
        '{"0": "a", "255": "water"}',
        '{"0": "void", "255": "ignore"}',
    ],
)
def test_legends_that_lie(tmp_path, content):
    (tmp_path / "legend.json").write_text(content)
    with pytest.raises(DataError, match="legend.json is no legend of masks"):
        read_legend(tmp_path / "legend.json")


def test_a_palette_of_another_length():
    with pytest.raises(DataError, match="one colour a class; got 1 for 2"):
        Legend(("a", "b"), ((0, 0, 0),))


# --- fixtures


def test_known_legends_equal_the_official_conversions(shared):
    """Outside the planted colours: where the official code answers 0 for a colour it does not know, we refuse and name it."""
    from safetensors.numpy import load_file

    folder = shared / "fixtures" / "segmentation"
    tensors = load_file(folder / "label_maps.safetensors")
    facts = json.loads((folder / "label_maps.json").read_text())["datasets"]
    for name, official in (("LoveDA", "LoveDA"), ("ISPRS", "Potsdam and Vaihingen"), ("iSAID", "iSAID"), ("UAVid", "UAVid")):
        palette = [list(colour) for colour in KNOWN_LEGENDS[name].palette]
        assert (
            palette[1:] == facts[official]["palette"]
            if name == "LoveDA"
            else palette[: len(facts[official]["palette"])] == facts[official]["palette"]
        )
    assert [list(colour) for colour in KNOWN_LEGENDS["OpenEarthMap"].palette] == facts["OpenEarthMap"]["palette_from_0"]
    planted = {"isprs": ([(0, 0), (1, 1)], "255, 204, 0"), "isaid": ([(2, 2)], "9, 9, 9"), "uavid": ([(0, 0)], "1, 2, 3")}
    for rgb, ours, theirs in (("isprs", "ISPRS", "geoseg"), ("isaid", "iSAID", "mmseg"), ("uavid", "UAVid", "geoseg")):
        pixels, ids = tensors[f"{rgb}.rgb"].copy(), tensors[f"{rgb}.{theirs}"].copy()
        size = (pixels.shape[1], pixels.shape[0])
        places, colour = planted[rgb]
        with pytest.raises(BadMask, match=colour):
            read_mask(encoded(pixels), KNOWN_LEGENDS[ours], size)
        for place in places:
            pixels[place], ids[place] = KNOWN_LEGENDS[ours].palette[0], 0
        assert (read_mask(encoded(pixels), KNOWN_LEGENDS[ours], size) == ids).all(), rgb
    oem = tensors["oem.rgb"]
    found = read_mask(encoded(oem), KNOWN_LEGENDS["OpenEarthMap"], (oem.shape[1], oem.shape[0]))
    assert (found == tensors["oem.ids"]).all()


def test_bad_masks_of_the_fixture(shared):
    folder = shared / "fixtures" / "bad"
    legend = read_legend(folder / "masks" / "legend.json")
    binary = Legend(("background", "any"), binary=True)
    cases = [case for case in json.loads((folder / "expected.json").read_text())["files"] if case["file"].startswith("masks/")]
    reasons = {"empty_file": {"empty"}, "unknown_colour": {"unknown_colour", "lossy_mask"}}
    for case in cases:
        content = (folder / case["file"]).read_bytes()
        if case["file"].endswith(".json") or case["file"] == "masks/scene.jpg":
            continue
        if "pixels_true" in case:
            assert read_mask(content, binary, (96, 96)).sum() == case["pixels_true"]
        elif case["file"] == "masks/ignore_255.png":
            with pytest.raises(BadMask, match=r"255 \(7 px\)"):
                read_mask(content, legend, (96, 96))
            ignoring = Legend(legend.classes, legend.palette, ignore_index=255)
            assert (read_mask(content, ignoring, (96, 96)) == 255).sum() == 7
        elif case["outcome"] == "accept":
            found = read_mask(content, legend, (96, 96))
            expected = case.get(
                "pixels_per_index", {str(value): count for value, count in zip(*np.unique(found, return_counts=True))}
            )
            assert {str(value): count for value, count in zip(*np.unique(found, return_counts=True))} == expected
        else:
            with pytest.raises(BadMask) as caught:
                read_mask(content, legend, (96, 96))
            assert caught.value.reason in reasons.get(case["reason"], {case["reason"]}), case["file"]
            for unknown in case.get("unknown", {}):
                assert unknown in str(caught.value)
    with pytest.raises(DataError, match="no legend of masks"):
        read_legend(folder / "masks" / "lying_legend.json")
