import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rsvl_pretrain.losses import clip_loss, one_way_contrastive, same_text


def unit(rows: int, dim: int = 6, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def plain_clip_loss(image, text, scale, excluded=None):
    """Term by term, from the definition."""
    total = 0.0
    for query, keys in ((image, text), (text, image)):
        for i in range(len(query)):
            logits = [scale * float(query[i] @ keys[j]) for j in range(len(keys))]
            kept = [j for j in range(len(keys)) if excluded is None or j == i or not excluded[i][j]]
            total -= logits[i] - math.log(sum(math.exp(logits[j]) for j in kept))
    return total / (2 * len(image))


def test_against_the_definition():
    image, text, scale = unit(5), unit(5, seed=1), torch.tensor(7.0, dtype=torch.float64)
    excluded = torch.zeros(5, 5, dtype=torch.bool)
    excluded[1, 3] = excluded[3, 1] = excluded[2, 2] = True
    assert clip_loss(image, text, scale).item() == pytest.approx(plain_clip_loss(image, text, 7.0), abs=1e-12)
    loss = clip_loss(image, text, scale, excluded=excluded).item()
    assert loss == pytest.approx(plain_clip_loss(image, text, 7.0, excluded), abs=1e-12)
    assert loss < clip_loss(image, text, scale).item()


def test_official_open_clip_values(shared):
    folder = shared / "fixtures" / "objectives"
    fixture = json.loads((folder / "contrastive_losses.json").read_text())
    tensors = load_file(folder / "contrastive_losses.safetensors")
    case = fixture["scalars"]["single"]["clip"]
    images, texts = official_features(tensors)
    scale = torch.tensor(fixture["parameters"]["clip"]["log_scale"]).exp()
    assert clip_loss(images, texts, scale).item() == pytest.approx(case["loss"], abs=1e-5)
    for rank, expected in enumerate(fixture["scalars"]["two_ranks"]["clip/ll1_gg1"]["loss_per_rank"]):
        rows = slice(5 * rank, 5 * rank + 5)
        loss = clip_loss(images[rows], texts[rows], scale, all_image=images, all_text=texts, offset=5 * rank)
        assert loss.item() == pytest.approx(expected, abs=1e-5)


def official_features(tensors):
    return F.normalize(tensors["x_image"] @ tensors["w_image"], dim=-1), F.normalize(
        tensors["x_text"] @ tensors["w_text"], dim=-1
    )


def test_perfect_match_and_order():
    image, scale = unit(4), torch.tensor(1000.0, dtype=torch.float64)
    assert clip_loss(image, image, scale).item() == pytest.approx(0, abs=1e-9)
    text, order = unit(4, seed=2), torch.tensor([2, 0, 3, 1])
    assert clip_loss(image[order], text[order], scale).item() == pytest.approx(clip_loss(image, text, scale).item())


def test_one_sample_has_no_negatives():
    assert clip_loss(unit(1), unit(1, seed=3), torch.tensor(5.0, dtype=torch.float64)).item() == 0


def test_parts_average_to_the_whole_with_equal_gradients():
    """Two processes with gathered rows, in one."""
    image, text = unit(6).requires_grad_(), unit(6, seed=1).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64)
    whole = torch.autograd.grad(clip_loss(image, text, scale), (image, text))
    parts = [clip_loss(image[r : r + 3], text[r : r + 3], scale, all_image=image, all_text=text, offset=r) for r in (0, 3)]
    torch.testing.assert_close(torch.autograd.grad(sum(parts) / 2, (image, text)), whole)


def test_the_target_is_never_excluded():
    target = torch.arange(3)
    loss = one_way_contrastive(unit(3), unit(3, seed=1), torch.tensor(2.0).double(), target, torch.ones(3, 3, dtype=torch.bool))
    assert loss.item() == 0


def test_same_text():
    tokens = torch.tensor([[1, 2], [1, 3], [1, 2]])
    assert same_text(tokens, tokens).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
