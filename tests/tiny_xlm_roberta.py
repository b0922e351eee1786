"""The multilingual CLIP of LAION, `CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k`, but tiny and made here.

Its repositories lie in a cache of the Hub as a download would have left them; nothing is asked of a network.
"""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import XLMRobertaConfig, XLMRobertaTokenizer

CLIP_NAME, TEXT_NAME = "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k", "xlm-roberta-base"
VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
SENTENCES = {
    "en": "an aerial photo of a baseball diamond beside a wide road",
    "pt": "uma foto aérea de um campo de beisebol ao lado de uma estrada larga",
    "es": "una foto aérea de un campo de béisbol junto a una carretera ancha",
    "fr": "une photo aérienne d'un terrain de baseball à côté d'une large route",
    "de": "ein Luftbild eines Baseballfeldes neben einer breiten Straße",
    "nl": "een luchtfoto van een honkbalveld naast een brede weg",
    "it": "una foto aerea di un campo da baseball accanto a una strada larga",
    "zh": "一张宽阔道路旁棒球场的航拍照片",
    "ko": "넓은 도로 옆에 있는 야구장의 항공 사진",
    "ru": "аэрофотоснимок бейсбольного поля рядом с широкой дорогой",
}


def fill_hub_cache(cache: Path) -> None:
    """Both repositories: the CLIP with its weights, and the text tower's configuration and tokenizer, which the CLIP names."""
    text = _snapshot(cache, TEXT_NAME)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(text)
    XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
    ).save_pretrained(text)
    clip = _snapshot(cache, CLIP_NAME)
    names = {"hf_model_name": TEXT_NAME, "hf_tokenizer_name": TEXT_NAME, "hf_pooler_type": "mean_pooler", "hf_proj_type": "mlp"}
    config: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": names}
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    (clip / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32, "mean": mean, "std": std}})
    )
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(
        embed_dim=16, vision_cfg=VISION, text_cfg={**names, "hf_model_name": str(text), "hf_model_pretrained": False}
    )
    weights = model.state_dict()
    # transformers before 4.31 saved these, and so the published file holds them.
    weights["text.transformer.embeddings.position_ids"] = torch.arange(514)[None]
    torch.save(weights, clip / "open_clip_pytorch_model.bin")


def use_hub_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """As on a machine without a network that has downloaded what lies in `cache`."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def make_tokenizer() -> XLMRobertaTokenizer:
    """Unigram pieces over ten languages, with the special tokens of XLM-R at its numbers."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES.values(), trainer)
    pieces = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)])


def _snapshot(cache: Path, name: str) -> Path:
    revision = "0" * 40
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    return snapshot
