"""Packed towers give what the model's own blocks give, and leave alone what they do not know."""

import pytest
import torch
from open_clip.model import CLIP

from rsvl_pretrain.dense import encode_dense
from rsvl_segment.classes import Classes
from rsvl_segment.packed_tower import packed_model
from rsvl_segment.segmenter import Segmenter

TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 4, "layers": 1}


def make(*, quick_gelu=False, **vision):
    torch.manual_seed(0)
    shape = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 3}
    return CLIP(embed_dim=16, vision_cfg=shape | vision, text_cfg=TEXT, quick_gelu=quick_gelu).eval()


def blocks(model):
    return list(model.visual.transformer.resblocks)


@pytest.mark.parametrize("options", [{}, {"quick_gelu": True}, {"ls_init_value": 0.3}], ids=["gelu", "quick_gelu", "layer_scale"])
@pytest.mark.parametrize("head", ["segearth", "maskclip", "last"])
def test_tokens_are_those_of_the_model(options, head):
    model, images = make(**options), torch.randn(3, 3, 40, 24)
    packed = packed_model(model)
    assert [type(block).__name__ for block in blocks(packed)] == ["_PackedBlock", "_PackedBlock", "ResidualAttentionBlock"]
    with torch.inference_mode():
        torch.testing.assert_close(encode_dense(packed, images, head), encode_dense(model, images, head), atol=2e-6, rtol=1e-5)


def test_the_model_itself_is_not_changed():
    model = make()
    before, names = blocks(model), set(model.state_dict())
    packed = packed_model(model)
    assert blocks(model) == before and set(model.state_dict()) == names
    assert packed.visual.conv1 is model.visual.conv1 and packed.visual.proj is model.visual.proj


@pytest.mark.parametrize("change", [lambda model: model.half(), lambda model: model.double()], ids=["half", "double"])
def test_other_precisions_stay_as_they_are(change):
    model = change(make())
    assert packed_model(model) is model


def test_an_adapted_block_keeps_the_whole_tower_as_it_is():
    class Adapted(torch.nn.Linear):
        pass

    model = make()
    model.visual.transformer.resblocks[1].mlp.c_fc = Adapted(32, 128)
    assert packed_model(model) is model


def test_without_onednn_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = make()
    assert packed_model(model) is model


@pytest.mark.parametrize(("precision", "packs"), [("fp32", True), ("bf16", False)])
def test_a_segmenter_packs_in_float32_alone(encoder, precision, packs):
    segmenter = Segmenter(encoder, Classes.parse("water,road"), precision=precision)
    assert (segmenter._model is not encoder.model) == packs
