"""Cutting the padding changes no embedding and no gradient, in every kind of text tower open_clip has."""

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from transformers import BertConfig

from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.text_length import encode_by_length, encode_without_padding, num_needed_tokens

VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
TEXT = {"context_length": 40, "vocab_size": 100, "width": 32, "heads": 2, "layers": 3}
END = 99


def model_of(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    text = TEXT | {
        "clip": {},
        "custom": {},
        "eos": {"pool_type": "eos", "eos_id": END},
        "siglip": {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        "class token": {"embed_cls": True},
    }.get(kind, {})
    if kind == "hf":
        return CustomTextCLIP(embed_dim=16, vision_cfg=VISION, text_cfg=bert()).eval()
    return (CLIP if kind == "clip" else CustomTextCLIP)(embed_dim=16, vision_cfg=VISION, text_cfg=text).eval()


def bert() -> dict:
    """A tower of transformers, made from its configuration on the disk."""
    import tempfile

    folder = tempfile.mkdtemp()
    BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64).save_pretrained(
        folder
    )
    return {"hf_model_name": folder, "hf_model_pretrained": False, "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}


def texts(*lengths: int) -> torch.Tensor:
    """Random words, the end token, then padding; a length counts the end."""
    rows = torch.zeros(len(lengths), TEXT["context_length"], dtype=torch.long)
    generator = torch.Generator().manual_seed(1)
    for row, length in zip(rows, lengths):
        row[:length] = torch.randint(1, END, (length,), generator=generator)
        row[length - 1] = END
    return rows


@pytest.mark.parametrize("kind", ["clip", "custom", "eos", "hf", "siglip", "class token"])
def test_embeddings_and_gradients_are_those_of_the_padded_tower(kind):
    model, tokens = model_of(kind).double(), texts(3, 9, 17, 1)
    found, expected = encode_without_padding(model, tokens), model.encode_text(tokens)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(2))
    parameters = [
        parameter for name, parameter in model.named_parameters() if not name.startswith("visual") and "logit" not in name
    ]
    gradients = torch.autograd.grad((found * direction).sum(), parameters, allow_unused=True)
    references = torch.autograd.grad((expected * direction).sum(), parameters, allow_unused=True)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient is None) == (reference is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-10)


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
