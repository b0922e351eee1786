"""Sentences on annotated objects: how many, where, how to each other, how large. Each is true by counting or by measuring boxes.

Easy to get wrong, and tested: where an object was left out, or some are annotated as a crowd, the annotation is not complete, and
nothing may be counted or called the only one; a box around a turned object is not its length; an object at the border goes on beyond it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rsvl_data.boxes import Box
from rsvl_data.captions.by_rule import Dice, Templates, rule_stage
from rsvl_data.captions.english import Noun, listed, noun_of_label, number, plural
from rsvl_data.captions.layout import (
    Frame,
    are_in_a_row,
    are_neighbours,
    cell,
    direction,
    half_of_most,
    is_north_up,
    is_spread,
    is_surrounded,
    place_of_group,
    sides_px,
    touches_border,
)
from rsvl_data.errors import OptionError
from rsvl_data.sample import Caption, Region, Sample, TextSource
from rsvl_data.stage import Stage
from rsvl_data.words import words_of_label

_PLAIN_SOURCE = TextSource(engine="rsvl object counts", revision="1")
_MAX_KINDS = 4  # named in one sentence
_MAX_COMPARED = 40  # objects of a category that are compared with others one by one
_MIN_SIDE_PX = 8  # shorter objects are not measured: a pixel more or less would be an eighth

_COUNTS_LATER = (
    "This overhead image shows {counts}",
    "An overhead image with {counts}",
    "An aerial view of {counts}",
    "There {be} {counts} in this overhead view",
    "The picture, taken from above, contains {counts}",
    "In this remote sensing image there {be} {counts}",
    "Seen from above, the scene contains {counts}",
    "A top-down view of {counts}",
)
_COUNTS_FIRST = ("{counts} can be seen from above", "{counts}, seen from overhead")
_COUNTS = Templates(*_COUNTS_LATER, *_COUNTS_FIRST, forms=("be",))
_COUNTS_IN_DIGITS = Templates(*_COUNTS_LATER, forms=("be",))  # a sentence does not begin with digits
_PLACE = Templates(
    "{who} {be} {where}",
    "{who} can be seen {where}",
    "{who} {be} located {where}",
    "{who} {appear} {where}",
    forms=("be", "appear"),
)
_MOST_OF_IT = Templates("{who} takes up most of the image", "{who} fills most of the frame", "Most of the picture shows {who}")
_SPREAD = Templates(
    "{who} are spread over the whole image",
    "{who} are scattered across the whole scene",
    "{who} are found in all parts of the image",
)
_ROW = Templates("{who} are lined up in a row", "{who} form a row", "{who} lie in a row")
_NEAR = Templates("{who} {be} next to {it}", "{who} {be} right beside {it}", "{who} {be} close to {it}", forms=("be",))
_SURROUNDED = Templates("{it} is surrounded by {others}", "{others} surround {it}", "{it} has {others} on all sides")
_DIRECTION = Templates("{who} is {where} {it}", "{who} can be seen {where} {it}", "{who} lies {where} {it}")
_SIZE = Templates(
    "{who} is about {metres} m {long}",
    "{who} measures about {metres} m {across}",
    "{who} is some {metres} m {long}",
    forms=("long", "across"),
)
_SIZES = Templates("{who} are about {metres} m long each", "{who} each measure about {metres} m in length")


def caption_of_objects(categories: Sequence[str], *, complete: bool = True) -> Caption:
    """The plain sentence of a source: kinds with their number, most frequent first. `complete` is False when there are more."""
    counts = Counter(words_of_label(category) for category in categories)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    if complete:
        things = [f"{number(counts[name])} {name if counts[name] == 1 else plural(name)}" for name in ordered]
    else:
        things = [f"objects of the kind {listed(ordered)}"] if ordered else []
    text = f"an aerial image with {listed(things)}." if things else "an aerial image."
    return Caption(text=text, kind="boxes", source=_PLAIN_SOURCE)


def object_sentences(*, most: int = 4, complete: bool = True, seed: int = 0) -> Stage:
    """Adds up to `most` sentences to every sample with regions, in place of the plain one that its source wrote.

    `complete=False` says that the data set does not annotate every object of its categories (referring sets, region captions): kinds
    are named then, never counted. Samples that lost a region on the way, or hold a crowd, are taken so by themselves.
    Raises OptionError for `most` below 1.
    """
    if most < 1:
        raise OptionError(f"most is {most}; allowed is 1 sentence or more")

    def texts_of(sample: Sample) -> list[str]:
        frame = Frame(sample.width, sample.height, sample.geo.gsd_m if sample.geo else None, is_north_up(sample.geo))
        whole = complete and not sample.scores.get("regions_dropped") and not any(map(_is_crowd, sample.regions))
        return object_texts(sample.regions, frame, Dice(seed, sample.key, "objects"), complete=whole)[:most]

    return rule_stage("object_sentences", "boxes", texts_of)


def object_texts(regions: Sequence[Region], frame: Frame, dice: Dice, *, complete: bool = True) -> list[str]:
    """What there is, then where, how to each other and how large; at most one sentence each. Empty without regions."""
    groups = _by_noun(regions)
    if not groups:
        return []
    if not complete:
        return [_kinds(groups, dice), *_one_of(dice, list(_loose_places(groups, frame, dice)))]
    places = list(_places(groups, frame, dice))
    relations = list(_relations(groups, frame, dice))
    sizes = list(_sizes(groups, frame, dice))
    return [_counts(groups, dice), *_one_of(dice, places), *_one_of(dice, relations), *_one_of(dice, sizes)]


def _one_of(dice: Dice, texts: list[str]) -> list[str]:
    return dice.some(texts, 1)


def _by_noun(regions: Sequence[Region]) -> dict[Noun, list[Region]]:
    """Most frequent first; equally many by name."""
    groups: dict[Noun, list[Region]] = {}
    for region in regions:
        groups.setdefault(noun_of_label(region.category), []).append(region)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0].one)))


def _is_crowd(region: Region) -> bool:
    return bool((region.model_extra or {}).get("iscrowd"))


# --- what and how many


def _counts(groups: Mapping[Noun, Sequence[Region]], dice: Dice) -> str:
    things = [_amount(noun, len(members), dice) for noun, members in groups.items()]
    if len(things) > _MAX_KINDS:
        rest = len(things) - _MAX_KINDS + 1
        things = [*things[: _MAX_KINDS - 1], f"objects of {number(rest)} other kinds"]
    counts = listed(things)
    first_is_one = len(next(iter(groups.values()))) == 1
    templates = _COUNTS_IN_DIGITS if counts[0].isdigit() else _COUNTS
    return templates.fill(dice, {"counts": counts}, be="is" if first_is_one else "are")


def _amount(noun: Noun, count: int, dice: Dice) -> str:
    """Exact; of many objects now and then in round words, where these are true."""
    if count >= 24 and dice.below(4) == 0:
        return f"{'hundreds' if count >= 200 else 'dozens'} of {noun.several(count)}"
    return noun.counted(count)


def _kinds(groups: Mapping[Noun, Sequence[Region]], dice: Dice) -> str:
    """Without numbers: how many there are is not known."""
    things = [
        noun.many if len(members) > 1 or _is_crowd(members[0]) or not noun.countable else noun.phrase
        for noun, members in groups.items()
    ]
    first = next(iter(groups.values()))
    be = "are" if len(first) > 1 or _is_crowd(first[0]) else "is"
    return _COUNTS.fill(dice, {"counts": listed(things[:_MAX_KINDS])}, be=be)


# --- where


def _places(groups: Mapping[Noun, Sequence[Region]], frame: Frame, dice: Dice) -> Iterator[str]:
    for noun, members in groups.items():
        count = len(members)
        boxes = [region.bbox for region in members]
        if count == 1:
            yield _place_of_one(f"the {noun.several(1)}", members[0], frame, dice)
            continue
        everyone = _everyone(noun, count, dice)
        whole, most = place_of_group(boxes, frame), half_of_most(boxes, frame)
        if whole is not None:
            yield _told_place(everyone, whole, dice, many=True)
        elif most is not None:
            yield _told_place(f"most of the {number(count)} {noun.several(count)}", most, dice, many=True)
        elif is_spread(boxes, frame):
            yield _SPREAD.fill(dice, {"who": f"the {dice.pick((number(count) + ' ', ''))}{noun.several(count)}"})


def _everyone(noun: Noun, count: int, dice: Dice) -> str:
    """All of two or more, now and then without their number: another sentence may hold it."""
    both = ("both", "the two", "the") if count == 2 else (f"all {number(count)}", f"the {number(count)}", "the", "all the")
    return f"{dice.pick(both)} {noun.several(count)}"


def _loose_places(groups: Mapping[Noun, Sequence[Region]], frame: Frame, dice: Dice) -> Iterator[str]:
    """Of single objects, where others of their kind may be anywhere."""
    for noun, members in groups.items():
        if len(members) == 1 and noun.countable and not noun.is_plural and not _is_crowd(members[0]):
            yield _place_of_one(noun.phrase, members[0], frame, dice)


def _place_of_one(who: str, region: Region, frame: Frame, dice: Dice) -> str:
    x0, y0, x1, y1 = region.bbox
    area_px = region.area_px if region.area_px is not None else (x1 - x0) * (y1 - y0)
    if area_px > 0.6 * frame.width_px * frame.height_px:
        return _MOST_OF_IT.fill(dice, {"who": who})
    return _told_place(who, cell(region.bbox, frame), dice, many=False)


def _told_place(who: str, place: str, dice: Dice, *, many: bool) -> str:
    forms = {"be": "are", "appear": "appear"} if many else {"be": "is", "appear": "appears"}
    return _PLACE.fill(dice, {"who": who, "where": _where(place, dice)}, **forms)


def _where(place: str, dice: Dice) -> str:
    if place.endswith("edge"):
        return f"along the {place}" + dice.pick(("", " of the image", " of the frame"))
    if place.endswith("half"):
        return f"in the {place}" + dice.pick((" of the image", " of the frame", " of the scene"))
    if place in ("left", "right"):
        return dice.pick((f"on the {place}", f"on the {place} side of the image", f"in the middle of the {place} third"))
    if place in ("top", "bottom"):
        return dice.pick((f"at the {place}", f"at the {place} of the image", f"in the middle of the {place} third"))
    return f"in the {place}" + dice.pick(
        ("", " of the image", " of the frame", " part of the scene" if place != "centre" else "")
    )


# --- to each other


def _relations(groups: Mapping[Noun, Sequence[Region]], frame: Frame, dice: Dice) -> Iterator[str]:
    for noun, members in groups.items():
        if are_in_a_row([region.bbox for region in members]):
            yield _ROW.fill(dice, {"who": _everyone(noun, len(members), dice)})
    single = [(noun, members[0]) for noun, members in groups.items() if len(members) == 1 and noun.countable]
    for noun, region in single[:_MAX_KINDS]:
        for other, members in groups.items():
            if other != noun and len(members) <= _MAX_COMPARED:
                yield from _beside(noun, region.bbox, other, [member.bbox for member in members], dice)
    for place, (noun, region) in enumerate(single[:_MAX_KINDS]):
        for other, second in single[:place]:
            where = direction(region.bbox, second.bbox, north_up=frame.north_up)
            if where is not None:
                tail = "" if frame.north_up else " in the image"
                it = f"the {other.one}{tail}"
                yield _DIRECTION.fill(dice, {"who": f"the {noun.one}", "where": where, "it": it})


def _beside(noun: Noun, box: Box, other: Noun, boxes: Sequence[Box], dice: Dice) -> Iterator[str]:
    """Of the only object of its kind and the others around it."""
    count = len(boxes)
    it = f"the {noun.one}"
    if is_surrounded(box, boxes):
        yield _SURROUNDED.fill(dice, {"it": it, "others": other.many})
        return
    near = sum(are_neighbours(box, around) for around in boxes)
    if near == 0 or (count == 1 and noun.one > other.one):  # of two single ones it is said once
        return
    all_of = "both" if count == 2 else f"all {number(count)}"
    who = (
        f"the {other.several(1)}"
        if count == 1
        else f"{all_of} {other.several(count)}"
        if near == count
        else f"{number(near)} of the {number(count)} {other.several(count)}"
    )
    if not who[0].isdigit():
        yield _NEAR.fill(dice, {"who": who, "it": it}, be="is" if near == 1 else "are")


# --- how large


def _sizes(groups: Mapping[Noun, Sequence[Region]], frame: Frame, dice: Dice) -> Iterator[str]:
    """Only of objects with an outline that lie wholly in the picture."""
    if frame.gsd_m is None:
        return
    for noun, members in groups.items():
        sides = _sides_m(members[0], frame) if noun.countable else None
        if sides is None:
            continue
        metres, is_long = rounded_metres(sides[0]), sides[0] > 1.3 * sides[1]
        if len(members) == 1:
            long, across = ("long", "in length") if is_long else ("wide", "across")
            yield _SIZE.fill(dice, {"who": f"the {noun.one}", "metres": metres}, long=long, across=across)
        elif is_long and all((other := _sides_m(region, frame)) and rounded_metres(other[0]) == metres for region in members):
            yield _SIZES.fill(dice, {"who": f"the {number(len(members))} {noun.many}", "metres": metres})


def _sides_m(region: Region, frame: Frame) -> tuple[float, float] | None:
    if not region.polygon or touches_border(region.bbox, frame) or frame.gsd_m is None:
        return None
    long_px, short_px = sides_px(region.polygon)
    return (long_px * frame.gsd_m, short_px * frame.gsd_m) if long_px >= _MIN_SIDE_PX else None


def rounded_metres(metres: float) -> str:
    """To what can be measured in a picture: whole metres up to 20, then steps of 5, 10, 50 and two digits."""
    for limit, step in ((20, 1), (100, 5), (500, 10), (1000, 50)):
        if metres < limit:
            return str(step * round(metres / step)) if metres >= 1 else f"{metres:.1g}"
    return str(int(float(f"{metres:.2g}")))
