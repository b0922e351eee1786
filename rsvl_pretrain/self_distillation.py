"""Self-distillation without labels: the student learns to say of one view of an image what its own running mean says of another.

DINO (arXiv:2104.14294) as in https://github.com/facebookresearch/dino/tree/7c446df5b9f45747937fb0d72314eb9f7b66930a: `DINOHead` of
`vision_transformer.py`, `DINOLoss` and the loop of `main_dino.py`, `cosine_scheduler` and `cancel_gradients_last_layer` of `utils.py`.

    p_T = softmax((h_T - c) / t_T),  p_S = softmax(h_S / t_S)        h: outputs of a head, one number for each of K prototypes
    loss = mean over (teacher view, another student view) of -sum_k p_T log p_S
    c <- m_c c + (1 - m_c) mean of h_T over the global batch          after the loss
    teacher <- m teacher + (1 - m) student                            after the optimizer's step

Ours differs in one place: buffers (running statistics of a batch norm) are copied to the teacher; there it keeps those it began with.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rsvl_data.errors import OptionError
from rsvl_pretrain.distributed import world_size
from rsvl_pretrain.teacher import copy_buffers, follow, frozen_copy


@dataclass(frozen=True)
class SelfDistillationConfig:
    """The defaults are DINO's, but for the teacher's momentum, which stays what it is, as in SILC (arXiv:2310.13355)."""

    weight: float = 1.0
    """of the self-distillation loss beside the contrastive loss, which has 1; 0 leaves it out, with its crops and its teacher"""
    prototypes: int = 65536
    """K: numbers that a head gives for a view"""
    hidden_dim: int = 2048
    """width of the head's hidden layers"""
    bottleneck_dim: int = 256
    """length of the unit vectors that are compared with the prototypes"""
    head_layers: int = 3
    """linear layers of the head before the prototypes"""
    student_temperature: float = 0.1
    """t_S"""
    teacher_temperature: float = 0.04
    """t_T; the lower, the surer the teacher"""
    teacher_temperature_start: float | None = None
    """where t_T begins; it moves in equal steps, one an epoch. Left out: it is the same throughout"""
    teacher_temperature_epochs: int = 0
    """epochs in which it gets from there to t_T"""
    center_momentum: float = 0.9
    """m_c: what stays of the centre each step"""
    teacher_momentum: float = 0.996
    """m: what stays of the teacher each step"""
    teacher_schedule: Literal["fixed", "cosine"] = "fixed"
    """cosine: m rises to 1 over the run, as in DINO; the teacher then learns nothing more from the texts"""
    freeze_last_layer_epochs: int = 1
    """epochs in which the prototypes stay as they began: neither update nor weight decay"""
    head_lr_share: float = 1.0
    """learning rate of the head, as a share of the towers'"""

    def __post_init__(self) -> None:
        if min(self.student_temperature, self.teacher_temperature, self.teacher_temperature_start or 1) <= 0:
            raise OptionError("the temperatures of --distillation must be above 0")
        if not 0 <= self.center_momentum < 1 or not 0 <= self.teacher_momentum <= 1 or self.weight < 0:
            raise OptionError(
                f"--distillation: center-momentum {self.center_momentum} must be in [0, 1), teacher-momentum "
                f"{self.teacher_momentum} in [0, 1], weight {self.weight} at least 0"
            )
        if (self.teacher_temperature_start is None) != (self.teacher_temperature_epochs == 0):
            raise OptionError("--distillation.teacher-temperature-start and teacher-temperature-epochs go together")
        if min(self.prototypes, self.hidden_dim, self.bottleneck_dim, self.head_layers) < 1:
            raise OptionError("--distillation: prototypes, hidden-dim, bottleneck-dim and head-layers must be 1 or more")
        if min(self.teacher_temperature_epochs, self.freeze_last_layer_epochs) < 0 or self.head_lr_share <= 0:
            raise OptionError(
                "--distillation: teacher-temperature-epochs and freeze-last-layer-epochs must be 0 or more, head-lr-share above 0"
            )


class DinoHead(nn.Module):
    """An MLP with GELU to unit vectors, and their products with K prototypes.

    `learned_lengths`: the prototypes' lengths are trained, too; else they are unit vectors, and outputs lie in [-1, 1].
    `batch_norm` normalises hidden layers over the rows of this process. Parameters are named as in the official code.
    """

    def __init__(
        self,
        in_dim: int,
        num_prototypes: int,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        num_layers: int = 3,
        batch_norm: bool = False,
        learned_lengths: bool = False,
    ):
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), bottleneck_dim]
        layers: list[nn.Module] = []
        for number, (width, next_width) in enumerate(pairwise(widths), 1):
            layers.append(_small_linear(width, next_width))
            if number < num_layers:
                layers += [*([nn.BatchNorm1d(next_width)] if batch_norm else []), nn.GELU()]
        self.mlp = nn.Sequential(*layers) if num_layers > 1 else layers[0]
        self.last_layer = Prototypes(bottleneck_dim, num_prototypes, learned_lengths=learned_lengths)

    def forward(self, features: Float[Tensor, "n c"]) -> Float[Tensor, "n k"]:
        return self.last_layer(F.normalize(self.mlp(features), dim=-1))


class Prototypes(nn.Module):
    """A linear layer without bias whose rows are directions times lengths: `weight_g * weight_v / |weight_v|`.

    torch's own weight normalisation would do the same under other names, and its hidden re-computation does not survive `deepcopy` and
    sharding in all versions.
    """

    def __init__(self, dim: int, num_prototypes: int, *, learned_lengths: bool):
        super().__init__()
        self.weight_v = nn.Parameter(nn.Linear(dim, num_prototypes, bias=False).weight.detach())
        self.weight_g = nn.Parameter(torch.ones(num_prototypes, 1), requires_grad=learned_lengths)

    def forward(self, rows: Float[Tensor, "n c"]) -> Float[Tensor, "n k"]:
        return F.linear(rows, self.weight_g * F.normalize(self.weight_v, dim=1))


def _small_linear(in_dim: int, out_dim: int) -> nn.Linear:
    layer = nn.Linear(in_dim, out_dim)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def self_distillation_loss(
    student: Float[Tensor, "b s k"],
    teacher: Float[Tensor, "b t k"],
    center: Float[Tensor, " k"],
    *,
    student_temperature: float,
    teacher_temperature: float,
    num_shared: int,
) -> Float[Tensor, ""]:
    """Mean over the rows and over the t * s - num_shared pairs of different views; natural logarithm.

    The first `num_shared` views of both sides are the same pictures. No gradient goes to the teacher. Raises OptionError where no pair
    is left.
    """
    num_pairs = teacher.shape[1] * student.shape[1] - num_shared
    if num_pairs < 1:
        raise OptionError("self-distillation needs a student view that its teacher does not see: more than one crop")
    targets = ((teacher.detach().float() - center) / teacher_temperature).softmax(dim=-1)
    all_targets = targets.sum(dim=1)
    loss = student.new_zeros((), dtype=torch.float32)
    for view in range(student.shape[1]):
        # What all teacher views say of a student view at once: one product for each student view, not for each pair.
        wanted = all_targets - targets[:, view] if view < num_shared else all_targets
        log_probs = (student[:, view].float() / student_temperature).log_softmax(dim=-1)
        loss = loss - (wanted * log_probs).sum(dim=-1).mean()
    return loss / num_pairs


def cosine_between(start: float, end: float, step: int, num_steps: int) -> float:
    """`start` at step 0, then half a cosine that would reach `end` at `num_steps`."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / num_steps))


def teacher_temperature(config: SelfDistillationConfig, epoch: int) -> float:
    """Of an epoch counted from 0; the last of several warm-up epochs has the final one."""
    start, num_epochs = config.teacher_temperature_start, config.teacher_temperature_epochs
    if start is None or epoch >= num_epochs:
        return config.teacher_temperature
    return start + (config.teacher_temperature - start) * epoch / max(num_epochs - 1, 1)


def teacher_momentum(config: SelfDistillationConfig, step: int, num_steps: int) -> float:
    """Of the step with this number, counted from 0."""
    fixed = config.teacher_schedule == "fixed"
    return config.teacher_momentum if fixed else cosine_between(config.teacher_momentum, 1.0, step, num_steps)


class SelfDistillation(nn.Module):
    """All that self-distillation adds to a tower: the student's head, a teacher with a head, and the centre of its outputs.

    Call `loss` with the outputs of both heads, then `cancel_frozen_gradients` before the optimizer's step and `after_step` after it. The
    student's tower itself is not a part of this module. `feature_dim` is the length of what the tower gives.
    """

    center: Tensor

    def __init__(self, tower: nn.Module, feature_dim: int, config: SelfDistillationConfig, num_steps: int):
        super().__init__()
        self.config, self.num_steps = config, num_steps
        self.head = DinoHead(
            feature_dim,
            config.prototypes,
            hidden_dim=config.hidden_dim,
            bottleneck_dim=config.bottleneck_dim,
            num_layers=config.head_layers,
        )
        self.teacher = frozen_copy(nn.ModuleDict({"visual": tower, "head": self.head}))
        self.register_buffer("center", torch.zeros(config.prototypes))
        self._output_mean: Tensor | None = None

    def train(self, mode: bool = True) -> "SelfDistillation":
        """The teacher answers as in evaluation: nothing of it is dropped at random."""
        super().train(mode)
        self.teacher.eval()
        return self

    def loss(
        self, student: Float[Tensor, "b s k"], teacher: Float[Tensor, "b t k"], *, num_shared: int, epoch: int
    ) -> Float[Tensor, ""]:
        """`self_distillation_loss` with the centre before this batch, whose teacher outputs `after_step` takes into it."""
        self._output_mean = teacher.detach().float().mean(dim=(0, 1))
        return self_distillation_loss(
            student,
            teacher,
            self.center,
            student_temperature=self.config.student_temperature,
            teacher_temperature=teacher_temperature(self.config, epoch),
            num_shared=num_shared,
        )

    def cancel_frozen_gradients(self, epoch: int) -> None:
        """In the first epochs the prototypes have no gradient at all, so that the optimizer neither moves nor decays nor remembers them."""
        if epoch >= self.config.freeze_last_layer_epochs:
            return
        for parameter in self.head.last_layer.parameters():
            if hasattr(parameter, "_hp_mapping") or hasattr(parameter, "ds_id"):
                raise OptionError(
                    "DeepSpeed keeps the gradients to itself, so no layer can be frozen for a while: "
                    "--distillation.freeze-last-layer-epochs 0, or DDP or FSDP2"
                )
            parameter.grad = None

    @torch.no_grad()
    def after_step(self, tower: nn.Module, step: int) -> None:
        """Move centre and teacher; `step` counts from 0 and `tower` is the student's."""
        if self._output_mean is None:
            raise RuntimeError("after_step comes after a loss, once")
        self.center.lerp_(mean_over_processes(self._output_mean), 1 - self.config.center_momentum)
        self._output_mean = None
        momentum = teacher_momentum(self.config, step, self.num_steps)
        for teacher, student in ((self.teacher["visual"], tower), (self.teacher["head"], self.head)):
            follow(teacher, student, momentum)
            copy_buffers(teacher, student)


def mean_over_processes(values: Tensor) -> Tensor:
    """Of equally large parts of a batch."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()
