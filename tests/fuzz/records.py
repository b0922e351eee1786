"""Annotation files in JSON, XML and text, their values and structure changed: python -m tests.fuzz.records --seconds 60"""

import copy
import io
import json
import random
from typing import Any

import atheris
from PIL import Image

from rsvl_data.sources import Format
from tests.fuzz.engine import fuzz, read_everything, scratch_folder, shared_fixtures

FOLDER = scratch_folder()
# Where the input lies for each reader; the picture a.png lies beside it.
PLACES: dict[Format, str] = {
    "gaia": "train_data.json",
    "mgrs": "text_info.json",
    "coco": "instances.json",
    "karpathy": "dataset_x.json",
    "voc": "Annotations/a.xml",
    "dota": "labelTxt/a.txt",
    "referring": "refs.json",
    "masks": "legend.json",
}
ODD: list[Any] = [None, True, 0, -1, 1, 0.5, 1e308, 2**31, 2**63, 2**70, 10**400, float("nan"), float("inf")]
ODD += [
    "",
    " ",
    "5",
    "nan",
    "test",
    "dev",
    "{",
    ".",
    "a.png",
    "../a.png",
    "/etc/passwd",
    "a\0b",
    "\ud83d",
    "\u202e",
    "x" * 300,
    "x" * 30_000,
]
ODD += [[], {}, [[]], [None], [1, 2, 3, 4], {"a": None}, json.loads("[" * 200 + "]" * 200)]

BOX = [1, 1, 9, 9]
POLYGON = [1, 1, 9, 1, 9, 9]
RUNS = {"size": [24, 32], "counts": [100, 50, 618]}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24, "license": 1, "split": "train"}],
    "categories": [{"id": 1, "name": "ship"}],
    "licenses": [{"id": 1, "name": "CC0"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "area": 50, "segmentation": [POLYGON], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": BOX, "segmentation": RUNS, "iscrowd": 1},
    ],
}
REF = {"ref_id": 1, "ann_id": 1, "file_name": "a.png", "split": "train", "sentences": [{"sent": "the ship"}]}
GAIA = {"id": 1, "image_src": "https://x.org/a.png", "captions": ["a ship"], "image_alt": "ship", "lat": 1.5, "lon": 2.5}
GAIA |= {"location": "Rome", "satellite": ["S2"], "sensor": ["MSI"], "credits": ["ESA"], "tag": ["sea"], "resolution": "high"}
SEGMENT = {"bbox": {"x1": 1, "y1": 1, "x2": 9, "y2": 9, "W": 32, "H": 24}, "category": "ship", "category_id": 1, "cap": "a ship"}
MGRS = {"global_filepath": "a.png", "brief_caption": "a ship", "detailed_caption": "a grey ship", "segment": [SEGMENT]}
KARPATHY = {"filename": "a.png", "split": "train", "sentences": [{"raw": "a ship"}], "class": "harbour"}
SEEDS = [COCO, {"refs": [REF], "instances": COCO}, [GAIA, GAIA], {name: [value] for name, value in GAIA.items()}, [MGRS]]
SEEDS += [{name: {"0": value} for name, value in GAIA.items()}, {"images": [KARPATHY, KARPATHY]}, {"0": "sea", "1": "ship"}]
SEEDS += [
    {"sea": [0, 0, 0], "ship": [255, 0, 0]},
    {"0": {"name": "sea", "rgb": [0, 0, 0]}, "255": "ignore"},
    {"binary": "road"},
    "LoveDA",
]
VOC = b"""<annotation><filename>a.png</filename><size><width>32</width><height>24</height></size><object><name>ship</name>
<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"""
DOTA = b"imagesource:GoogleEarth\ngsd:0.146\n1 1 9 1 9 9 1 9 ship 0\n1,1,9,1,9,9,1,9 small ship 2\n"


def target(content: bytes) -> None:
    for format, place in PLACES.items():
        files = {place: content}
        if format == "referring":
            files = _split_in_two(content)
        for name, part in files.items():
            (FOLDER / format / name).write_bytes(part)
        try:
            read_everything(FOLDER / format, format)
        except ValueError as error:
            if "holds nothing that can be imported" not in str(error):
                raise


def _split_in_two(content: bytes) -> dict[str, bytes]:
    """The reader of phrases wants two files: an object of both, or the same content twice."""
    try:
        both = json.loads(content)
        return {"refs.json": json.dumps(both["refs"]).encode(), "instances.json": json.dumps(both["instances"]).encode()}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"refs.json": content, "instances.json": content}


def prepare() -> None:
    png = io.BytesIO()
    Image.new("RGB", (32, 24)).save(png, "PNG")
    for format, place in PLACES.items():
        names = [f"{folder}/a.png" for folder in ("images", "masks")] if format == "masks" else ["images/a.png"]
        for path in (FOLDER / format / name for name in [place, *names]):
            path.parent.mkdir(parents=True, exist_ok=True)
        for name in names:
            (FOLDER / format / name).write_bytes(png.getvalue())


def mutate(content: bytes, max_bytes: int, seed: int) -> bytes:
    """One or two values of the JSON replaced, doubled or lost; bytes, where it is none and now and then."""
    chance = random.Random(seed)
    try:
        tree = [json.loads(content)]
    except (ValueError, RecursionError):
        return atheris.Mutate(content, max_bytes)
    if chance.random() < 0.15:
        return atheris.Mutate(content, max_bytes)
    for _ in range(chance.choice((1, 1, 2))):
        _change(tree, chance)
    try:
        changed = json.dumps(tree[0] if tree else None).encode()
    except (ValueError, RecursionError):
        return content
    return changed if len(changed) <= max_bytes else content


def _change(tree: list[Any], chance: random.Random) -> None:
    places: list[tuple[Any, Any]] = []
    todo: list[Any] = [tree]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        places += [(node, key) for key in keys]
        todo += [node[key] for key in keys]
    if not places:
        return
    node, key = chance.choice(places)
    action = chance.random()
    if action < 0.1:
        del node[key]
    elif action < 0.25 and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    elif action < 0.35:
        node[key] = copy.deepcopy(chance.choice(places)[0])
    elif action < 0.45 and isinstance(node[key], str | int | float):
        node[key] = str(node[key]) if chance.random() < 0.5 else [node[key]]
    elif action < 0.5 and isinstance(node, dict):
        node[str(chance.choice(ODD))[:400]] = node.pop(key)
    else:
        node[key] = copy.deepcopy(chance.choice(ODD))


if __name__ == "__main__":
    prepare()
    shared = shared_fixtures("bad/boxes/*.json", "bad/boxes/*.xml", "bad/boxes/*.txt", "bad/json/*", "bad/masks/*.json")
    fuzz(target, [*(json.dumps(seed).encode() for seed in SEEDS), VOC, DOTA, *shared], mutate)
