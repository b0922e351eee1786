import pytest
import torch
from torch import nn

from rsvl_data.errors import OptionError
from rsvl_pretrain.teacher import follow, frozen_copy


def layer(value: float) -> nn.Linear:
    linear = nn.Linear(3, 2)
    for parameter in linear.parameters():
        nn.init.constant_(parameter, value)
    return linear


def test_farslip_10_a_teacher_is_a_running_mean():
    student = layer(1.0)
    teacher = frozen_copy(layer(3.0))
    for step in range(1, 6):
        follow(teacher, student, 0.9)
        for parameter in teacher.parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, 1 + 2 * 0.9**step))


@pytest.mark.parametrize(("momentum", "left"), [(1.0, 3.0), (0.0, 1.0)])
def test_farslip_10_the_ends_of_the_range(momentum, left):
    teacher = frozen_copy(layer(3.0))
    follow(teacher, layer(1.0), momentum)
    assert all((parameter == left).all() for parameter in teacher.parameters())


def test_a_copy_wants_no_gradient_and_shares_no_memory():
    student = layer(1.0)
    teacher = frozen_copy(student)
    nn.init.zeros_(student.weight)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert (teacher.weight == 1).all()


def test_weights_that_are_taken_apart():
    student = layer(1.0)
    student.weight.ds_id = 0
    with pytest.raises(OptionError, match="ZeRO stage 3"):
        follow(frozen_copy(layer(1.0)), student, 0.9)
