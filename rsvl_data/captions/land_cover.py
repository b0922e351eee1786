"""Sentences on a mask of classes: which share of the picture each covers, and where it lies.

Shares are of the pixels that somebody labelled: an ignored id is no land cover, and where it is large that is said. All sentences on
one mask come from one count, so they cannot contradict each other.
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from rsvl_data.captions.by_rule import Dice, Templates, rule_stage
from rsvl_data.captions.english import Noun, listed, noun_of_label
from rsvl_data.errors import OptionError
from rsvl_data.sample import Caption, Sample, TextSource
from rsvl_data.stage import Stage
from rsvl_data.words import words_of_label

_PLAIN_SOURCE = TextSource(engine="rsvl object counts", revision="1")
# Classes that say what a pixel is not. They count as labelled ground, and are never named.
_UNTOLD = frozenset({"background", "clutter", "others", "other", "misc", "unclassified"})
# Names of classes as a cover, where it is another word than for a thing.
_COVERS = {
    "agriculture": Noun("farmland", "farmland", countable=False),
    "agricultural": Noun("farmland", "farmland", countable=False),
    "bare": Noun("bare ground", "bare ground", countable=False),
    "bareland": Noun("bare ground", "bare ground", countable=False),
    "barren": Noun("bare ground", "bare ground", countable=False),
    "built up": Noun("built-up land", "built-up land", countable=False),
    "developed space": Noun("developed space", "developed space", countable=False),
    "urban": Noun("urban land", "urban land", countable=False),
}
_COVERS |= {"tree": Noun("tree cover", "tree cover", countable=False), "trees": Noun("tree cover", "tree cover", countable=False)}
_COVERS |= {
    word: Noun(word, word, countable=False)
    for word in ("desert", "forest", "impervious surface", "grass", "pasture", "wetland", "rangeland")
}
# Lowest share, highest share, in words.
_FRACTIONS = (
    (0.08, 0.12, "about a tenth"),
    (0.18, 0.22, "about a fifth"),
    (0.23, 0.27, "about a quarter"),
    (0.31, 0.36, "about a third"),
    (0.47, 0.53, "about half"),
    (0.64, 0.69, "about two thirds"),
    (0.73, 0.77, "about three quarters"),
    (0.88, 0.92, "about nine tenths"),
)
_LABELLED = "the labelled area"
_LARGE_IGNORED = 0.25
_LEAST_TOLD = 0.001  # smaller shares are a few stray pixels

_MAIN = Templates(
    "{whole} is {extent} covered by {cover}",
    "{whole} is {extent} {cover}",
    "Seen from above, {whole} is {extent} {cover}",
    "{whole}, seen from above, is {extent} {cover}",
    forms=("extent", "whole"),
)
_MAIN_OF_ALL = Templates(  # where the label reaches over the whole picture
    "This overhead image shows {extent} {cover}",
    "Taken from above, the picture shows {extent} {cover}",
    "An aerial view: {extent} {cover}",
    "What can be seen from above is {extent} {cover}",
    "The ground in this overhead image is {extent} {cover}",
    forms=("extent", "whole"),
)
_SHARE = Templates(
    "{cover} {make} up {share} of {whole}",
    "{cover} {take} up {share} of {whole}",
    "{cover} {cover_verb} {share} of {whole}",
    forms=("make", "take", "cover_verb", "whole"),
)
_MIX = Templates(
    "An overhead view of {covers}",
    "This overhead image shows {covers}",
    "The scene, seen from above, contains {covers}",
    "A remote sensing image with {covers}",
    "Seen from above, there {be} {covers}",
    forms=("be",),
)
_PLACE = Templates(
    "{most} of the {cover} {lie} in the {part}",
    "{most} of the {cover} can be found in the {part}",
    "The {part} holds {most} of the {cover}",
    forms=("lie",),
)
_PLACE_OF_ONE = Templates("{cover} lies in the {part}", "{cover} can be seen in the {part}", "There is {cover} in the {part}")
_IGNORED = Templates(
    "{share} of the picture is not labelled",
    "No label is given for {share} of the picture",
    "{share} of the frame is left unlabelled",
)


@dataclass(frozen=True)
class Cover:
    """`share` of the labelled pixels, above 0; `quarters` are the shares of its own pixels in the upper left, upper right, lower left
    and lower right of the picture. `in_one_piece`: a mask of classes has no number of objects, but one small patch is not several."""

    noun: Noun
    share: float
    quarters: tuple[float, ...]
    in_one_piece: bool = False

    @property
    def name(self) -> str:
        """ "farmland", "buildings", "a bridge"."""
        return self.noun.phrase if self.is_one else self.noun.many

    @property
    def is_one(self) -> bool:
        return self.noun.countable and not self.noun.is_plural and self.in_one_piece and self.share < 0.15

    @property
    def verb_ending(self) -> str:
        """The ending of a verb that goes with the name."""
        return "s" if self.is_one or not self.noun.countable else ""


def caption_of_classes(names: Sequence[str]) -> Caption:
    """The plain sentence of a source. `names` of the classes that the mask shows, in the order to be told."""
    text = f"an aerial image with {listed([words_of_label(name) for name in names])}." if names else "an aerial image."
    return Caption(text=text, kind="mask", source=_PLAIN_SOURCE)


def land_cover_sentences(mask: Mapping[str, Any] | None, *, most: int = 4, seed: int = 0) -> Stage:
    """Adds up to `most` sentences to every sample with a mask, in place of the plain one that its source wrote.

    `mask` is `source.mask`, or the entry of that name in a manifest: {"classes": [name], "ignore_index": int or None}.
    Raises OptionError for a source without masks and for `most` below 1.
    """
    if not mask or not mask.get("classes"):
        raise OptionError(f"mask is {mask!r}: this source has no masks; leave the stage land_cover_sentences out")
    if most < 1:
        raise OptionError(f"most is {most}; allowed is 1 sentence or more")
    classes, ignore_index = list(mask["classes"]), mask.get("ignore_index")

    def texts_of(sample: Sample) -> list[str]:
        if sample.mask is None:
            return []
        with Image.open(io.BytesIO(sample.mask), formats=("PNG",)) as picture:
            covers, ignored = measure_covers(np.asarray(picture), classes, ignore_index)
        counts = Counter(noun_of_label(region.category) for region in sample.regions)
        covers = [replace(c, in_one_piece=counts[c.noun] == 1) if c.noun in counts else c for c in covers]
        return land_cover_texts(covers, ignored, Dice(seed, sample.key, "land cover"))[:most]

    return rule_stage("land_cover_sentences", "mask", texts_of)


def measure_covers(ids: np.ndarray, classes: Sequence[str], ignore_index: int | None) -> tuple[list[Cover], float]:
    """What an index mask [height, width] shows, largest first, and the share of pixels without a label.

    Classes of the same words are one cover. Ids outside the classes count as not labelled.
    """
    rows, columns = (ids.shape[0] + 1) // 2, (ids.shape[1] + 1) // 2
    parts = (ids[:rows, :columns], ids[:rows, columns:], ids[rows:, :columns], ids[rows:, columns:])
    counts = np.stack([np.bincount(part.ravel(), minlength=256)[: len(classes)] for part in parts])  # [quarters, classes]
    if ignore_index is not None and ignore_index < len(classes):
        counts[:, ignore_index] = 0
    labelled = int(counts.sum())
    found: dict[Noun, list[int]] = {}
    for index in np.flatnonzero(counts.sum(axis=0)).tolist():
        words = words_of_label(classes[index])
        if words not in _UNTOLD:
            found.setdefault(_COVERS.get(words) or noun_of_label(words), []).append(index)
    covers = []
    for noun, indices in found.items():
        pixels = counts[:, indices].sum(axis=1)
        quarters = tuple((pixels / pixels.sum()).tolist())
        covers.append(Cover(noun, float(pixels.sum() / labelled), quarters, is_in_one_piece(np.isin(ids, indices))))
    return sorted(covers, key=lambda cover: (-cover.share, cover.noun.one)), 1 - labelled / ids.size


def is_in_one_piece(mask: np.ndarray) -> bool:
    """Whether true pixels hang together, at 128 cells a side: patches that are closer than that count as one."""
    rows, columns = (-(-side // 128) for side in mask.shape)
    padded = np.pad(mask, [(0, -mask.shape[0] % rows), (0, -mask.shape[1] % columns)])
    cells = padded.reshape(padded.shape[0] // rows, rows, -1, columns).any(axis=(1, 3))
    cells = np.pad(cells, 1)
    piece = np.zeros_like(cells)
    piece.flat[cells.argmax()] = True
    size = 0
    while size < (size := int(piece.sum())):
        piece[:, 1:] |= piece[:, :-1].copy()
        piece[:, :-1] |= piece[:, 1:].copy()
        piece[1:] |= piece[:-1].copy()
        piece[:-1] |= piece[1:].copy()
        piece &= cells
    return size == cells.sum()


def land_cover_texts(covers: Sequence[Cover], ignored: float, dice: Dice) -> list[str]:
    """What is there, then the shares, then where, then what is not labelled. Empty where nothing can be named."""
    told = [cover for cover in covers if cover.share >= _LEAST_TOLD] or list(covers[:1])
    if not told:
        return []
    whole = _LABELLED if ignored >= 0.05 else dice.pick(("the picture", "the scene", "the image"))
    texts = [_main(told, whole, dice), *_shares(told, whole, dice), *dice.some(list(_places(told, dice)), 1)]
    if ignored >= _LARGE_IGNORED:
        texts.append(_IGNORED.fill(dice, {"share": share_words(ignored)}))
    return texts


def _main(covers: Sequence[Cover], whole: str, dice: Dice) -> str:
    first = covers[0]
    extent = (
        "entirely" if first.share == 1 else "almost entirely" if first.share >= 0.95 else "mostly" if first.share > 0.55 else None
    )
    if extent is not None:
        templates = _MAIN if whole == _LABELLED else dice.pick((_MAIN, _MAIN_OF_ALL))
        return templates.fill(dice, {"cover": first.noun.many}, extent=extent, whole=whole)
    return _MIX.fill(dice, {"covers": listed([cover.name for cover in covers[:4]])}, be="is" if first.verb_ending else "are")


def _shares(covers: Sequence[Cover], whole: str, dice: Dice) -> Iterator[str]:
    """Of one or two that are neither everything nor, for things, a speck."""
    for cover in [cover for cover in covers if (0.1 if cover.noun.countable else 0.03) <= cover.share < 0.95][:2]:
        facts = {"cover": cover.name, "share": share_words(cover.share)}
        s = cover.verb_ending
        yield _SHARE.fill(dice, facts, make=f"make{s}", take=f"take{s}", cover_verb=f"cover{s}", whole=whole)


def _places(covers: Sequence[Cover], dice: Dice) -> Iterator[str]:
    """The half or quarter in which a cover lies; not for what fills most of the picture. Of things not "most": areas are no numbers."""
    for cover in covers:
        part, share = _narrowest_part(cover.quarters, least=0.95 if cover.noun.countable else 0.8)
        if not part or not 0.01 <= cover.share <= 0.5:
            continue
        if cover.is_one:
            yield _PLACE_OF_ONE.fill(dice, {"cover": cover.name, "part": part})
        else:
            most = "all" if share == 1 else "almost all" if share >= 0.95 else "most"
            yield _PLACE.fill(dice, {"most": most, "cover": cover.noun.many, "part": part}, lie=f"lie{cover.verb_ending}")


def _narrowest_part(quarters: Sequence[float], least: float) -> tuple[str, float]:
    """A quarter or else a half of the picture with at least this share of a cover, and the share; ("", 0) for none."""
    upper_left, upper_right, lower_left, lower_right = quarters
    parts = {
        "upper left": upper_left,
        "upper right": upper_right,
        "lower left": lower_left,
        "lower right": lower_right,
        "upper half": upper_left + upper_right,
        "lower half": lower_left + lower_right,
        "left half": upper_left + lower_left,
        "right half": upper_right + lower_right,
    }
    return next(((name, share) for name, share in parts.items() if share >= least), ("", 0.0))


def share_words(share: float) -> str:
    """ "about a third"; between the simple fractions a percentage, to 5 above 10 and to 1 below."""
    for low, high, words in _FRACTIONS:
        if low <= share <= high:
            return words
    percent = 100 * share
    rounded = round(percent) if percent < 10 or percent > 95 else 5 * round(percent / 5)
    return f"about {rounded} percent" if percent >= 0.5 else "less than one percent"
