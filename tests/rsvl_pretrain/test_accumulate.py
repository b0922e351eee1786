"""Pieces of a batch give the losses and gradients of the whole."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from rsvl_data.loader import Batch
from rsvl_pretrain.accumulate import CachedBatch
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective, ContrastiveConfig

TEXTS = ["a lake", "a forest", "a lake", "a river", "a harbour with many boats", "a beach", "a field"]


def objective_of(config: ContrastiveConfig, seed: int = 0) -> ClipObjective:
    torch.manual_seed(seed)
    encoder = DualEncoder.load("rsvl-tiny")
    if config.loss == "sigmoid":
        encoder.add_logit_bias()
    return ClipObjective(encoder, config)


def batch_of(encoder: DualEncoder) -> Batch:
    images = torch.randint(0, 256, (len(TEXTS), 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(0, 0, [f"k{i}" for i in range(len(TEXTS))], images, TEXTS, encoder.tokenizer(TEXTS), [None] * len(TEXTS))


@pytest.mark.parametrize("num_parts", [2, 3, 7])
@pytest.mark.parametrize(
    "config", [ContrastiveConfig(), ContrastiveConfig(duplicates="excluded"), ContrastiveConfig(loss="sigmoid")]
)
def test_equal_to_the_whole_batch(config, num_parts):
    objective = objective_of(config)
    batch = batch_of(objective.encoder)
    losses = objective(batch)
    losses["contrastive"].backward()
    expected = {name: parameter.grad.clone() for name, parameter in objective.named_parameters()}
    objective.zero_grad()
    cached = CachedBatch(objective, objective, batch, num_parts)
    torch.testing.assert_close(cached.losses["contrastive"], losses["contrastive"], rtol=1e-5, atol=1e-6)
    cached.backward(Accelerator(cpu=True))
    for name, parameter in objective.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_pieces_alone_would_give_other_gradients():
    """What the price buys: without the other pieces' negatives the gradient points elsewhere."""
    objective = objective_of(ContrastiveConfig())
    batch = batch_of(objective.encoder)
    weight = objective.encoder.model.visual.conv1.weight
    CachedBatch(objective, objective, batch, 7).backward(Accelerator(cpu=True))
    assert weight.grad.norm() > 0  # a lone sample has no negatives and no gradient


def test_dropout_draws_the_same_both_times():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.seen = objective_of(ContrastiveConfig()), []

        def forward(self, batch, *, embed_only):
            embeds = self.inner(batch, embed_only=True)
            self.seen.append(torch.rand(3))
            return embeds

    noisy = Noisy()
    CachedBatch(noisy, noisy.inner, batch_of(noisy.inner.encoder), 3).backward(Accelerator(cpu=True))
    torch.testing.assert_close(torch.stack(noisy.seen[:3]), torch.stack(noisy.seen[3:]))
    assert not torch.equal(noisy.seen[0], noisy.seen[1])
