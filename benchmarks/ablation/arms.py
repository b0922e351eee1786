"""The arms: what is added to plain CLIP training, one thing at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.ablation.summary import BASELINE
from rsvl_data.crops import CropConfig
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective, ContrastiveConfig, Objective

# UCM repeats sentences, and scenes without objects nearly do: equal captions are no negatives of each other, in any arm.
CONTRASTIVE = ContrastiveConfig(duplicates="excluded")


@dataclass(frozen=True)
class Stage:
    """A part of a training run. Stages of one `family` share a learning rate, which is chosen with the family's first arm."""

    family: str
    objective: Callable[[DualEncoder], Objective]
    crops: Mapping[str, CropConfig] = field(default_factory=dict)
    lang: str | None = "en"


@dataclass(frozen=True)
class Arm:
    """`stages` follow on each other and have equal parts of the steps."""

    name: str
    words: str
    stages: tuple[Stage, ...]
    worlds: tuple[str, ...] = ("scenes", "real")


def arms(crop_px: int) -> dict[str, Arm]:
    """By name, the baseline first. `crop_px` is the side of local views and of objects."""
    plain = Stage("clip", lambda encoder: ClipObjective(encoder, CONTRASTIVE))
    chosen = [Arm(BASELINE, "CLIP only", (plain,))]
    return {arm.name: arm for arm in chosen}


def representatives(all_arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """The first arm of one stage in each family: what its learning rate is chosen with."""
    first: dict[str, Arm] = {}
    for arm in all_arms.values():
        if len(arm.stages) == 1:
            first.setdefault(arm.stages[0].family, arm)
    return first
