"""Our product and QuickGELU give torch's values and gradients, and step aside where they do not apply."""

import pytest
import torch
import torch.nn.functional as F

from rsvl_pretrain.clip_block import apply_linear
from rsvl_pretrain.linear import linear, quick_gelu

SHAPES = {"narrowing": (40, 24), "widening": (24, 72), "square": (32, 32)}


def operands(num_in, num_out, leading=(3, 5), dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = ((*leading, num_in), (num_out, num_in), (num_out,))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def gradients(output, tensors):
    cotangent = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return torch.autograd.grad(output, [tensor for tensor in tensors if tensor.requires_grad], cotangent)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("leading", [(7,), (3, 5), (2, 1, 4)])
def test_products_are_torchs(shape, leading):
    x, weight, bias = operands(*SHAPES[shape], leading)
    for tensors in ((x, weight, bias), (x, weight, None)):
        ours, theirs = linear(*tensors), F.linear(*tensors)
        assert ours.is_contiguous() and type(ours.grad_fn).__name__ == "_OneDnnLinearBackward"
        torch.testing.assert_close(ours, theirs)
        learned = [tensor for tensor in tensors if tensor is not None]
        for own, other in zip(gradients(ours, learned), gradients(theirs, learned), strict=True):
            assert own.is_contiguous()
            torch.testing.assert_close(own, other)


@pytest.mark.parametrize("learned", [(0,), (1,), (2,), (0, 2), (0, 1)])
def test_only_the_gradients_that_are_asked_for(learned):
    tensors = operands(24, 72)
    for place, tensor in enumerate(tensors):
        tensor.requires_grad_(place in learned)
    for own, other in zip(gradients(linear(*tensors), tensors), gradients(F.linear(*tensors), tensors), strict=True):
        torch.testing.assert_close(own, other)


def test_inputs_out_of_order_and_slices_of_weights():
    x, weight, bias = operands(24, 72)
    turned = x.detach().transpose(0, 1).requires_grad_()
    ours, theirs = (product(turned, weight[24:], bias[24:]) for product in (linear, F.linear))
    torch.testing.assert_close(ours, theirs)
    for own, other in zip(gradients(ours, [turned, weight, bias]), gradients(theirs, [turned, weight, bias]), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("why", ["double", "autocast", "no rows", "oneDNN missing"])
def test_everything_else_is_torchs_to_the_bit(why, monkeypatch):
    leading = (0, 5) if why == "no rows" else (3, 5)
    x, weight, bias = operands(24, 72, leading, torch.float64 if why == "double" else torch.float32)
    if why == "oneDNN missing":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        ours, theirs = linear(x, weight, bias), F.linear(x, weight, bias)
    assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert not type(ours.grad_fn).__name__.startswith("_OneDnn")


def test_with_and_without_gradients_the_bits_are_the_same():
    x, weight, bias = operands(24, 72)
    with torch.inference_mode():
        measured, activated = linear(x, weight, bias), quick_gelu(x)
    assert torch.equal(measured, linear(x, weight, bias))
    assert torch.equal(activated, quick_gelu(x)) and activated is not x


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_quick_gelu_is_its_formula(dtype, tolerance):
    x = torch.linspace(-12, 12, 801, dtype=dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    ours, formula = quick_gelu(x), exact * torch.sigmoid(1.702 * exact)
    torch.testing.assert_close(ours.double(), formula, atol=tolerance, rtol=tolerance)


def test_quick_gelu_passes_gradcheck():
    assert torch.autograd.gradcheck(quick_gelu, (torch.randn(7, dtype=torch.float64, requires_grad=True),))


def test_quick_gelu_keeps_one_tensor_for_its_gradient():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor):
        quick_gelu(torch.randn(4, 3, requires_grad=True))
    assert kept == [(4, 3)]


def test_a_layer_that_is_more_than_a_product_is_called():
    class Adapted(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    plain, adapted = torch.nn.Linear(4, 3), Adapted(4, 3)
    adapted.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4)
    torch.testing.assert_close(apply_linear(adapted, x), apply_linear(plain, x) + 1)
