"""What a linear classifier can read out of frozen embeddings: multinomial logistic regression.

After CLIP's linear probe (arXiv:2103.00020, appendix A.3): full-batch L-BFGS, strength of the regularisation chosen on val, then fitted
again on train and val together and measured on test. Different from it: embeddings are those after the projection, of unit length,
which zero-shot classification and retrieval use too.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from evaluation.benchmarks.classified import classified
from evaluation.benchmarks.features import EmbedOptions, Features, embedding_origin, probe_features
from evaluation.data import EvalSet
from evaluation.embed import Encoder
from evaluation.result import Result
from rsvl_data.errors import OptionError

# Of the mean loss and unit vectors; each fit begins where the one before ended, so from strong to weak.
WEIGHT_DECAYS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
MAX_ITERATIONS = 300


def linear_probe(
    encoder: Encoder,
    train: EvalSet,
    test: EvalSet,
    *,
    val: EvalSet | None = None,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    seed: int = 0,
    num_bootstrap: int = 1000,
    **embedding: Unpack[EmbedOptions],
) -> Result:
    """acc1, acc5 and mean_per_class_recall on `test`; `details["val_acc1"]` is what was chosen by.

    Without `val` a fifth of every class of train is held out to choose. No randomness but that. Embeddings are unit vectors, not
    standardised. Raises DataError for splits without labels or of other classes, OptionError for weight decays below 0 or none.
    """
    if not weight_decays or min(weight_decays) < 0:
        raise OptionError(f"weight_decays needs numbers of 0 or more; got {tuple(weight_decays)}")
    began = time.perf_counter()
    probe = probe_features(encoder, train, val, test, seed, **embedding)
    chosen, val_acc1 = choose_weight_decay(probe.train, probe.val, probe.num_classes, weight_decays)
    head = fit(probe.train.joined(probe.val), probe.num_classes, chosen)
    scores, labels = head.logits(probe.test.embeds).cpu().numpy(), probe.test.labels.cpu().numpy()
    fields = classified(scores, labels, test.classes, num_bootstrap, seed)
    fields["details"] |= {"weight_decay": chosen, "val_acc1": {f"{decay:g}": acc1 for decay, acc1 in val_acc1.items()}}
    return Result(
        task="linear_probe",
        protocol="rsvl",
        seconds=time.perf_counter() - began,
        **fields,
        **embedding_origin(encoder, test, embedding, **probe.facts),
    )


@dataclass(frozen=True)
class LinearHead:
    weight: Tensor  # [c, d]
    bias: Tensor  # [c]

    def logits(self, embeds: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return F.linear(embeds, self.weight, self.bias)

    def acc1(self, found: Features) -> float:
        return (self.logits(found.embeds).argmax(1) == found.labels).float().mean().item()


def choose_weight_decay(
    train: Features, val: Features, num_classes: int, weight_decays: Sequence[float]
) -> tuple[float, dict[float, float]]:
    """The weight decay that is best on val, the strongest of equals, and the val acc1 of all."""
    head, acc1 = None, {}
    for decay in sorted(weight_decays, reverse=True):
        head = fit(train, num_classes, decay, start=head)
        acc1[decay] = head.acc1(val)
    return max(acc1, key=lambda decay: acc1[decay]), acc1


def fit(train: Features, num_classes: int, weight_decay: float, start: LinearHead | None = None) -> LinearHead:
    """Minimises mean cross-entropy + weight_decay / 2 * |weight|^2 in float32, from zero or from `start`. The bias is free."""
    if start is None:
        weight = train.embeds.new_zeros(num_classes, train.embeds.shape[1])
        start = LinearHead(weight, weight.new_zeros(num_classes))
    weight, bias = (part.clone().requires_grad_() for part in (start.weight, start.bias))
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-8, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(train.embeds, weight, bias), train.labels) + weight_decay / 2 * weight.square().sum()
        value.backward()
        return value.item()

    optimizer.step(loss)
    return LinearHead(weight.detach(), bias.detach())
