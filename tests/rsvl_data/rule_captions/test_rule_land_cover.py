import io
import random
import re

import numpy as np
import pytest
from PIL import Image

from rsvl_data.captions.by_rule import Dice
from rsvl_data.captions.land_cover import (
    caption_of_classes,
    is_in_one_piece,
    land_cover_sentences,
    land_cover_texts,
    measure_covers,
    share_words,
)
from rsvl_data.errors import OptionError
from rsvl_data.mask_files import encode_mask
from rsvl_data.sample import Region, Sample

CLASSES = ["no-data", "background", "building", "road", "water", "barren", "forest", "agriculture"]
LEGEND = {"classes": CLASSES, "ignore_index": 0}


def halves(left, right, size=40):
    ids = np.full((size, size), left, np.uint8)
    ids[:, size // 2 :] = right
    return ids


def all_texts(ids, ignore_index=0):
    covers, ignored = measure_covers(ids, CLASSES, ignore_index)
    return {text for key in range(60) for text in land_cover_texts(covers, ignored, Dice(0, str(key), "land cover"))}


def test_the_plain_sentence():
    assert caption_of_classes(["water", "low_vegetation", "road"]).text == "an aerial image with water, low vegetation and road."
    assert caption_of_classes([]).text == "an aerial image." and caption_of_classes([]).kind == "mask"


def test_shares_are_of_labelled_pixels():
    """Against counting one pixel at a time."""
    rng = np.random.default_rng(0)
    for shape in ((7, 9), (1, 5), (40, 40)):
        ids = rng.integers(0, 8, shape).astype(np.uint8)
        covers, ignored = measure_covers(ids, CLASSES, 0)
        labelled = [int(value) for value in ids.ravel() if value != 0]
        names = {"building": 2, "road": 3, "water": 4, "bare ground": 5, "forest": 6, "farmland": 7}
        assert ignored == pytest.approx(1 - len(labelled) / ids.size)
        for cover in covers:
            assert cover.share == pytest.approx(labelled.count(names[cover.noun.one]) / len(labelled))
            assert sum(cover.quarters) == pytest.approx(1)
        assert [cover.share for cover in covers] == sorted((cover.share for cover in covers), reverse=True)


def test_ignored_and_foreign_ids_are_no_cover():
    ids = halves(4, 255)
    covers, ignored = measure_covers(ids, CLASSES, 255)
    assert [cover.noun.one for cover in covers] == ["water"] and covers[0].share == 1 and ignored == 0.5
    assert measure_covers(np.zeros((4, 4), np.uint8), CLASSES, 0) == ([], 1.0)
    assert land_cover_texts([], 1.0, Dice(0, "k", "p")) == []


def test_a_large_ignored_part_is_said_and_shares_are_of_the_rest():
    said = all_texts(halves(4, 0))
    assert any("about half of the" in text.lower() and "label" in text for text in said)
    assert all("labelled" in text or "No label" in text for text in said), "nothing is claimed of the whole picture"
    assert not any("label" in text for text in all_texts(halves(4, 6)))


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.1, "about a tenth"), (0.33, "about a third"), (0.5, "about half"), (0.66, "about two thirds"), (0.42, "about 40 percent"),
     (0.044, "about 4 percent"), (0.002, "less than one percent")],
)  # fmt: skip
def test_shares_in_words(share, words):
    assert share_words(share) == words


def test_words_of_shares_are_near_the_share():
    values = {
        "tenth": 0.1,
        "fifth": 0.2,
        "quarter": 0.25,
        "third": 1 / 3,
        "half": 0.5,
        "two thirds": 2 / 3,
        "three quarters": 0.75,
        "nine tenths": 0.9,
    }
    for share in np.linspace(0.005, 0.999, 700):
        words = share_words(float(share)).removeprefix("about ").removeprefix("a ")
        told = int(words.split()[0]) / 100 if "percent" in words else values[words]
        assert abs(told - share) <= 0.031, (share, words)


def test_one_small_patch_is_not_several():
    ids = np.full((60, 60), 6, np.uint8)
    ids[10:16, 10:20] = 2
    assert any("a building" in text.lower() for text in all_texts(ids)) and not any(
        "buildings" in text for text in all_texts(ids)
    )
    ids[40:46, 40:50] = 2
    assert not is_in_one_piece(ids == 2) and not any("a building" in text.lower() for text in all_texts(ids))


def test_pieces_follow_bends():
    snake = np.zeros((41, 41), bool)
    snake[::4] = True
    snake[1::8, -1] = snake[2::8, -1] = snake[3::8, -1] = True
    snake[5::8, 0] = snake[6::8, 0] = snake[7::8, 0] = True
    assert is_in_one_piece(snake)
    snake[5:8, 0] = False
    assert not is_in_one_piece(snake)


def test_sentences_do_not_contradict_each_other():
    rng = random.Random(0)
    for index in range(400):
        ids = np.zeros((32, 32), np.uint8)
        for _ in range(rng.randint(1, 8)):
            x, y = rng.randrange(32), rng.randrange(32)
            ids[y : y + rng.randint(1, 32), x : x + rng.randint(1, 32)] = rng.randrange(8)
        covers, ignored = measure_covers(ids, CLASSES, 0)
        told = land_cover_texts(covers, ignored, Dice(0, str(index), "land cover"))
        for text in told:
            assert (
                text[0].isupper() and text.endswith(".") and not re.search(r"[{}]|  |\.\.|backgrounds?|\ba [aeiou]|waters", text)
            ), text
        shares = {cover.noun.many: cover.share for cover in covers}
        for match in re.finditer(r"(mostly|almost entirely|entirely) (?:covered by )?(\w[\w ]*)\.", " ".join(told)):
            least = {"mostly": 0.55, "almost entirely": 0.95, "entirely": 1}[match[1]]
            assert shares[match[2]] >= least, told


def test_places():
    ids = np.full((40, 40), 7, np.uint8)
    ids[:10, :10] = 4
    assert any("upper left" in text and "water" in text for text in all_texts(ids))
    assert not any("farmland" in text and " half" in text for text in all_texts(ids)), (
        "of what fills the picture no place is told"
    )


def test_most_is_said_of_ground_and_not_of_things():
    """A mask gives areas: 90 % of the area of buildings need not be most of the buildings."""
    for cover, said in ((4, True), (2, False)):
        ids = np.full((40, 40), 7, np.uint8)
        ids[:9, :10] = cover
        ids[30, 30:] = cover
        assert any("upper left" in text for text in all_texts(ids)) is said
    ids = np.full((40, 40), 7, np.uint8)
    ids[:10, :10] = ids[30:, 30:] = 4
    assert not any("upper left" in text or " half" in text for text in all_texts(ids)), "half of the water is not most of it"


def run(ids, mask=LEGEND, regions=(), **options):
    sample = Sample(
        key="k", width=ids.shape[1], height=ids.shape[0], sha256="0" * 64, mask=encode_mask(ids), regions=list(regions)
    )
    sample.captions = [caption_of_classes(["water"])]
    (out,) = land_cover_sentences(mask, **options).run([sample])
    return [caption.text for caption in out.captions]


def test_the_stage():
    ids = halves(4, 6)
    assert "water" in run(ids)[0].lower() and run(ids) == run(ids) and len(run(ids, most=1)) == 1 < len(run(ids))
    assert len({tuple(run(ids, seed=seed)) for seed in range(9)}) > 3
    assert run(np.zeros((8, 8), np.uint8)) == ["an aerial image with water."], "nothing to say leaves the captions alone"
    with pytest.raises(OptionError, match="has no masks"):
        land_cover_sentences(None)
    with pytest.raises(OptionError, match="most is 0"):
        land_cover_sentences(LEGEND, most=0)


def test_regions_know_how_many_things_there_are():
    ids = np.full((60, 60), 6, np.uint8)
    ids[10:16, 10:20] = 2  # two that touch
    two = [Region(bbox=(10, 10, 15, 16), category="building"), Region(bbox=(15, 10, 20, 16), category="building")]
    texts = [text for seed in range(20) for text in run(ids, regions=two, seed=seed)]
    assert any("buildings" in text for text in texts) and not any("a building" in text.lower() for text in texts)


def test_samples_without_a_mask_pass():
    sample = Sample(key="k", width=4, height=4, sha256="0" * 64)
    assert next(iter(land_cover_sentences(LEGEND).run([sample]))).captions == []


def test_real_masks(shared):
    with Image.open(shared / "data/loveda_sample/masks/0.png") as picture:
        ids = np.asarray(picture)
    out = io.BytesIO()
    Image.fromarray(ids).save(out, "PNG")
    said = all_texts(ids)
    share = (ids == 7).sum() / (ids != 0).sum()
    assert share == pytest.approx(0.85, abs=0.03) and any("mostly" in text and "farmland" in text for text in said)
