"""Text towers without their padding: a remote-sensing caption has 17 tokens of CLIP's 77, and each one costs the same.

Exact, because nothing flows from padding to the embedding: in a causal tower a token sees only those before it, and the embedding is
taken at the end-of-text token; a tower of transformers masks padding itself. Other towers (SigLIP's sees all tokens and takes the last)
get all of theirs.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

_STEP_TOKENS = 8


def encode_without_padding(model: Any, tokens: Int[Tensor, "b l"], *, step_tokens: int = _STEP_TOKENS) -> Float[Tensor, "b d"]:
    """What `model.encode_text(tokens)` gives, for any open_clip model; not normalised.

    The length is rounded up to a multiple of `step_tokens`. Tokens still on the CPU are measured there, so that a GPU is not waited for.
    """
    length = min(rounded_up(num_needed_tokens(model, tokens), step_tokens), tokens.shape[1])
    tower = getattr(model, "text", model)  # open_clip's CLIP holds its text tower's parts itself, CustomTextCLIP as `text`
    whole = length == tokens.shape[1]
    tokens = tokens.to(model.logit_scale.device, non_blocking=True)[
        :, :length
    ]  # whole, as a slice of pinned memory is not pinned
    if whole or isinstance(tower, HFTextEncoder):
        return model.encode_text(tokens)
    prefix = "model." if tower is model else "model.text."
    shorter = {
        f"{prefix}positional_embedding": tower.positional_embedding[:length],
        f"{prefix}attn_mask": tower.attn_mask[:length, :length],
    }
    return torch.func.functional_call(_EncodeText(model), shorter, (tokens,))


def encode_by_length(model: Any, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    """The same for many texts at once: those of like lengths go together, so that few pay for the longest."""
    on_cpu = model.logit_scale.device.type == "cpu"
    rows, step_tokens = (64, 1) if on_cpu else (1024, _STEP_TOKENS)  # a GPU wants more work at a time, and few shapes
    if len(tokens) <= rows:
        return encode_without_padding(model, tokens, step_tokens=step_tokens)
    order = needed_tokens(model, tokens).argsort(stable=True)
    buckets = order.split(rows)
    embeds = torch.cat([encode_without_padding(model, tokens[bucket], step_tokens=step_tokens) for bucket in buckets])
    return embeds[order.argsort().to(embeds.device)]


def num_needed_tokens(model: Any, tokens: Int[Tensor, "b l"]) -> int:
    """The longest text's tokens with its end; all columns for a tower in which padding matters."""
    return int(needed_tokens(model, tokens).max())


def needed_tokens(model: Any, tokens: Int[Tensor, "b l"]) -> Int[Tensor, " b"]:
    """The same for each text."""
    tower = getattr(model, "text", model)
    everything = tokens.new_full((len(tokens),), tokens.shape[1])
    if isinstance(tower, HFTextEncoder):
        used = tokens != tower.config.pad_token_id
        last = (used * torch.arange(tokens.shape[1], device=tokens.device)).amax(dim=1)
        return torch.where(used.any(dim=1), last + 1, everything)
    if not ends_in_one_token(tower):
        return everything
    end: Any = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
    ends = tokens.argmax(dim=1) if _pooling(tower) == "argmax" else torch.eq(tokens, end).int().argmax(dim=1)
    return ends + 1


def ends_in_one_token(tower: Any) -> bool:
    """Whether the embedding is read at the token that ends a text, and that token sees those before it alone."""
    causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
    return causal and _pooling(tower) in ("argmax", "eos")


def rounded_up(num_tokens: int, step_tokens: int = _STEP_TOKENS) -> int:
    """A compiled or captured tower shall meet few lengths."""
    return -(-num_tokens // step_tokens) * step_tokens


def _pooling(tower: Any) -> str | None:
    return getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))


class _EncodeText(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)
