"""CLIP (arXiv:2103.00020) and SigLIP (arXiv:2303.15343): each image with its text against all others."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rsvl_data.errors import OptionError
from rsvl_data.loader import Batch
from rsvl_pretrain.exchange import Exchange
from rsvl_pretrain.losses import clip_loss_and_rows, siglip_loss
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives.base import Embeds, Objective


@dataclass(frozen=True)
class ContrastiveConfig:
    """The contrastive loss over the global batch. The defaults are exact for any number of processes."""

    loss: Literal["softmax", "sigmoid"] = "softmax"
    """softmax is CLIP's, sigmoid SigLIP's"""
    duplicates: Literal["negatives", "excluded", "positives"] = "negatives"
    """samples of one caption: negatives of each other, as in CLIP; excluded from each other's denominators; or positives of both"""
    exchange: Exchange = "gather"
    """how processes see each other's embeddings: gather holds all of them; shift, bidir and reduce one process's at a time"""
    local_loss: bool = True
    """each process answers for its own rows; with no-local-loss each computes the loss of all"""
    gather_with_grad: bool = True
    """no-gather-with-grad drops the gradient through other processes' embeddings, as open_clip does by default"""

    def __post_init__(self) -> None:
        if self.loss == "sigmoid" and (self.duplicates != "negatives" or not (self.local_loss and self.gather_with_grad)):
            raise OptionError(
                "--contrastive.loss sigmoid judges each pair alone: leave --contrastive.duplicates, local-loss and gather-with-grad"
            )


class ClipObjective(Objective):
    def __init__(self, encoder: DualEncoder, config: ContrastiveConfig = ContrastiveConfig()):
        super().__init__(encoder)
        if config.loss == "sigmoid" and encoder.logit_bias is None:
            raise OptionError(
                f"{encoder.name} has no logit bias, which the sigmoid loss needs; give it one with `add_logit_bias`"
            )
        self.config = config

    def embed(self, batch: Batch) -> Embeds:
        return self._pairs(self.encoder.encode_image(batch.images), self.encoder.encode_tokens(batch.tokens), batch)

    def _pairs(self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], batch: Batch) -> Embeds:
        return {"image": image.float(), **self._texts(text, batch)}

    def _texts(self, text: Float[Tensor, "b d"], batch: Batch) -> Embeds:
        """All that the contrastive loss needs but the images."""
        embeds = {"text": text.float(), "scale": self.encoder.logit_scale}
        if self.config.loss == "sigmoid" and self.encoder.logit_bias is not None:
            embeds["bias"] = self.encoder.logit_bias
        if self.config.duplicates != "negatives":
            embeds["groups"] = number_of_text(batch.tokens).to(self.encoder.device)
        return embeds

    def losses(self, embeds: Embeds) -> dict[str, Tensor]:
        if self.config.loss == "sigmoid":
            pair = embeds["image"], embeds["text"], embeds["scale"]
            return {"contrastive": siglip_loss(*pair, embeds["bias"], exchange=self.config.exchange)}
        return {"contrastive": softmax_loss(embeds, self.config)[0]}

    def identity(self) -> dict[str, Any]:
        return {"contrastive": asdict(self.config)}


def softmax_loss(embeds: Embeds, config: ContrastiveConfig) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
    """`clip_loss_and_rows` with the options of a run."""
    return clip_loss_and_rows(
        embeds["image"],
        embeds["text"],
        embeds["scale"],
        groups=embeds.get("groups"),
        same_group="positive" if config.duplicates == "positives" else "excluded",
        exchange=config.exchange,
        local_loss=config.local_loss,
        gather_with_grad=config.gather_with_grad,
    )


def number_of_text(tokens: Int[Tensor, "b l"]) -> Int[Tensor, " b"]:
    """The same number for the same tokens, on every process; different ones for different texts but for a chance of 2^-64."""
    factors = torch.randint(-(2**62), 2**62, (tokens.shape[1],), generator=torch.Generator().manual_seed(0))
    return ((tokens + 1) * (2 * factors.to(tokens.device) + 1)).sum(dim=1)  # wraps around
