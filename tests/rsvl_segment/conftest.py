"""A random tiny encoder that answers texts by their letters, and pictures."""

import numpy as np
import pytest
import torch
from open_clip.model import CLIP

from rsvl_data.transforms import Preprocess
from rsvl_segment.scenes import Pixels


class TinyEncoder:
    """What a `Segmenter` needs of a dual encoder; patches of 8 px, towers of 32 px."""

    def __init__(self, image_size=32):
        torch.manual_seed(0)
        vision = {"image_size": image_size, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
        text = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 4, "layers": 1}
        self.model = CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
        self.preprocess = Preprocess(size=image_size)
        self.device = torch.device("cpu")
        self.logit_scale = torch.tensor(20.0)
        self.asked = []

    def encode_text(self, texts, *, normalize=True):
        self.asked += texts
        letters = [torch.tensor([ord(letter) for letter in text], dtype=torch.float) for text in texts]
        return torch.stack([torch.sin(torch.outer(codes, torch.arange(1.0, 17.0))).sum(0) * 3 for codes in letters])


@pytest.fixture
def encoder():
    return TinyEncoder()


@pytest.fixture
def picture():
    def make(height, width, seed=0):
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        noise = generator.integers(0, 60, (height, width, 3))
        return Pixels((coarse.repeat(8, 0).repeat(8, 1)[:height, :width] * 0.75 + noise).astype(np.uint8))

    return make
