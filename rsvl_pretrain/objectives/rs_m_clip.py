"""RS-M-CLIP (arXiv:2410.23370): a contrastive loss over captions in many languages, and self-distillation of the image tower.

    loss = contrastive + weight * distillation

Of each image there are global crops, which student and teacher see, and smaller local ones for the student alone. The teacher is a running
mean of the image tower; the text tower learns from the contrastive loss alone. The paper's code was not released: what the text leaves open
follows its ancestors DINO and SILC (arXiv:2310.13355), and the rest is our choice (`docs/objectives.md`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rsvl_data.crops import CropConfig, RandomCrops
from rsvl_data.errors import OptionError
from rsvl_data.loader import Batch
from rsvl_pretrain.distributed import world_size
from rsvl_pretrain.image_tower import check_image_size, encode_image_of_any_size
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives.base import Embeds
from rsvl_pretrain.objectives.clip import ClipObjective, ContrastiveConfig, softmax_loss
from rsvl_pretrain.self_distillation import SelfDistillation, SelfDistillationConfig
from rsvl_pretrain.teacher import check_weights_are_seen


@dataclass(frozen=True)
class ViewConfig:
    """Crops of each image. The defaults are DINO's."""

    contrastive: Literal["global", "whole"] = "global"
    """what is paired with the caption: each global crop, as in SILC, or the picture that plain CLIP would see, for one more forward pass"""
    global_crops: int = 2
    """crops of the size of the model's images"""
    global_area: tuple[float, float] = (0.4, 1.0)
    """smallest and largest share of the image's area"""
    global_flips: bool = False
    """also one of the eight orientations; captions that say `left` or `north` turn false where these crops are paired with them"""
    local_crops: int = 8
    """crops that the teacher does not see"""
    local_area: tuple[float, float] = (0.05, 0.4)
    """smallest and largest share of the image's area"""
    local_px: int = 96
    """their side; a multiple of the patch"""
    local_flips: bool = True
    """one of the eight orientations; no caption is paired with them"""

    def __post_init__(self) -> None:
        if self.global_crops < 1 or self.local_crops < 0:
            raise OptionError(
                f"--views: global-crops {self.global_crops} must be 1 or more, local-crops {self.local_crops} 0 or more"
            )

    def crops(self, *, distilled: bool) -> dict[str, CropConfig]:
        """What the loader must draw; without self-distillation only what is paired with captions."""
        crops: dict[str, CropConfig] = {}
        if distilled or self.contrastive == "global":
            crops["global"] = RandomCrops(count=self.global_crops, area=self.global_area, flips=self.global_flips)
        if distilled and self.local_crops:
            crops["local"] = RandomCrops(
                count=self.local_crops, area=self.local_area, size_px=self.local_px, flips=self.local_flips
            )
        return crops


class RsMClipObjective(ClipObjective):
    """The loss of each of `languages` is logged as `contrastive[pt]`, where the batch has captions in it.

    Batches must have the crops of `views.crops`. `num_steps` is the length of the run, for a teacher's momentum that rises over it.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        *,
        contrastive: ContrastiveConfig,
        distillation: SelfDistillationConfig,
        views: ViewConfig,
        languages: Sequence[str] = (),
        num_steps: int,
    ):
        _check(encoder, contrastive, distillation, views)
        super().__init__(encoder, contrastive)
        self.views, self.languages = views, tuple(languages)
        self.weights |= {"distillation": distillation.weight, **{_of(lang): 0.0 for lang in languages}}
        self.distillation = (
            SelfDistillation(encoder.model.visual, encoder.config["embed_dim"], distillation, num_steps)
            if distillation.weight
            else None
        )
        self._epoch = 0

    def embed(self, batch: Batch) -> Embeds:
        embeds = self._texts(self.encoder.encode_tokens(batch.tokens), batch)
        embeds["epoch"] = torch.tensor(batch.epoch)
        if self.languages:
            numbers = [self.languages.index(lang) if lang in self.languages else -1 for lang in batch.langs]
            embeds["language"] = torch.tensor(numbers, device=self.encoder.device)
        if self.views.contrastive == "whole":
            embeds["image"] = self.encoder.encode_image(batch.images).float()[:, None]
        if "global" not in batch.crops:
            return embeds
        pictures = self._standardised(batch, "global")
        features = self._features(self.encoder.model.visual, pictures)
        if self.views.contrastive == "global":
            embeds["image"] = F.normalize(features, dim=-1).float()
        if self.distillation is not None:
            check_weights_are_seen(self.distillation.teacher)
            embeds["student"] = self._student_outputs(self.distillation, features, batch)
            with torch.no_grad():
                seen = self._features(self.distillation.teacher["visual"], pictures)
                embeds["teacher"] = _by_view(self.distillation.teacher["head"], seen)
        return embeds

    def _student_outputs(
        self, distillation: SelfDistillation, features: Float[Tensor, "b g d"], batch: Batch
    ) -> Float[Tensor, "b v k"]:
        """Of the head, for the global crops with these features and the local ones after them."""
        if "local" in batch.crops:
            local = self._features(self.encoder.model.visual, self._standardised(batch, "local"))
            features = torch.cat([features, local], dim=1)
        return _by_view(distillation.head, features)

    def _standardised(self, batch: Batch, name: str) -> Float[Tensor, "b v 3 s s"]:
        """The crops of each image."""
        crops = batch.crops[name].images.to(self.encoder.device, non_blocking=True)
        return self.encoder.preprocess.normalize(crops).unflatten(0, (len(batch.keys), -1))

    def _features(self, tower: nn.Module, pictures: Float[Tensor, "b v 3 s s"]) -> Float[Tensor, "b v d"]:
        """Embeddings before they are normalised, all from one pass."""
        return _by_view(partial(encode_image_of_any_size, tower), pictures)

    def losses(self, embeds: Embeds) -> dict[str, Tensor]:
        """The contrastive loss is the mean over the views that are paired with captions."""
        views = [softmax_loss({**embeds, "image": image}, self.config) for image in embeds["image"].unbind(1)]
        losses = {"contrastive": torch.stack([loss for loss, _ in views]).mean()}
        if self.distillation is not None:
            self._epoch = int(embeds["epoch"])
            losses["distillation"] = self.distillation.loss(
                embeds["student"], embeds["teacher"], num_shared=self.views.global_crops, epoch=self._epoch
            )
        if self.languages:
            by_row = torch.stack([rows for _, rows in views]).mean(dim=0)
            means = group_means(by_row, embeds["language"], len(self.languages))
            losses |= {_of(lang): mean for lang, mean in zip(self.languages, means)}
        return losses

    def identity(self) -> dict[str, Any]:
        distillation = asdict(self.distillation.config) if self.distillation is not None else None
        return {
            **super().identity(),
            "distillation": distillation,
            "views": asdict(self.views),
            "languages": list(self.languages),
        }

    @property
    def lr_shares(self) -> dict[str, float]:
        return {"distillation.head.": self.distillation.config.head_lr_share} if self.distillation is not None else {}

    def before_step(self, step: int) -> None:
        if self.distillation is not None:
            self.distillation.cancel_frozen_gradients(self._epoch)

    def after_step(self, step: int) -> None:
        if self.distillation is not None:
            self.distillation.after_step(self.encoder.model.visual, step)

    def profiled_parts(self) -> list[tuple[Any, str, str]]:
        return [(self, "_features", "image tower"), *super().profiled_parts()]


def _by_view(function: Callable[[Tensor], Tensor], values: Float[Tensor, "b v *rest"]) -> Float[Tensor, "b v out"]:
    return function(values.flatten(0, 1)).unflatten(0, values.shape[:2])


def group_means(values: Float[Tensor, " b"], group: Int[Tensor, " b"], num_groups: int) -> Float[Tensor, " g"]:
    """Such that the mean over processes of what each of them gets is that of all rows of a group; NaN for a group that no process has.
    Rows of a negative group are in none."""
    member = (group[:, None] == torch.arange(num_groups, device=group.device)).to(values.dtype)
    counts = member.sum(dim=0)
    if world_size() > 1:
        dist.all_reduce(counts)
    return world_size() * (values[:, None] * member).sum(dim=0) / counts  # a matrix product would be rounded under autocast


def _of(lang: str) -> str:
    return f"contrastive[{lang}]"


def _check(encoder: DualEncoder, contrastive: ContrastiveConfig, distillation: SelfDistillationConfig, views: ViewConfig) -> None:
    """Raises OptionError for what would be noticed only in the first step, or not at all."""
    if contrastive.loss != "softmax":
        raise OptionError("RS-M-CLIP has the softmax loss: leave --contrastive.loss, or train with pretrain/clip")
    if not distillation.weight:
        return
    if views.global_crops + views.local_crops < 2:
        raise OptionError("--views: self-distillation needs two crops or more; --distillation.weight 0 trains without it")
    if getattr(encoder.model.visual, "output_tokens", False):
        raise OptionError(f"{encoder.name} also gives tokens of an image (CoCa), which self-distillation does not expect")
    if views.local_crops:
        check_image_size(encoder.model.visual, torch.empty(1, 3, views.local_px, views.local_px, device="meta"))
