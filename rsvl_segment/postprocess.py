"""Cosines of pixels and phrases become classes: synonyms joined, a threshold for what resembles nothing."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Synonyms = Literal["sum", "max"]
NO_CLASS = 255


def class_values(
    logits: Float[Tensor, "q h w"], query_to_class: Sequence[int], scale: float, synonyms: Synonyms = "sum"
) -> Float[Tensor, "c h w"]:
    """Softmax over all phrases of `scale * logits`, then one value a class.

    sum   the probability of the class. The values of a pixel add up to 1, and a synonym more does not lower them
    max   that of its best phrase, as SegEarth-OV and RS-OVSS have it: every synonym more lowers what meets the threshold. Kept as
          released, `query_to_class` is not looked at where there are as many phrases as classes
          (https://github.com/NJU-LHRS/RS-OVSS, customized_segmentor.py, `postprocess_result`)
    """
    probs = (scale * logits.float()).softmax(0)
    num_classes = max(query_to_class) + 1
    if synonyms == "max" and num_classes == len(query_to_class):
        return probs
    index = torch.tensor(list(query_to_class), device=logits.device).view(-1, 1, 1).expand_as(probs)
    values = torch.zeros(num_classes, *probs.shape[1:], device=probs.device)
    return values.scatter_reduce(0, index, probs, "sum" if synonyms == "sum" else "amax")


def class_map(
    values: Float[Tensor, "c h w"], threshold: float = 0.0, background_index: int | None = None
) -> UInt8[Tensor, "h w"]:
    """The class with the greatest value, the first of equals. Pixels where it is below `threshold` become `background_index`, or
    NO_CLASS when there is none."""
    best, index = values.max(0)
    below = NO_CLASS if background_index is None else background_index
    return torch.where(best < threshold, below, index).to(torch.uint8)
