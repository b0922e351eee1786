"""The text tower in training: captions of different lengths share rows, so that no token is padding but a few at the ends of rows.

The longest of a batch of remote-sensing captions is about twice as long as their mean; cutting the batch to it leaves half of the tokens
padding. Here several captions stand behind each other in a row, each with its own positions and seeing itself alone. Exact for the towers
in which nothing flows from padding to the embedding (`text_length.py`); the others go that way.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rsvl_pretrain.clip_block import is_plain, run_blocks
from rsvl_pretrain.text_length import encode_without_padding, ends_in_one_token, needed_tokens, rounded_up

_ROW_TOKENS = (
    94  # a mean row; the fullest then has 96. Longer rows hold fewer gaps and more pairs of tokens that do not see each other
)


def encode_packed(model: Any, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    """What `model.encode_text(tokens)` gives, for any open_clip model; not normalised. It rounds otherwise.

    Tokens still on the CPU are arranged there, so that a GPU is not waited for.
    """
    tower = getattr(model, "text", model)
    if not (ends_in_one_token(tower) and all(map(is_plain, tower.transformer.resblocks))):
        return encode_without_padding(model, tokens)
    device, dtype = model.logit_scale.device, tower.transformer.get_cast_dtype()
    packed = pack(tokens, needed_tokens(model, tokens).tolist()).to(device)
    x = tower.token_embedding(packed.tokens).to(dtype)
    x = x + F.embedding(packed.positions, tower.positional_embedding).to(dtype)
    # Under autocast every block would cast the mask again, and keep it.
    of_mask = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype
    x = run_blocks(tower.transformer, x, packed.ends, packed.attn_mask(of_mask))
    x = tower.ln_final(x[packed.rows, packed.places])
    projection = tower.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection


@dataclass(frozen=True)
class PackedTexts:
    """Texts in rows of equal length.

    tokens      0 where there is no text
    positions   of each token in its text
    texts       the number of the text a token belongs to; -1 for none
    ends        columns of the last tokens of a row's texts; 0 after the last of them
    rows        of each text, its row and its place among the texts of that row
    places
    """

    tokens: Int[Tensor, "r n"]
    positions: Int[Tensor, "r n"]
    texts: Int[Tensor, "r n"]
    ends: Int[Tensor, "r q"]
    rows: Int[Tensor, " b"]
    places: Int[Tensor, " b"]

    def to(self, device: torch.device) -> "PackedTexts":
        return PackedTexts(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))

    def attn_mask(self, dtype: torch.dtype) -> Float[Tensor, "r 1 n n"]:
        """0 where a token sees another: itself and those before it of the same text."""
        length = self.tokens.shape[1]
        seen = (self.texts[:, :, None] == self.texts[:, None, :]).tril()
        mask = torch.zeros(len(self.texts), 1, length, length, dtype=dtype, device=self.texts.device)
        return mask.masked_fill_(~seen[:, None], -torch.inf)


def pack(tokens: Int[Tensor, "b l"], lengths: Sequence[int]) -> PackedTexts:
    """The first `lengths` tokens of each text, in whichever of a few numbers of rows leaves the fewest gaps."""
    fewest = -(-sum(lengths) // _ROW_TOKENS)
    numbers = {min(number, len(lengths)) for number in (fewest, fewest * 9 // 8 + 1, fewest * 5 // 4 + 1, len(lengths))}
    layouts = [(number, *_balanced(lengths, number)) for number in sorted(numbers)]
    num_rows, rows, starts, places = min(layouts, key=lambda layout: layout[0] * _row_length(lengths, layout[2]))
    length, row, start, place = (torch.tensor(numbers) for numbers in (lengths, rows, starts, places))
    text = torch.arange(len(lengths)).repeat_interleave(length)
    position = torch.arange(len(text)) - (length.cumsum(0) - length)[text]
    to = row[text], start[text] + position
    words, positions, texts = (torch.full((num_rows, _row_length(lengths, starts)), empty) for empty in (0, 0, -1))
    words[to], positions[to], texts[to] = tokens.cpu()[text, position], position, text
    ends = torch.zeros(num_rows, max(places) + 1, dtype=torch.long)
    ends[row, place] = start + length - 1
    return PackedTexts(words, positions, texts, ends, row, place)


def _row_length(lengths: Sequence[int], starts: Sequence[int]) -> int:
    return rounded_up(max(start + length for start, length in zip(starts, lengths)))


def _balanced(lengths: Sequence[int], num_rows: int) -> tuple[list[int], list[int], list[int]]:
    """Row, first column and place in the row of each text: the longest first, each into the emptiest row."""
    rows, starts, places = ([0] * len(lengths) for _ in range(3))
    fill = [(0, row, 0) for row in range(num_rows)]  # tokens, number, texts; a heap as it stands
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        used, row, count = fill[0]
        rows[text], starts[text], places[text] = row, used, count
        heapq.heapreplace(fill, (used + lengths[text], row, count + 1))
    return rows, starts, places
