"""DINO's head, loss, centre, schedules and loop: the official numbers, a slow plain version, and the laws. Numbers after `rs_m_clip` are
those of the statements of `../shared/papers/rs_m_clip.md`, section 8."""

import json
from copy import deepcopy

import pytest
import torch
from ranks import on_ranks
from safetensors.torch import load_file
from torch import Tensor, nn

from rsvl_data.errors import OptionError
from rsvl_pretrain.distributed import rank
from rsvl_pretrain.self_distillation import (
    DinoHead,
    SelfDistillation,
    SelfDistillationConfig,
    cosine_between,
    mean_over_processes,
    self_distillation_loss,
    teacher_momentum,
    teacher_temperature,
)
from rsvl_pretrain.teacher import copy_buffers, follow

TOWER = nn.Linear(1, 1)  # stands by where the outputs are given
HEAD = {"hidden_dim": 32, "bottleneck_dim": 16}
VARIANTS = {
    "default": {},
    "free_g": {"learned_lengths": True},
    "bn": {"batch_norm": True},
    "one_layer": {"num_layers": 1},
}


@pytest.fixture(scope="module")
def official(shared):
    folder = shared / "fixtures" / "objectives"
    return json.loads((folder / "dino.json").read_text())["scalars"], load_file(folder / "dino.safetensors")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def by_row(crop_major: Tensor, num_views: int) -> Tensor:
    """The official [views * b, k] as [b, views, k]."""
    return crop_major.unflatten(0, (num_views, -1)).transpose(0, 1)


# --- official numbers


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_heads(official, variant):
    scalars, tensors = official
    head = DinoHead(24, 40, **HEAD, **VARIANTS[variant])
    saved = part(tensors, f"head/{variant}/")
    head.load_state_dict({name: tensor for name, tensor in saved.items() if name not in ("output", "grad_input")})
    features = tensors["head/input"].clone().requires_grad_()
    output = head(features)
    torch.testing.assert_close(output, saved["output"], atol=1e-5, rtol=1e-4)
    (output * tensors["head/cotangent"]).sum().backward()
    torch.testing.assert_close(features.grad, saved["grad_input"], atol=1e-5, rtol=1e-3)
    trained = {name: parameter for name, parameter in head.named_parameters() if parameter.requires_grad}
    expected = scalars[f"head/{variant}"]
    assert set(trained) == set(expected["trainable"])
    for name, norm in expected["grad_norms"].items():
        assert trained[name].grad.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-5)


def official_loss(student: Tensor, teacher: Tensor, center: Tensor, temperature: float) -> Tensor:
    return self_distillation_loss(
        by_row(student, 5),
        by_row(teacher, 2),
        center.flatten(),
        student_temperature=0.1,
        teacher_temperature=temperature,
        num_shared=2,
    )


@pytest.mark.parametrize("epoch", range(6))
def test_official_losses_and_gradients(official, epoch):
    scalars, tensors = official
    student = tensors["loss/student_out"].clone().requires_grad_()
    expected = scalars[f"loss/epoch{epoch}"]
    loss = official_loss(student, tensors["loss/teacher_out"], tensors["loss/center0"], expected["teacher_temp"])
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-5)
    loss.backward()
    assert student.grad.norm().item() == pytest.approx(expected["grad_norm_student"], rel=1e-4)
    if epoch < 2:
        torch.testing.assert_close(student.grad, tensors[f"loss/epoch{epoch}/grad_student"], atol=1e-6, rtol=1e-3)


def small_distillation(center: Tensor, **options) -> SelfDistillation:
    config = SelfDistillationConfig(
        prototypes=40, hidden_dim=32, bottleneck_dim=16, teacher_temperature=0.07, teacher_temperature_start=0.04, **options
    )
    distillation = SelfDistillation(TOWER, 24, config, num_steps=6)
    distillation.center.copy_(center.flatten())
    return distillation


def test_official_centre_over_four_calls(official):
    """Each loss has the centre before its own batch."""
    scalars, tensors = official
    distillation = small_distillation(tensors["loss/center0"], teacher_temperature_epochs=3)
    losses = []
    for call in range(4):
        student = tensors["loss/student_out"] * (1 + 0.1 * call)
        teacher = tensors["loss/teacher_out"] + 0.02 * call * tensors["loss/student_out"][:8]
        losses.append(distillation.loss(by_row(student, 5), by_row(teacher, 2), num_shared=2, epoch=call).item())
        distillation.after_step(TOWER, call)
        if call == 0:
            torch.testing.assert_close(distillation.center, tensors["loss/center1"].flatten(), atol=1e-6, rtol=0)
    name = next(name for name in scalars if name.startswith("loss/four_calls"))
    assert losses == pytest.approx(scalars[name], abs=1e-5)
    torch.testing.assert_close(distillation.center, tensors["loss/center_after_4_calls"].flatten(), atol=1e-6, rtol=0)


def test_official_loss_without_a_centre(official):
    scalars, tensors = official
    loss = official_loss(tensors["loss/student_out"], tensors["loss/teacher_out"], torch.zeros(40), 0.04)
    assert loss.item() == pytest.approx(scalars["loss/zero_center_epoch0"], abs=1e-5)


def _one_of_two_ranks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    distillation = small_distillation(tensors["center0"], teacher_temperature_epochs=3)
    own = part(tensors, f"rank{rank()}/")
    student = own["student_out"].clone().requires_grad_()
    loss = distillation.loss(by_row(student, 5), by_row(own["teacher_out"], 2), num_shared=2, epoch=1)
    loss.backward()
    distillation.after_step(TOWER, 0)
    return {"loss": loss.detach(), "gradient": student.grad, "center": distillation.center}


def test_rs_m_clip_09_the_centre_is_that_of_all_ranks(official):
    scalars, tensors = official
    given = {"center0": tensors["loss/center0"], **part(tensors, "two_ranks/")}
    for index, answer in enumerate(on_ranks(2, _one_of_two_ranks, given)):
        expected = scalars["two_ranks (epoch 1)"]["loss_per_rank"][index]
        assert answer["loss"].item() == pytest.approx(expected, abs=1e-5)
        torch.testing.assert_close(answer["gradient"], given[f"rank{index}/grad_student"], atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(answer["center"], given["center1"].flatten(), atol=1e-6, rtol=0)


def test_official_schedules(official):
    schedules = official[0]["schedules"]
    config = SelfDistillationConfig(
        teacher_schedule="cosine", teacher_temperature=0.07, teacher_temperature_start=0.04, teacher_temperature_epochs=3
    )
    momenta = [teacher_momentum(config, step, 20) for step in range(20)]
    assert momenta == pytest.approx(schedules["momentum 0.996->1"]["values"], rel=1e-9)
    assert [cosine_between(0.04, 0.4, step, 20) for step in range(20)] == pytest.approx(
        schedules["weight decay 0.04->0.4"]["values"], rel=1e-9
    )
    assert [teacher_temperature(config, epoch) for epoch in range(6)] == pytest.approx(
        schedules["teacher temperature by epoch"]["values"], rel=1e-9
    )


class VectorTower(nn.Module):
    """What the official loop was run with: tanh of a linear layer."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(10, 24)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.lin(vectors).tanh()


def outputs(tower: nn.Module, head: nn.Module, views: Tensor) -> Tensor:
    """Views [v, b, d] to [b, v, k]."""
    return head(tower(views.flatten(0, 1))).unflatten(0, views.shape[:2]).transpose(0, 1)


def test_official_loop(official):
    """Two epochs of two steps, the last layer frozen in the first; the teacher moves after the optimizer."""
    scalars, tensors = official
    start, schedule = part(tensors, "train_loop/init/"), scalars["train_loop_schedules"]
    tower = VectorTower()
    tower.load_state_dict(part(start, "backbone."))
    config = SelfDistillationConfig(
        prototypes=40,
        hidden_dim=32,
        bottleneck_dim=16,
        teacher_temperature=0.07,
        teacher_temperature_start=0.04,
        teacher_temperature_epochs=2,
        teacher_momentum=0.9,
        teacher_schedule="cosine",
    )
    distillation = SelfDistillation(tower, 24, config, num_steps=6)
    for head in (distillation.head, distillation.teacher["head"]):
        head.load_state_dict(part(start, "head."))
    trained = [p for module in (tower, distillation.head) for p in module.parameters() if p.requires_grad]
    groups = [[p for p in trained if p.ndim > 1], [p for p in trained if p.ndim == 1]]
    optimizer = torch.optim.AdamW([{"params": group, "weight_decay": 0.0} for group in groups])
    for step in range(4):
        epoch, views = step // 2, tensors[f"train_loop/batch{step % 2}/views"]
        optimizer.param_groups[0]["weight_decay"] = schedule["weight_decay"][step]
        for group in optimizer.param_groups:
            group["lr"] = schedule["lr"][step]
        teacher = outputs(distillation.teacher["visual"], distillation.teacher["head"], views[:2])
        loss = distillation.loss(outputs(tower, distillation.head, views), teacher, num_shared=2, epoch=epoch)
        assert loss.item() == pytest.approx(scalars["train_loop"][epoch]["loss_per_iteration"][step % 2], abs=5e-5)
        optimizer.zero_grad()
        loss.backward()
        distillation.cancel_frozen_gradients(epoch)
        optimizer.step()
        distillation.after_step(tower, step)
        if step % 2:
            check_state(distillation, tower, part(tensors, f"train_loop/after_epoch{epoch}/"), scalars["train_loop"][epoch])
    assert [teacher_momentum(config, step, 6) for step in range(6)] == pytest.approx(schedule["teacher_momentum"])


def check_state(distillation: SelfDistillation, tower: nn.Module, expected: dict[str, Tensor], norms: dict) -> None:
    student = {"backbone": tower, "head": distillation.head}
    teacher = {"backbone": distillation.teacher["visual"], "head": distillation.teacher["head"]}
    for side, modules in (("student", student), ("teacher", teacher)):
        found = {f"{prefix}.{name}": p for prefix, module in modules.items() for name, p in module.named_parameters()}
        for name, tensor in part(expected, f"{side}/").items():
            torch.testing.assert_close(found[name].detach(), tensor, atol=2e-5, rtol=0)
        assert {name: p.norm().item() for name, p in found.items()} == pytest.approx(norms[f"{side}_norms"], abs=1e-4)
    torch.testing.assert_close(distillation.center, expected["center"].flatten(), atol=1e-6, rtol=0)


# --- a slow plain version, and laws


def random_outputs(num_views: int, seed: int, rows: int = 3) -> Tensor:
    return torch.randn(rows, num_views, 7, generator=torch.Generator().manual_seed(seed))


def plain_loss(student: Tensor, teacher: Tensor, center: Tensor, num_shared: int) -> tuple[float, int]:
    """Pair by pair, and how many there were."""
    terms = []
    for t in range(teacher.shape[1]):
        for s in range(student.shape[1]):
            if t == s and s < num_shared:
                continue
            wanted = ((teacher[:, t] - center) / 0.04).softmax(-1)
            terms.append(-(wanted * (student[:, s] / 0.1).log_softmax(-1)).sum(-1).mean())
    return torch.stack(terms).mean().item(), len(terms)


def loss_of(student: Tensor, teacher: Tensor, center: Tensor, num_shared: int, student_temperature=0.1, temperature=0.04):
    return self_distillation_loss(
        student,
        teacher,
        center,
        student_temperature=student_temperature,
        teacher_temperature=temperature,
        num_shared=num_shared,
    )


@pytest.mark.parametrize(
    ("num_teacher", "num_student", "num_shared", "pairs"), [(2, 10, 2, 18), (1, 4, 1, 3), (2, 3, 0, 6), (1, 1, 0, 1)]
)
def test_rs_m_clip_08_pairs_of_the_same_view_are_skipped(num_teacher, num_student, num_shared, pairs):
    student, teacher, center = random_outputs(num_student, 0), random_outputs(num_teacher, 1), torch.linspace(-1, 1, 7)
    expected, count = plain_loss(student, teacher, center, num_shared)
    assert count == pairs
    assert loss_of(student, teacher, center, num_shared).item() == pytest.approx(expected, rel=1e-5)


def test_rs_m_clip_08_nothing_to_compare():
    with pytest.raises(OptionError, match="more than one crop"):
        loss_of(random_outputs(1, 0), random_outputs(1, 0), torch.zeros(7), 1)


def test_rs_m_clip_10_equal_outputs_give_the_entropy_of_the_teacher():
    same = random_outputs(1, 3)
    probs = (same[:, 0] / 0.1).softmax(-1)
    found = loss_of(same, same, torch.zeros(7), 0, temperature=0.1)
    assert found.item() == pytest.approx(-(probs * probs.log()).sum(-1).mean().item(), rel=1e-5)


def test_order_of_rows_and_of_unshared_views_does_not_matter():
    student, teacher, center = random_outputs(6, 0), random_outputs(2, 1), torch.linspace(-1, 1, 7)
    expected = loss_of(student, teacher, center, 2)
    torch.testing.assert_close(loss_of(student[[2, 0, 1]], teacher[[2, 0, 1]], center, 2), expected)
    torch.testing.assert_close(loss_of(student[:, [0, 1, 5, 3, 2, 4]], teacher, center, 2), expected)


def test_rs_m_clip_07_no_gradient_reaches_the_teacher():
    student, teacher = random_outputs(3, 0).requires_grad_(), random_outputs(2, 1).requires_grad_()
    loss_of(student, teacher, torch.zeros(7), 2).backward()
    assert student.grad is not None and teacher.grad is None
    distillation = small_distillation(torch.zeros(40), teacher_temperature_epochs=1)
    assert not any(parameter.requires_grad for parameter in distillation.teacher.parameters())


def test_rs_m_clip_07_the_teacher_after_one_step_and_its_buffers():
    """Buffers are copied, which the official code does not do."""
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    teacher = deepcopy(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_()
    student(torch.randn(8, 3))
    before = [parameter.detach().clone() for parameter in teacher.parameters()]
    follow(teacher, student, 0.75)
    copy_buffers(teacher, student)
    for old, kept, new in zip(before, teacher.parameters(), student.parameters()):
        torch.testing.assert_close(kept, 0.75 * old + 0.25 * new)
    for kept, new in zip(teacher.buffers(), student.buffers()):
        assert torch.equal(kept, new)
    assert teacher[1].running_mean.abs().sum() > 0


def test_rs_m_clip_07_every_step_brings_the_buffers_of_the_tower():
    tower = nn.BatchNorm1d(24)
    config = SelfDistillationConfig(prototypes=5, hidden_dim=8, bottleneck_dim=4)
    distillation = SelfDistillation(tower, 24, config, num_steps=2)
    distillation.loss(distillation.head(tower(torch.randn(6, 24)))[:, None], torch.randn(6, 1, 5), num_shared=0, epoch=0)
    distillation.after_step(tower, 0)
    assert torch.equal(distillation.teacher["visual"].running_mean, tower.running_mean)
    assert not distillation.train().teacher.training


@pytest.mark.parametrize(("momentum", "weights_of"), [(1.0, "teacher"), (0.0, "student")])
def test_a_teacher_that_stands_still_and_one_that_has_no_memory(momentum, weights_of):
    student, teacher = nn.Linear(3, 4), nn.Linear(3, 4)
    expected = deepcopy({"student": student, "teacher": teacher}[weights_of])
    follow(teacher, student, momentum)
    assert torch.equal(teacher.weight, expected.weight)


def test_rs_m_clip_09_without_momentum_the_centre_is_the_mean():
    distillation = small_distillation(torch.ones(40), teacher_temperature_epochs=1, center_momentum=0.0)
    teacher = torch.randn(5, 2, 40)
    distillation.loss(torch.randn(5, 3, 40), teacher, num_shared=2, epoch=0)
    distillation.after_step(TOWER, 0)
    torch.testing.assert_close(distillation.center, teacher.mean(dim=(0, 1)))


def test_one_process_is_its_own_mean():
    assert torch.equal(mean_over_processes(torch.arange(3.0)), torch.arange(3.0))


def test_rs_m_clip_07_the_frozen_last_layer_neither_moves_nor_decays():
    distillation = small_distillation(torch.zeros(40), teacher_temperature_epochs=1)
    before = distillation.head.last_layer.weight_v.detach().clone()
    optimizer = torch.optim.AdamW([p for p in distillation.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    for epoch, moved in ((0, False), (1, True)):
        distillation.loss(
            distillation.head(torch.randn(12, 24)).unflatten(0, (4, 3)), torch.randn(4, 2, 40), num_shared=2, epoch=epoch
        ).backward()
        distillation.cancel_frozen_gradients(epoch)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(distillation.head.last_layer.weight_v, before) != moved
    assert (
        len(optimizer.state[distillation.head.last_layer.weight_v]) and not optimizer.state[distillation.head.last_layer.weight_g]
    )


def test_half_precision_outputs_are_judged_in_float32():
    student, teacher = random_outputs(3, 0), random_outputs(2, 1)
    found = loss_of(student.bfloat16(), teacher.bfloat16(), torch.zeros(7), 2)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss_of(student, teacher, torch.zeros(7), 2).item(), rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_temperature": 0.0}, "temperatures"),
        ({"teacher_temperature_start": -0.1, "teacher_temperature_epochs": 2}, "temperatures"),
        ({"center_momentum": 1.0}, "center-momentum 1.0"),
        ({"teacher_momentum": 1.5}, "teacher-momentum 1.5"),
        ({"weight": -1.0}, "weight -1.0"),
        ({"teacher_temperature_start": 0.03}, "go together"),
        ({"prototypes": 0}, "1 or more"),
        ({"freeze_last_layer_epochs": -1}, "0 or more"),
        ({"head_lr_share": 0.0}, "head-lr-share"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(OptionError, match=message):
        SelfDistillationConfig(**options)
