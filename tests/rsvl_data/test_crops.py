"""Crops: which boxes are drawn, what their pixels are, and how they reach a batch."""

import io
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_dataset import PREPROCESS, jpeg, make_sample, tokenize, write_dataset

from rsvl_data.colour_jitter import ColourJitter
from rsvl_data.crops import (
    NO_CATEGORY,
    Crops,
    GridCrops,
    ObjectCrops,
    RandomCrops,
    category_number,
    decode_with_crops,
    draw_crops,
    most_square_grid,
)
from rsvl_data.errors import OptionError
from rsvl_data.loader import LoaderConfig, train_batches
from rsvl_data.sample import Region
from rsvl_data.transforms import Augment, Preprocess

STRETCH = Augment("stretch")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def region(x0: float, y0: float, x1: float, y1: float, category: str = "ship", **more) -> Region:
    return Region(bbox=(x0, y0, x1, y1), category=category, **more)


def rng_of(purpose: str) -> random.Random:
    return random.Random(purpose)


def fractions(crop, width: int, height: int) -> list[float]:
    return [side / full for side, full in zip(crop.box, (width, height, width, height))]


class TestRandom:
    def test_farslip_12_ranges_and_means_are_those_of_the_released_code(self, shared):
        """Area 0.3 to 0.7 and aspect 3/4 to 4/3 but for whole pixels and the fallback; four boxes inside the image."""
        facts = json.loads((shared / "fixtures" / "objectives" / "farslip_crops.json").read_text())["scalars"]
        rng = random.Random(0)
        for size, observed in facts["observed over many draws by image size HxW"].items():
            height, width = map(int, size.split("x"))
            draws = [draw_crops(RandomCrops(), [], width, height, rng) for _ in range(1500)]
            assert {len(crops) for crops in draws} == {4}
            boxes = np.array([fractions(crop, width, height) for crops in draws for crop in crops])
            sides = boxes[:, 2:] - boxes[:, :2]
            area, aspect = sides.prod(axis=1), sides[:, 0] * width / (sides[:, 1] * height)
            assert boxes.min() >= 0 and boxes.max() <= 1
            for found, name in ((area, "area"), (aspect, "aspect")):
                assert found.min() == pytest.approx(observed[f"{name}_min"], abs=0.02)
                assert found.max() == pytest.approx(observed[f"{name}_max"], abs=0.02)
            assert area.mean() == pytest.approx(observed["area_mean"], abs=0.02)
            assert np.log(aspect).mean() == pytest.approx(observed["log_aspect_mean"], abs=0.02)

    def test_pixels_of_stored_boxes_are_those_of_the_released_code(self, shared, monkeypatch):
        folder = shared / "fixtures" / "objectives"
        stored = load_file(folder / "farslip_crops.safetensors")
        image = stored["image_uint8"].numpy()
        height, width = image.shape[:2]
        preprocess = Preprocess(size=24)
        size = torch.tensor([width, height, width, height])
        regions = [region(*(box[:4] * size).tolist()) for box in stored["random/boxes"]]
        config = ObjectCrops(min_area_px=0)
        sample = make_sample(0, image=png(image)).model_copy(update={"regions": regions})
        monkeypatch.setattr("rsvl_data.crops._shuffled", lambda regions, rng: list(regions))
        picture, crops = decode_with_crops(
            preprocess, sample, {"o": config, "g": GridCrops()}, "exact", Augment("stretch"), rng_of
        )
        standardised = preprocess.normalize(torch.stack([picture, *(crop.pixels for each in crops.values() for crop in each)]))
        expected = torch.cat([stored["random/global"][None], stored["random/crops"], stored["grids/crops"]])
        assert (standardised - expected).abs().max() <= 0.02
        for name, found in (("random", crops["o"]), ("grids", crops["g"])):
            torch.testing.assert_close(
                torch.tensor([crop.box for crop in found]), stored[f"{name}/boxes"][:, :4], atol=1e-6, rtol=0
            )

    def test_one_orientation_in_eight(self):
        crops = draw_crops(RandomCrops(count=64, flips=True), [], 30, 30, random.Random(0))
        assert len({(crop.view.mirrored, crop.view.quarter_turns) for crop in crops}) == 8
        assert not any(crop.view.mirrored for crop in draw_crops(RandomCrops(count=64), [], 30, 30, random.Random(0)))


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (4, (2, 2)), (6, (2, 3)), (7, (1, 7)), (12, (3, 4))])
def test_farslip_13_grid_boxes_tile_the_image(count, grid):
    assert most_square_grid(count) == grid
    boxes = [crop.box for crop in draw_crops(GridCrops(count), [], 50, 41, random.Random(0))]
    covered = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)
    overlaps = [
        max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    ]
    assert len(boxes) == count and covered == pytest.approx(50 * 41) and max(overlaps, default=0) < 1e-9


class TestObjects:
    def test_farslip_22_boxes_are_fractions_of_the_stored_image(self):
        """Our record names no keys of a box: its order is fixed, x0, y0, x1, y1. No padding: a region that is not there has no row."""
        pixels = np.zeros((40, 80, 3), np.uint8)
        pixels[10:20, 40:80] = 200
        sample = make_sample(0, image=png(pixels)).model_copy(update={"regions": [region(40, 10, 80, 20)]})
        _, crops = decode_with_crops(PREPROCESS, sample, {"o": ObjectCrops(min_area_px=0)}, "exact", STRETCH, rng_of)
        (crop,) = crops["o"]
        assert crop.box == (0.5, 0.25, 1.0, 0.5)
        assert (crop.pixels == 200).all()

    @pytest.mark.parametrize(
        ("box", "kept"),
        [((0, 0, 63, 65), False), ((0, 0, 64, 64), True), ((0, 0, 1024, 1024), True), ((0, 0, 1025, 1024), False)],
    )
    def test_farslip_23_the_filter_is_of_area(self, box, kept):
        assert len(draw_crops(ObjectCrops(), [region(*box)], 2000, 2000, random.Random(0))) == kept

    def test_farslip_24_at_most_so_many_without_replacement_and_others_in_each_epoch(self):
        regions = [region(10 * place, 0, 10 * place + 9, 9) for place in range(10)]
        draws = [
            [crop.box for crop in draw_crops(ObjectCrops(min_area_px=1), regions, 200, 200, random.Random(f"0 {epoch} key"))]
            for epoch in (0, 1, 2, 0)
        ]
        assert all(len(set(boxes)) == 4 for boxes in draws)
        assert draws[0] == draws[3] and draws[0] != draws[1] != draws[2]

    def test_farslip_25_the_text_is_the_prompt_unless_the_region_has_its_own(self):
        regions = [region(0, 0, 99, 99), region(0, 0, 98, 98, "Ship", caption="a red ship"), region(0, 0, 97, 97, "car")]
        ship, car = category_number("ship"), category_number("car")
        found = {}
        for captions in ("own_category", "no_category", "ignored"):
            drawn = draw_crops(ObjectCrops(captions=captions), regions, 200, 200, random.Random(0))
            found[captions] = {crop.box[2]: crop.words[:2] for crop in drawn}
            assert {crop.box[2]: crop.words.kind for crop in drawn} == {99: ship, 98: ship, 97: car}
        assert found["ignored"] == {
            99: ("a satellite image of ship", ship),
            98: ("a satellite image of Ship", ship),
            97: ("a satellite image of car", car),
        }
        assert found["own_category"][98] == ("a red ship", category_number("a red ship"))
        assert found["no_category"][98] == ("a red ship", NO_CATEGORY)
        assert ship != car and ship > 0

    def test_a_margin_ends_at_the_border(self):
        (crop,) = draw_crops(ObjectCrops(margin=0.5), [region(0, 50, 100, 150)], 120, 300, random.Random(0))
        assert crop.box == (0, 0, 120, 200)

    def test_a_letterbox_keeps_the_aspect(self):
        sample = make_sample(0, image=png(np.full((40, 160, 3), 255, np.uint8)))
        sample = sample.model_copy(update={"regions": [region(0, 0, 160, 40)]})
        _, crops = decode_with_crops(PREPROCESS, sample, {"o": ObjectCrops(letterbox=True)}, "exact", STRETCH, rng_of)
        (crop,) = crops["o"]
        white = (crop.pixels == 255).all(dim=0)
        assert white.sum() == 16 * 4 and white[6:10].all()
        assert PREPROCESS.normalize(crop.pixels[None]).abs()[:, :, 0].max() < 0.02  # the rest is the mean colour


ORIENTED = np.arange(12 * 12, dtype=np.uint8).reshape(12, 12)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("engine", ["exact", "fast"])
def test_boxes_follow_the_picture_however_it_is_turned(seed, engine):
    """What a box shows of a turned picture is the crop, turned."""
    pixels = np.repeat(ORIENTED[..., None], 3, axis=2)
    sample = make_sample(0, image=png(pixels)).model_copy(update={"regions": [region(2, 3, 5, 9)]})
    augment, configs = Augment("stretch", flips=True), {"o": ObjectCrops(min_area_px=0), "g": GridCrops(1)}
    picture, crops = decode_with_crops(
        Preprocess(size=12), sample, configs, engine, augment, lambda purpose: random.Random(f"{seed} {purpose}")
    )
    assert torch.equal(crops["g"][0].pixels, picture)
    x0, y0, x1, y1 = (round(12 * side) for side in crops["o"][0].box)
    shown = picture[0, y0:y1, x0:x1]
    assert sorted(shown.flatten().tolist()) == sorted(ORIENTED[3:9, 2:5].flatten().tolist())


def test_boxes_of_a_picture_that_shows_the_middle():
    sample = make_sample(0, image=png(np.zeros((20, 40, 3), np.uint8)))
    sample = sample.model_copy(update={"regions": [region(0, 0, 20, 20)]})
    _, crops = decode_with_crops(PREPROCESS, sample, {"o": ObjectCrops(min_area_px=0)}, "exact", Augment("none"), rng_of)
    assert crops["o"][0].box == (-0.5, 0, 0.5, 1)


CROPS = {"global": RandomCrops(2, (0.4, 1.0)), "local": RandomCrops(8, (0.05, 0.4), size_px=8), "o": ObjectCrops(2, 0)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    samples = [make_sample(number) for number in range(8)]
    with_regions = [
        sample.model_copy(update={"regions": [region(1, 1, 9 + number, 9), region(2, 2, 30, 30, "car")][: number % 3]})
        for number, sample in enumerate(samples)
    ]
    return write_dataset(tmp_path_factory.mktemp("crops"), [with_regions])


class TestBatches:
    def batches(self, dataset, **changes):
        config = {"batch_size": 4, "workers": 0, "augment": STRETCH, "crops": CROPS, **changes}
        return list(train_batches(dataset, "train", PREPROCESS, tokenize, LoaderConfig(**config), num_steps=4))

    def test_shapes_rows_and_tokens(self, dataset):
        for batch in self.batches(dataset):
            for name, count, size in (("global", 2, 16), ("local", 8, 8)):
                crops = batch.crops[name]
                assert crops.images.shape == (4 * count, 3, size, size)
                assert crops.sample.tolist() == [row for row in range(4) for _ in range(count)]
                assert crops.texts == [] and crops.tokens.shape == (4 * count, 0)
            objects = batch.crops["o"]
            assert objects.sample.tolist() == sorted(objects.sample.tolist())
            assert torch.equal(objects.tokens, tokenize(objects.texts)) if objects.texts else objects.tokens.shape == (0, 12)

    def test_the_picture_is_the_same_with_and_without_crops(self, dataset):
        for one, other in zip(self.batches(dataset, crops={}), self.batches(dataset)):
            assert one.keys == other.keys and torch.equal(one.images, other.images) and one.crops == {}

    def test_nothing_depends_on_workers_or_on_the_other_crops(self, dataset):
        alone = self.batches(dataset, workers=2, crops={"local": CROPS["local"]})
        for one, other in zip(alone, self.batches(dataset)):
            assert torch.equal(one.crops["local"].images, other.crops["local"].images)
            assert torch.equal(one.crops["local"].boxes, other.crops["local"].boxes)

    def test_no_region_at_all(self, dataset):
        (batch, *_) = self.batches(dataset, crops={"o": ObjectCrops(min_area_px=10**5, max_area_px=10**6)})
        crops = batch.crops["o"]
        assert len(crops) == 0 and crops.images.shape == (0, 3, 16, 16) and crops.tokens.shape == (0, 12)

    def test_parts_of_a_batch_have_their_crops(self, dataset):
        batch = self.batches(dataset)[0]
        parts = [batch.part(start, start + 1) for start in range(4)]
        for name, whole in batch.crops.items():
            of_parts = [part.crops[name] for part in parts]
            assert torch.equal(torch.cat([crops.images for crops in of_parts]), whole.images)
            assert torch.equal(torch.cat([crops.sample + row for row, crops in enumerate(of_parts)]), whole.sample)
            assert [text for crops in of_parts for text in crops.texts] == whole.texts

    def test_an_image_is_decoded_once(self, dataset, monkeypatch):
        decoded = []
        from rsvl_data import transforms

        plain = transforms._decode_shrunk
        monkeypatch.setattr(transforms, "_decode_shrunk", lambda *words: decoded.append(1) or plain(*words))
        self.batches(dataset)
        assert len(decoded) == 16


class TestColours:
    def test_the_share_that_changes_and_the_share_that_is_grey(self):
        pixels = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None].repeat(1, 4, 4)
        rng = random.Random(0)
        made = [ColourJitter().apply(pixels, rng) for _ in range(600)]
        grey = sum(bool((image[0] == image[1]).all() and (image[1] == image[2]).all()) for image in made)
        same = sum(torch.equal(image, pixels) for image in made)
        assert 0.15 < grey / 600 < 0.25 and 0.12 < same / 600 < 0.2  # 0.2 and 0.2 * 0.8

    def test_picture_and_crops_have_colours_of_their_own(self):
        sample = make_sample(0, image=jpeg(0))
        augment = Augment("stretch", colour=ColourJitter(share=1, grey_share=0))
        picture, crops = decode_with_crops(PREPROCESS, sample, {"r": RandomCrops(2, (1, 1), (1, 1))}, "exact", augment, rng_of)
        images = [picture, *(crop.pixels for crop in crops["r"])]
        assert len({image.float().mean().item() for image in images}) == 3

    @pytest.mark.parametrize("options", [{"hue": 0.6}, {"brightness": -0.1}, {"share": 2}])
    def test_impossible_values(self, options):
        with pytest.raises(OptionError, match="must be from 0 to"):
            ColourJitter(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrops(0), "0 crops of None px"),
        (lambda: RandomCrops(area=(0.7, 0.3)), "from a smaller to a larger"),
        (lambda: ObjectCrops(prompt="a ship"), "must hold {category}"),
        (lambda: ObjectCrops(min_area_px=5, max_area_px=4), "must not be above"),
        (lambda: ObjectCrops(margin=-1), "nothing is negative"),
    ],
)
def test_options_that_cannot_be(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_pinning_keeps_the_texts(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 0)
    none = torch.zeros(1, dtype=torch.int64)
    crops = Crops(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 4), none, ["a"], none[:, None], none, none)
    assert crops.pin_memory().texts == ["a"] and len(crops.pin_memory()) == 1
