"""The image tower in training: images of any size, and nothing computed that the class token does not depend on."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rsvl_data.errors import OptionError
from rsvl_pretrain.clip_block import is_plain, run_blocks


def encode_image(model: Any, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b d"]:
    """What `model.encode_image(images)` gives, for any open_clip model; not normalised. It rounds otherwise."""
    if reads_class_token_alone(model.visual):
        return _class_tokens(model.visual, images)
    return model.encode_image(images)


def encode_image_of_any_size(tower: Any, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b d"]:
    """Embeddings of standardised images by an image tower of open_clip, not normalised. Positions are interpolated where the size is
    not the tower's own: small local crops cost a fraction of a whole image.

    Raises OptionError for a size that the patch does not divide, or a tower that knows one size alone.
    """
    check_image_size(tower, images)
    if reads_class_token_alone(tower):
        return _class_tokens(tower, images)
    if not isinstance(tower, VisionTransformer):
        return tower(images)
    positions = positions_of_grid(tower, patch_grid(tower, images))
    return torch.func.functional_call(tower, {"positional_embedding": positions}, (images,))


def reads_class_token_alone(tower: Any) -> bool:
    """False for other kinds of towers (ResNet, timm), and for those that pool over patches, by attention (CoCa), or hand patches on."""
    return (
        isinstance(tower, VisionTransformer)
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
        and all(map(is_plain, tower.transformer.resblocks))
    )


def class_query(x: Float[Tensor, "b n c"]) -> Tensor:
    """What `run_block` is asked where the class token alone is read."""
    return x.new_zeros(len(x), 1, dtype=torch.long)


def _class_tokens(tower: VisionTransformer, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b d"]:
    x = embed_patches(tower, images)
    pooled, _ = tower._pool(run_blocks(tower.transformer, x, class_query(x)))
    return pooled if tower.proj is None else pooled @ tower.proj


def embed_patches(tower: VisionTransformer, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b n c"]:
    """The sequence that the first block reads: class token, then patches, rows downwards. Raises OptionError as `patch_grid`."""
    positions = positions_of_grid(tower, patch_grid(tower, images))
    x = tower.conv1(images).flatten(2).transpose(1, 2)
    class_token = tower.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = torch.cat([class_token, x], 1) + positions.to(x.dtype)
    return tower.ln_pre(tower.patch_dropout(x))


def patch_grid(tower: VisionTransformer, images: Float[Tensor, "b 3 y x"]) -> tuple[int, int]:
    """Rows and columns of patches. Raises OptionError for a size that the patch does not divide."""
    height, width = images.shape[-2:]
    patch_height, patch_width = tower.patch_size
    if height < patch_height or width < patch_width or height % patch_height or width % patch_width:
        raise OptionError(
            f"images of {width} x {height} px cannot be cut into patches of {patch_width} x {patch_height} px; "
            "pad or resize them to a multiple"
        )
    return height // patch_height, width // patch_width


def positions_of_grid(tower: VisionTransformer, grid: tuple[int, int]) -> Float[Tensor, "n c"]:
    """Of the class token and of every patch of `grid`: bicubic with antialias, as open_clip's `resize_pos_embed` does when weights are
    loaded for another size."""
    own_grid = tuple(tower.grid_size)
    if grid == own_grid:
        return tower.positional_embedding
    class_token, patches = tower.positional_embedding[:1], tower.positional_embedding[1:]
    as_image = patches.reshape(1, *own_grid, -1).permute(0, 3, 1, 2).float()  # half precision has no such kernel on a CPU
    resized = F.interpolate(as_image, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([class_token, resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1).to(class_token.dtype)])


def check_image_size(tower: Any, images: Float[Tensor, "b 3 y x"]) -> None:
    """Raises OptionError as `encode_image_of_any_size`; looks at the shape alone."""
    if isinstance(tower, VisionTransformer):
        patch_grid(tower, images)
        return
    height, width = images.shape[-2:]
    own = getattr(tower, "image_size", (height, width))
    own_height, own_width = (own, own) if isinstance(own, int) else own
    if (own_height, own_width) != (height, width):
        raise OptionError(
            f"this image tower ({type(tower).__name__}) takes images of {own_width} x {own_height} px alone, not of {width} x {height} "
            "px. Use crops of that size, or a vision transformer of open_clip's own such as ViT-B-32."
        )
