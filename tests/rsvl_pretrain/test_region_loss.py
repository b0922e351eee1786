"""Regions against words: the official numbers, the plain loss with a column a region, and its laws."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from ranks import on_ranks
from safetensors.torch import load_file

from rsvl_data.crops import NO_CATEGORY, category_number
from rsvl_data.errors import DataError
from rsvl_pretrain.distillation import roi_means
from rsvl_pretrain.distributed import gather_rows, mean_of_all
from rsvl_pretrain.losses import clip_loss
from rsvl_pretrain.region_loss import NamedRows, multi_positive_loss, read_related, region_infonce, related_categories

SCALE = torch.tensor(6.0)


def unit(*size: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def loss_of(regions, categories, bank, bank_categories, scale, related=None):
    """Of regions without captions of their own."""
    return multi_positive_loss(
        NamedRows(regions, categories, categories), NamedRows(bank, bank_categories, bank_categories), scale, related
    )


def plain_loss(regions, texts, categories, scale):
    """From the definition, a column of text for every region."""
    same = (categories[:, None] == categories[None, :]).to(regions.dtype)
    targets = same / same.sum(1, keepdim=True)
    logits = scale * regions @ texts.T
    return sum(-(targets * side.log_softmax(1)).sum(1).mean() for side in (logits, logits.T)) / 2


# --- the official numbers


@pytest.fixture(scope="module")
def official(shared):
    folder = shared / "fixtures" / "objectives"
    return json.loads((folder / "farslip_region.json").read_text()), load_file(folder / "farslip_region.safetensors")


def _official_cases():
    cases = [("main", loss, align) for loss in ("mpcl", "infonce") for align in ("cls", "pooled", "roi")]
    return [*cases, ("distinct", "mpcl", "cls"), ("one_class", "mpcl", "cls")]


@pytest.mark.parametrize("case, loss, align", _official_cases())
def test_values_and_gradients_are_the_official_ones(official, case, loss, align):
    fixture, stored = official
    golden, valid = fixture["scalars"][f"{case}/{loss}/{align}"], stored["validity"].bool()
    log_scale = torch.tensor(fixture["parameters"]["param"], requires_grad=True)
    source = {"cls": "region_image", "pooled": "crop_dense", "roi": "global_dense"}[align]
    image, text = stored[source].clone().requires_grad_(), stored["region_text"].clone().requires_grad_()
    if align == "cls":
        vectors = image
    elif align == "pooled":
        vectors = image.mean(1)
    else:
        dense = image.transpose(1, 2).unflatten(2, tuple(fixture["parameters"]["grid"]))
        vectors = roi_means(dense, stored["boxes"][valid], valid.nonzero()[:, 0])
    regions, texts, categories = F.normalize(vectors, dim=1), F.normalize(text, dim=1), stored[f"{case}/labels"][valid]
    if loss == "mpcl":
        found = loss_of(regions, categories, texts, categories, log_scale.exp())
    else:
        found = region_infonce(regions, texts, log_scale.exp(), fixture["parameters"]["pad_to"] - len(regions))
    found.backward()
    assert found.item() == pytest.approx(golden["loss"], abs=1e-5, rel=1e-5)
    assert log_scale.grad.item() == pytest.approx(golden["grad_logit_scale_param"], rel=1e-3, abs=1e-6)
    for leaf, name in ((image, source), (text, "region_text")):
        expected = stored[f"{case}/{loss}/{align}/grad_{name}"]
        torch.testing.assert_close(leaf.grad, expected, atol=1e-6, rtol=1e-3)


def test_padding_counts_only_in_the_released_infonce(official):
    fixture, stored = official
    regions, texts = F.normalize(stored["region_image"], dim=1), F.normalize(stored["region_text"], dim=1)
    for length in (7, 12, 48):
        expected = fixture["scalars"][f"padding length {length}"]["infonce"]
        assert region_infonce(regions, texts, SCALE, length - 7).item() == pytest.approx(expected, abs=1e-5)


# --- one column a category


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_column_a_category_equals_a_column_a_region(parts):
    """Also where the columns of a category come from several processes: its regions' gradients are shared out between them."""
    categories = torch.tensor([3, 1, 3, 3, 7, 1, 5])
    regions, scale = unit(7, 5).requires_grad_(), torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    of_category = unit(8, 5, seed=1).requires_grad_()
    expected = plain_loss(regions, of_category[categories], categories, scale)
    wanted = torch.autograd.grad(expected, [regions, of_category, scale])
    bank_categories = torch.cat([torch.unique(part) for part in categories.chunk(parts)])
    found = loss_of(regions, categories, of_category[bank_categories], bank_categories, scale)
    torch.testing.assert_close(found, expected)
    for gradient, expected_gradient in zip(torch.autograd.grad(found, [regions, of_category, scale]), wanted):
        torch.testing.assert_close(gradient, expected_gradient)


def test_farslip_15_of_distinct_labels_it_is_the_clip_loss():
    regions, texts, labels = unit(6, 5), unit(6, 5, seed=1), torch.tensor([4, 2, 9, 0, 1, 3])
    expected = clip_loss(regions.float(), texts.float(), SCALE)
    found = loss_of(regions.float(), labels, texts.float(), labels, SCALE)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(region_infonce(regions.float(), texts.float(), SCALE), expected, atol=1e-6, rtol=1e-6)


def test_farslip_16_it_does_not_go_to_0():
    """Perfectly separated, 3 + 2 + 1 regions of a class: mean of the logs of these numbers, from one direction alone half of it."""
    labels, bank = torch.tensor([0, 0, 0, 1, 1, 2]), torch.eye(3)
    found = loss_of(bank[labels], labels, bank, torch.arange(3), torch.tensor(100.0))
    floor = (3 * math.log(3) + 2 * math.log(2)) / 6
    assert found.item() == pytest.approx(floor, abs=1e-5)


def test_farslip_17_rows_without_a_category_and_the_order_change_nothing():
    regions, bank = unit(7, 5), unit(4, 5, seed=1)
    labels, names = torch.tensor([0, 2, NO_CATEGORY, 2, 1, NO_CATEGORY, 0]), torch.tensor([0, 1, 2, NO_CATEGORY])
    leaf = regions.clone().requires_grad_()
    found = loss_of(leaf, labels, bank, names, SCALE)
    found.backward()
    used = labels != NO_CATEGORY
    torch.testing.assert_close(loss_of(regions[used], labels[used], bank[:3], names[:3], SCALE), found)
    assert not leaf.grad[~used].any() and leaf.grad[used].abs().min() > 0
    order, columns = torch.tensor([4, 0, 6, 2, 5, 1, 3]), torch.tensor([2, 3, 0, 1])
    shuffled = loss_of(regions[order], labels[order], bank[columns], names[columns], SCALE)
    torch.testing.assert_close(shuffled, found)
    padded = loss_of(
        torch.cat([regions, torch.zeros(5, 5, dtype=torch.float64)]), F.pad(labels, (0, 5), value=NO_CATEGORY), bank, names, SCALE
    )
    torch.testing.assert_close(padded, found)


def test_farslip_18_regions_of_one_category_are_positives():
    """Drawing two regions of one category together never raises the loss; two of different categories it does."""
    regions = unit(2, 5)
    together = torch.stack([regions[0], regions[0]])
    bank = unit(2, 5, seed=1)
    for labels, lower in ((torch.tensor([0, 0]), True), (torch.tensor([0, 1]), False)):
        bank_of = bank[:1] if lower else torch.stack([regions[0], regions[1]])
        apart = loss_of(regions, labels, bank_of, torch.unique(labels), SCALE)
        joined = loss_of(together, labels, bank_of, torch.unique(labels), SCALE)
        assert (joined <= apart + 1e-9) == lower


@pytest.mark.parametrize("labels", [[], [NO_CATEGORY, NO_CATEGORY]])
def test_farslip_19_without_a_region_it_is_0_and_so_are_its_gradients(labels):
    regions, bank = unit(len(labels), 5).requires_grad_(), unit(len(labels), 5, seed=1).requires_grad_()
    categories = torch.tensor(labels, dtype=torch.int64)
    found = loss_of(regions, categories, bank, categories, SCALE)
    found.backward()
    assert found == 0 and not regions.grad.any() and not bank.grad.any()
    assert region_infonce(regions[:0], bank[:0], SCALE) == 0


# --- related categories


def test_synonyms_and_hierarchy_are_no_negatives():
    related = related_categories([["ship", "vessel"]], {"sedan": "car", "car": "vehicle", "bus": "vehicle", "ferry": "vessel"})
    names = ["ship", "vessel", "Ferry", "sedan", "car", "bus", "vehicle", "tree"]
    numbers = torch.tensor([category_number(name) for name in names])
    found = related.between(numbers, numbers)
    pairs = {frozenset((names[i], names[j])) for i in range(len(names)) for j in range(len(names)) if found[i, j]}
    expected = [
        ("ship", "vessel"),
        ("Ferry", "vessel"),
        ("Ferry", "ship"),
        ("sedan", "car"),
        ("sedan", "vehicle"),
        ("car", "vehicle"),
        ("bus", "vehicle"),
    ]
    assert pairs == {frozenset(pair) for pair in expected}
    assert torch.equal(found, found.T)


def test_related_columns_leave_the_denominators():
    names = [category_number(name) for name in ("ship", "vessel", "tree")]
    regions, bank, labels = unit(3, 5), unit(3, 5, seed=1), torch.tensor(names)
    found = loss_of(regions, labels, bank, labels, SCALE, related_categories([["ship", "vessel"]], {}))
    logits = SCALE * regions @ bank.T
    logits[0, 1] = logits[1, 0] = -torch.inf
    expected = (F.cross_entropy(logits, torch.arange(3)) + F.cross_entropy(logits.T, torch.arange(3))) / 2
    torch.testing.assert_close(found, expected)


def test_a_caption_and_the_category_of_its_object_leave_each_others_denominators():
    """Of "a red ship", "a white ship", "ship" and "tree"; the two captions stay negatives of each other, as does the tree of all."""
    names = [category_number(name) for name in ("a red ship", "a white ship", "ship", "tree")]
    ship, tree = names[2:]
    labels, kinds = torch.tensor(names), torch.tensor([ship, ship, ship, tree])
    regions, bank = unit(4, 5), unit(4, 5, seed=1)
    found = multi_positive_loss(NamedRows(regions, labels, kinds), NamedRows(bank, labels, kinds), SCALE)
    logits = SCALE * regions @ bank.T
    logits[:2, 2] = logits[2, :2] = -torch.inf
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    torch.testing.assert_close(found, expected)
    related = related_categories([["ship", "tree"]], {})
    logits[:2, 3] = logits[3, :2] = logits[2, 3] = logits[3, 2] = -torch.inf
    found = multi_positive_loss(NamedRows(regions, labels, kinds), NamedRows(bank, labels, kinds), SCALE, related)
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"synonyms": ["ship"]}', '{"twins": []}', '{"parents": {"a": "b", "b": "a"}}', "no"]
)
def test_a_file_that_says_something_else(tmp_path, text):
    path = tmp_path / "related.json"
    path.write_text(text)
    with pytest.raises(DataError, match="does not say which categories are related"):
        read_related(path)


def test_a_file_of_related_categories(tmp_path):
    path = tmp_path / "related.json"
    path.write_text('{"parents": {"sedan": "car"}}')
    assert read_related(path).numbers.tolist() == sorted(map(category_number, ("sedan", "car")))


# --- several processes

REGIONS, BANK = unit(6, 5).float(), unit(4, 5, seed=1).float()
LABELS = torch.tensor([0, 1, 1, 3, 0, 2])
SHARES = {"even": (3, 3), "uneven": (5, 1), "all on one": (0, 6), "none": (0, 0)}


def _on_a_rank(shares, use_infonce):
    from rsvl_pretrain.distributed import rank

    start = sum(shares[: rank()])
    own = slice(start, start + shares[rank()])
    regions, bank = REGIONS.clone().requires_grad_(), BANK.clone().requires_grad_()
    scale = SCALE.clone().requires_grad_()
    named = torch.unique(LABELS[own])
    rows = gather_rows(regions[own])
    if use_infonce:
        loss = region_infonce(rows, gather_rows(bank[LABELS[own]]), scale)
    else:
        loss = loss_of(rows, gather_rows(LABELS[own]), gather_rows(bank[named]), gather_rows(named), scale)
    agreement = mean_of_all(1 - regions[own, 0])
    (loss + agreement).backward()
    return loss.item(), agreement.item(), [leaf.grad.tolist() for leaf in (regions, bank, scale)]


@pytest.mark.parametrize("use_infonce", [False, True])
@pytest.mark.parametrize("shares", SHARES)
def test_farslip_14_18_and_19_two_processes_equal_one(shares, use_infonce):
    """The mean of losses and the mean of gradients; also where a process has no region, or none has."""
    total = sum(SHARES[shares])
    one = _on_a_rank((total,), use_infonce)
    two = on_ranks(2, _on_a_rank, SHARES[shares], use_infonce)
    for place in (0, 1):
        assert sum(answer[place] for answer in two) / 2 == pytest.approx(one[place], abs=1e-6)
    for place, expected in enumerate(one[2]):
        mean = sum(torch.tensor(answer[2][place]) for answer in two) / 2
        torch.testing.assert_close(mean, torch.tensor(expected), atol=1e-6, rtol=1e-5)
