"""An encoder small enough to know by heart."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rsvl_data.transforms import Preprocess


class ColourEncoder(nn.Module):
    """Knows an image by its mean colour and a text by the colour words in it: red, green, blue."""

    words = ("red", "green", "blue")

    def __init__(self, name: str = "colour") -> None:
        super().__init__()
        self.name, self.preprocess, self.calls = name, Preprocess(size=8), []
        self.config: dict[str, Any] = {"embed_dim": 3}
        self.weight = nn.Parameter(torch.ones(1))

    @property
    def model(self) -> "ColourEncoder":
        return self

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def logit_scale(self) -> torch.Tensor:
        return torch.tensor(10.0)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training and images.dtype == torch.uint8
        self.calls.append(len(images))
        return nn.functional.normalize(images.float().mean((2, 3)) * self.weight, dim=-1)

    def tokenizer(self, texts: Sequence[str]) -> torch.Tensor:
        self.calls.append(list(texts))
        return torch.tensor([[float(word in text) + 0.01 for word in self.words] for text in texts])

    def encode_text(self, texts: Sequence[str] | torch.Tensor, normalize: bool = True) -> torch.Tensor:
        counts = texts if isinstance(texts, torch.Tensor) else self.tokenizer(texts)
        embeds = counts * self.weight * (counts.sum(1, keepdim=True) * 7)
        return nn.functional.normalize(embeds, dim=-1) if normalize else embeds

    def weights_sha256(self) -> str:
        return "0" * 64
