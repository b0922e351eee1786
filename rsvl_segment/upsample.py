"""From the logits of patches to the logits of pixels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_RADIUS = 2  # patches to either side that a pixel listens to
_SIGMA_PATCHES = 1.0
_SIGMA_COLOUR = 0.5  # of standardised colours, whose spread over natural images is 1


def bilinear(logits: Float[Tensor, "b q h w"], size: tuple[int, int]) -> Float[Tensor, "b q y x"]:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def joint_bilateral(logits: Float[Tensor, "b q h w"], picture: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b q y x"]:
    """Joint bilateral upsampling (Kopf et al. 2007, equation 3): a pixel takes the logits of the patches around it, those of its own
    colour before others, so that edges follow the picture. Nothing is learned; SimFeatUp learns these weights."""
    height, width = picture.shape[-2:]
    rows, columns = logits.shape[-2:]
    patch_colour = F.interpolate(picture, size=(rows, columns), mode="area")
    y, row = _places(height, rows, picture.device)
    x, column = _places(width, columns, picture.device)
    total = logits.new_zeros(*logits.shape[:2], height, width)
    weight_sum = logits.new_zeros(len(logits), 1, height, width)
    for down in range(-_RADIUS, _RADIUS + 1):
        for across in range(-_RADIUS, _RADIUS + 1):
            near_row, near_column = (row + down).clamp(0, rows - 1), (column + across).clamp(0, columns - 1)
            far = (near_row - y).square()[:, None] + (near_column - x).square()[None]  # in patches, squared
            colour = (picture - _take(patch_colour, near_row, near_column)).square().mean(1, keepdim=True)
            weight = torch.exp(-far / (2 * _SIGMA_PATCHES**2) - colour / (2 * _SIGMA_COLOUR**2)) + 1e-12
            total += weight * _take(logits, near_row, near_column)
            weight_sum += weight
    return total / weight_sum


def _places(size: int, patches: int, device: torch.device) -> tuple[Float[Tensor, "n"], Tensor]:
    """Centre of each pixel in patches, and the patch it lies in."""
    place = (torch.arange(size, device=device) + 0.5) * patches / size - 0.5
    return place, place.round().long().clamp(0, patches - 1)


def _take(values: Float[Tensor, "b c h w"], rows: Tensor, columns: Tensor) -> Float[Tensor, "b c y x"]:
    return values[:, :, rows][..., columns]
