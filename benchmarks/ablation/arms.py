"""The arms: what is added to plain CLIP training, one thing at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.ablation.data import MIN_OBJECT_PX
from benchmarks.ablation.summary import BASELINE
from rsvl_data.crops import CropConfig, ObjectCrops, RandomCrops
from rsvl_pretrain.distillation import Alignment
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective, ContrastiveConfig, Objective, RsMClipObjective, ViewConfig
from rsvl_pretrain.objectives.farslip import REGIONS, VIEWS, DistillConfig, FarSlipObjective, RegionConfig
from rsvl_pretrain.self_distillation import SelfDistillationConfig

# UCM repeats sentences, and scenes without objects nearly do: equal captions are no negatives of each other, in any arm.
CONTRASTIVE = ContrastiveConfig(duplicates="excluded")
Teacher = Literal["shared_stopgrad", "ema", "frozen"]
RegionAlignment = Literal["cls", "pooled", "roi"]


@dataclass(frozen=True)
class Stage:
    """A part of a training run. Stages of one `family` share a learning rate, which is chosen with the family's first arm."""

    family: str
    objective: Callable[[DualEncoder, int], Objective]  # of the encoder, for so many steps
    crops: Mapping[str, CropConfig] = field(default_factory=dict)
    languages: tuple[str, ...] = ("en",)


@dataclass(frozen=True)
class Arm:
    """`stages` follow on each other and have equal parts of the steps."""

    name: str
    words: str
    stages: tuple[Stage, ...]
    worlds: tuple[str, ...] = ("scenes", "real")

    @property
    def languages(self) -> set[str]:
        return {lang for stage in self.stages for lang in stage.languages}


def arms(crop_px: int) -> dict[str, Arm]:
    """By name, the baseline first. `crop_px` is the side of local views and of objects."""
    views, objects = {VIEWS: RandomCrops(size_px=crop_px)}, {REGIONS: _objects(crop_px)}

    def distilled(distill: DistillConfig, weight: float = 0.1) -> Stage:
        weights = {"distill": weight}
        return Stage(
            "distillation",
            lambda encoder, _: FarSlipObjective(encoder, CONTRASTIVE, distill=distill, weights=weights),
            views,
        )

    def with_regions(align: RegionAlignment) -> Stage:
        config = RegionConfig(align=align)
        return Stage("regions", lambda encoder, _: FarSlipObjective(encoder, CONTRASTIVE, regions=config), objects)

    plain = Stage("clip", lambda encoder, _: ClipObjective(encoder, CONTRASTIVE))
    stage_1, stage_2 = distilled(DistillConfig()), with_regions("cls")
    teachers: tuple[Teacher, ...] = ("shared_stopgrad", "ema", "frozen")
    aligned: tuple[Alignment, ...] = ("roi2cls", "combined", "patches")
    inferior: tuple[RegionAlignment, ...] = ("pooled", "roi")
    chosen = [
        Arm(BASELINE, "CLIP only", (plain,)),
        Arm("start", "the start, not trained further", ()),
        Arm("distill_shared", "+ distillation: roi2pooled, shared", (stage_1,)),
        *(
            Arm(f"distill_{teacher}", f"+ distillation: roi2pooled, {teacher}", (distilled(DistillConfig(teacher=teacher)),))
            for teacher in teachers
        ),
        *(
            Arm(f"distill_{align}", f"+ distillation: {align}, shared", (distilled(DistillConfig(align=align)),))
            for align in aligned
        ),
        Arm(
            "distill_weight_1", "+ distillation: roi2pooled, shared, weight 1 instead of 0.1", (distilled(DistillConfig(), 1.0),)
        ),
        Arm("regions_cls", "+ regions: cls", (stage_2,)),
        *(Arm(f"regions_{align}", f"+ regions: {align}", (with_regions(align),)) for align in inferior),
        Arm("both_stages", "distillation (shared), then regions (cls)", (stage_1, stage_2)),
        *_rs_m_clip_arms(crop_px),
    ]
    return {arm.name: arm for arm in chosen}


def _objects(crop_px: int) -> ObjectCrops:
    """Objects of these scenes are small; what counts is their category, as in FarSLIP, and not the phrase that singles one out."""
    return ObjectCrops(min_area_px=MIN_OBJECT_PX**2, size_px=crop_px, captions="ignored")


def _rs_m_clip_arms(crop_px: int) -> Iterator[Arm]:
    for ending, words, languages in (("", "", ("en",)), ("_es", " with Spanish", ("en", "es"))):
        worlds = ("scenes", "real") if languages == ("en",) else ("real",)
        yield Arm(f"rs_m_clip{ending}", f"RS-M-CLIP{words}", (_rs_m_clip(crop_px, True, languages),), worlds)
        yield Arm(
            f"rs_m_clip_plain{ending}",
            f"RS-M-CLIP{words}, no self-distillation",
            (_rs_m_clip(crop_px, False, languages),),
            worlds,
        )


def _rs_m_clip(crop_px: int, distilled: bool, languages: tuple[str, ...]) -> Stage:
    """The recipe's small setting, `light`. Each global crop is paired with the caption, with and without self-distillation."""
    views = ViewConfig(local_crops=4, local_px=crop_px)
    distillation = SelfDistillationConfig(weight=1.0 if distilled else 0.0, prototypes=1024, hidden_dim=512)
    return Stage(
        "rs_m_clip",
        lambda encoder, steps: RsMClipObjective(
            encoder, contrastive=CONTRASTIVE, distillation=distillation, views=views, num_steps=steps
        ),
        views.crops(distilled=distilled),
        languages,
    )


def representatives(arms: Iterable[Arm]) -> dict[str, Arm]:
    """The first arm of one stage in each family: what its learning rate is chosen with."""
    first: dict[str, Arm] = {}
    for arm in arms:
        if len(arm.stages) == 1:
            first.setdefault(arm.stages[0].family, arm)
    return first
