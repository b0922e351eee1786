"""Pictures and their crops through one image tower, each once and as many at a time as have the same size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from rsvl_data.transforms import Preprocess
from rsvl_pretrain.dense import DenseHead, encode_some
from rsvl_pretrain.image_tower import encode_image_of_any_size


@dataclass(frozen=True)
class Views:
    """Images of one kind, grey levels 0-255, and which of their two embeddings are asked for."""

    images: UInt8[Tensor, "n 3 y x"]
    image: bool = True
    patches: bool = False


@dataclass(frozen=True)
class EncodedViews:
    """Unit vectors, and patches that are not normalised; None where they were not asked for."""

    image: Float[Tensor, "n d"] | None
    patches: Float[Tensor, "n d h w"] | None


def encode_views(
    model: Any, preprocess: Preprocess, views: Mapping[str, Views], head: DenseHead, device: torch.device
) -> dict[str, EncodedViews]:
    """By name. `model` is an open_clip model, or has its `visual`.

    One pass for each size among them, also where there is no image of it: every process runs the tower the same number of times.
    """
    by_size: dict[tuple[int, int], list[str]] = {}
    for name, view in views.items():
        by_size.setdefault((view.images.shape[2], view.images.shape[3]), []).append(name)
    encoded: dict[str, EncodedViews] = {}
    for names in by_size.values():
        encoded.update(_encode_size(model, preprocess, {name: views[name] for name in names}, head, device))
    return {name: encoded[name] for name in views}


def _encode_size(
    model: Any, preprocess: Preprocess, views: Mapping[str, Views], head: DenseHead, device: torch.device
) -> dict[str, EncodedViews]:
    images = torch.cat([view.images.to(device, non_blocking=True) for view in views.values()])
    if nobody := not len(images):
        images = images.new_zeros(1, *images.shape[1:])
    counts = [len(view.images) for view in views.values()]
    image_counts = [count if view.image else 0 for count, view in zip(counts, views.values())]
    patch_counts = [count if view.patches else 0 for count, view in zip(counts, views.values())]
    standardised = preprocess.normalize(images)
    if any(view.patches for view in views.values()):
        of_image, of_patches = (
            slice(None) if nobody else _rows(counts, wanted, device) for wanted in (image_counts, patch_counts)
        )
        pooled, patches = encode_some(model, standardised, head, of_image=of_image, of_patches=of_patches)
    else:
        pooled, patches = encode_image_of_any_size(model.visual, standardised), None
    unit = F.normalize(pooled.float(), dim=-1)
    by_view_image = unit[: sum(image_counts)].split(image_counts)
    by_view_patches = patches.float()[: sum(patch_counts)].split(patch_counts) if patches is not None else [None] * len(views)
    return {
        name: EncodedViews(image if view.image else None, patch if view.patches else None)
        for (name, view), image, patch in zip(views.items(), by_view_image, by_view_patches, strict=True)
    }


def _rows(counts: Sequence[int], wanted: Sequence[int], device: torch.device) -> slice | Tensor:
    """The numbers of the images in the parts that are wanted whole (others are not wanted at all)."""
    if list(counts) == list(wanted):
        return slice(None)
    starts = [sum(counts[:index]) for index in range(len(counts))]
    rows = [row for start, count in zip(starts, wanted) for row in range(start, start + count)]
    return torch.tensor(rows, dtype=torch.int64).to(device, non_blocking=True)
