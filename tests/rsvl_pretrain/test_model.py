import json

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from rsvl_data.errors import DataError, OptionError
from rsvl_pretrain.model import DualEncoder

IMAGES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TEXTS = ["a harbor with ships", "forest", "x" * 400]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return DualEncoder.load("rsvl-tiny").eval()


def test_open_clip_reads_the_export_with_equal_features(encoder, tmp_path):
    encoder.export(tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    with torch.inference_mode():
        images = model.eval().encode_image(encoder.preprocess.normalize(IMAGES), normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
        torch.testing.assert_close(encoder.encode_image(IMAGES), images, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.encode_text(TEXTS), texts, atol=1e-5, rtol=0)
    assert preprocess.transforms[0].size == 64


@pytest.mark.parametrize("name", ["{}", "local-dir:{}"])
def test_export_loads_by_every_name(encoder, tmp_path, name):
    encoder.export(tmp_path / "run" / "export")
    for folder in (tmp_path / "run", tmp_path / "run" / "export"):
        loaded = DualEncoder.load(name.format(folder))
        assert loaded.weights_sha256() == encoder.weights_sha256()
        assert loaded.preprocess == encoder.preprocess and loaded.config == encoder.config


def test_embeddings_are_unit_vectors(encoder):
    with torch.inference_mode():
        for embeds in (encoder.encode_image(IMAGES), encoder.encode_text(TEXTS)):
            torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(3))


def test_identity_changes_with_one_weight(encoder):
    before = encoder.weights_sha256()
    with torch.no_grad():
        encoder.model.logit_scale += 1e-6
    assert encoder.weights_sha256() != before


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("ViT-B16", OptionError, "did you mean ViT-B-16"),
        ("rsvl-tini", OptionError, "did you mean rsvl-tiny"),
        ("local-dir:nowhere", DataError, "nowhere"),
        ("ViT-B-32,no_such_tag", DataError, "no_such_tag"),
    ],
)
def test_names_nobody_knows(name, error, message):
    with pytest.raises(error, match=message):
        DualEncoder.load(name)


def damaged_export(encoder, folder, change):
    encoder.export(folder)
    path = folder / "open_clip_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["text_projection"].fill_(torch.nan), "NaN or infinity in text_projection"),
        (lambda t: t.pop("text_projection"), "text_projection"),
        (lambda t: t.__setitem__("stranger", torch.zeros(1)), "stranger"),
        (lambda t: t.__setitem__("text_projection", torch.zeros(3, 3)), "text_projection"),
    ],
)
def test_weights_that_do_not_fit_are_refused(encoder, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        DualEncoder.load(str(damaged_export(encoder, tmp_path, change)))


def test_a_run_that_has_not_finished(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DataError, match="has no export yet"):
        DualEncoder.load(str(tmp_path))


def test_config_of_export_is_open_clips(encoder, tmp_path):
    encoder.export(tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert config["model_cfg"]["embed_dim"] == 128 and config["preprocess_cfg"]["size"] == 64


def test_an_export_tells_what_a_picture_and_a_text_become(encoder, tmp_path):
    encoder.train().export(tmp_path)
    probe = json.loads((tmp_path / "open_clip_config.json").read_text())["probe"]
    assert encoder.training and {name: len(values) for name, values in probe.items()} == {"image": 32, "text": 32}
    again = DualEncoder.load(str(tmp_path))
    assert probe["text"] == pytest.approx(again.eval().encode_text(["a satellite image"])[0, :32].tolist(), abs=1e-5)


@pytest.mark.parametrize(("tower", "weight"), [("image", "visual.proj"), ("text", "text_projection")])
def test_farslip_30_weights_that_are_not_the_exported_ones_are_refused(encoder, tmp_path, tower, weight):
    encoder.export(tmp_path)
    path = tmp_path / "open_clip_model.safetensors"
    tensors = load_file(path)
    tensors[weight] += 0.01 * tensors[weight].std() * torch.randn(tensors[weight].shape)
    save_file(tensors, path)
    with pytest.raises(DataError, match=f"its {tower} tower does not give what it gave when it was exported"):
        DualEncoder.load(str(tmp_path))
