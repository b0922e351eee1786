"""A transformer block of CLIP as we run it: for those of its tokens that are read, and without copies around its attention.

Of a tower's last block one token is read (the class token, the end of a text). The others are keys and values to it; their queries,
outputs and MLP come to nothing, forward and backward. In a tower of 12 blocks that is 7 % of the work.

The numbers are those of open_clip's block but for rounding. Training and dense tokens take it. Its own `forward` is kept for everybody
else: the embeddings of evaluation and export are open_clip's to the bit.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils.checkpoint import checkpoint

from rsvl_pretrain.linear import linear, quick_gelu


def is_plain(block: nn.Module) -> bool:
    """Whether `run_block` can run it: the attention block of CLIP itself, without adapters or variants of attention."""
    return (
        isinstance(block, ResidualAttentionBlock)
        and type(block.attn) is nn.MultiheadAttention
        and block.attn.in_proj_bias is not None
        and block.attn.dropout == 0
        and not hasattr(block, "ln_1_kv")
    )


def run_blocks(
    transformer: Any,
    x: Float[Tensor, "b n c"],
    queries: Int[Tensor, "b q"],
    attn_mask: Float[Tensor, "b 1 n n"] | None = None,
) -> Float[Tensor, "b q c"]:
    """The tokens numbered `queries` of each row after all blocks of an open_clip `Transformer`. Every block must be plain."""
    *blocks, last = transformer.resblocks
    for block in blocks:
        x = run_block(transformer, block, x, attn_mask)
    return run_block(transformer, last, x, attn_mask, queries)


def run_block(
    transformer: Any,
    block: Any,
    x: Float[Tensor, "b n c"],
    attn_mask: Float[Tensor, "b 1 n n"] | None = None,
    queries: Int[Tensor, "b q"] | None = None,
) -> Float[Tensor, "b q c"]:
    """All tokens, or those numbered `queries`, after a plain block of `transformer`, with its gradient checkpointing.

    `attn_mask` is added to the logits of attention.
    """
    # Engines gather a block's weights, and torch.compile its code, in the call of the block itself: its parts cannot be called from here.
    if "forward" not in vars(block):
        block.forward = partial(_forward, block)
    if transformer.grad_checkpointing and torch.is_grad_enabled():
        return checkpoint(block, x, attn_mask=attn_mask, lean=True, queries=queries, use_reentrant=False)
    return block(x, attn_mask=attn_mask, lean=True, queries=queries)


def _forward(
    block: Any,
    q_x: Tensor,
    k_x: Tensor | None = None,
    v_x: Tensor | None = None,
    attn_mask: Tensor | None = None,
    *,
    lean: bool = False,
    queries: Tensor | None = None,
) -> Tensor:
    """The block's own `forward`, or ours when asked for."""
    if not lean:
        return type(block).forward(block, q_x, k_x, v_x, attn_mask)
    asking = _taken(q_x, queries)
    x = asking + block.ls_1(_attention(block.attn, block.ln_1(q_x), attn_mask, queries))
    return x + block.ls_2(apply_mlp(block.mlp, block.ln_2(x)))


def _attention(
    attention: nn.MultiheadAttention, x: Float[Tensor, "b n c"], attn_mask: Tensor | None, queries: Tensor | None
) -> Float[Tensor, "b q c"]:
    """Queries, keys and values stay where the projection wrote them. torch's own module moves them three times."""
    weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, attention.embed_dim
    if queries is None:
        query, key, value = linear(x, weight, bias).chunk(3, dim=-1)
    else:
        query = linear(_taken(x, queries), weight[:width], bias[:width])
        key, value = linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        if attn_mask is not None:
            attn_mask = attn_mask.gather(2, queries[:, None, :, None].expand(-1, -1, -1, attn_mask.shape[-1]))
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
    return apply_linear(attention.out_proj, mixed.transpose(1, 2).flatten(2))


def apply_mlp(mlp: Any, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """`mlp(x)` by our products, unless it is more than the two of CLIP."""
    if [name for name, _ in mlp.named_children()] != ["c_fc", "gelu", "c_proj"]:
        return mlp(x)
    return apply_linear(mlp.c_proj, _activated(mlp.gelu, apply_linear(mlp.c_fc, x)))


def _activated(activation: nn.Module, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    """Nobody else reads `x`, the widest tensor of a block: without gradients GELU takes its place."""
    if type(activation) is QuickGELU:
        return quick_gelu(x)
    if type(activation) is nn.GELU and activation.approximate == "none" and not torch.is_grad_enabled():
        return torch.ops.aten.gelu_(x)
    return activation(x)


def apply_linear(layer: Any, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
    """`layer(x)` by our product, unless the layer is more than a product (an adapter, a quantised one)."""
    if type(layer) in (nn.Linear, NonDynamicallyQuantizableLinear):
        return linear(x, layer.weight, layer.bias)
    return layer(x)


def _taken(x: Float[Tensor, "b n c"], queries: Int[Tensor, "b q"] | None) -> Float[Tensor, "b q c"]:
    # not `take_along_dim`, which is compiled anew for each number of rows
    return x if queries is None else x.gather(1, queries[..., None].expand(-1, -1, x.shape[-1]))
