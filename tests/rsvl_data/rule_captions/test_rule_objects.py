import random
import re
from collections import Counter

import pytest

from rsvl_data.boxes import box_area
from rsvl_data.captions.by_rule import Dice
from rsvl_data.captions.layout import Frame
from rsvl_data.captions.objects import caption_of_objects, object_sentences, object_texts, rounded_metres
from rsvl_data.errors import OptionError
from rsvl_data.image_form import DEFAULT_FORM
from rsvl_data.sample import Caption, Geo, Region, Sample
from rsvl_data.sources import coco, open_source
from rsvl_data.stage import Dropped

FRAME = Frame(300, 300)
NUMBERS = dict(zip("one two three four five six seven eight nine ten".split(), range(1, 11)))
FORMS = {"ship": "ships", "storage_tank": "storage tanks", "bridge": "bridges", "aircraft": "aircraft", "factory": "factories"}


def region(category, x, y, width=10, height=10, **facts):
    return Region(bbox=(x - width / 2, y - height / 2, x + width / 2, y + height / 2), category=category, **facts)


def texts(regions, frame=FRAME, key="k", **options):
    return object_texts(regions, frame, Dice(0, key, "objects"), **options)


def all_texts(regions, frame=FRAME, **options):
    """Over many draws, to see every sentence that can be said."""
    return {text for key in range(60) for text in texts(regions, frame, str(key), **options)}


def random_regions(rng):
    kinds = rng.sample(list(FORMS), rng.randint(1, 5))
    return [
        region(rng.choice(kinds), rng.uniform(10, 290), rng.uniform(10, 290), rng.uniform(2, 60), rng.uniform(2, 60))
        for _ in range(rng.choice((1, 1, 2, 3, 5, 12, 40, 250)))
    ]


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
def test_the_plain_sentence(categories, complete, text):
    caption = caption_of_objects(categories, complete=complete)
    assert (caption.text, caption.kind) == (text, "boxes")


def test_counts_are_those_of_the_boxes():
    """Every number before a noun, over thousands of pictures, in words and in digits."""
    names = {form: one for one, many in FORMS.items() for form in (one.replace("_", " "), many)}
    amount = re.compile(
        rf"\b(\d+|{'|'.join(NUMBERS)}|dozens of|hundreds of) ({'|'.join(sorted(names, key=len, reverse=True))})\b", re.I
    )
    rng, seen = random.Random(0), Counter()
    for index in range(900):
        regions = random_regions(rng)
        counts = Counter(item.category for item in regions)
        first, *others = texts(regions, key=str(index))
        for text in (first, *others):
            for number, name in amount.findall(text):
                count, number = counts[names[name.lower()]], number.lower()
                if number in ("dozens of", "hundreds of"):
                    assert count >= {"dozens of": 24, "hundreds of": 200}[number], text
                else:
                    assert (NUMBERS.get(number) or int(number)) == count, text
                seen[number] += 1
        assert sum(name in first.lower() for name in set(names)) >= 1
    assert {"one", "ten", "12", "dozens of", "hundreds of", "250"} <= set(seen)


def test_the_english_holds():
    rng = random.Random(1)
    for index in range(900):
        complete = index % 3 > 0
        for text in texts(random_regions(rng), Frame(300, 300, 0.5, index % 2 == 0), str(index), complete=complete):
            assert_is_english(text)
            if not complete:
                assert not re.search(rf"\d|\b({'|'.join(NUMBERS)}|both|all|most|only|dozens|hundreds)\b", text, re.I), text


def assert_is_english(text):
    assert text[0].isupper() or not text[0].isalpha(), text
    assert not text[0].isdigit() and text.endswith(".") and not re.search(r"\.\.|  |[{}]| [,.]", text), text
    assert not re.search(
        r"\ba [aeiou]|\ban [bcdfgjklmnpqrstvwxyz]|\b1 \w+s\b|\bone (ships|bridges|factories)\b|aircrafts|factorys", text, re.I
    ), text
    assert not re.search(
        r"\b(two|\d+) (ship|bridge|factory|storage tank)\b|^(?!One of).*(ships|bridges|tanks|factories) is\b", text, re.I
    ), text


def test_nothing_is_said_of_no_objects():
    assert texts([]) == []


def test_an_object_is_where_its_box_is():
    said = all_texts([region("bridge", 20, 20)])
    assert all("upper left" in text for text in said if "The bridge" in text) and any("The bridge" in text for text in said)
    assert any("most of" in text.lower() for text in all_texts([region("lake", 150, 150, 280, 280)]))
    said = all_texts([region("ship", 20, 20), region("ship", 70, 70)])
    assert any(text.startswith("Both ships") and "upper left" in text for text in said)
    most = [region("ship", 30, 40 * index) for index in range(1, 7)] + [region("ship", 250, 50)]
    assert any(text.startswith("Most of the seven ships") and "left half" in text for text in all_texts(most))
    assert any(
        "whole image" in text for text in all_texts([region("ship", x, y) for x in (50, 100, 200, 250) for y in (50, 250)])
    )


def test_rows_and_rings_are_said():
    tanks = [region("storage_tank", 50 + 15 * index, 50) for index in range(4)]
    assert any("row" in text for text in all_texts(tanks))
    assert not any("row" in text for text in all_texts(tanks, complete=False))
    ring = [region("tree", 150 + 25 * dx, 150 + 25 * dy) for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    assert any("surround" in text for text in all_texts([region("house", 150, 150, 30, 30), *ring]))


def test_neighbours_are_counted():
    pier = region("harbor", 100, 100, 20, 20)
    ships = [region("ship", 120, 100, 15, 15), region("ship", 80, 100, 15, 15), region("ship", 280, 280, 15, 15)]
    said = all_texts([pier, *ships])
    assert any(re.match("Two of the three ships are .* the harbor", text) for text in said)
    assert any(re.match("The ship is .* the harbor", text) for text in all_texts([pier, ships[0]]))
    assert not any("next to" in text or "beside" in text for text in all_texts([pier, ships[2]]))
    one = {text for text in all_texts([pier, *ships[1:]]) if text.startswith("One of the two ships")}
    assert one and all(text.startswith("One of the two ships is ") for text in one)


def test_north_is_said_only_where_it_is_known():
    pair = [region("bridge", 150, 40), region("ship", 150, 260)]
    assert any("above the ship in the image" in text or "below the bridge in the image" in text for text in all_texts(pair))
    assert not any("north" in text or "south" in text for text in all_texts(pair))
    on_map = all_texts(pair, Frame(300, 300, north_up=True))
    assert any("south of the bridge" in text or "north of the ship" in text for text in on_map)


def test_sizes_need_an_outline_a_scale_and_the_whole_object():
    box = region("ship", 100, 100, 60, 10, polygon=[(70, 95), (130, 95), (130, 105), (70, 105)])
    assert any("about 30 m" in text or "some 30 m" in text for text in all_texts([box], Frame(300, 300, 0.5)))
    for other, frame in (
        (box, FRAME),  # no scale
        (region("ship", 100, 100, 60, 10), Frame(300, 300, 0.5)),  # no outline
        (region("ship", 30, 100, 60, 10, polygon=[(0, 95), (60, 95), (60, 105)]), Frame(300, 300, 0.5)),  # at the border
    ):
        assert not any(" m " in text for text in all_texts([other], frame))


@pytest.mark.parametrize(
    ("metres", "words"), [(4.4, "4"), (19.6, "20"), (33, "35"), (217, "220"), (760, "750"), (1234, "1200"), (26700, "27000")]
)
def test_metres_are_rounded_to_what_one_can_measure(metres, words):
    assert rounded_metres(metres) == words


def run(regions, scores=None, geo=None, **options):
    sample = Sample(key="k", width=300, height=300, sha256="0" * 64, regions=regions, scores=scores or {}, geo=geo)
    sample.captions = [caption_of_objects([item.category for item in regions]), Caption(text="a person's words")]
    (out,) = object_sentences(**options).run([sample])
    return [caption.text for caption in out.captions]


def test_the_stage():
    ships = [region("ship", 20, 20), region("ship", 70, 70), region("bridge", 250, 250)]
    told = run(ships)
    assert told[0] == "a person's words" and "wo ships and one bridge" in told[1] and len(told) > 2
    assert run(ships, most=1) == told[:2]
    assert len({tuple(run(ships, seed=seed)) for seed in range(9)}) > 3
    for incomplete in (
        run(ships, complete=False),
        run(ships, scores={"regions_dropped": 1.0}),
        run([*ships, region("ship", 200, 20, iscrowd=1)]),
    ):
        assert "hips and a bridge" in incomplete[1]
    assert run([]) == ["an aerial image.", "a person's words"]
    north_up = Geo(footprint=[(10, 51), (11, 51), (11, 50), (10, 50)])
    pair = [region("ship", 30, 30), region("bridge", 270, 270)]
    assert any("west" in text for seed in range(9) for text in run(pair, geo=north_up, seed=seed))
    with pytest.raises(OptionError, match="most is 0"):
        object_sentences(most=0)


def test_a_crowd_is_more_than_one():
    assert "ships" in run([region("ship", 200, 20, iscrowd=1)])[1].lower()


def test_real_boxes(shared):
    """NWPU VHR-10: each first sentence names the kinds and numbers of the annotation file."""
    source = coco.open(shared / "data/nwpu_vhr10/instances.json", "vhr", DEFAULT_FORM)
    outcomes = [source.read(entry) for entry in source.entries()]
    samples = list(object_sentences().run([outcome for outcome in outcomes if not isinstance(outcome, Dropped)]))
    assert len(samples) == 78
    for sample in samples:
        counts = Counter(item.category for item in sample.regions)
        first = sample.captions[0].text.lower()
        for category, count in counts.items():
            assert category.split("_")[0] in first or len(counts) > 4
            words = {value: word for word, value in NUMBERS.items()}
            assert words.get(count, str(count)) in first or "dozens" in first
        for caption in sample.captions:
            assert_is_english(caption.text)


def test_the_dota_sample_has_metres(shared):
    source = open_source(str(shared / "data/dota_sample"), "auto")
    sample = source.read(next(iter(source.entries())))
    first = next(iter(object_sentences().run([sample]))).captions[0].text
    assert "14 small vehicles" in first and ("50 large" in first or "dozens of large" in first.lower())
    assert all(box_area(item.bbox) > 0 for item in sample.regions)
