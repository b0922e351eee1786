"""Text towers for many languages: XLM-R's through transformers, and CLIP's own, whose tokens are bytes."""

import shutil

import open_clip
import pytest
import torch
from tiny_xlm_roberta import CLIP_NAME, SENTENCES, fill_hub_cache, use_hub_cache

from rsvl_data.errors import DataError
from rsvl_pretrain.model import DualEncoder

IMAGES = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PAD, END, UNKNOWN = 1, 2, 3


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("hub")
    fill_hub_cache(cache)
    return cache


@pytest.fixture
def hub_cache(filled_cache, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    shutil.copytree(filled_cache, cache)
    use_hub_cache(monkeypatch, cache)
    return cache


@pytest.fixture
def encoder(hub_cache):
    return DualEncoder.load(f"hf-hub:{CLIP_NAME}").eval()


def test_rs_m_clip_04_mean_over_the_text_and_a_projection_of_two_layers(encoder):
    tower = encoder.model.text
    texts = ["an aerial photo", SENTENCES["zh"]]
    tokens = encoder.tokenizer(texts)
    with torch.no_grad():
        hidden = tower.transformer(tokens, attention_mask=(tokens != PAD).long()).last_hidden_state
        used = (tokens != PAD)[..., None]
        first, _, second = tower.proj
        expected = second(torch.nn.functional.gelu(first((hidden * used).sum(1) / used.sum(1))))
        torch.testing.assert_close(encoder.encode_text(texts, normalize=False), expected, atol=1e-5, rtol=1e-4)
    assert first.out_features == (32 + 16) // 2 and second.out_features == 16


@pytest.mark.parametrize("lang", SENTENCES)
def test_rs_m_clip_05_no_script_is_unknown(encoder, lang):
    (tokens,) = encoder.tokenizer([SENTENCES[lang]])
    assert UNKNOWN not in tokens and END in tokens


def test_rs_m_clip_05_long_texts_keep_their_end(encoder):
    (tokens,) = encoder.tokenizer([" ".join(SENTENCES.values())])
    assert tokens.shape == (77,) and tokens[-1] == END and PAD not in tokens


def test_rs_m_clip_13_open_clip_reads_the_export_with_equal_features(encoder, tmp_path):
    encoder.export(tmp_path / "export")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'export'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'export'}")
    texts = list(SENTENCES.values())
    with torch.inference_mode():
        images = model.eval().encode_image(encoder.preprocess.normalize(IMAGES), normalize=True)
        torch.testing.assert_close(encoder.encode_image(IMAGES), images, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            encoder.encode_text(texts), model.encode_text(tokenizer(texts), normalize=True), atol=1e-4, rtol=0
        )


def test_an_export_needs_no_hub(encoder, hub_cache, tmp_path):
    encoder.export(tmp_path / "export")
    shutil.rmtree(hub_cache)
    loaded = DualEncoder.load(str(tmp_path / "export")).eval()
    assert loaded.weights_sha256() == encoder.weights_sha256() and loaded.config == encoder.config
    with torch.inference_mode():
        assert torch.equal(loaded.encode_text(["дорога"]), encoder.encode_text(["дорога"]))


def test_a_repository_without_weights_gives_no_fresh_ones(hub_cache):
    next(hub_cache.rglob("open_clip_pytorch_model.bin")).unlink()
    with pytest.raises(DataError, match=f"{CLIP_NAME} cannot be loaded"):
        DualEncoder.load(f"hf-hub:{CLIP_NAME}")


@pytest.mark.parametrize(
    ("lost", "message"), [("config.json", "cannot be loaded"), ("tokenizer.json", "5 pieces, but its text tower")]
)
def test_a_text_tower_that_cannot_be_had_is_named(hub_cache, lost, message):
    next((hub_cache / "models--xlm-roberta-base").rglob(lost)).unlink()
    with pytest.raises(DataError, match=f"{CLIP_NAME} .*{message}"):
        DualEncoder.load(f"hf-hub:{CLIP_NAME}")


# --- CLIP's own tokens, which are bytes


@pytest.mark.parametrize("lang", SENTENCES)
def test_rs_m_clip_05_the_tiny_multilingual_tower_reads_every_script(lang):
    encoder = DualEncoder.load("rsvl-tiny-multilingual")
    text = SENTENCES[lang]
    (tokens,) = encoder.tokenizer([text])
    assert tokens[-1] == 0  # room is left: nothing was cut
    read = encoder.tokenizer.decode(tokens[tokens > 0].tolist()[1:-1])
    assert read.replace(" ", "") == text.lower().replace(" ", "")


def test_the_tiny_tower_for_english_would_cut_them():
    assert all(DualEncoder.load("rsvl-tiny").tokenizer([SENTENCES[lang]])[0, -1] > 0 for lang in ("zh", "ko", "ru"))
