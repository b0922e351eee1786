"""The tiled losses equal the plain ones: alone, and on several processes with the batch shared out."""

import itertools
import json
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from ranks import on_ranks
from safetensors.torch import load_file
from torch import Tensor

from rsvl_pretrain.distributed import rank, world_size
from rsvl_pretrain.losses import clip_loss, clip_loss_and_rows, siglip_loss

EXCHANGES = ("gather", "shift", "bidir", "reduce")
VARIANTS = tuple(itertools.product((False, True), (False, True)))  # local_loss, gather_with_grad
SCALE, BIAS = 14.0, -9.0


def unit(rows: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1)


def plain_clip_loss(image: Tensor, text: Tensor, scale: Tensor, groups=None, same_group="positive") -> Tensor:
    """All logits at once, from the definition."""
    logits = scale * image @ text.T
    mates = torch.eye(len(image), dtype=torch.bool) if groups is None else groups[:, None] == groups[None, :]
    targets = mates.to(logits.dtype) / mates.sum(dim=1, keepdim=True)
    if same_group == "excluded":
        targets = torch.eye(len(image), dtype=logits.dtype)
        logits = logits.masked_fill(mates & ~torch.eye(len(image), dtype=torch.bool), -torch.inf)
    return sum(-(targets * x.log_softmax(dim=1).clamp_min(-1e30)).sum(dim=1).mean() for x in (logits, logits.T)) / 2


def plain_siglip_loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits = scale * image @ text.T + bias
    return -F.logsigmoid((2 * torch.eye(len(image), dtype=logits.dtype) - 1) * logits).sum() / len(image)


def value_and_gradients(loss, *tensors: Tensor, upstream: float = 1.0, **options) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value = loss(*leaves, **options)
    (upstream * value).backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- one process


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("tile", [1, 3, 4, 11, 100])
@pytest.mark.parametrize("groups", [None, "positive", "excluded"])
def test_clip_equals_the_plain_loss(dtype, tolerance, tile, groups):
    image, text, scale = unit(11, 5, 0, dtype), unit(11, 5, 1, dtype), torch.tensor(SCALE, dtype=dtype)
    options = {} if groups is None else {"groups": torch.tensor([0, 1, 2, 1, 0, 3, 4, 1, 5, 6, 0]), "same_group": groups}
    expected = value_and_gradients(plain_clip_loss, image, text, scale, upstream=0.7, **options)
    assert_close(value_and_gradients(clip_loss, image, text, scale, upstream=0.7, tile=tile, **options), expected, tolerance)


@pytest.mark.parametrize("same_group", ["positive", "excluded"])
def test_what_each_row_has_in_the_loss(same_group):
    image, text, scale = unit(5, 4, 0).requires_grad_(), unit(5, 4, 1), torch.tensor(SCALE, dtype=torch.float64)
    loss, by_row = clip_loss_and_rows(image, text, scale, same_group=same_group, tile=2)
    torch.testing.assert_close(by_row.mean(), loss)
    logits = scale * image @ text.T
    torch.testing.assert_close(by_row, -(logits.log_softmax(1) + logits.log_softmax(0)).diagonal() / 2)
    assert not by_row.requires_grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("tile", [1, 3, 4, 11, 100])
def test_siglip_equals_the_plain_loss(dtype, tolerance, tile):
    tensors = unit(11, 5, 0, dtype), unit(11, 5, 1, dtype), torch.tensor(SCALE, dtype=dtype), torch.tensor(BIAS, dtype=dtype)
    expected = value_and_gradients(plain_siglip_loss, *tensors, upstream=0.7)
    assert_close(value_and_gradients(siglip_loss, *tensors, upstream=0.7, tile=tile), expected, tolerance)


def test_extreme_similarities_stay_finite():
    """Logits of +-100, and a row whose only partner is the least similar of all."""
    image = torch.cat([unit(6, 4, 0, torch.float32), -unit(1, 4, 0, torch.float32)])
    text = image.flip(0)
    scale = torch.tensor(100.0)
    expected = value_and_gradients(plain_clip_loss, image, text, scale)
    found = value_and_gradients(clip_loss, image, text, scale, tile=2)
    assert all(bool(tensor.isfinite().all()) for tensor in found)
    assert_close(found, expected, 1e-4)


def test_laws():
    image, text, scale = unit(9, 5, 0), unit(9, 5, 1), torch.tensor(SCALE, dtype=torch.float64)
    loss = clip_loss(image, text, scale, tile=4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(clip_loss(image[order], text[order], scale, tile=4), loss)
    torch.testing.assert_close(clip_loss(text, image, scale, tile=4), loss)
    assert clip_loss(image[:1], text[:1], scale).item() == pytest.approx(0, abs=1e-12)
    assert clip_loss(image, image, 1000 * scale).item() == pytest.approx(0, abs=1e-9)
    own_groups = torch.arange(9) * 7
    for same in ("positive", "excluded"):
        torch.testing.assert_close(clip_loss(image, text, scale, groups=own_groups, same_group=same), loss)


def test_autocast_does_not_reach_the_logits():
    image, text, scale = unit(6, 8, 0, torch.float32), unit(6, 8, 1, torch.float32), torch.tensor(50.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_and_gradients(clip_loss, image, text, scale)
    assert_close(found, value_and_gradients(plain_clip_loss, image, text, scale), 1e-4)


def test_half_precision_embeddings_keep_their_type():
    image, text = unit(6, 8, 0, torch.float32), unit(6, 8, 1, torch.float32)
    scale = torch.tensor(10.0)
    found = value_and_gradients(clip_loss, image.bfloat16(), text.bfloat16(), scale)
    assert found[0].dtype == found[3].dtype == torch.float32
    assert found[1].dtype == found[2].dtype == torch.bfloat16
    assert_close([part.float() for part in found], value_and_gradients(plain_clip_loss, image, text, scale), 0.05)


# --- several processes


def _all_cases(dtype: torch.dtype) -> dict[str, list[Tensor]]:
    """Each loss on this rank's four rows of the global batch: its value and the gradients of these rows, scale and bias."""
    whole = 4 * world_size()
    rows = slice(4 * rank(), 4 * rank() + 4)
    image, text = unit(whole, 5, 0, dtype)[rows], unit(whole, 5, 1, dtype)[rows]
    scale, bias = torch.tensor(SCALE, dtype=dtype), torch.tensor(BIAS, dtype=dtype)
    groups = (torch.arange(whole) % 5)[rows]
    cases = {}
    for exchange in EXCHANGES:
        common = {"exchange": exchange, "tile": 3}
        for local, with_grad in VARIANTS:
            options = {**common, "local_loss": local, "gather_with_grad": with_grad}
            name = f"clip/ll{int(local)}_gg{int(with_grad)}/{exchange}"
            cases[name] = value_and_gradients(clip_loss, image, text, scale, **options)
        for same in ("positive", "excluded"):
            options = {**common, "groups": groups, "same_group": same}
            cases[f"{same}/{exchange}"] = value_and_gradients(clip_loss, image, text, scale, **options)
        cases[f"siglip/{exchange}"] = value_and_gradients(siglip_loss, image, text, scale, bias, **common)
    return cases


@cache
def answers_of(world: int) -> list[dict[str, list[Tensor]]]:
    return on_ranks(world, _all_cases, torch.float64)


def joined(answers: list[dict[str, list[Tensor]]], name: str) -> list[Tensor]:
    """What DDP makes of it: values and the gradients of shared numbers averaged, those of rows side by side and divided by world."""
    parts = [answer[name] for answer in answers]
    world = len(parts)
    mean = [sum(part[index] for part in parts) / world for index in range(len(parts[0]))]
    rows = [torch.cat([part[index] for part in parts]) / world for index in (1, 2)]
    return [mean[0], *rows, *mean[3:]]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_ranks_equal_one_process(world, exchange):
    whole = 4 * world
    image, text, scale = unit(whole, 5, 0), unit(whole, 5, 1), torch.tensor(SCALE, dtype=torch.float64)
    answers = answers_of(world)
    expected = value_and_gradients(plain_clip_loss, image, text, scale)
    for local in (0, 1):
        assert_close(joined(answers, f"clip/ll{local}_gg1/{exchange}"), expected, 1e-10)
    for same in ("positive", "excluded"):
        options = {"groups": torch.arange(whole) % 5, "same_group": same}
        expected = value_and_gradients(plain_clip_loss, image, text, scale, **options)
        assert_close(joined(answers, f"{same}/{exchange}"), expected, 1e-10)
    expected = value_and_gradients(plain_siglip_loss, image, text, scale, torch.tensor(BIAS, dtype=torch.float64))
    assert_close(joined(answers, f"siglip/{exchange}"), expected, 1e-10)


def _official_cases(tensors: dict[str, Tensor], parameters: dict) -> dict[str, list]:
    rows = slice(5 * rank(), 5 * rank() + 5)
    image, text = (tensors[f"{side}_features"][rows] for side in ("image", "text"))
    scale = torch.tensor(parameters["clip"]["log_scale"]).exp()
    cases = {
        f"clip/ll{int(local)}_gg{int(with_grad)}": value_and_gradients(
            clip_loss, image, text, scale, local_loss=local, gather_with_grad=with_grad, tile=3
        )
        for local, with_grad in VARIANTS
    }
    scale, bias = (torch.tensor(parameters["siglip"][name]) for name in ("log_scale", "bias"))
    for ours, official in zip(EXCHANGES, ("gather", "shift", "bidir", "reduce"), strict=True):
        cases[f"siglip/{official}"] = value_and_gradients(siglip_loss, image, text, scale.exp(), bias, exchange=ours)
    return cases


@pytest.fixture(scope="session")
def official(request):
    shared = request.getfixturevalue("shared")
    folder = shared / "fixtures" / "objectives"
    return json.loads((folder / "contrastive_losses.json").read_text()), load_file(folder / "contrastive_losses.safetensors")


def test_official_values_on_one_process(official):
    fixture, tensors = official
    image, text = tensors["image_features"], tensors["text_features"]
    for name in ("clip", "siglip"):
        scale = torch.tensor(fixture["parameters"][name]["log_scale"]).exp()
        bias = [torch.tensor(fixture["parameters"][name]["bias"])] if name == "siglip" else []
        found = value_and_gradients({"clip": clip_loss, "siglip": siglip_loss}[name], image, text, scale, *bias, tile=4)
        expected = fixture["scalars"]["single"][name]
        assert found[0].item() == pytest.approx(expected["loss"], rel=1e-5)
        assert (found[3] * scale).item() == pytest.approx(expected["grad_log_scale"], rel=1e-4)
        for gradient, side in ((found[1], "image"), (found[2], "text")):
            torch.testing.assert_close(gradient, tensors[f"single/{name}/grad_{side}_features"], atol=2e-6, rtol=1e-4)


def test_official_multi_positive_loss(official):
    """FarSLIP leaves rows labelled -1 out, and takes unit inputs to unit length again: that removes the radial part of gradients."""
    fixture, tensors = official
    used = tensors["labels"] >= 0
    image, text = tensors["image_features"][used], tensors["text_features"][used]
    scale = torch.tensor(fixture["parameters"]["mpcl"]["log_scale"]).exp()
    found = value_and_gradients(clip_loss, image, text, scale, groups=tensors["labels"][used], tile=4)
    assert found[0].item() == pytest.approx(fixture["scalars"]["single"]["mpcl"]["loss"], rel=1e-5)
    for gradient, rows, side in ((found[1], image, "image"), (found[2], text, "text")):
        tangential = gradient - (gradient * rows).sum(dim=1, keepdim=True) * rows
        expected = tensors[f"single/mpcl/grad_{side}_features"]
        assert not expected[~used].any()
        torch.testing.assert_close(tangential, expected[used], atol=2e-6, rtol=1e-4)


def test_official_values_on_two_ranks(official):
    fixture, tensors = official
    wanted = {name: tensors[name] for name in ("image_features", "text_features")}
    answers = on_ranks(2, _official_cases, wanted, fixture["parameters"])
    for name, case in fixture["scalars"]["two_ranks"].items():
        if name not in answers[0]:
            continue
        for index, answer in enumerate(answers):
            assert answer[name][0].item() == pytest.approx(case["loss_per_rank"][index], rel=1e-5), name
            for gradient, side in ((answer[name][1], "image"), (answer[name][2], "text")):
                expected = tensors[f"ranks2/{name}/rank{index}/grad_{side}_features"]
                torch.testing.assert_close(gradient, expected, atol=2e-6, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
        log_scale = fixture["parameters"][name.split("/")[0]]["log_scale"]
        mean = sum(answer[name][3].item() for answer in answers) / 2 * torch.tensor(log_scale).exp().item()
        assert mean == pytest.approx(sum(case["grad_log_scale_per_rank"]) / 2, rel=1e-4), name
    assert len([name for name in fixture["scalars"]["two_ranks"] if name in answers[0]]) == 8
