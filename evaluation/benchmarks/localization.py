"""Semantic localisation: where in a large scene is what a sentence says?"""

import base64
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from evaluation.benchmarks.features import EmbedOptions, embedding_origin
from evaluation.benchmarks.identity import as_metric
from evaluation.bootstrap import intervals
from evaluation.datasets.air_slt import LocalizationSet, Query
from evaluation.dense_items import INDICATORS, of_queries
from evaluation.embed import Encoder, embed_images, embed_texts
from evaluation.heat_map_files import HeatMapType, encoded, overlay, write_geotiff
from evaluation.localization_map import SCALES_PX, heat_map, windows
from evaluation.metrics.heat_map_peaks import LocalizationProtocol
from evaluation.metrics.localization import BadRegions, Localization, rsu_of_even_map
from evaluation.metrics.localization import localization as indicators
from evaluation.result import Metric, Result
from evaluation.scene_windows import Scene, WindowSet, open_scene
from rsvl_data.errors import DataError
from rsvl_data.shards import write_atomically

LOWER_IS_BETTER = "ras"
NUM_SHOWN = 6
SHOWN_PX = 320


def localization(
    encoder: Encoder,
    data: LocalizationSet,
    *,
    protocol: LocalizationProtocol = "rsvl",
    scales_px: Sequence[int] = SCALES_PX,
    heat_maps: Path | None = None,
    heat_map_type: HeatMapType = "uint8",
    seed: int = 0,
    num_bootstrap: int = 1000,
    **embedding: Unpack[EmbedOptions],
) -> Result:
    """rsu, ras (lower is better), rda and rmi, means over the queries; protocols as in `evaluation.metrics.localization`.

    The windows of a scene are encoded once for all its queries. Queries whose regions cannot be measured by (outside the scene, without
    extent) are left out and counted in `data`. Intervals: scenes are resampled with all their queries; fewer than six give none. The chance
    of rsu is that of a map without any difference. `details["items"]` holds scene and indicators of each query, `details["heat_maps"]` a
    few maps as small pictures, drawn by `seed`. With `heat_maps`, every query's map is written there as KEY.tif and KEY.png. Raises
    DataError for a scene that cannot be read, and when no query is left.
    """
    began = time.perf_counter()
    texts = embed_texts(encoder, [query.text for query in data.queries], precision=embedding.get("precision", "fp32"))
    shown = set(np.random.default_rng(seed).permutation(len(data.queries))[:NUM_SHOWN].tolist())
    measured: list[_Measured] = []
    dropped = Counter(data.dropped)
    for number, query, scene, levels in _heat_maps(encoder, data, texts, protocol, scales_px, embedding):
        if heat_maps is not None:
            write_geotiff(heat_maps / f"{query.key}.tif", levels, scene, heat_map_type, query.text)
            write_atomically(heat_maps / f"{query.key}.png", encoded(overlay(levels, scene, query.regions), "PNG"))
        try:
            found = indicators(levels, query.regions, protocol)
        except BadRegions as error:
            dropped[error.reason] += 1
            continue
        picture = _picture(levels, scene, query) if number in shown else None
        measured.append(_Measured(number, query, found, picture))
    if not measured:
        told = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        raise DataError(f"{data.name}: no query is left to measure: {told}")
    measured.sort(key=lambda each: each.number)
    facts = {
        "scales_px": " ".join(map(str, scales_px)),
        **{f"dropped_{reason}": count for reason, count in sorted(dropped.items())},
    }
    fields = embedding_origin(encoder, data.scenes, embedding, **facts)
    fields["data"]["sha256"] = data.sha256()
    items = _items(measured, data)
    return Result(
        task="localization",
        protocol=protocol,
        n=len(measured),
        metrics=_metrics(items, num_bootstrap, seed),
        seconds=time.perf_counter() - began,
        seed=seed,
        details={"items": items, "heat_maps": _shown(measured, data)},
        **fields,
    )


@dataclass(frozen=True)
class _Measured:
    number: int
    query: Query
    found: Localization
    picture: str | None


def _heat_maps(
    encoder: Encoder,
    data: LocalizationSet,
    texts: Float[Tensor, "q d"],
    protocol: LocalizationProtocol,
    scales_px: Sequence[int],
    embedding: EmbedOptions,
) -> Iterator[tuple[int, Query, Scene, UInt8[np.ndarray, "h w"]]]:
    """Scene by scene, for each query its number and map."""
    for place, path in enumerate(data.scenes.paths):
        asked = [(number, query) for number, query in enumerate(data.queries) if query.scene == place]
        if not asked:
            continue
        with open_scene(data.scenes.root / path) as scene:
            height, width = scene.height, scene.width
            seen = sorted(window.seen(height, width) for window in windows(height, width, scales_px, protocol))
            images = embed_images(encoder, WindowSet(scene, path.as_posix(), seen, protocol), **embedding)
            for number, query in asked:
                yield number, query, scene, heat_map(seen, (images @ texts[number]).double().numpy(), height, width)


def _metrics(items: Mapping[str, Any], num_bootstrap: int, seed: int) -> dict[str, Metric]:
    statistics, num_scenes = of_queries(items)
    chance = {"rsu": rsu_of_even_map()}
    return {
        name: as_metric(found, chance.get(name), higher_is_better=name != LOWER_IS_BETTER, num_units=num_scenes)
        for name, found in intervals(statistics, num_scenes, num_bootstrap=num_bootstrap, seed=seed).items()
    }


def _items(measured: Sequence[_Measured], data: LocalizationSet) -> dict[str, Any]:
    return {
        "query": [each.query.key for each in measured],
        "scene": [data.scenes.items[each.query.scene].key for each in measured],
        **{name: [getattr(each.found, name) for each in measured] for name in INDICATORS},
    }


def _shown(measured: Sequence[_Measured], data: LocalizationSet) -> list[dict[str, Any]]:
    return [
        {
            "query_key": each.query.key,
            "query": each.query.text,
            "scene": data.scenes.items[each.query.scene].key,
            "scores": {name: getattr(each.found, name) for name in INDICATORS},
            "image_base64": each.picture,
        }
        for each in measured
        if each.picture is not None
    ]


def _picture(levels: UInt8[np.ndarray, "h w"], scene: Scene, query: Query) -> str:
    return base64.b64encode(encoded(overlay(levels, scene, query.regions, SHOWN_PX), "WEBP")).decode()
