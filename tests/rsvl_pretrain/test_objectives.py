import pytest
import torch

from rsvl_data.loader import Batch
from rsvl_pretrain.losses import clip_loss
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return DualEncoder.load("rsvl-tiny").eval()


def batch_of(encoder, *texts: str) -> Batch:
    images = torch.randint(0, 256, (len(texts), 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(
        0, 0, [f"k{i}" for i in range(len(texts))], images, list(texts), encoder.tokenizer(list(texts)), [None] * len(texts)
    )


def test_equals_the_loss_of_its_embeddings(encoder):
    batch = batch_of(encoder, "a lake", "a forest", "a river")
    with torch.no_grad():
        expected = clip_loss(encoder.encode_image(batch.images), encoder.encode_text(batch.texts), encoder.logit_scale)
        torch.testing.assert_close(ClipObjective(encoder)(batch)["contrastive"], expected)


def test_duplicate_captions_as_an_option(encoder):
    twice, distinct = batch_of(encoder, "a lake", "a forest", "a lake"), batch_of(encoder, "a lake", "a forest", "a pond")
    with torch.no_grad():
        losses = {
            name: [ClipObjective(encoder, n)(b)["contrastive"].item() for n in (True, False)]
            for name, b in (("twice", twice), ("distinct", distinct))
        }
    assert losses["twice"][1] < losses["twice"][0]
    assert losses["distinct"][1] == losses["distinct"][0]
