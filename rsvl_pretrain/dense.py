"""Patch tokens in the space of the texts, from the towers of open_clip as they are: one function for training and for segmentation.

An image tower of CLIP is trained through its class token alone. The heads here read the sequence before the last block and leave out
what that block does for the class token, so that a patch keeps to its place:

    segearth   softmax(QQ') + softmax(KK') + softmax(VV') in place of softmax(QK'), no residual, no MLP. The head that FarSLIP trains and
               measures (https://github.com/NJU-LHRS/FarSLIP, open_clip/transformer.py, `custom_attn`), first of SegEarth-OV
    maskclip   each token attends to itself alone; residual and MLP stay (`forward_without_attn` there, after arXiv:2112.01071)
    last       the tokens of the whole tower, as the class token saw them

All end with the final norm and the projection of the class token. Nothing is normalised.

For the same weights, precision and input the features are the same to the bit with and without gradients, in training and in evaluation
mode: every block runs as in training (`clip_block.py`), without the shortcut that torch takes in evaluation, which rounds otherwise.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint

from rsvl_data.errors import OptionError
from rsvl_pretrain.clip_block import apply_linear, apply_mlp, is_plain, run_block
from rsvl_pretrain.image_tower import class_query, embed_patches, patch_grid
from rsvl_pretrain.linear import linear

DenseHead = Literal["segearth", "maskclip", "last"]
Rows = slice | Tensor  # or the numbers of the rows


def encode_dense(model: Any, images: Float[Tensor, "b 3 y x"], head: DenseHead = "segearth") -> Float[Tensor, "b d h w"]:
    """Patch embeddings of standardised images of any size that is a multiple of the patch; one for each patch, rows downwards.

    `model` is an open_clip model. Positions are interpolated where the size is not the tower's own.
    Raises OptionError for a tower that has no such tokens, or an image it cannot be cut into patches.
    """
    tower = _tower(model)
    return _as_map(_head_tokens(tower, _before_last_block(tower, images), head), patch_grid(tower, images))


def encode_some(
    model: Any, images: Float[Tensor, "b 3 y x"], head: DenseHead, *, of_image: Rows, of_patches: Rows
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "k d h w"]]:
    """`model.encode_image` of some of the images, but for rounding, and `encode_dense` of some, from one pass: of the last block and of
    the head nothing is computed that was not asked for. Neither is normalised."""
    tower = _tower(model)
    x, last_block = _before_last_block(tower, images), tower.transformer.resblocks[-1]
    if head == "last":
        last = run_block(tower.transformer, last_block, x)
        pooled, tokens = last[of_image], _projected(tower, last[of_patches])
    else:
        of_pooled = x[of_image]
        queries = class_query(of_pooled) if tower.pool_type == "tok" else None
        pooled = run_block(tower.transformer, last_block, of_pooled, queries=queries)
        tokens = _head_tokens(tower, x[of_patches], head)
    pooled, _ = tower._pool(pooled)
    return pooled @ tower.proj, _as_map(tokens, patch_grid(tower, images))


def encode_dense_and_class_token(
    model: Any, images: Float[Tensor, "b 3 y x"], head: DenseHead = "segearth"
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d h w"]]:
    """The class token that went through the head as the patches did, and `encode_dense`. It is not the embedding of the image unless
    the head is `last`; SegEarth-OV subtracts its logits from those of the patches."""
    tower = _tower(model)
    tokens = _head_tokens(tower, _before_last_block(tower, images), head)
    return tokens[:, 0], _as_map(tokens, patch_grid(tower, images))


def patch_size_px(model: Any) -> tuple[int, int]:
    """Height and width of a patch. Raises OptionError as `encode_dense`."""
    height, width = _tower(model).patch_size
    return height, width


def _tower(model: Any) -> VisionTransformer:
    tower = model.visual
    if not isinstance(tower, VisionTransformer):
        raise OptionError(
            f"dense tokens need a vision transformer of open_clip's own; this image tower is a {type(tower).__name__}. "
            "Use a ViT model such as ViT-B-16 or ViT-B-32 (not a ResNet, and not one of timm, such as SigLIP's)."
        )
    if tower.attn_pool is not None or tower.proj is None:
        raise OptionError(
            "dense tokens need a tower that projects its tokens; this one pools them by attention (CoCa) or projects nothing"
        )
    for block in tower.transformer.resblocks:
        if not is_plain(block):
            raise OptionError(
                f"dense tokens need the plain attention block of CLIP; here is a {type(block).__name__} with "
                f"{type(getattr(block, 'attn', None)).__name__}. Merge adapters into the weights first."
            )
    if tower.training and not isinstance(tower.patch_dropout, nn.Identity):
        raise OptionError("dense tokens need every patch, but this tower drops some while it trains; set its patch_dropout to 0")
    return tower


def _before_last_block(tower: VisionTransformer, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b n c"]:
    x = embed_patches(tower, images)
    for block in tower.transformer.resblocks[:-1]:
        x = run_block(tower.transformer, block, x)
    return x


def _head_tokens(tower: VisionTransformer, x: Float[Tensor, "b n c"], head: DenseHead) -> Float[Tensor, "b n d"]:
    block = tower.transformer.resblocks[-1]
    if head == "last":
        return _projected(tower, run_block(tower.transformer, block, x))
    function = partial(_inside, block, partial({"segearth": _segearth, "maskclip": _maskclip}[head], block))
    if tower.transformer.grad_checkpointing and torch.is_grad_enabled():
        return _projected(tower, checkpoint(function, x, use_reentrant=False))
    return _projected(tower, function(x))


def _inside(block: Any, function: Callable[[Tensor], Tensor], x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """`function(x)`, inside a call of the block where FSDP2 spreads it over processes: there alone its weights are whole."""
    is_spread = isinstance(block, FSDPModule)
    if not is_spread:
        return function(x)
    block.forward = function
    try:
        return block._call_impl(x)  # not what `compile` made of the block
    finally:
        del block.forward


def _projected(tower: VisionTransformer, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n d"]:
    return tower.ln_post(x) @ tower.proj


def _segearth(block: ResidualAttentionBlock, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """Three attentions with one product of values each, whose sum needs no n x n matrix in memory."""
    attention = block.attn
    joint = linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    parts = joint.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, b, heads, n, c / heads]
    of_query, of_key, of_value = (F.scaled_dot_product_attention(part, part, parts[2]) for part in parts)
    mixed = of_query + of_key + of_value
    return apply_linear(attention.out_proj, mixed.transpose(1, 2).flatten(2))


def _maskclip(block: ResidualAttentionBlock, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    attention, width = block.attn, x.shape[-1]
    value = linear(block.ln_1(x), attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
    x = x + block.ls_1(apply_linear(attention.out_proj, value))
    return x + block.ls_2(apply_mlp(block.mlp, block.ln_2(x)))


def _as_map(tokens: Float[Tensor, "b p d"], grid: tuple[int, int]) -> Float[Tensor, "b d h w"]:
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)
