"""What a region looks like in the whole picture against what it looks like alone (FarSLIP, arXiv:2511.14901).

The patches of the picture are read inside a box by RoIAlign, on a grid of cells. The crop of that box is embedded by itself. Their
agreement is a cosine for each crop; the loss is 1 minus its mean.

    roi2pooled   mean of the cells with the mean of the crop's patches
    roi2cls      mean of the cells with the crop's embedding, as CLIPSelf and FineCLIP have it
    combined     half of each
    patches      each cell with the patch of the crop in the same place: the mean of their cosines. Ours; a mean over cells cannot tell
                 one arrangement of a region from another

Means are over tokens that were not normalised, as in the released code (https://github.com/NJU-LHRS/FarSLIP, open_clip_train/train.py,
`extract_normed_roi_features`).
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, cat
from torchvision.ops import roi_align

Alignment = Literal["roi2pooled", "roi2cls", "combined", "patches"]


def roi_cells(
    dense: Float[Tensor, "b d h w"], boxes: Float[Tensor, "n 4"], sample: Int[Tensor, " n"], cells: tuple[int, int] | None = None
) -> Float[Tensor, "n d y x"]:
    """Patches inside boxes, on a grid of `cells` (rows, columns); None: as many as the map has.

    `boxes` are x0, y0, x1, y1 in fractions of the picture, `sample` says of which one. The whole picture gives its map back.
    """
    height, width = dense.shape[-2:]
    scaled = boxes * boxes.new_tensor([width, height, width, height])
    rois = cat([sample[:, None].to(dense.dtype), scaled.to(dense.dtype)], 1)
    return roi_align(dense, rois, output_size=cells or (height, width), spatial_scale=1.0, sampling_ratio=-1, aligned=True)


def roi_means(dense: Float[Tensor, "b d h w"], boxes: Float[Tensor, "n 4"], sample: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Mean of the cells of each box; not normalised."""
    return roi_cells(dense, boxes, sample).mean((2, 3))


def agreement(
    dense: Float[Tensor, "b d h w"],
    boxes: Float[Tensor, "n 4"],
    sample: Int[Tensor, " n"],
    crop_dense: Float[Tensor, "n d y x"] | None,
    crop_image: Float[Tensor, "n d"] | None,
    align: Alignment,
) -> Float[Tensor, " n"]:
    """Cosine of each crop, -1 to 1. `crop_dense` and `crop_image` are its patches and its embedding, where `align` compares with them."""
    if align == "patches":
        assert crop_dense is not None
        height, width = crop_dense.shape[-2:]
        return F.cosine_similarity(roi_cells(dense, boxes, sample, (height, width)), crop_dense, dim=1, eps=_EPS).mean((1, 2))
    region = F.normalize(roi_means(dense, boxes, sample), dim=1)
    parts = []
    if align in ("roi2pooled", "combined"):
        assert crop_dense is not None
        parts.append((region * F.normalize(crop_dense.mean((2, 3)), dim=1)).sum(1))
    if align in ("roi2cls", "combined"):
        assert crop_image is not None
        parts.append((region * F.normalize(crop_image, dim=1)).sum(1))
    return sum(parts[1:], parts[0]) / len(parts)


_EPS = 1e-12  # as `F.normalize`
