import pytest
import torch
from open_clip.loss import SigLipLoss

from rsvl_data.errors import OptionError
from rsvl_data.loader import Batch
from rsvl_pretrain.losses import clip_loss
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective, ContrastiveConfig, number_of_text

DUPLICATES = ("negatives", "excluded", "positives")


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
            name: [ClipObjective(encoder, ContrastiveConfig(duplicates=d))(b)["contrastive"].item() for d in DUPLICATES]
            for name, b in (("twice", twice), ("distinct", distinct))
        }
    assert len(set(losses["twice"])) == 3 and losses["twice"][1] < losses["twice"][0]
    assert losses["distinct"] == pytest.approx([losses["distinct"][0]] * 3)


def test_one_number_a_text():
    tokens = torch.tensor([[5, 1, 2, 0], [5, 2, 1, 0], [5, 1, 2, 0], [5, 1, 0, 0]])
    numbers = number_of_text(tokens).tolist()
    assert numbers[0] == numbers[2] and len(set(numbers)) == 3


def test_sigmoid_loss_needs_and_gets_a_bias():
    encoder = DualEncoder.load("rsvl-tiny")
    with pytest.raises(OptionError, match="no logit bias"):
        ClipObjective(encoder, ContrastiveConfig(loss="sigmoid"))
    encoder.add_logit_bias()
    batch = batch_of(encoder, "a lake", "a forest")
    loss = ClipObjective(encoder, ContrastiveConfig(loss="sigmoid"))(batch)["contrastive"]
    expected = SigLipLoss()(encoder.encode_image(batch.images), encoder.encode_text(batch.texts), 10.0, -10.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert encoder.model.logit_bias.grad.abs() > 0


def test_an_exported_sigmoid_model_keeps_its_bias(tmp_path):
    encoder = DualEncoder.load("rsvl-tiny")
    encoder.add_logit_bias()
    encoder.export(tmp_path)
    assert DualEncoder.load(f"local-dir:{tmp_path}").logit_bias.item() == -10


def test_options_that_the_sigmoid_loss_does_not_have():
    with pytest.raises(OptionError, match="each pair alone"):
        ContrastiveConfig(loss="sigmoid", duplicates="excluded")
