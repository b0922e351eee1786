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
    if not isinstance(tower, VisionTransformer):
        check_one_size(tower, images.shape[-1])
        return tower(images)
    grid = patch_grid(tower, images)
    if grid == tuple(tower.grid_size):
        return tower(images)
    return torch.func.functional_call(tower, {"positional_embedding": positions_of_grid(tower, grid)}, (images,))


def check_one_size(tower: Any, size_px: int) -> None:
    """Raises OptionError if the tower was made for squares of another size."""
    own = getattr(tower, "image_size", size_px)
    own_px = own if isinstance(own, int) else own[0]
    if own_px != size_px:
        raise OptionError(
            f"this image tower ({type(tower).__name__}) takes images of {own_px} px alone, not of {size_px} px. Use crops of that size, "
            "or a vision transformer of open_clip's own such as ViT-B-32."
        )
