"""Sixteen small pictures, one in three with objects: most halves of a batch have none."""

from pathlib import Path

from tiny_dataset import make_sample, write_dataset

from rsvl_data.sample import Region
from rsvl_data.shards import Dataset

NAMES = ("ship", "car", "tree")


def build_regions(root: Path) -> Dataset:
    samples = []
    for number in range(16):
        boxes = [(1 + number, 2, 12 + number, 20), (3, 4, 39, 30)][: number % 3 if number % 4 == 1 else 0]
        regions = [Region(bbox=box, category=NAMES[(number + place) % 3]) for place, box in enumerate(boxes)]
        samples.append(make_sample(number).model_copy(update={"regions": regions}))
    return write_dataset(root, [samples])
