import pytest

from rsvl_data.captions_from_objects import caption_of_classes, caption_of_objects, plural


@pytest.mark.parametrize(
    ("categories", "complete", "text"),
    [
        ([], True, "an aerial image."),
        ([], False, "an aerial image."),
        (["ship"], True, "an aerial image with one ship."),
        (["bridge", "ship", "ship"], True, "an aerial image with two ships and one bridge."),
        (["storage_tank"] * 12 + ["BaseballDiamond"], True, "an aerial image with 12 storage tanks and one baseball diamond."),
        (["b", "a", "c"], True, "an aerial image with one a, one b and one c."),
        (["ship", "ship", "bridge"], False, "an aerial image with objects of the kind ship and bridge."),
    ],
)
def test_objects(categories, complete, text):
    caption = caption_of_objects(categories, complete=complete)
    assert (caption.text, caption.kind) == (text, "boxes")


def test_classes():
    assert caption_of_classes(["water", "low_vegetation", "road"]).text == "an aerial image with water, low vegetation and road."
    assert caption_of_classes([]).text == "an aerial image." and caption_of_classes([]).kind == "mask"


@pytest.mark.parametrize(
    ("one", "many"), [("ship", "ships"), ("bus", "bus"), ("church", "churches"), ("factory", "factories"), ("runway", "runways")]
)
def test_plurals(one, many):
    assert plural(one) == many
