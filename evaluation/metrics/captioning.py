"""How well a caption fits its image, and what people wrote about it, by cosines: CLIPScore (arXiv:2104.08718)."""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# Before every text: https://github.com/jmhessel/clipscore/blob/1036465276513621f77f1c2208d742e4a430781f/clipscore.py
CAPTION_PREFIX = "A photo depicts "


def clip_score(image: Float[Tensor, "n d"], caption: Float[Tensor, "n d"], weight: float = 2.5) -> Float[np.ndarray, "n"]:
    """`weight` * max(cosine, 0) of each caption and its image. Rows may have any length; the official code puts
    `CAPTION_PREFIX` before captions and references before it encodes them."""
    return weight * np.maximum(_cosines(image, caption), 0)


def reference_score(
    caption: Float[Tensor, "n d"],
    reference: Float[Tensor, "r d"],
    caption_of_reference: Int[np.ndarray, "r"],
    *,
    clip: bool = True,
) -> Float[np.ndarray, "n"]:
    """The largest cosine between a caption and one of its references.

    Not below 0, as the paper says; the official code does not clip: `clip=False`. Raises ValueError for a caption without reference.
    """
    without = np.setdiff1d(np.arange(len(caption)), caption_of_reference)
    if len(without):
        raise ValueError(f"each caption needs a reference; {len(without)} of {len(caption)} have none, the first is {without[0]}")
    cosines = _cosines(caption[caption_of_reference], reference)
    best = np.full(len(caption), -np.inf)
    np.maximum.at(best, caption_of_reference, cosines)
    return np.maximum(best, 0) if clip else best


def ref_clip_score(clip_scores: Float[np.ndarray, "n"], reference_scores: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Harmonic mean of both, 0 where both are 0: RefCLIPScore. Give it reference scores that were clipped, or official ones."""
    total = clip_scores + reference_scores
    return np.divide(2 * clip_scores * reference_scores, total, out=np.zeros(len(total)), where=total != 0)


def _cosines(one: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> Float[np.ndarray, "n"]:
    if len(one) == 0:
        raise ValueError("a score of no captions has no value; give at least one")
    for embeds in (one, other):
        if wrong := int((~embeds.isfinite().all(1)).sum()):
            raise ValueError(f"{wrong} of {len(embeds)} embeddings hold NaN or infinity")
    return (F.normalize(one.double(), dim=-1) * F.normalize(other.double(), dim=-1)).sum(1).cpu().numpy()
