"""Computing the class token alone gives the embeddings and gradients of every kind of image tower open_clip builds."""

import pickle
from copy import deepcopy

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from text_towers import TEXT, assert_same_embeddings_and_gradients

from rsvl_pretrain.image_tower import encode_image, reads_class_token_alone
from rsvl_pretrain.model import DualEncoder

VISION = {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 12, "layers": 3}
SHORT = {
    "plain": {},
    "patches that are not square": {"patch_size": (16, 8)},
    "no norm before": {"no_ln_pre": True},
    "norm after pooling": {"final_ln_after_pool": True},
    "layer scale": {"ls_init_value": 0.5},
    "fixed positions": {"pos_embed_type": "sin_cos_2d"},
    "patch dropout": {"patch_dropout": 0.5},
    "one block": {"layers": 1},
}
WHOLE = {
    "mean of patches": {"pool_type": "avg"},
    "mean of patches, norm after": {"pool_type": "avg", "final_ln_after_pool": True},
    "attention": {"attentional_pool": True, "attn_pooler_heads": 4},
    "normed queries": {"qk_norm": True},
    "scaled attention": {"scale_attn": True, "scale_attn_inner": True, "scale_fc": True, "scale_heads": True},
    "ResNet": {"layers": (1, 1, 1, 1), "width": 16, "head_width": 16},
    "timm": {"timm_model_name": "convnext_atto", "timm_pool": "avg", "timm_proj": "linear"},
}
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model_of(vision, quick_gelu=False):
    torch.manual_seed(0)
    return CLIP(192, {**VISION, **vision}, TEXT, quick_gelu=quick_gelu).double().train()


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("kind", SHORT)
def test_towers_that_read_the_class_token_alone(kind, quick_gelu):
    model, seen = model_of(SHORT[kind], quick_gelu), []
    assert reads_class_token_alone(model.visual)
    last = model.visual.transformer.resblocks[-1]
    last.ln_2.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    torch.manual_seed(1)  # of patch dropout
    found = encode_image(model, IMAGES)
    torch.manual_seed(1)
    assert_same_embeddings_and_gradients(model, found, model.encode_image(IMAGES))
    assert seen[0] == 1 and seen[1] > 1


@pytest.mark.parametrize("kind", WHOLE)
def test_other_towers_are_computed_whole(kind):
    model = model_of(WHOLE[kind])
    assert not reads_class_token_alone(model.visual)
    assert_same_embeddings_and_gradients(model, encode_image(model, IMAGES), model.encode_image(IMAGES))


def test_a_tower_that_hands_its_patches_on_is_computed_whole():
    assert not reads_class_token_alone(model_of({"output_tokens": True}).visual)


def test_adapters_inside_the_attention_are_not_passed_over():
    model = model_of({})
    model.visual.transformer.resblocks[1].attn = deepcopy(model.visual.transformer.resblocks[1].attn)
    model.visual.transformer.resblocks[1].attn.__class__ = type("Adapted", (torch.nn.MultiheadAttention,), {})
    assert not reads_class_token_alone(model.visual)


def test_checkpointing_changes_nothing():
    model = model_of({})
    expected = model.encode_image(IMAGES)
    model.visual.set_grad_checkpointing(True)
    assert_same_embeddings_and_gradients(model, encode_image(model, IMAGES), expected)


def test_a_frozen_tower_may_run_without_gradients():
    model = model_of({})
    model.lock_image_tower(unlocked_groups=2)
    assert_same_embeddings_and_gradients(model, encode_image(model, IMAGES), model.encode_image(IMAGES))
    with torch.no_grad():
        torch.testing.assert_close(encode_image(model, IMAGES), model.encode_image(IMAGES))


def test_half_precision_is_as_near_as_open_clips_own():
    model = model_of({}).float()
    with torch.no_grad():
        exact = model.encode_image(IMAGES.float())
        with torch.autocast("cpu", torch.bfloat16):
            ours, theirs = encode_image(model, IMAGES.float()).float(), model.encode_image(IMAGES.float()).float()
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()


def test_what_evaluation_computes_is_not_touched_by_training():
    fresh, trained = (DualEncoder.load("rsvl-tiny") for _ in range(2))
    trained.load_state_dict(fresh.state_dict())
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        close = trained.train().encode_image(images)
        exact = fresh.eval().model.encode_image(fresh.preprocess.normalize(images), normalize=True)
        torch.testing.assert_close(close, exact, rtol=1e-5, atol=1e-5)
        assert torch.equal(trained.eval().encode_image(images), exact)
    assert list(trained.state_dict()) == list(fresh.state_dict())


@pytest.mark.parametrize("copy", [deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_computes_with_its_own_weights(copy):
    model = model_of({})
    before = encode_image(model, IMAGES).detach()
    other = copy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
        assert torch.equal(encode_image(model, IMAGES), before)
        assert not encode_image(other, IMAGES).any()


def test_the_models_that_people_train():
    names = {
        "ViT-B-32": True,
        "ViT-L-14": True,
        "ViT-B-16-quickgelu": True,
        "coca_ViT-B-32": False,
        "RN50": False,
        "ViT-B-16-SigLIP": False,
    }
    with torch.device("meta"):
        models = {name: open_clip.create_model(name, device="meta") for name in names}
    assert {name: reads_class_token_alone(model.visual) for name, model in models.items()} == names
