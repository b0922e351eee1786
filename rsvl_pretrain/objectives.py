"""A model and its losses: batch in, named losses out. The trainer adds them up and asks nothing else.

An objective has two halves, `embed` and `losses`, so that a batch that does not fit can be embedded piece by piece and still be judged
as a whole (`accumulate.py`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from rsvl_data.errors import OptionError
from rsvl_data.loader import Batch
from rsvl_pretrain.exchange import Exchange
from rsvl_pretrain.losses import clip_loss, siglip_loss
from rsvl_pretrain.model import DualEncoder

Embeds = dict[str, Tensor]


@dataclass(frozen=True)
class ContrastiveConfig:
    """The contrastive loss over the global batch. The defaults are exact for any number of processes."""

    loss: Literal["softmax", "sigmoid"] = "softmax"
    """softmax is CLIP's, sigmoid SigLIP's"""
    duplicates: Literal["negatives", "excluded", "positives"] = "negatives"
    """two samples of a batch with the same caption: each other's negatives, as in CLIP and every released RS recipe; excluded from
    each other's denominators; or positives of both. UCM-Captions repeats a sentence 3.9 times on average"""
    exchange: Exchange = "gather"
    """how processes see each other's embeddings: gather holds all of them; shift, bidir and reduce one process's at a time"""
    local_loss: bool = True
    """each process answers for its own rows; False: each computes the loss of all"""
    gather_with_grad: bool = True
    """False drops the gradient through other processes' embeddings, as open_clip does by default"""

    def __post_init__(self) -> None:
        if self.loss == "sigmoid" and (self.duplicates != "negatives" or not (self.local_loss and self.gather_with_grad)):
            raise OptionError(
                "--contrastive.loss sigmoid judges each pair alone: leave --contrastive.duplicates, local-loss and gather-with-grad"
            )


class ClipObjective(nn.Module):
    """CLIP (arXiv:2103.00020) or SigLIP (arXiv:2303.15343)."""

    def __init__(self, encoder: DualEncoder, config: ContrastiveConfig = ContrastiveConfig()):
        super().__init__()
        if config.loss == "sigmoid" and encoder.logit_bias is None:
            raise OptionError(
                f"{encoder.name} has no logit bias, which the sigmoid loss needs; give it one with `add_logit_bias`"
            )
        self.encoder, self.config = encoder, config

    def forward(self, batch: Batch, *, embed_only: bool = False) -> dict[str, Tensor]:
        """Losses by name; the embeddings alone when asked for, since a wrapped module (DDP, FSDP) must be entered here."""
        embeds = self.embed(batch)
        return embeds if embed_only else self.losses(embeds)

    def embed(self, batch: Batch) -> Embeds:
        """Rows of this batch, [b, d], and the numbers they share."""
        embeds = {
            "image": self.encoder.encode_image(batch.images).float(),
            "text": self.encoder.encode_tokens(batch.tokens).float(),
            "scale": self.encoder.logit_scale,
        }
        if self.config.loss == "sigmoid" and self.encoder.logit_bias is not None:
            embeds["bias"] = self.encoder.logit_bias
        if self.config.duplicates != "negatives":
            embeds["groups"] = number_of_text(batch.tokens).to(self.encoder.device)
        return embeds

    def losses(self, embeds: Embeds) -> dict[str, Tensor]:
        """`embeds` of one batch, or of several put together row by row."""
        config, pair = self.config, (embeds["image"], embeds["text"], embeds["scale"])
        if config.loss == "sigmoid":
            return {"contrastive": siglip_loss(*pair, embeds["bias"], exchange=config.exchange)}
        loss = clip_loss(
            *pair,
            groups=embeds.get("groups"),
            same_group="positive" if config.duplicates == "positives" else "excluded",
            exchange=config.exchange,
            local_loss=config.local_loss,
            gather_with_grad=config.gather_with_grad,
        )
        return {"contrastive": loss}


def number_of_text(tokens: Int[Tensor, "b l"]) -> Int[Tensor, " b"]:
    """The same number for the same tokens, on every process; different ones for different texts but for a chance of 2^-64."""
    factors = torch.randint(-(2**62), 2**62, (tokens.shape[1],), generator=torch.Generator().manual_seed(0))
    return ((tokens + 1) * (2 * factors.to(tokens.device) + 1)).sum(dim=1)  # wraps around
