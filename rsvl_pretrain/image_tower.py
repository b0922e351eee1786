"""The image tower in training: what its class token does not depend on is not computed."""

from typing import Any

import torch
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rsvl_pretrain.trained_block import is_plain, run_blocks


def encode_image(model: Any, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b d"]:
    """What `model.encode_image(images)` gives, for any open_clip model; not normalised. It rounds otherwise."""
    tower = model.visual
    if not reads_class_token_alone(tower):
        return model.encode_image(images)
    x = tower._embeds(images)
    class_token = run_blocks(tower.transformer, x, x.new_zeros(len(x), 1, dtype=torch.long))
    pooled, _ = tower._pool(class_token)
    return pooled if tower.proj is None else pooled @ tower.proj


def reads_class_token_alone(tower: Any) -> bool:
    """False for other kinds of towers (ResNet, timm), and for those that pool over patches, by attention (CoCa), or hand patches on."""
    return (
        isinstance(tower, VisionTransformer)
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
        and all(map(is_plain, tower.transformer.resblocks))
    )
