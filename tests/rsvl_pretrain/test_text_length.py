"""Cutting the padding changes no embedding and no gradient, in every kind of text tower open_clip has."""

import pytest
import torch
from text_towers import KINDS, assert_same_embeddings_and_gradients, model_of, texts

from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.text_length import encode_by_length, encode_without_padding, num_needed_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_and_gradients_are_those_of_the_padded_tower(kind):
    model, tokens = model_of(kind).double(), texts(3, 9, 17, 1)
    assert_same_embeddings_and_gradients(model, encode_without_padding(model, tokens), model.encode_text(tokens))


@pytest.mark.parametrize(
    ("kind", "needed"), [("clip", 17), ("custom", 17), ("eos", 17), ("hf", 17), ("siglip", 40), ("class token", 40)]
)
def test_only_padding_that_cannot_matter_is_cut(kind, needed):
    assert num_needed_tokens(model_of(kind), texts(3, 9, 17, 1)) == needed


def test_the_tower_really_sees_fewer_tokens():
    model, seen = model_of("clip"), []
    model.transformer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[1]))
    encode_without_padding(model, texts(3, 9))
    encode_without_padding(model, texts(3, 40))
    assert seen == [16, 40]
    assert model.positional_embedding.shape == (40, 32) and model.attn_mask.shape == (40, 40)


@pytest.mark.parametrize("kind", ["clip", "hf", "siglip"])
def test_many_texts_go_by_length_and_come_back_in_order(kind):
    model, seen = model_of(kind).double(), []
    tokens = texts(*[1 + 7 * number % 39 for number in range(150)])
    with torch.no_grad():
        expected = model.encode_text(tokens)
        if kind == "clip":
            model.transformer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape[:2])))
        torch.testing.assert_close(encode_by_length(model, tokens), expected, rtol=1e-10, atol=1e-10)
    assert seen == ([(64, 17), (64, 34), (22, 39)] if kind == "clip" else [])


def test_clips_own_tokens():
    encoder = DualEncoder.load("rsvl-tiny").eval()
    tokens = encoder.tokenizer(["an airport", "a harbour with many boats beside a long pier"])
    torch.testing.assert_close(
        encoder.encode_tokens(tokens, normalize=False), encoder.model.encode_text(tokens), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(encoder.encode_tokens(tokens).norm(dim=-1), torch.ones(2))
