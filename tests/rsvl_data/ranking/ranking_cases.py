"""CLIP models whose similarities a test can write down, and samples for them to rank."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rsvl_data.sample import Caption, Sample
from rsvl_data.stage import Stage
from rsvl_data.transforms import Preprocess


@dataclass
class ScriptedEncoder:
    """`cosine[text]` is the cosine of a text with every image: the image is the first axis, the rest of the text lies on the second."""

    cosine: dict[str, float]
    preprocess: Preprocess = field(default_factory=lambda: Preprocess(size=16))
    image_batches: list[int] = field(default_factory=list)
    text_batches: list[list[str]] = field(default_factory=list)

    def encode_image(self, images: Tensor) -> Tensor:
        self.image_batches.append(len(images))
        return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.text_batches.append(list(texts))
        cosines = torch.tensor([self.cosine[text] for text in texts])
        return torch.stack([cosines, (1 - cosines**2).clamp(min=0).sqrt()], dim=1)


@dataclass
class QuadrantEncoder:
    """An image is the brightness of its four quadrants, a text says which of them it looks at: `left`, `top`, `all`, `nothing`."""

    preprocess: Preprocess = field(default_factory=lambda: Preprocess(size=16))
    image_batches: list[int] = field(default_factory=list)

    def encode_image(self, images: Tensor) -> Tensor:
        self.image_batches.append(len(images))
        quadrants = F.avg_pool2d(images.float().mean(1, keepdim=True), images.shape[-1] // 2).flatten(1)
        return F.normalize(torch.cat([quadrants, torch.full((len(images), 1), 30.0)], dim=1), dim=1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        looks = {"left": [1, 0, 1, 0, 0], "top": [1, 1, 0, 0, 0], "all": [1, 1, 1, 1, 0], "nothing": [0, 0, 0, 0, 0]}
        return F.normalize(torch.tensor([looks[text.split()[0]] for text in texts], dtype=torch.float32), dim=1)


def picture(width: int = 24, height: int = 20) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def sample(*captions: Caption | str, key: str = "a1", image: bytes | None = None) -> Sample:
    given = [caption if isinstance(caption, Caption) else Caption(text=caption, kind="vlm") for caption in captions]
    return Sample(key=key, width=24, height=20, sha256="0" * 64, captions=given, image=picture() if image is None else image)


def one(stage: Stage, given: Sample) -> Sample:
    [answer] = stage.run([given])
    assert isinstance(answer, Sample), answer
    return answer


def choices(ranked: Sample) -> list[tuple[str, str, int | None]]:
    return [(caption.kind, caption.text, caption.parent) for caption in ranked.captions if caption.kind in ("top", "rotation")]
