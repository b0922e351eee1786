"""What ranking needs of a CLIP model, and the cosines it ranks by. The model itself is handed in."""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rsvl_data.transforms import Preprocess


class ClipEncoder(Protocol):
    """Of `rsvl_pretrain.model.DualEncoder`: both towers give unit vectors. The caller sets evaluation mode."""

    @property
    def preprocess(self) -> Preprocess: ...
    def encode_image(self, images: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]: ...
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "t d"]: ...


def own_cosines(
    encoder: ClipEncoder, views: UInt8[Tensor, "b n 3 s s"], texts: Sequence[Sequence[str]]
) -> list[Float[Tensor, "t n"]]:
    """For each image the cosine of its own texts with its own views, float64 on the CPU.

    All views take one call of the image tower, all texts one of the text tower; equal texts are encoded once.
    """
    row_of = {text: row for row, text in enumerate(dict.fromkeys(text for own in texts for text in own))}
    with torch.inference_mode():
        view_embeds = encoder.encode_image(views.flatten(0, 1)).double().cpu().unflatten(0, views.shape[:2])
        text_embeds = encoder.encode_text(list(row_of)).double().cpu()
    rows = [[row_of[text] for text in own] for own in texts]
    return [text_embeds[own] @ embeds.T for own, embeds in zip(rows, view_embeds, strict=True)]
