"""Dense tokens: the official numbers, the class token untouched, and one set of bits for training and segmentation."""

import json
from copy import deepcopy

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, resize_pos_embed

from rsvl_data.errors import OptionError
from rsvl_pretrain.dense import encode_dense, encode_dense_and_class_token, encode_some, patch_size_px
from rsvl_pretrain.image_tower import encode_image

VISION = {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 12, "layers": 3}
TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 4, "layers": 2}
HEADS = ("segearth", "maskclip", "last")


def tiny(seed=0, quick_gelu=False, **vision):
    torch.manual_seed(seed)
    model = CLIP(embed_dim=32, vision_cfg={**VISION, **vision}, text_cfg=TEXT, quick_gelu=quick_gelu)
    for parameter in model.visual.parameters():  # nothing at its neutral value: a bias left out must show
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def encode_image_and_dense(model, images, head="segearth"):
    """Both of every image."""
    return encode_some(model, images, head, of_image=slice(None), of_patches=slice(None))


def some_images(*size, seed=1):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


# --- the official numbers ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["gelu", "quickgelu"])
def official(request, shared):
    """Model, images and tensors of FarSLIP's own code."""
    folder = shared / "fixtures" / "objectives"
    config = json.loads((folder / "tiny_model.json").read_text())["parameters"]["model_cfg"]
    model = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=request.param == "quickgelu")
    model.load_state_dict(safetensors.torch.load_file(folder / "tiny_model.safetensors"))
    return model, safetensors.torch.load_file(folder / "farslip_heads.safetensors"), request.param


@pytest.mark.parametrize("head, name", [("segearth", "SegEarth"), ("maskclip", "MaskCLIP")])
def test_heads_are_the_official_ones(official, head, name):
    model, golden, activation = official
    pooled, dense = encode_image_and_dense(model, golden["images"], head)
    torch.testing.assert_close(dense.flatten(2).transpose(1, 2), golden[f"dense_{name}_{activation}"], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(pooled, golden[f"cls_{activation}"], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(dense.mean((2, 3)), golden[f"gap_{name}_{activation}"], atol=2e-5, rtol=1e-4)


def test_gradients_are_the_official_ones(official, shared):
    model, golden, activation = official
    if activation == "gelu":
        pytest.skip("the gradients were stored for QuickGELU alone")
    images = golden["images"].clone().requires_grad_()
    pooled, dense = encode_image_and_dense(model, images)
    ((pooled * golden["cot_cls"]).sum() + (dense.flatten(2).transpose(1, 2) * golden["cot_dense"]).sum()).backward()
    torch.testing.assert_close(images.grad, golden["grad_images_SegEarth_quickgelu"], atol=1e-4, rtol=1e-3)
    weight = model.visual.transformer.resblocks[-1].attn.in_proj_weight.grad
    torch.testing.assert_close(weight, golden["grad_last_in_proj_weight_SegEarth_quickgelu"], atol=1e-4, rtol=1e-3)
    facts = json.loads((shared / "fixtures" / "objectives" / "farslip_heads.json").read_text())["scalars"]
    for name, norm in facts["grad_norms_SegEarth_quickgelu"].items():
        assert model.visual.get_parameter(name).grad.norm() == pytest.approx(norm, rel=1e-3, abs=1e-4), name


# --- what holds for every tower ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "vision", [{}, {"ls_init_value": 0.5}, {"pool_type": "avg"}, {"final_ln_after_pool": True, "pool_type": "avg"}]
)
def test_farslip_1_the_image_embedding_is_that_of_open_clip(head, vision):
    model, images = tiny(**vision), some_images(2, 3, 32, 32)
    pooled, dense = encode_image_and_dense(model, images, head)
    torch.testing.assert_close(pooled, model.encode_image(images), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, encode_image(model, images), atol=1e-6, rtol=1e-6)
    assert torch.equal(dense, encode_dense(model, images, head))
    with torch.inference_mode():
        assert torch.equal(encode_image_and_dense(model.eval(), images, head)[0], pooled)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_farslip_5_training_and_segmentation_read_the_same_bits(head, autocast, quick_gelu):
    model, images = tiny(quick_gelu=quick_gelu), some_images(2, 3, 32, 40)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        trained = encode_dense(model.train(), images, head)
        model.visual.set_grad_checkpointing(True)
        checkpointed = encode_dense(model, images, head)
        with torch.inference_mode():
            measured = encode_dense(model.eval(), images, head)
    assert trained.requires_grad and not measured.requires_grad
    assert torch.equal(trained, measured) and torch.equal(trained, checkpointed)


def test_checkpointing_changes_no_gradient():
    model, images = tiny(), some_images(2, 3, 32, 32)
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        model.visual.set_grad_checkpointing(checkpointing)
        encode_dense(model, images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.visual.parameters() if parameter.grad is not None])
    assert len(gradients[0]) > 20
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def slow_segearth(model, images):
    """Written out: a matrix of weights that rows of three attentions sum to."""
    tower = model.visual
    block = tower.transformer.resblocks[-1]
    x = tower._embeds(images)
    for earlier in tower.transformer.resblocks[:-1]:
        x = earlier(x)
    weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
    parts = [F.linear(block.ln_1(x), weight, bias) for weight, bias in zip(weights, biases)]
    heads, columns = block.attn.num_heads, []
    for head_parts in zip(*(part.chunk(heads, -1) for part in parts)):
        mixing = sum(torch.softmax(part @ part.transpose(1, 2) / part.shape[-1] ** 0.5, -1) for part in head_parts)
        assert torch.allclose(mixing.sum(-1), torch.tensor(3.0))
        columns.append(mixing @ head_parts[2])
    tokens = tower.ln_post(block.attn.out_proj(torch.cat(columns, -1)))[:, 1:] @ tower.proj
    return tokens.transpose(1, 2).reshape(len(images), -1, *tower.grid_size)


def test_farslip_4_segearth_is_three_attentions_summed():
    model, images = tiny(), some_images(2, 3, 32, 32)
    torch.testing.assert_close(encode_dense(model, images, "segearth"), slow_segearth(model, images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("patch_px, patches", [(16, 14), (32, 7)])
def test_farslip_2_one_token_a_patch(patch_px, patches):
    model = tiny(image_size=224, patch_size=patch_px, layers=1)
    for head in HEADS:
        assert encode_dense(model, some_images(1, 3, 224, 224), head).shape == (1, 32, patches, patches)


def test_farslip_4_of_equal_query_key_and_value_it_is_three_times_one_attention():
    model, images = tiny(layers=1), some_images(1, 3, 32, 32)
    block = model.visual.transformer.resblocks[-1]
    with torch.no_grad():
        for joint in (block.attn.in_proj_weight, block.attn.in_proj_bias):
            joint.copy_(joint.chunk(3)[0].repeat(3, *[1] * (joint.ndim - 1)))
        x = block.ln_1(model.visual._embeds(images))
        once = block.attn(x, x, x, need_weights=False)[0]
        bias = block.attn.out_proj.bias
        expected = model.visual.ln_post(3 * (once - bias) + bias)[:, 1:] @ model.visual.proj
        torch.testing.assert_close(encode_dense(model, images).flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head, unchanged", [("segearth", True), ("maskclip", False), ("last", False)])
def test_farslip_3_only_segearth_ignores_the_last_mlp(head, unchanged):
    model, images = tiny(), some_images(1, 3, 32, 32)
    pooled, dense = encode_image_and_dense(model, images, head)
    with torch.no_grad():
        model.visual.transformer.resblocks[-1].mlp.c_fc.weight.add_(0.1)
    pooled_then, dense_then = encode_image_and_dense(model, images, head)
    assert torch.equal(dense, dense_then) == unchanged
    assert not torch.equal(pooled, pooled_then)


def test_maskclip_looks_at_its_own_patch_alone_in_the_last_block():
    """With one block nothing else mixes: another patch's pixels change nothing."""
    model, images = tiny(layers=1), some_images(1, 3, 32, 32)
    other = images.clone()
    other[..., 16:, 16:] = 0
    for head, local in (("maskclip", True), ("segearth", False), ("last", False)):
        same = torch.isclose(encode_dense(model, images, head), encode_dense(model, other, head), atol=1e-6).all(1)[0]
        assert same[:2, :2].all() == local and not same[2:, 2:].any(), head


@pytest.mark.parametrize("head", ["segearth", "maskclip"])
def test_the_class_token_costs_nothing_where_it_is_not_asked_for(head):
    model, calls = tiny(), []
    model.visual.transformer.resblocks[-1].register_forward_hook(lambda *_: calls.append("last block"))
    encode_dense(model, some_images(1, 3, 32, 32), head)
    assert calls == []
    encode_image_and_dense(model, some_images(1, 3, 32, 32), "last")
    assert calls == ["last block"]


@pytest.mark.parametrize("head", HEADS)
def test_the_class_token_of_a_head_goes_through_it(head):
    model, images = tiny(), some_images(2, 3, 32, 32)
    token, dense = encode_dense_and_class_token(model, images, head)
    assert torch.equal(dense, encode_dense(model, images, head))
    assert torch.allclose(token, model.encode_image(images), atol=1e-5) == (head == "last")


# --- sizes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(48, 48), (16, 16), (24, 56), (8, 8)])
def test_another_size_is_what_open_clip_makes_of_the_weights(height, width):
    """Golden: a tower built for that size, with the weights as open_clip resizes them on loading."""
    model = tiny()
    native = tiny(image_size=(height, width))
    weights = deepcopy(model.state_dict())
    resize_pos_embed(weights, native)
    native.load_state_dict(weights)
    images = some_images(2, 3, height, width)
    pooled, dense = encode_image_and_dense(model, images)
    assert dense.shape == (2, 32, height // 8, width // 8)
    assert torch.equal(dense, encode_dense(native, images))
    torch.testing.assert_close(pooled, native.encode_image(images), atol=1e-5, rtol=1e-5)


def test_rows_run_downwards():
    """The second row, third column of the map is the patch there: only its own value moves most."""
    model, images = tiny(layers=1), torch.zeros(1, 3, 32, 48)
    changed = images.clone()
    changed[..., 8:16, 16:24] = 3.0
    moved = (encode_dense(model, changed, "maskclip") - encode_dense(model, images, "maskclip")).abs().sum(1)[0]
    assert moved.argmax() == 1 * 6 + 2


# --- errors ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(31, 32), (32, 30), (4, 32)])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(size):
    with pytest.raises(OptionError, match=r"cannot be cut into patches of 8 x 8 px; pad or resize"):
        encode_dense(tiny(), torch.zeros(1, 3, *size))


def test_towers_without_such_tokens_are_refused():
    images = torch.zeros(1, 3, 64, 64)
    resnet = CLIP(32, {"image_size": 64, "layers": (1, 1, 1, 1), "width": 8, "patch_size": None}, TEXT)
    with pytest.raises(OptionError, match="ModifiedResNet.*Use a ViT"):
        encode_dense(resnet, images)
    with pytest.raises(OptionError, match="pools them by attention"):
        encode_dense(tiny(attentional_pool=True), images)
    with pytest.raises(OptionError, match="CustomResidualAttentionBlock"):
        encode_dense(tiny(block_type="custom", qk_norm=True), images)
    dropping = tiny(patch_dropout=0.5)
    with pytest.raises(OptionError, match="patch_dropout to 0"):
        encode_dense(dropping.train(), images)
    assert encode_dense(dropping.eval(), images).shape == (1, 32, 8, 8)


def test_patch_size():
    assert patch_size_px(tiny()) == (8, 8)
    assert patch_size_px(tiny(patch_size=16)) == (16, 16)
