"""What the arms learn from and are measured on: procedural scenes with exact truth, and small real sets.

    scenes   train, val and test of one set of scenes; the start is trained on scenes of another seed
    real     train: UCM captions, also in Spanish where Apertium is installed, and VHR-10 with its boxes and captions by rule.
             val: UCM, EuroSAT and VHR-10. test: UCM, EuroSAT, other images of VHR-10, and tiles of LoveDA and iSAID

All splits are ours where nobody published one; every one is a few hundred images at the most.
"""

import io
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.translated_captions import apertium, translation
from evaluation.data import EvalItem, EvalSet, MemorySet, ShardSet
from evaluation.datasets import open_dataset
from evaluation.datasets.segmentation import SegmentationSet, open_segmentation
from evaluation.datasets.segmentation.masked_files import MaskedFiles, Pair
from evaluation.datasets.segmentation.tiles import square_tiles
from evaluation.metrics.blind_guess import blind_guess
from evaluation.shard_masks import ShardMasks, ThinnedMasks
from rsvl_data.captions.objects import object_sentences
from rsvl_data.image_form import ImageForm
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Region, Sample, TextSource
from rsvl_data.scenes import OBJECT_CATEGORIES
from rsvl_data.shards import Dataset
from rsvl_data.sources import Entry, Source, open_source
from rsvl_data.sources.scenes import Scenes
from rsvl_data.stage import Outcome, Stage

TILE_PX = 256
MIN_OBJECT_PX = 8  # shorter side of an object that is classified
OBJECTS_A_CATEGORY = 30
VHR10_COPIES = 4  # times a VHR-10 image stands in the training data: without, it would be one image in fifteen
VHR10_SIDE_PX = 512
START_SEED, SCENES_SEED = 1, 0


@dataclass(frozen=True)
class Probes:
    """What an encoder is measured on. `dense` has the factor by which images are resized before windows are cut."""

    classes: tuple[EvalSet, ...]  # scenes to classify
    objects: tuple[EvalSet, ...]  # crops of annotated objects to classify
    captions: tuple[tuple[EvalSet, str], ...]  # and their language
    dense: tuple[tuple[SegmentationSet, float], ...]


@dataclass(frozen=True)
class World:
    """One kind of data. Settings are chosen on `val`, reported is `test`. `languages` are those of the training captions."""

    name: str
    train: Dataset
    val: Probes
    test: Probes
    languages: tuple[str, ...] = ("en",)


@dataclass(frozen=True)
class Sizes:
    """How many scenes there are; the real sets are as large as they are."""

    scene_px: int = 128  # twice the side of a tower's picture: of scenes, windows show a quarter
    start: int = 2000
    train: int = 2000
    val: int = 200
    test: int = 400
    dense: int = 120  # of val, and of test


def start_scenes(folder: Path, sizes: Sizes) -> Dataset:
    return _built(Scenes(sizes.start, sizes.scene_px, START_SEED), folder / "start", val=0.0, test=0.0)


def open_world(name: str, folder: Path, shared: Path, sizes: Sizes) -> World:
    """Builds what is not there yet below `folder`."""
    return _scenes(folder, sizes) if name == "scenes" else _real(folder, shared, sizes.scene_px)


def _built(source: Source, out: Path, stages: Sequence[Stage] = (), *, val: float, test: float) -> Dataset:
    options = BuildOptions(out=out, val=val, test=test, samples_per_shard=500, workers=2)
    dataset = build(source, stages, options, recipe="benchmarks/ablation")
    assert dataset is not None
    return dataset


# --- scenes


@dataclass(frozen=True)
class _First(ThinnedMasks):
    """The first `limit` scenes, which come in no order."""

    @cached_property
    def places(self) -> list[int]:
        return list(range(min(self.limit, len(self.whole.items))))


def _scenes(folder: Path, sizes: Sizes) -> World:
    num = sizes.train + sizes.val + sizes.test
    dataset = _built(Scenes(num, sizes.scene_px, SCENES_SEED), folder / "scenes", val=sizes.val / num, test=sizes.test / num)

    def probes(split: str) -> Probes:
        whole = ShardSet(dataset, split)
        objects = object_crops(f"{dataset.name} objects", split, dataset.samples(split), OBJECT_CATEGORIES, dataset.note)
        return Probes((whole,), (objects,), ((whole, "en"),), ((_First(ShardMasks(dataset, split), sizes.dense), 1.0),))

    return World("scenes", dataset, probes("val"), probes("test"))


def object_crops(
    name: str, split: str, samples: Iterator[Sample], categories: Sequence[str], note: str | None = None
) -> MemorySet:
    """The first OBJECTS_A_CATEGORY objects of each category, cut out of their images, to be classified. Objects with a side below
    MIN_OBJECT_PX are left out."""
    items: list[EvalItem] = []
    images: list[bytes] = []
    left = dict.fromkeys(categories, OBJECTS_A_CATEGORY)
    for sample in samples:
        for number, region in enumerate(sample.regions):
            if min(_sides(region)) >= MIN_OBJECT_PX and left.get(region.category, 0):
                left[region.category] -= 1
                items.append(EvalItem(f"{sample.key}-{number}", region.category))
                images.append(_crop(sample.image, region))
    return MemorySet(name, split, tuple(categories), items, images, note)


def object_facts(objects: EvalSet) -> dict[str, float]:
    """Objects are not alike: few images may hold most of them, and one class. `guess` is what always naming that class gets right."""
    items = objects.items
    images = {item.key.rpartition("-")[0] for item in items}
    labels = Counter(item.label for item in items)
    return {"items": len(items), "images": len(images), "guess": max(labels.values()) / len(items)}


def mask_facts(masked: SegmentationSet) -> dict[str, float]:
    """`guess` is the best mIoU without a look at the images."""
    masks = [masked.mask(index) for index in range(len(masked.items))]
    labelled = sum(np.bincount(mask[mask != masked.ignore_index], minlength=len(masked.classes)) for mask in masks)
    return {"images": len(masks), "guess": blind_guess(np.asarray(labelled))["miou"]}


def _sides(region: Region) -> tuple[float, float]:
    x0, y0, x1, y1 = region.bbox
    return x1 - x0, y1 - y0


def _crop(image: bytes, region: Region) -> bytes:
    x0, y0, x1, y1 = region.bbox
    out = io.BytesIO()
    with Image.open(io.BytesIO(image)) as picture:
        picture.convert("RGB").crop((int(x0), int(y0), round(x1), round(y1))).save(out, "PNG", compress_level=1)
    return out.getvalue()


# --- real images


@dataclass(frozen=True)
class Joined:
    """Several sources as one. An entry comes `copies[i]` times from source i, and always goes to the split it has there."""

    name: str
    sources: Sequence[Source]
    copies: Sequence[int]
    note: str | None = None
    mask: None = None

    def entries(self) -> Iterator[Entry]:
        for number, (source, copies) in enumerate(zip(self.sources, self.copies, strict=True)):
            for entry in source.entries():
                for copy in range(copies if entry.split == "train" else 1):
                    own = f"{source.name}/{entry.id}" + (f"#{copy}" if copy else "")
                    yield Entry(own, entry.split, {"source": number, "id": entry.id, "facts": entry.facts}, entry.group)

    def read(self, entry: Entry) -> Outcome:
        """With a key of its own for every copy."""
        source = self.sources[entry.facts["source"]]
        found = source.read(Entry(entry.facts["id"], entry.split, entry.facts["facts"], entry.group))
        _, _, copy = entry.id.rpartition("#")
        if isinstance(found, Sample) and entry.id.endswith(f"#{copy}"):
            found.key = f"{found.key}-{copy}"
        return found


def _real(folder: Path, shared: Path, view_px: int) -> World:
    """`view_px` is the side that a tile, or a quarter of a larger image, has when windows are cut."""
    small = ImageForm(resize="keep_ratio_largest", size_px=VHR10_SIDE_PX)
    ucm, vhr10 = open_source(shared / "ucm", "karpathy"), open_source(shared / "nwpu_vhr10", "coco", small)
    languages = ("en", "es") if shutil.which("apertium") else ("en",)
    stages = [object_sentences()]
    if "es" in languages:
        stages.append(translation("es", apertium, TextSource(engine="apertium", model="eng-spa")))
    dataset = _built(Joined("ucm-vhr10", [ucm, vhr10], [1, VHR10_COPIES]), folder / "real", stages, val=0.0, test=0.0)
    boxed = [sample for sample in dataset.samples("val") if sample.regions]
    categories = tuple(sorted({region.category for sample in dataset.samples("train") for region in sample.regions}))
    held_out = {sample.provenance.original_id or "" for sample in boxed[1::2]}

    def probes(split: str, boxed_images: list[Sample], dense: tuple[tuple[SegmentationSet, float], ...]) -> Probes:
        classes = (open_dataset("ucm", shared, split), open_dataset("eurosat", shared, split))
        objects = object_crops("vhr10 objects", split, iter(boxed_images), categories)
        captions: list[tuple[EvalSet, str]] = [(open_dataset("ucm_captions", shared, split), "en")]
        if "es" in languages:
            captions.append((ShardSet(dataset, split), "es"))
        return Probes(classes, (objects,), tuple(captions), dense)

    vhr10_masks = open_segmentation("nwpu-vhr10", shared / "nwpu_vhr10")
    assert isinstance(vhr10_masks, MaskedFiles)
    names = {Path(name).stem for name in held_out}
    chosen = {Path(sample.provenance.original_id or "").stem for sample in boxed} - names
    scale = view_px / TILE_PX
    tiles = tuple((_tiles(open_segmentation(name, shared / f"{name}_sample"), TILE_PX), scale) for name in ("loveda", "isaid"))
    return World(
        "real",
        dataset,
        probes("val", boxed[::2], ((_only(vhr10_masks, chosen, "val"), scale / 2),)),
        probes("test", boxed[1::2], ((_only(vhr10_masks, names, "test"), scale / 2), *tiles)),
        languages,
    )


def _only(data: MaskedFiles, keys: set[str], split: str) -> MaskedFiles:
    return replace(data, split=split, pairs=[pair for pair in data.pairs if pair.key in keys])


def _tiles(data: SegmentationSet, side_px: int) -> MaskedFiles:
    """The images cut into squares; the last of a row or column is moved back inside."""
    assert isinstance(data, MaskedFiles)
    pairs = [
        Pair(f"{pair.key}_{window.x0}_{window.y0}", pair.image, pair.mask, window)
        for index, pair in enumerate(data.pairs)
        for window in square_tiles(side_px).windows(*data.mask(index).shape[::-1])
    ]
    return replace(data, pairs=pairs)
