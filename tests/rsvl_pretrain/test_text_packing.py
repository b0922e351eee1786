"""Texts that share rows have the embeddings and gradients of texts alone, in every kind of text tower open_clip has."""

import pytest
import torch
from text_towers import KINDS, assert_same_embeddings_and_gradients, model_of, texts

from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.text_packing import encode_packed, pack

LENGTHS = (3, 9, 17, 1, 40, 12, 12, 5, 30, 2)
PACKED = ("clip", "custom", "eos", "biased projection", "no projection", "layer scale")


def shapes_seen(model):
    """Rows and columns that each block of the text tower is given from now on."""
    seen = []
    for block in getattr(model, "text", model).transformer.resblocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape[:2])))
    return seen


@pytest.mark.parametrize(("kind", "checkpointing"), [*((kind, False) for kind in KINDS), *((kind, True) for kind in PACKED)])
def test_embeddings_and_gradients_are_those_of_the_padded_tower(kind, checkpointing):
    model, tokens = model_of(kind).double(), texts(*LENGTHS)
    expected = model.encode_text(tokens)
    if checkpointing:
        model.set_grad_checkpointing()
    assert_same_embeddings_and_gradients(model, encode_packed(model, tokens), expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hf"])  # whose blocks are not open_clip's
def test_only_towers_in_which_nothing_flows_from_padding_share_rows(kind):
    model = model_of(kind)
    seen = shapes_seen(model)
    encode_packed(model, texts(*LENGTHS))
    alone = {"normed queries": (10, 40), "first token": (10, 40), "siglip": (10, 40), "class token": (10, 41)}
    assert seen == [alone.get(kind, (2, 72))] * 3  # 131 tokens in all


def test_of_the_last_block_only_the_ends_of_texts_are_computed():
    model, seen = model_of("clip"), []
    model.transformer.resblocks[-1].ln_2.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    encode_packed(model, texts(*LENGTHS))
    assert seen == [(2, 5, 32)]  # rows, most texts of a row, width


def test_a_text_has_no_influence_on_another():
    model, tokens = model_of("clip"), texts(*LENGTHS)
    changed = tokens.clone()
    changed[2, 0] = 98 - changed[2, 0]
    with torch.no_grad():
        same = (encode_packed(model, tokens) == encode_packed(model, changed)).all(dim=1)
        assert same.tolist() == [text != 2 for text in range(len(LENGTHS))]
        order = torch.randperm(len(LENGTHS), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(encode_packed(model, tokens[order]), encode_packed(model, tokens)[order])


@pytest.mark.parametrize("lengths", [(1,), (40,), (40,) * 9, (1,) * 300, (2, 40) * 30, tuple(1 + 7 * n % 40 for n in range(500))])
def test_every_token_comes_once_at_its_position_and_sees_those_before_it(lengths):
    tokens = texts(*lengths)
    packed = pack(tokens, lengths)
    mask = packed.attn_mask(torch.float32)[:, 0]
    for text, length in enumerate(lengths):
        row, columns = (packed.texts == text).nonzero().unbind(1)
        assert len(set(row.tolist())) == 1 and columns.tolist() == list(range(columns[0], columns[0] + length))
        row = packed.rows[text]
        assert torch.equal(packed.tokens[row, columns], tokens[text, :length])
        assert packed.positions[row, columns].tolist() == list(range(length))
        assert packed.ends[row, packed.places[text]] == columns[-1]
        assert torch.equal(mask[row][columns][:, columns], torch.full((length, length), -torch.inf).triu(1))
        assert (mask[row, columns] == 0).sum() == length * (length + 1) / 2  # and nothing else
    assert not mask.isneginf().all(dim=-1).any()  # padding sees itself, or its row would be 0 / 0
    alone = len(lengths) * -(-max(lengths) // 8) * 8
    assert packed.texts.numel() <= min(alone, 1.1 * sum(lengths) + 8 * len(packed.texts))


def test_half_precision_is_as_near_as_open_clips_own():
    model, tokens = model_of("clip").train(), texts(*LENGTHS)
    with torch.no_grad():
        exact = model.encode_text(tokens)
        with torch.autocast("cpu", torch.bfloat16):
            ours, theirs = encode_packed(model, tokens).float(), model.encode_text(tokens).float()
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()


def test_an_encoder_packs_in_training_and_not_in_evaluation():
    encoder = DualEncoder.load("rsvl-tiny")
    captions = ["an airport", "a harbour with many boats beside a long pier", "a lake"] * 4
    tokens = encoder.tokenizer(captions)
    seen = shapes_seen(encoder.model)
    trained = encoder.train().encode_tokens(tokens), encoder.encode_text(captions)
    assert max(rows * columns for rows, columns in seen) < 120
    seen.clear()
    measured = encoder.eval().encode_tokens(tokens), encoder.encode_text(captions)
    assert set(seen) == {(12, 16), (12, 11)}  # rounded up, and to the token
    for embeds in (*trained, *measured):
        torch.testing.assert_close(embeds, encoder.model.encode_text(tokens, normalize=True), rtol=1e-5, atol=1e-5)
