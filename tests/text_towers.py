"""Small models with every kind of text tower that open_clip builds, and token ids for them."""

import tempfile
from typing import Any

import torch
from open_clip.model import CLIP, CustomTextCLIP
from transformers import BertConfig

VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
TEXT = {"context_length": 40, "vocab_size": 100, "width": 32, "heads": 2, "layers": 3}
END = 99

KINDS: dict[str, dict[str, Any]] = {
    "clip": {},
    "custom": {},
    "eos": {"pool_type": "eos", "eos_id": END},
    "biased projection": {"proj_bias": True},
    "no projection": {"proj_type": "none", "width": 16},
    "layer scale": {"ls_init_value": 0.5},
    "first token": {"pool_type": "first"},
    "normed queries": {"qk_norm": True, "scale_attn": True, "scale_fc": True},
    "siglip": {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    "class token": {"embed_cls": True},
    "hf": {},
}


def model_of(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "hf":
        return _with_bert()
    return (CLIP if kind == "clip" else CustomTextCLIP)(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT | KINDS[kind]).eval()


def _with_bert() -> torch.nn.Module:
    """A tower of transformers, made from its configuration on the disk."""
    config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        text = {"hf_model_name": folder, "hf_model_pretrained": False, "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
        return CustomTextCLIP(embed_dim=16, vision_cfg=VISION, text_cfg=text).eval()


def texts(*lengths: int) -> torch.Tensor:
    """Random words, the end token, then padding; a length counts the end."""
    rows = torch.zeros(len(lengths), TEXT["context_length"], dtype=torch.long)
    generator = torch.Generator().manual_seed(1)
    for row, length in zip(rows, lengths):
        row[:length] = torch.randint(1, END, (length,), generator=generator)
        row[length - 1] = END
    return rows


def assert_same_embeddings_and_gradients(model: torch.nn.Module, found: torch.Tensor, expected: torch.Tensor) -> None:
    """In float64: of all parameters that either depends on."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(2))
    parameters = dict(model.named_parameters())
    learned = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    gradients, references = (
        torch.autograd.grad((embeds * direction).sum(), list(learned.values()), allow_unused=True) for embeds in (found, expected)
    )
    for name, gradient, reference in zip(learned, gradients, references, strict=True):
        assert (gradient is None) == (reference is None), name
        if gradient is not None and reference is not None:
            torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")
