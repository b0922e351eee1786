"""How many captions a second the rules write on one core, each kind alone, and how many the composer joins.

python -m benchmarks.captions_by_rule                     # writes benchmarks/results/captions_by_rule.json

The facts are drawn by seed. `grammar` is all rule captions together.
"""

import json
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import measure
from rsvl_data.captions.compose import compose_captions
from rsvl_data.captions.labels import label_sentences
from rsvl_data.captions.metadata import metadata_sentences
from rsvl_data.captions.objects import object_sentences
from rsvl_data.sample import Caption, Geo, Region, Sample
from rsvl_data.stage import Stage, run_stages

_LABELS = ("airport", "farmland", "storagetanks", "DenseResidential", "crop_field", "place_of_worship", "SeaLake", "aircraft")
_CATEGORIES = ("ship", "storage_tank", "bridge", "tennis_court", "vehicle", "airplane")
_PLACES = (("Canberra", "Australia", -35.3), ("Utrecht", "Netherlands", 52.1), ("Ankara", "Türkiye", 39.9), (None, "Kenya", -1.2))


@dataclass(frozen=True)
class Options:
    out: Path = Path(__file__).parent / "results" / "captions_by_rule.json"
    samples: int = 4000
    repeats: int = 5
    seed: int = 0


def samples_with_facts(count: int, seed: int) -> list[Sample]:
    """Records with a label, one to eight boxes, metadata of fMoW's kind and a machine caption; no picture."""
    rng = random.Random(seed)
    return [_sample(rng, index) for index in range(count)]


def _sample(rng: random.Random, index: int) -> Sample:
    place, country, lat = rng.choice(_PLACES)
    geo = Geo.model_validate(
        {
            "lon": rng.uniform(-180, 180),
            "lat": lat,
            "gsd_m": round(rng.uniform(0.3, 10), 4),
            "acquired": f"20{rng.randrange(10, 20)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}T{rng.randrange(24):02}:10:00Z",
            "place": place,
            "country": country,
            "climate_zone": rng.choice(("Cfb", "BWh", "Dfc")),
            "utm_zone": f"{rng.randrange(1, 61)}S",
            "cloud_cover_percent": rng.randrange(101),
            "off_nadir_deg": rng.uniform(0, 35),
            "azimuth_deg": rng.uniform(0, 360),
            "scan_direction": rng.choice(("forward", "reverse")),
        }
    )
    machine = Caption(text=f"a satellite view of a {rng.choice(_LABELS)} with {rng.randrange(90)} trees and a road", kind="vlm")
    regions = [_region(rng) for _ in range(rng.randint(1, 8))]
    label = rng.choice(_LABELS)
    return Sample(
        key=f"{index:016x}", width=512, height=512, sha256="0" * 64, captions=[machine], regions=regions, label=label, geo=geo
    )


def _region(rng: random.Random) -> Region:
    x, y, width, height = rng.uniform(0, 440), rng.uniform(0, 440), rng.uniform(8, 70), rng.uniform(8, 70)
    box = (x, y, x + width, y + height)
    corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
    return Region(bbox=box, category=rng.choice(_CATEGORIES), polygon=corners)


def captions_per_second(
    stages: Sequence[Stage], samples: Sequence[Sample], clock: Callable[[], float] = time.process_time
) -> float:
    """Captions that the stages add, by CPU seconds of this process. The samples are changed."""
    before = sum(len(sample.captions) for sample in samples)
    start = clock()
    stream, _ = run_stages(samples, stages, lambda stage, dropped: None)
    deque(stream, maxlen=0)
    seconds = clock() - start
    return (sum(len(sample.captions) for sample in samples) - before) / seconds


def main(options: Options) -> None:
    grammar = {
        "labels": [label_sentences(count=5)],
        "objects": [object_sentences()],
        "metadata": [metadata_sentences()],
        "metadata_rs5m": [metadata_sentences(preset="rs5m")],
    }
    grammar["grammar"] = [*grammar["labels"], *grammar["objects"], *grammar["metadata"]]
    rates: dict[str, list[float]] = {name: [] for name in [*grammar, "composed"]}
    for repeat in range(options.repeats):
        for name, stages in grammar.items():
            samples = samples_with_facts(options.samples, options.seed + repeat)
            rates[name].append(captions_per_second(stages, samples))
        rates["composed"].append(captions_per_second([compose_captions()], samples))  # of the last ones: they have all captions
    found = {name: {"captions_per_s": statistics.median(of), "lowest": min(of), "highest": max(of)} for name, of in rates.items()}
    setting = {"samples": options.samples, "repeats": options.repeats}
    measure.write_result(options.out, "captions_by_rule", {"setting": setting, "values": found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
