"""Agreement of regions with their crops: the official numbers, and what holds by its meaning."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rsvl_pretrain.distillation import agreement, roi_cells, roi_means

ALIGNMENTS = ("roi2pooled", "roi2cls", "combined", "patches")
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def numbers(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def loss(dense, boxes, sample, crop_dense, crop_image, align):
    return 1 - agreement(dense, boxes, sample, crop_dense, crop_image, align).mean()


def as_map(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    return tokens.transpose(1, 2).unflatten(2, grid)


@pytest.fixture(scope="module")
def official(shared):
    folder = shared / "fixtures" / "objectives"
    return json.loads((folder / "farslip_distill.json").read_text()), load_file(folder / "farslip_distill.safetensors")


@pytest.mark.parametrize("case", ["main", "fullbox_identity", "nonsquare_grid"])
@pytest.mark.parametrize("align", ["roi2pooled", "roi2cls", "combined"])
@pytest.mark.parametrize("teacher", ["active", "ema"])
def test_farslip_9_and_11_losses_and_gradients_are_the_official_ones(official, case, align, teacher):
    """A shared teacher has gradients on both sides, another one exactly none; `combined` is half of each loss."""
    fixture, stored = official
    grid = tuple(fixture["parameters"]["grid"][case])
    leaves = {name: stored[f"{case}/{name}"].clone().requires_grad_() for name in ("global_dense", "crop_dense", "crop_cls")}
    boxes = stored[f"{case}/boxes"]
    sample = torch.arange(len(boxes)).repeat_interleave(boxes.shape[1])
    crops = [leaves["crop_dense"], leaves["crop_cls"]]
    crop_dense, crop_cls = crops if teacher == "active" else [crop.detach() for crop in crops]
    found = loss(as_map(leaves["global_dense"], grid), boxes.flatten(0, 1), sample, as_map(crop_dense, grid), crop_cls, align)
    found.backward()
    golden = fixture["scalars"][f"{case}/{align}/{teacher}"]
    assert found.item() == pytest.approx(golden["loss"], abs=5e-6)
    for name, norm in golden["grad_norm"].items():
        gradient = leaves[name].grad if leaves[name].grad is not None else torch.zeros(1)
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), name
        expected = stored.get(f"{case}/{align}/{teacher}/grad_{name}")
        if expected is not None:
            torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-3)
        elif norm == 0:
            assert not gradient.any()


def test_the_cells_are_the_official_ones(shared):
    stored = load_file(shared / "fixtures" / "objectives" / "roi_align_reference.safetensors")
    boxes = stored["boxes"]
    sample = torch.arange(len(boxes)).repeat_interleave(boxes.shape[1])
    cells = roi_cells(stored["features"], boxes.flatten(0, 1), sample)
    torch.testing.assert_close(cells, stored["roi_align_out"], atol=1e-6, rtol=1e-5)
    means = roi_means(stored["features"], boxes.flatten(0, 1), sample)
    torch.testing.assert_close(means, stored["roi_mean"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("align", ["roi2pooled", "patches"])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_farslip_6_the_whole_picture_agrees_with_itself(align, grid):
    dense = numbers(2, 8, *grid)
    boxes, sample = WHOLE.repeat(2, 1), torch.arange(2)
    torch.testing.assert_close(roi_cells(dense, boxes, sample), dense)
    assert loss(dense, boxes, sample, dense, None, align).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_farslip_7_between_0_and_2_and_of_no_scale(align):
    dense, crops, images = numbers(1, 8, 4, 4), numbers(6, 8, 4, 4, seed=1), numbers(6, 8, seed=2)
    boxes = torch.rand(6, 4, generator=torch.Generator().manual_seed(3)).sort(1).values[:, [0, 1, 2, 3]]
    sample = torch.zeros(6, dtype=torch.long)
    found = loss(dense, boxes, sample, crops, images, align)
    assert 0 <= found <= 2
    torch.testing.assert_close(loss(7.5 * dense, boxes, sample, 0.2 * crops, 3 * images, align), found)
    opposite = loss(dense, WHOLE, sample[:1], -dense, -dense.mean((2, 3)), align)
    assert opposite.item() == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_farslip_8_crops_belong_to_their_boxes(align):
    dense, crops, images = numbers(2, 8, 4, 4), numbers(4, 8, 4, 4, seed=1), numbers(4, 8, seed=2)
    boxes = torch.tensor([[0, 0, 0.5, 0.5], [0.3, 0.2, 0.9, 0.8], [0, 0, 1, 0.5], [0.5, 0.5, 1, 1]])
    sample, swapped = torch.tensor([0, 0, 1, 1]), [1, 0, 2, 3]
    found = loss(dense, boxes, sample, crops, images, align)
    torch.testing.assert_close(loss(dense, boxes[swapped], sample, crops[swapped], images[swapped], align), found)
    assert abs(loss(dense, boxes, sample, crops[swapped], images[swapped], align) - found) > 1e-3


def test_patches_see_an_arrangement_that_means_do_not():
    """A region whose crop has the same patches in another order: the means agree, patch by patch they do not."""
    dense = numbers(1, 8, 4, 4)
    shuffled, sample = dense.flip(-1), torch.zeros(1, dtype=torch.long)
    assert loss(dense, WHOLE, sample, shuffled, None, "roi2pooled").item() == pytest.approx(0, abs=1e-5)
    assert loss(dense, WHOLE, sample, shuffled, None, "patches").item() > 0.3


def test_patches_are_compared_cell_by_cell():
    """A crop that shows the lower right quarter on a grid of 2 x 2 has the picture's four patches there."""
    dense = numbers(1, 8, 4, 4)
    quarter, box, sample = dense[..., 2:, 2:], torch.tensor([[0.5, 0.5, 1.0, 1.0]]), torch.zeros(1, dtype=torch.long)
    assert agreement(dense, box, sample, quarter, None, "patches").item() == pytest.approx(1, abs=1e-5)
    slow = F.cosine_similarity(dense[..., :2, :2], quarter, dim=1).mean()
    torch.testing.assert_close(agreement(dense, box - 0.5, sample, quarter, None, "patches")[0], slow)


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_no_crop_at_all(align):
    none = torch.zeros(0, dtype=torch.long)
    found = agreement(numbers(2, 8, 4, 4), torch.zeros(0, 4), none, numbers(0, 8, 4, 4), numbers(0, 8), align)
    assert found.shape == (0,)
