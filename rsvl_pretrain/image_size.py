"""Image towers on images of another size than their own: small local crops cost a fraction of a whole image."""

from typing import Any

import torch
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rsvl_data.errors import OptionError
from rsvl_pretrain.dense import patch_grid, positions_of_grid


def encode_image_of_any_size(tower: Any, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b d"]:
    """Embeddings of standardised images by an image tower of open_clip, not normalised. Positions are interpolated where the size is
    not the tower's own.

    Raises OptionError for a size that the patch does not divide, or a tower that knows one size alone.
    """
    check_image_size(tower, images)
    if not isinstance(tower, VisionTransformer) or (grid := patch_grid(tower, images)) == tuple(tower.grid_size):
        return tower(images)
    return torch.func.functional_call(tower, {"positional_embedding": positions_of_grid(tower, grid)}, (images,))


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
