"""Regions against the words of their categories (FarSLIP, arXiv:2511.14901, eq. 3 and 4; its `MultiPosConLossMM` in open_clip/loss.py).

    loss = 1/2 mean_i sum_j q_ij ( -log softmax_j(s r_i . t_j)  -  log softmax_j(s t_i . r_j) ),    q_ij = [y_i = y_j] / |P(i)|

Every region has its own column of text there, and regions of one category the same text: it is embedded once for each of them. Here a
category is one column that counts as many times as it has regions; value and gradients are the same. The loss does not go to 0: equal
columns cannot be told apart, so its first half ends at the mean of log |P(i)|.

While the regions of a category have equal texts this is InfoNCE with one positive a row (`region_infonce`), to the last term: which of
several equal columns is the positive does not matter. They part where a category has several texts, or padding is among the negatives.

Where the same category has several columns (of several processes or pieces of a batch) each counts for its part.

A region with a caption of its own is a category of its own. What names its object is true of it, too, so "a red ship" and "ship" are no
negatives of each other, and neither are those that a list of synonyms and parents names. Two captions are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rsvl_data.crops import NO_CATEGORY, category_number
from rsvl_data.errors import DataError


@dataclass(frozen=True)
class Related:
    """Categories that are never each other's negatives. `numbers` are sorted, `pairs[i, j]` says it of the i-th and the j-th."""

    numbers: Int[Tensor, " r"]
    pairs: Bool[Tensor, "r r"]

    def between(self, rows: Int[Tensor, " m"], columns: Int[Tensor, " c"]) -> Bool[Tensor, "m c"]:
        pairs = F.pad(self.pairs, (0, 1, 0, 1))  # the last one stands for categories that are not known
        return pairs.to(rows.device)[self._places(rows)][:, self._places(columns)]

    def _places(self, categories: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
        numbers = self.numbers.to(categories.device)
        places = torch.searchsorted(numbers, categories).clamp_max(len(numbers) - 1)
        return torch.where(numbers[places] == categories, places, len(numbers))


def read_related(path: Path) -> Related:
    """{"synonyms": [["ship", "vessel"], ...], "parents": {"sedan": "car", "car": "vehicle"}}, either of them may be absent.

    Synonyms are related to each other, a category to all that lie above it; brothers are not. Raises DataError for anything else.
    """
    try:
        content = json.loads(path.read_text())
        synonyms, parents = content.pop("synonyms", []), content.pop("parents", {})
        words = [*(word for group in synonyms for word in group), *parents, *parents.values()]
        if content or not words or not all(isinstance(word, str) for word in words) or any(isinstance(g, str) for g in synonyms):
            raise ValueError("it holds something else, or nothing")
        return related_categories(synonyms, parents)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'{path} does not say which categories are related: {error}. Expected {{"synonyms": [["ship", "vessel"]], '
            '"parents": {"sedan": "car"}}.'
        ) from error


def related_categories(synonyms: Sequence[Sequence[str]], parents: Mapping[str, str]) -> Related:
    """Raises ValueError for a category that lies above itself."""
    groups: dict[str, set[str]] = {}
    for group in synonyms:
        joined = set(group).union(*(groups.get(word, ()) for word in group))
        groups.update(dict.fromkeys(joined, joined))

    def alike(word: str) -> set[str]:
        return groups.get(word, {word})

    def above(word: str) -> set[str]:
        found: set[str] = set()
        left = [word]
        while left:
            uppers = {parents[other] for other in alike(left.pop()) if other in parents} - found
            found.update(*map(alike, uppers))
            left += uppers
        return found

    words = {*groups, *parents}
    if own := next((word for word in words if word in above(word)), None):
        raise ValueError(f"{own!r} lies above itself")
    pairs = {(word, other) for word in words for other in alike(word) | above(word)}
    numbers = sorted({category_number(word) for pair in pairs for word in pair})
    place = {number: index for index, number in enumerate(numbers)}
    matrix = torch.zeros(len(numbers), len(numbers), dtype=torch.bool)
    for word, other in pairs:
        a, b = place[category_number(word)], place[category_number(other)]
        matrix[a, b] = matrix[b, a] = a != b
    return Related(torch.tensor(numbers), matrix)


@dataclass(frozen=True)
class NamedRows:
    """Unit vectors of regions or of texts, and of each the category it is trained as and that of the object (`rsvl_data.crops.Crops`)."""

    rows: Float[Tensor, "m d"]
    categories: Int[Tensor, " m"]
    kinds: Int[Tensor, " m"]

    def at(self, places: Bool[Tensor, " m"]) -> "NamedRows":
        return NamedRows(self.rows[places], self.categories[places], self.kinds[places])


def multi_positive_loss(
    regions: NamedRows,
    bank: NamedRows,
    scale: Float[Tensor, ""],
    related: Related | None = None,
) -> Float[Tensor, ""]:
    """Mean over all regions that have a category. Every category of a region has a column in `bank`, the embeddings of texts.

    Rows and columns of NO_CATEGORY count for nothing, and so do columns whose category no region has. Without any region it is 0.
    Pairs of which one is the category of the other's object, or `related` to it, are left out of each other's denominators.
    """
    regions, bank = regions.at(regions.categories != NO_CATEGORY), bank.at(bank.categories != NO_CATEGORY)
    if not len(regions.rows):
        return zero_of(regions.rows, bank.rows, scale)
    same = regions.categories[:, None] == bank.categories[None, :]  # [m, c]
    num_regions, num_columns = same.sum(0), (bank.categories[:, None] == bank.categories[None, :]).sum(0)
    used = num_regions > 0
    bank, same, num_regions = bank.at(used), same[:, used], num_regions[used].to(scale.dtype)
    counts = num_regions / num_columns[used]  # of regions that a column stands for
    logits = scale * regions.rows @ bank.rows.T
    own = torch.where(same, logits, 0)
    logits = logits.masked_fill(_both_true(regions, bank, related) & ~same, -torch.inf)
    to_text = (logits + counts.log()).logsumexp(1) - (own * counts / num_regions).sum(1)
    to_regions = counts * (logits.logsumexp(0) - own.sum(0) / num_regions)
    return (to_text.sum() + to_regions.sum()) / (2 * len(regions.rows))


def _both_true(regions: NamedRows, bank: NamedRows, related: Related | None) -> Bool[Tensor, "m c"]:
    pairs = ((regions.categories, bank.kinds), (regions.kinds, bank.categories))
    found = [rows[:, None] == columns[None, :] for rows, columns in pairs]
    if related is not None:
        found += [related.between(rows, columns) for rows, columns in pairs]
    return torch.stack(found).any(0)


def region_infonce(
    regions: Float[Tensor, "m d"], texts: Float[Tensor, "m d"], scale: Float[Tensor, ""], num_padded: int = 0
) -> Float[Tensor, ""]:
    """Each region with its own text against all others, those of its category among them; 0 without any region.

    `num_padded` columns of zeros are further negatives: the released code leaves the padding of its batches there when it runs without
    the multi-positive loss, and so its value grows with the padding.
    """
    if not len(regions):
        return zero_of(regions, texts, scale)
    logits, target = scale * regions @ texts.T, torch.arange(len(regions), device=regions.device)
    padded = [F.pad(side, (0, num_padded)) for side in (logits, logits.T)]
    return (F.cross_entropy(padded[0], target) + F.cross_entropy(padded[1], target)) / 2


def zero_of(*tensors: Tensor) -> Float[Tensor, ""]:
    """0, in the graph of these tensors, so that their gradients are exchanged as in every other step."""
    return torch.stack([0 * tensor.sum() for tensor in tensors]).sum()
