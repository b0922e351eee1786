import json
import math

import pytest
import torch

from evaluation.data import ShardSet
from evaluation.embed import Encoder, embed_images, embed_texts
from rsvl_data.errors import CorruptShard, DataError
from rsvl_data.shards import write_shard
from rsvl_pretrain.model import DualEncoder


def test_images_come_in_the_order_of_the_rows(encoder, colours):
    embeds = embed_images(encoder, ShardSet(colours, "test"))
    assert embeds.argmax(1).tolist() == [0, 0, 1, 0, 2]
    assert torch.allclose(embeds.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_and_threads_change_nothing(encoder, colours, batch_size, workers):
    whole = embed_images(encoder, ShardSet(colours, "test"))
    seen = []
    encoder.calls.clear()
    parts = embed_images(
        encoder,
        ShardSet(colours, "test"),
        batch_size=batch_size,
        workers=workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert torch.equal(whole, parts)
    assert set(encoder.calls) == {batch_size} and len(encoder.calls) == math.ceil(5 / batch_size)
    assert seen[-1] == (5, 5)


def test_the_encoder_is_left_as_it_was(encoder, colours):
    encoder.train()
    embeds = embed_images(encoder, ShardSet(colours, "test"))
    assert encoder.training and not embeds.requires_grad
    encoder.eval()
    embed_texts(encoder, ["red"])
    assert not encoder.training


def test_bf16_is_close_and_still_of_unit_length(colours):
    torch.manual_seed(0)
    dual = DualEncoder.load("rsvl-tiny")
    assert isinstance(dual, Encoder)
    full, half = (embed_images(dual, ShardSet(colours, "test"), precision=precision) for precision in ("fp32", "bf16"))
    assert half.dtype == torch.float32
    assert not torch.equal(full, half) and torch.allclose(full, half, atol=0.03)
    assert torch.allclose(half.norm(dim=1), torch.ones(5))


def test_raw_text_embeddings_are_the_unit_ones_before_normalising():
    torch.manual_seed(0)
    dual = DualEncoder.load("rsvl-tiny")
    unit, raw = (embed_texts(dual, ["a river", "an airport"], normalize=normalize) for normalize in (True, False))
    assert torch.allclose(torch.nn.functional.normalize(raw, dim=-1), unit, atol=1e-6)
    assert not torch.allclose(raw.norm(dim=1), torch.ones(2), atol=1e-3)


def test_equal_texts_are_encoded_once(encoder):
    texts = ["red", "blue", "red", "green", "red"]
    embeds = embed_texts(encoder, texts, batch_size=2)
    assert encoder.calls == [["red", "blue"], ["green"]]
    assert embeds.argmax(1).tolist() == [0, 2, 0, 1, 0]
    assert torch.equal(embeds[0], embeds[4])


def test_engine_reaches_the_decoder(encoder, colours, monkeypatch):
    engines = set()
    decode = type(encoder.preprocess).decode
    monkeypatch.setattr(
        type(encoder.preprocess), "decode", lambda self, image, engine: engines.add(engine) or decode(self, image, engine)
    )
    embed_images(encoder, ShardSet(colours, "test"), engine="fast")
    assert engines == {"fast"}


def test_nothing_to_embed(encoder):
    with pytest.raises(ValueError, match="at least one text"):
        embed_texts(encoder, [])


def test_an_image_that_cannot_be_read_is_named(encoder, colours):
    shard = colours.shards("test")[1]
    samples = [shard.sample(0), shard.sample(1)]
    samples[1].image = b"no image"
    write_shard(shard.tar.parent, shard.tar.stem, iter(samples), image_suffix="png")
    with pytest.raises(DataError, match="sample b0 cannot be evaluated"):
        embed_images(encoder, ShardSet(colours, "test"))


def test_rows_of_another_shard_are_noticed(encoder, colours):
    first, second = (shard.tar.with_suffix(".parquet") for shard in colours.shards("test"))
    first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
    first.write_bytes(second_bytes)
    second.write_bytes(first_bytes)
    with pytest.raises(CorruptShard, match=r"sample 0 is r0\.png, its parquet row says g1"):
        embed_images(encoder, ShardSet(colours, "test"))


def test_texts_that_cannot_be_embedded_are_named(encoder, monkeypatch):
    encode = encoder.encode_text
    monkeypatch.setattr(encoder, "encode_text", lambda texts, normalize: encode(texts, normalize) * torch.nan)
    with pytest.raises(DataError, match="embeddings of 1 texts hold NaN or infinity: 'a river'"):
        embed_texts(encoder, ["a river"])
    monkeypatch.setattr(encoder, "encode_text", None)
    with pytest.raises(DataError, match="colour has no text tower; zero-shot classification and retrieval need one"):
        embed_texts(encoder, ["a river"])


@pytest.mark.parametrize(("part", "tower"), [("text_cfg", "text"), ("vision_cfg", "image")])
def test_a_model_of_one_tower(tmp_path, part, tower):
    DualEncoder.load("rsvl-tiny").export(tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    del config["model_cfg"][part]
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=f"has no {tower} tower: its configuration lacks '{part}'"):
        DualEncoder.load(str(tmp_path))
