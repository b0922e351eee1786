"""FarSLIP (arXiv:2511.14901): image against caption, patches of the picture against crops, crops of objects against their category.

    stage 1   contrastive + 0.1 distill      crops at random
    stage 2   contrastive + regions          crops of objects

Crops come with the batch: "views" are compared with the picture, "regions" with words. Either term works with either stage.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rsvl_data.crops import Crops
from rsvl_data.errors import OptionError
from rsvl_data.loader import Batch
from rsvl_pretrain.dense import DenseHead
from rsvl_pretrain.distillation import Alignment, agreement, roi_means
from rsvl_pretrain.distributed import gather_rows, mean_of_all
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives.base import Embeds
from rsvl_pretrain.objectives.clip import ClipObjective, ContrastiveConfig
from rsvl_pretrain.region_loss import NamedRows, multi_positive_loss, read_related, region_infonce
from rsvl_pretrain.teacher import follow, frozen_copy
from rsvl_pretrain.text_positions import KeptPositions
from rsvl_pretrain.view_encoding import EncodedViews, Views, encode_views

VIEWS, REGIONS = "views", "regions"
_HAS_PATCHES = ("roi2pooled", "combined", "patches")
_HAS_IMAGE = ("roi2cls", "combined")


@dataclass(frozen=True)
class DistillConfig:
    """How the picture's patches are compared with crops (`rsvl_pretrain/distillation.py`)."""

    align: Alignment = "roi2pooled"
    """the picture's patches in the place of a crop against it: their mean with its mean, with its embedding, half of each; or one by one"""
    teacher: Literal["shared", "shared_stopgrad", "ema", "frozen"] = "shared"
    """who embeds the crops: the model itself, with a gradient (FarSLIP) or without; its running mean; its first weights"""
    momentum: float = 0.99
    """of --distill.teacher ema: what stays of it each step"""
    ema_update: Literal["before_step", "after_step"] = "after_step"
    """when the running mean follows: as in the released code before the optimizer's step (its first time changes nothing), or after"""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise OptionError(f"the teacher's momentum is {self.momentum}; it must be from 0 to 1")


@dataclass(frozen=True)
class RegionConfig:
    """How crops of objects are compared with words (`rsvl_pretrain/region_loss.py`)."""

    align: Literal["cls", "pooled", "roi"] = "cls"
    """what stands for a region: the embedding of its crop, the mean of the crop's patches, or of the picture's patches in its box"""
    loss: Literal["multi_positive", "infonce", "infonce_padded"] = "multi_positive"
    """regions of one category are positives of each other; or each has its own text alone; or also padding for negatives, as released"""
    related: Path | None = None
    """JSON file of categories that are never each other's negatives: {"synonyms": [["ship", "vessel"]], "parents": {"sedan": "car"}}"""

    def __post_init__(self) -> None:
        if self.related and self.loss != "multi_positive":
            raise OptionError(
                f"related categories are for the multi-positive loss; leave them out, or --regions.loss {self.loss}"
            )


class FarSlipObjective(ClipObjective):
    """`distill` compares the crops "views" (or, if the batch has none, "regions") with the picture, `regions` the crops "regions" with
    words; None leaves a term out. `max_regions` is the most of a sample, for the padded loss alone. `keep_positions` trains the text
    tower's first 20 positions no further."""

    def __init__(
        self,
        encoder: DualEncoder,
        config: ContrastiveConfig,
        *,
        distill: DistillConfig | None = None,
        regions: RegionConfig | None = None,
        head: DenseHead = "segearth",
        weights: Mapping[str, float] | None = None,
        max_regions: int = 4,
        keep_positions: bool = False,
    ):
        super().__init__(encoder, config)
        if config.loss == "sigmoid" and regions is not None:
            raise OptionError("regions share the scale of a softmax loss: take --contrastive.loss softmax")
        self.weights = {"contrastive": 1.0, "distill": 0.1, "regions": 1.0, **(weights or {})}
        self.distill, self.regions, self.head, self.max_regions = distill, regions, head, max_regions
        self.related = read_related(regions.related) if regions and regions.related else None
        self.teacher: nn.Module | None = None
        if distill and distill.teacher in ("ema", "frozen"):
            self.teacher = _ImageTower(frozen_copy(encoder.model.visual))
        self.kept = KeptPositions(encoder) if keep_positions else None

    def embed(self, batch: Batch) -> Embeds:
        views, regions = self._crops(batch)
        encoded = self._encode_images(batch, views, regions)
        named = None if regions is None else _one_of_each_text(regions)
        tokens = torch.cat([batch.tokens, named.tokens]) if named else batch.tokens
        text = self.encoder.encode_tokens(tokens).float()
        picture = encoded["picture"]
        embeds = self._pairs(picture.image, text[: len(batch.keys)], batch)  # type: ignore[arg-type]
        if views is not None:
            embeds["agreement"] = self._agreement(picture, encoded["target"], views)
        if self.regions and regions is not None and named:
            embeds.update(self._region_embeds(self.regions, encoded, regions, named, text[len(batch.keys) :]))
        return embeds

    def losses(self, embeds: Embeds) -> dict[str, Tensor]:
        losses = super().losses(embeds)
        if self.distill:
            losses["distill"] = mean_of_all(1 - embeds["agreement"])
        if self.regions:
            losses["regions"] = self._region_loss(self.regions, embeds)
        return losses

    def identity(self) -> dict[str, Any]:
        terms = {"distill": self.distill, "regions": self.regions}
        chosen = {name: asdict(term) if term else None for name, term in terms.items()}
        if self.regions:
            related = self.related and [self.related.numbers.tolist(), self.related.pairs.tolist()]
            chosen["regions"]["related"] = related  # type: ignore[index]
        return {
            **super().identity(),
            **chosen,
            "head": self.head,
            "weights": self.weights,
            "keeps_positions": self.kept is not None,
        }

    def before_step(self, step: int) -> None:
        if self.kept:
            self.kept.mask_gradient(self.encoder)
        self._follow("before_step")

    def after_step(self, step: int) -> None:
        if self.kept:
            self.kept.restore(self.encoder)
        self._follow("after_step")

    def profiled_parts(self) -> list[tuple[Any, str, str]]:
        return [(self, "_encode_images", "image tower"), *super().profiled_parts()[1:]]

    def _follow(self, when: str) -> None:
        if self.teacher and self.distill and self.distill.teacher == "ema" and self.distill.ema_update == when:
            follow(self.teacher.visual, self.encoder.model.visual, self.distill.momentum)  # type: ignore[arg-type]

    def _crops(self, batch: Batch) -> tuple[Crops | None, Crops | None]:
        regions = batch.crops.get(REGIONS)
        views = batch.crops.get(VIEWS, regions)
        for name, crops in (("distill", views), ("regions", regions)):
            if getattr(self, name) and crops is None:
                raise OptionError(f"the term {name!r} needs crops, and the loader was asked for {sorted(batch.crops) or 'none'}")
        return (views if self.distill else None), (regions if self.regions else None)

    def _encode_images(self, batch: Batch, views: Crops | None, regions: Crops | None) -> dict[str, EncodedViews]:
        """The picture; "region", the crops that are named; "target", those the picture is compared with. All that have a gradient go
        through the tower at once, and a crop that is both goes once."""
        distill, named = self.distill, self.regions
        looks_inside = views is not None or (named is not None and named.align == "roi")
        student = {"picture": Views(batch.images, patches=looks_inside)}
        if regions is not None and named is not None and named.align != "roi":
            student["region"] = Views(regions.images, image=named.align == "cls", patches=named.align == "pooled")
        target = None
        if distill and views is not None:
            target = Views(views.images, image=distill.align in _HAS_IMAGE, patches=distill.align in _HAS_PATCHES)
        if distill is None or target is None:
            return self._through(self.encoder.model, student)
        if distill.teacher == "shared":
            return self._with_target(student, target, same=views is regions)
        with torch.no_grad():
            of_teacher = self._through(self.teacher or self.encoder.model, {"target": target})
        return {**self._through(self.encoder.model, student), **of_teacher}

    def _with_target(self, student: dict[str, Views], target: Views, *, same: bool) -> dict[str, EncodedViews]:
        region = student.get("region")
        if not (same and region):
            return self._through(self.encoder.model, {**student, "target": target})
        both = Views(region.images, image=region.image or target.image, patches=region.patches or target.patches)
        encoded = self._through(self.encoder.model, {**student, "region": both})
        return {**encoded, "target": encoded["region"]}

    def _through(self, model: nn.Module, views: dict[str, Views]) -> dict[str, EncodedViews]:
        return encode_views(model, self.encoder.preprocess, views, self.head, self.encoder.device)

    def _agreement(self, picture: EncodedViews, target: EncodedViews, views: Crops) -> Float[Tensor, " n"]:
        assert self.distill and picture.patches is not None
        boxes, sample = (each.to(self.encoder.device, non_blocking=True) for each in (views.boxes, views.sample))
        return agreement(picture.patches, boxes, sample, target.patches, target.image, self.distill.align)

    def _region_embeds(
        self,
        config: RegionConfig,
        encoded: dict[str, EncodedViews],
        regions: Crops,
        named: "_Named",
        text: Float[Tensor, "c d"],
    ) -> Embeds:
        device = self.encoder.device
        embeds: Embeds = {
            "region": _region_vectors(config, encoded, regions, device),
            "region_category": regions.categories.to(device, non_blocking=True),
            "region_kind": regions.kinds.to(device, non_blocking=True),
        }
        if config.loss == "multi_positive":
            category, kind = (numbers.to(device, non_blocking=True) for numbers in (named.categories, named.kinds))
            return {**embeds, "bank": text, "bank_category": category, "bank_kind": kind}
        return {**embeds, "region_text": text[named.text_of_region.to(device, non_blocking=True)]}

    def _region_loss(self, config: RegionConfig, embeds: Embeds) -> Float[Tensor, ""]:
        rows = {name: gather_rows(tensor) for name, tensor in embeds.items() if name.startswith(("region", "bank"))}
        scale = embeds["scale"]
        if config.loss == "multi_positive":
            regions, bank = (
                NamedRows(*(rows[name + part] for part in ("", "_category", "_kind"))) for name in ("region", "bank")
            )
            return multi_positive_loss(regions, bank, scale, self.related)
        places = self.max_regions * len(gather_rows(embeds["image"].detach()))
        num_padded = places - len(rows["region"]) if config.loss == "infonce_padded" else 0
        return region_infonce(rows["region"], rows["region_text"], scale, num_padded)


class _ImageTower(nn.Module):
    """What `encode_views` needs of a model."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual


@dataclass(frozen=True)
class _Named:
    """The different texts of the regions of a batch, and which of them each region has."""

    tokens: Tensor
    categories: Tensor
    kinds: Tensor
    text_of_region: Tensor


def _one_of_each_text(regions: Crops) -> _Named:
    names = list(zip(regions.texts, regions.categories.tolist(), regions.kinds.tolist(), strict=True))
    firsts: dict[tuple[str, int, int], int] = {}
    for row, name in enumerate(names):
        firsts.setdefault(name, row)
    number = {name: index for index, name in enumerate(firsts)}
    rows, of_region = list(firsts.values()), torch.tensor([number[name] for name in names], dtype=torch.int64)
    return _Named(regions.tokens[rows], regions.categories[rows], regions.kinds[rows], of_region)


def _region_vectors(
    config: RegionConfig, encoded: dict[str, EncodedViews], regions: Crops, device: torch.device
) -> Float[Tensor, "n d"]:
    if config.align == "cls":
        image = encoded["region"].image
        assert image is not None
        return image
    if config.align == "pooled":
        patches = encoded["region"].patches
        assert patches is not None
        means = patches.mean((2, 3))
    else:
        patches = encoded["picture"].patches
        assert patches is not None
        means = roi_means(patches, regions.boxes.to(device), regions.sample.to(device))
    return F.normalize(means, dim=-1)
