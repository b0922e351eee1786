"""What tests/fuzz found, each in its smallest form, with what has to come out."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from rsvl_data.boxes import BadGeometry, finite_numbers, segmentation_mask
from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM
from rsvl_data.images import to_stored
from rsvl_data.mask_files import BadMask, raw_pixels, read_legend
from rsvl_data.sample import Sample
from rsvl_data.sources import gaia, karpathy, mgrs, open_source
from rsvl_data.sources.img2dataset import provenance_of
from rsvl_data.sources.tar_members import json_member

GAIA = {"id": 1, "image_src": "https://x.org/a.png", "captions": ["a ship"]}
HALF = "\ud83d"
DEEP = "[" * 400 + "]" * 400  # json reads it; copying and writing it again would not end well


def png(path, colour=(1, 2, 3)):
    Image.new("RGB", (8, 6), colour).save(path)


def outcomes(source):
    return [source.read(entry) for entry in source.entries()]


def read(module, path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    png(path.parent / "a.png")
    return outcomes(module.open(path, "x", DEFAULT_FORM))


# --- one picture twice under one id ended a build after its last shard


def test_gaia_and_mgrs_number_an_id_that_comes_again(tmp_path):
    first, second = read(gaia, tmp_path / "train_data.json", [GAIA, GAIA])
    assert first.key != second.key and second.provenance.original_id == "1 again, 2"
    record = {"global_filepath": "a.png", "brief_caption": "a ship"}
    assert len({sample.key for sample in read(mgrs, tmp_path / "text_info.json", [record] * 3)}) == 3


def test_karpathy_takes_an_image_once(tmp_path):
    image = {"filename": "a.png", "split": "train", "sentences": [{"raw": "a ship"}]}
    sample, dropped = read(karpathy, tmp_path / "dataset_x.json", {"images": [image, image]})
    assert sample.captions[0].text == "a ship" and dropped.reason == "duplicate_id" and "image 1 has the file" in dropped.detail


# --- texts that are none, numbers that are none


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"image_src": HALF}, "bad_record"), ({"sensor": [HALF]}, "bad_record"), ({"credits": [json.loads(DEEP)]}, "bad_record")],
)
def test_gaia_records_that_could_not_be_written(tmp_path, change, reason):
    good, bad = read(gaia, tmp_path / "train_data.json", [GAIA, GAIA | change])
    assert isinstance(good, Sample) and bad.reason == reason


def test_a_number_that_is_not_finite_is_not_known(tmp_path):
    [sample] = read(gaia, tmp_path / "train_data.json", [GAIA | {"resolution": float("inf"), "tag": [float("nan")]}])
    assert not hasattr(sample.provenance, "resolution") and sample.provenance.tag == [None]
    assert Sample.from_json(sample.to_json()).to_json() == sample.to_json()


@pytest.mark.parametrize("content", [rb'{"tag": "\ud83d"}', b'{"tag": ' + DEEP.encode() + b"}"])
def test_a_member_that_could_not_be_written_again(content):
    with pytest.raises(Exception, match="json is not JSON: .*(surrogates|levels)"):
        json_member({"json": content})
    assert provenance_of(json_member({"json": b'{"size": NaN, "tag": 1e999}'})) == {}


@pytest.mark.parametrize("rgb", ["[0, 0, 1e999]", "[Infinity, 0, 0]"])
def test_a_legend_with_an_infinite_colour(tmp_path, rgb):
    (tmp_path / "legend.json").write_text(f'{{"sea": {rgb}}}')
    with pytest.raises(DataError, match="is no legend of masks"):
        read_legend(tmp_path / "legend.json")


def test_boxes_nested_without_end(tmp_path):
    images = [{"id": 1, "file_name": "a.png"}]
    text = json.dumps({"images": images, "categories": [], "annotations": [{"image_id": 1, "bbox": 0}]})
    (tmp_path / "a.json").write_text(text.replace('"bbox": 0', f'"bbox": {DEEP}'))
    with pytest.raises(DataError, match="nested deeper than 100 levels"):
        list(open_source(tmp_path / "a.json", "coco").entries())


# --- messages that grew with the file


@pytest.mark.parametrize(
    "values", [{"size": [10**400, 1], "counts": []}, {"size": [4, 4], "counts": [10**400]}, [[1, 2, "x" * 9000, 4, 5, 6]]]
)
def test_geometry_of_any_size_gives_a_short_message(values):
    with pytest.raises(BadGeometry) as caught:
        segmentation_mask(values, 4, 4)
    assert len(str(caught.value)) < 300


def test_a_long_text_for_a_number():
    with pytest.raises(BadGeometry) as caught:
        finite_numbers([1, 2, 3, "x" * 9000], 4)
    assert len(str(caught.value)) < 300


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "dataset_x.json").write_bytes(b"\xff\x81" * 20_000)
    with pytest.raises(DataError, match="not in Karpathy's form") as caught:
        list(karpathy.list_entries(tmp_path / "dataset_x.json"))
    assert len(str(caught.value)) < 500


def test_a_long_path(tmp_path):
    (tmp_path / "rs3_train.csv").write_text("image,caption\n" + "../" * 9000 + "a.png,x\n")
    [dropped] = outcomes(open_source(tmp_path, "rs5m"))
    assert dropped.reason == "path_outside" and len(dropped.detail) < len(dropped.key) + 500


@pytest.mark.parametrize("text", ["x" * 30_000 + "\n1\n", "image," + ("y" * 30_000 + ",") * 2 + "caption\n"])
def test_a_table_of_long_column_names(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        list(open_source(tmp_path / "t.csv").entries())
    assert len(str(caught.value)) < 800


# --- damaged images


def test_a_jpeg_with_markers_without_a_length_keeps_no_position():
    """Restart markers before the scan are allowed to nobody and forgiven by all; EXIF could hide behind them."""
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (41.0, 53.0, 0.0)}
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (90, 60, 30)).save(out, "JPEG", exif=exif)
    plain = out.getvalue()
    for between in (b"\xff\xd6", b"\xff\xff\xff\xd0", b"\xff\xd6" * 7):
        stored = to_stored(plain[:2] + between + plain[2:])
        assert b"Exif" not in stored.content and stored.reencoded
        assert stored.content.endswith(plain[plain.index(b"\xff\xda") :])  # the pixels are not coded anew
        with Image.open(io.BytesIO(stored.content)) as image:
            assert np.abs(np.asarray(image, int) - (90, 60, 30)).max() < 4


# The strip of this TIFF lies at a fraction of a byte.
RATIONAL_TIFF = bytes.fromhex(
    "49492a00080000000a0000010400010000001000000001010400010000000c0000000201030001000000200000000301030001000000010000000601"
    "0300010000000100000011010500010000000000000000030400010000000c0000001701040001000000000300001c010300010000001c0089500056"
    "0000005301030001000000000d000000"
)


def test_a_mask_whose_decoder_raises_a_type_error():
    with pytest.raises(BadMask) as caught:
        raw_pixels(RATIONAL_TIFF, (16, 12))
    assert caught.value.reason == "not_an_image"
