import pytest

from rsvl_data.errors import OptionError
from rsvl_data.image_form import ImageForm, Placement

# What img2dataset's resizer answers for an image of 300 x 200 (first column) at 100 px; at 400 px it enlarges.
SIZES = {
    "keep_ratio": [(150, 100), (600, 400)],
    "keep_ratio_largest": [(100, 67), (400, 267)],
    "center_crop": [(100, 100), (400, 400)],
    "border": [(100, 100), (400, 400)],
}


@pytest.mark.parametrize("resize", SIZES)
def test_sizes(resize):
    for size_px, expected in zip((100, 400), SIZES[resize]):
        placed = ImageForm(size_px=size_px, resize=resize, upscale=True).placement(300, 200)
        assert (placed.width, placed.height) == expected
    assert ImageForm(size_px=400, resize=resize).placement(300, 200).changes_nothing
    assert ImageForm().placement(300, 200).changes_nothing


def test_where_the_picture_lies():
    cropped = ImageForm(size_px=100, resize="center_crop").placement(301, 200)  # 150 x 100: round half to even, as img2dataset
    assert (cropped.picture_width, cropped.left, cropped.top) == (150, -25, 0) and cropped.crops
    assert cropped.shown == (25, 0, 125, 100) and cropped.shown_in_source[1::2] == (0, 200)
    bordered = ImageForm(size_px=100, resize="border").placement(300, 200)
    assert (bordered.left, bordered.top) == (0, 16) and bordered.shown == (0, 0, 100, 67) and not bordered.crops
    odd = ImageForm(size_px=101, resize="center_crop").placement(400, 202)  # 49.5 to cut away on a side
    assert (odd.left, odd.shown) == (-49, (49, 0, 150, 101))


def test_a_side_that_fits_is_still_cropped_and_padded():
    assert ImageForm(size_px=200, resize="center_crop").placement(300, 200) == Placement(300, 200, 300, 200, -50, 0, 200, 200)
    assert ImageForm(size_px=300, resize="border").placement(300, 200) == Placement(300, 200, 300, 200, 0, 50, 300, 300)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, "quality 0; allowed is 1 to 100"),
        ({"quality": 101}, "quality 101"),
        ({"size_px": 3, "resize": "border"}, "size_px 3; allowed is 4 or more"),
        ({"size_px": 256}, "say nothing without resize"),
        ({"upscale": True}, "say nothing without resize"),
        ({"resize": "border"}, "resize border needs the size"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(OptionError, match=message):
        ImageForm(**options)
