"""Referring segmentation: the predicted mask of each phrase against the true one."""

import time
from collections.abc import Callable

import numpy as np

from evaluation.benchmarks.identity import as_metric
from evaluation.bootstrap import intervals
from evaluation.datasets.referring import ReferringSet
from evaluation.metrics.referring import ReferringProtocol, category_ious, mask_overlap, referring_statistics
from evaluation.predicted_masks import PredictedMasks
from evaluation.result import Result
from rsvl_data.errors import DataError
from rsvl_data.version import code_version


def referring(
    predicted: PredictedMasks,
    data: ReferringSet,
    *,
    protocol: ReferringProtocol = "rsvl",
    num_bootstrap: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """ciou, giou, precision@0.5 to 0.9 by the rules of `protocol`; intervals resample images with all their phrases.

    `per_class` is the mean IoU of each category, where the set has them. Phrases with an empty true mask are counted in `data`.
    Raises DataError for predictions that are missing or do not fit, and where the protocol gives nan (rsrefseg2 with an empty union).
    """
    began = time.perf_counter()
    keys = [item.key for item in data.items]
    predicted.check(keys)
    overlaps, num_empty = [], 0
    for index, key in enumerate(keys):
        target = data.mask(index)
        num_empty += not target.any()
        overlaps.append(mask_overlap(target, predicted.binary(key, *target.shape)))
        if progress:
            progress(index + 1, len(keys))
    intersection, union = np.array(overlaps).T
    if protocol == "rsrefseg2" and not union.all():
        raise DataError(
            f"{(union == 0).sum()} phrases have an empty mask and an empty prediction; under rsrefseg2 the mean IoU is then nan. "
            "Use rsvl, rmsin or lisa, which say what such a phrase counts"
        )
    if not union.any():
        raise DataError(f"{data.name}: none of {len(union)} masks or predictions has a pixel")
    statistics = referring_statistics(intersection, union, protocol, unit=np.array(data.image_of))
    found = intervals(statistics, max(data.image_of) + 1, num_bootstrap=num_bootstrap, seed=seed)
    labels = [item.label or "" for item in data.items]
    return Result(
        task="referring",
        dataset=data.name,
        split=data.split,
        protocol=protocol,
        n=len(keys),
        metrics={name: as_metric(interval, num_units=max(data.image_of) + 1) for name, interval in found.items()},
        model={"name": predicted.path.name, "sha256": predicted.sha256(keys)},
        data={"name": data.name, "note": data.note, "sha256": data.sha256(), "empty_targets": num_empty},
        code=code_version(),
        seconds=time.perf_counter() - began,
        per_class=category_ious(intersection, union, labels) if any(labels) else {},
        seed=seed,
        details={"items": {"intersection": intersection.tolist(), "union": union.tolist(), "image": list(data.image_of)}},
    )
