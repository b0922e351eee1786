"""Towers on crops of another size than their own."""

import pytest
import torch
from open_clip.model import CLIP, resize_pos_embed

from rsvl_data.errors import OptionError
from rsvl_pretrain.image_tower import encode_image_of_any_size

TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 4, "layers": 1}


def model_of(size_px: int, **vision) -> CLIP:
    torch.manual_seed(0)
    config = {"image_size": size_px, "patch_size": 8, "width": 48, "head_width": 12, "layers": 2, **vision}
    return CLIP(embed_dim=32, vision_cfg=config, text_cfg=TEXT)


@pytest.mark.parametrize("pool", [{}, {"attentional_pool": True, "attn_pooler_queries": 4}])
def test_rs_m_clip_11_positions_are_interpolated_as_when_weights_are_loaded(pool):
    model, small = model_of(32, **pool), model_of(24, **pool)
    state = model.state_dict()
    resize_pos_embed(state, small)
    small.load_state_dict(state)
    images = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(encode_image_of_any_size(model.visual, images), small.visual(images), atol=1e-5, rtol=1e-4)


def test_the_own_size_needs_no_interpolation_and_gradients_reach_positions_at_any():
    tower = model_of(32).visual
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encode_image_of_any_size(tower, images), tower(images), atol=1e-5, rtol=1e-5)
    encode_image_of_any_size(tower, images[..., :16, :24]).sum().backward()
    assert (tower.positional_embedding.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("size", [(20, 24), (24, 20), (4, 8)])
def test_rs_m_clip_11_sizes_that_the_patch_does_not_divide_are_refused(size):
    with pytest.raises(OptionError, match=f"images of {size[1]} x {size[0]} px cannot be cut into patches of 8 x 8 px"):
        encode_image_of_any_size(model_of(32).visual, torch.randn(1, 3, *size))


def test_other_towers_take_their_own_size_alone():
    tower = model_of(64, layers=[1, 1, 1, 1], width=8, head_width=8).visual
    assert encode_image_of_any_size(tower, torch.randn(2, 3, 64, 64)).shape == (2, 32)
    with pytest.raises(OptionError, match="ModifiedResNet.* takes images of 64 x 64 px alone, not of 32 x 32 px"):
        encode_image_of_any_size(tower, torch.randn(2, 3, 32, 32))
