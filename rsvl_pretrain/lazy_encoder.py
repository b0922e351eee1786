"""A dual encoder that travels to a worker process as its name, and loads its weights there when it is first asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rsvl_data.transforms import Preprocess
from rsvl_pretrain.model import DualEncoder


@dataclass
class LazyEncoder:
    """What ranking asks of a CLIP model (`rsvl_data.ranking.encoder.ClipEncoder`)."""

    name: str
    device: str
    seed: int

    @cached_property
    def _encoder(self) -> DualEncoder:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # fresh weights, as tests use them, are the same in every process
            return DualEncoder.load(self.name, self.device).eval()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "device": self.device, "seed": self.seed}

    @property
    def preprocess(self) -> Preprocess:
        return self._encoder.preprocess

    def encode_image(self, images: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        return self._encoder.encode_image(images)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        return self._encoder.encode_text(texts)
