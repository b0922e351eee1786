"""Losses: functions of tensors. The caller gathers, and says which row belongs to which."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def one_way_contrastive(
    query: Float[Tensor, "b d"],
    keys: Float[Tensor, "n d"],
    scale: Float[Tensor, ""],
    target: Int[Tensor, " b"],
    excluded: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """One direction of the CLIP loss (arXiv:2103.00020, figure 3).

    Rows are unit vectors. `scale` multiplies similarities (it is not a log). `target[i]` is the row of `keys` that belongs to
    query i: the caller decides what was gathered. Keys marked in `excluded` are no negatives of that query; the target never is.
    """
    logits = scale * query @ keys.T  # [b, n]
    if excluded is not None:
        logits = logits.masked_fill(excluded & ~F.one_hot(target, keys.shape[0]).bool(), -torch.inf)
    return F.cross_entropy(logits, target)


def clip_loss(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""],
    *,
    all_image: Float[Tensor, "n d"] | None = None,
    all_text: Float[Tensor, "n d"] | None = None,
    offset: int = 0,
    excluded: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """The mean of both directions, rows of this process against the rows of all.

    `all_*` are the rows of every process in order, this one's beginning at `offset`; left out in a single process. With gradients
    flowing through the gathered rows this is open_clip's `local_loss` with `gather_with_grad`: averaged over processes, value and
    gradients are those of one process with the whole batch.
    """
    all_image = image if all_image is None else all_image
    all_text = text if all_text is None else all_text
    target = torch.arange(image.shape[0], device=image.device) + offset
    to_text = one_way_contrastive(image, all_text, scale, target, excluded)
    to_image = one_way_contrastive(text, all_image, scale, target, excluded)
    return (to_text + to_image) / 2


def same_text(texts: Int[Tensor, "b l"], all_texts: Int[Tensor, "n l"]) -> Bool[Tensor, "b n"]:
    """True where two captions are token for token the same: such a pair must not be pushed apart."""
    return (texts[:, None, :] == all_texts[None, :, :]).all(dim=-1)
