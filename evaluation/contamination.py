"""Has the model seen the images it is measured on? What is known of its training data, by image and by name.

What is not known is said: "unknown", never "none".
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evaluation.data import EvalSet
from evaluation.datasets import catalogue
from evaluation.datasets.entry import spelling
from rsvl_data.errors import DataError
from rsvl_data.shards import Dataset
from rsvl_data.signature import FILE, Signature, image_phash, read_signature
from rsvl_pretrain.model import has_fresh_weights


@dataclass(frozen=True)
class Overlap:
    """Two sets share images: training on one shows a model images of the other. Names are the catalogue's where it has them.

    `source` says "inferred" where nobody states it.
    """

    first: str
    second: str
    what: str
    source: str


_QU = "Qu et al., CITS 2016: UCM-Captions describes the images of UC Merced"
_CHENG = "Cheng et al., IEEE TGRS 2022: NWPU-Captions describes the images of NWPU-RESISC45"
_YUAN = "RSITMD took images of RSICD; lists in https://github.com/ChenDelong1999/RemoteCLIP/issues/13"
_ZAMIR = "Zamir et al., CVPRW 2019: iSAID annotates the images of DOTA"
_LIU = "Liu et al., CVPR 2024, arXiv:2312.12470: RRSIS-D annotates images of DIOR"
_DONG = "Dong et al., arXiv:2410.08613: RISBench took images of VRSBench"
_VRS = f"{_DONG}, which took them of DOTA and DIOR (inferred)"
KNOWN_OVERLAPS = (
    Overlap("ucm", "ucm-captions", "all images", _QU),
    Overlap("resisc45", "nwpu-captions", "all images", _CHENG),
    Overlap("rsicd", "rsitmd", "some images, across train and test", _YUAN),
    Overlap("dota", "isaid", "all images", _ZAMIR),
    Overlap("dior", "rrsis-d", "all images", _LIU),
    Overlap("risbench", "vrsbench", "all images", _DONG),
    Overlap("risbench", "dota", "some images", _VRS),
    Overlap("risbench", "isaid", "some images", f"{_VRS}; {_ZAMIR}"),
    Overlap("risbench", "dior", "some images", _VRS),
    Overlap("risbench", "rrsis-d", "some images", f"{_VRS}; {_LIU}"),
    Overlap(
        "vaihingen", "nwpu-vhr10", "colour-infrared crops", "Cheng et al., ISPRS Journal 2014: crops of Vaihingen are part of it"
    ),
)

# What a training set is made of, and what of each part is in it. RS5M's web part is not listed: nobody knows all that is in it.
_TRAIN = "its train split"
_RS3 = "Zhang et al., arXiv:2306.11300, section III-B"
_PARTS = {
    "rs5m": {"rs3": "all of it"},
    "rs3": {"fmow": f"{_TRAIN} ({_RS3})", "bigearthnet": f"{_TRAIN} ({_RS3})", "millionaid": f"its test split ({_RS3})"},
    "ret-2": {"rsicd": _TRAIN, "rsitmd": _TRAIN},
    "ret-3": dict.fromkeys(("rsicd", "rsitmd", "ucm-captions"), f"{_TRAIN} (inferred)"),
    "cap-5": dict.fromkeys(("rsicd", "rsitmd", "ucm-captions", "sydney-captions", "nwpu-captions"), f"{_TRAIN} (inferred)"),
}
_OUTSIDE = ("bigearthnet", "dior", "dota", "vrsbench", *_PARTS)  # of the catalogue
_VERSION = re.compile(r"v\d+$")


@dataclass(frozen=True)
class TrainingData:
    """`names` () and `signature` None: not known, unless `is_none`: the weights are fresh, and have seen nothing."""

    names: tuple[str, ...] = ()
    signature: Signature | None = None
    is_none: bool = False


def training_data_of(model: str, trained_on: Sequence[str] = ()) -> TrainingData:
    """What a run folder of ours tells of its dataset, and the names somebody gives for a model that tells nothing.

    The names are those of the dataset, and of the sources its samples came from. Raises DataError for a signature that cannot be read.
    """
    folder = Path(model.removeprefix("local-dir:"))
    run = folder.parent if folder.name == "export" else folder
    data = _data_of_run(run)
    dataset = _opened(data) if data else None
    if dataset is None:
        return TrainingData(tuple(trained_on), is_none=not trained_on and has_fresh_weights(model))
    signature = read_signature(dataset.root, "train") if (dataset.root / FILE).is_file() else None
    sources = dataset.table("train", ["source"])["source"].unique().to_pylist() if dataset.splits.get("train") else []
    return TrainingData(tuple(dict.fromkeys([*trained_on, dataset.name, *sorted(filter(None, sources))])), signature)


def _data_of_run(run: Path) -> Path | None:
    """Recipes of training call it `data`."""
    try:
        return Path(json.loads((run / "config.json").read_text())["options"]["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _opened(folder: Path) -> Dataset | None:
    """None where the data of an old run are no longer there."""
    try:
        return Dataset.open(folder)
    except DataError:
        return None


def contamination_of(data: EvalSet, training: TrainingData) -> dict[str, Any]:
    """The field `contamination` of a Result.

    trained_on          names of the training data, with the parts they are made of
    exact_images        images of the split whose very bytes are among the training images
    same_phash_images   images of the split whose 64-bit perceptual hash is that of a training image: the same picture stored anew, or one
                        as flat and featureless as another. Strong compression turns a bit or two: there may be more.
    known_overlaps      what a table of published overlaps says of these names
    Each is "unknown" where nothing is known; a table that says nothing is no proof. `test_images` and `training_images` are what was
    compared, where something was. Fresh weights were trained on "nothing", and nothing overlaps.
    """
    if training.is_none:
        return {"trained_on": _NOTHING, "exact_images": 0, "same_phash_images": 0, "known_overlaps": "none"}
    names = _with_parts(training.names)
    counts = {"exact_images": "unknown", "same_phash_images": "unknown"} | _counts(data, training.signature)
    return {"trained_on": names or "unknown", **counts, "known_overlaps": _overlaps(data.name, training.names) or "unknown"}


def _counts(data: EvalSet, signature: Signature | None) -> dict[str, Any]:
    if signature is None:
        return {}
    indices = range(len(data.items))
    counts = {
        "exact_images": sum(data.image_sha256(index) in signature.sha256s for index in indices),
        "test_images": len(indices),
        "training_images": signature.num_images,
    }
    if signature.phashes:
        counts["same_phash_images"] = sum(image_phash(data.image(index)) in signature.phashes for index in indices)
    return counts


def is_untrained(contamination: Mapping[str, Any] | None) -> bool:
    """Whether the weights were fresh: a number that says what an architecture does before it learns."""
    return contamination is not None and contamination.get("trained_on") == _NOTHING


def shows_overlap(contamination: Mapping[str, Any]) -> bool:
    """Whether there is a reason to distrust the number; what is unknown is no reason, and no relief."""
    return any(value not in (0, "unknown", "none") for name, value in contamination.items() if name not in _CIRCUMSTANCES)


_NOTHING = "nothing"
_CIRCUMSTANCES = ("trained_on", "test_images", "training_images")


def _with_parts(names: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(_known_as(name) for name in names))
    for name in found:  # grows while it is walked: parts have parts
        found.extend(part for part in _PARTS.get(name, {}) if part not in found)
    return found


def _known_as(name: str) -> str:
    """What the images are called here, of any name that a dataset goes by: "UC Merced", "org/EuroSAT_RGB" and "DOTA-v1.0" are ucm, eurosat
    and dota. A name that nobody knows in lower case with hyphens."""
    spelled = spelling(name.rpartition("/")[2])
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    return _by_spelling().get(spelled) or _by_spelling().get(_VERSION.sub("", spelled)) or plain


@cache
def _by_spelling() -> dict[str, str]:
    """A name of an entry counts before the titles and folders of all others: UCM is UC Merced, whose images UCM-Captions shares."""
    entries = catalogue()
    others = {spelling(other): entry for entry in reversed(entries) for other in (entry.title, *entry.folders)}
    named = others | {spelling(entry.name): entry for entry in entries}
    return {spelling(name): name for name in _OUTSIDE} | {each: entry.family or entry.name for each, entry in named.items()}


def _overlaps(measured: str, named: Sequence[str]) -> list[str]:
    measured, trained = _known_as(measured), _with_parts(named)
    own = [f"{measured}: the dataset itself, at least its train split"] if measured in map(_known_as, named) else []
    own += [
        f"{measured}: {_PARTS[whole][measured]}, as a part of {whole}" for whole in trained if measured in _PARTS.get(whole, {})
    ]
    return own + [
        f"{other}: {overlap.what} ({overlap.source})"
        for overlap in KNOWN_OVERLAPS
        for one, other in ((overlap.first, overlap.second), (overlap.second, overlap.first))
        if one == measured and other in trained
    ]
