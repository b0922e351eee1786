import hashlib
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.benchmarks.retrieval import retrieval
from evaluation.benchmarks.zero_shot import zero_shot
from evaluation.data import EvalItem, MemorySet, ShardSet
from evaluation.embed import cache_images, embed_images
from evaluation.embedding_cache import EmbeddingCache
from rsvl_data.errors import DataError


def sha256s(*names: object) -> list[str]:
    return [hashlib.sha256(str(name).encode()).hexdigest() for name in names]


def rows(*values: float, dim: int = 4) -> np.ndarray:
    return np.array([[value] * dim for value in values], np.float16)


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


def test_what_was_appended_is_found(cache):
    part = cache.part({"weights": "a"})
    assert part.find(sha256s("x")) == {}
    part.append(sha256s("x", "y"), rows(1, 2))
    part.append(sha256s("z"), rows(3))
    for reader in (part, cache.part({"weights": "a"})):
        found = reader.find(sha256s("z", "w", "x", "z"))
        assert {sha256: row.tolist() for sha256, row in found.items()} == dict(zip(sha256s("z", "x"), rows(3, 1).tolist()))
    assert cache.part({"weights": "b"}).find(sha256s("x")) == {}
    assert json.loads((part.folder / "encoding.json").read_text()) == {"weights": "a"}


@pytest.mark.parametrize("cut", [1, 39, 40])
def test_a_killed_writer_leaves_it_readable(cache, cut):
    part = cache.part({})
    part.append(sha256s("x", "y"), rows(1, 2))
    index = part.folder / "index"
    index.write_bytes(index.read_bytes()[:-cut])  # the entry of y is not, or not wholly, written
    again = cache.part({})
    assert list(again.find(sha256s("x", "y"))) == sha256s("x")
    again.append(sha256s("z"), rows(3))
    found = cache.part({}).find(sha256s("x", "y", "z"))
    assert {sha256: row[0] for sha256, row in found.items()} == dict(zip(sha256s("x", "z"), (1, 3)))


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: b"", lambda content: content[:-8] + bytes(8)])
def test_a_damaged_row_is_absent_and_written_again(cache, damage):
    part = cache.part({})
    part.append(sha256s("x", "y"), rows(1, 2))
    embeddings = part.folder / "embeddings.f16"
    embeddings.write_bytes(damage(embeddings.read_bytes()))
    assert sha256s("y")[0] not in cache.part({}).find(sha256s("x", "y"))
    part.append(sha256s("y"), rows(2))
    assert cache.part({}).find(sha256s("y"))[sha256s("y")[0]].tolist() == [2] * 4


def _append_many(root: Path, start: int, count: int, ready) -> None:
    ready.wait()
    part = EmbeddingCache(root).part({})
    for number in range(start, start + count):
        part.append(sha256s(number, number + 0.5), rows(number, number + 0.5, dim=64))


def test_several_processes_write_at_once(cache):
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(4)
    writers = [context.Process(target=_append_many, args=(cache.root, 1000 * i, 400, ready)) for i in range(3)]
    for writer in writers:
        writer.start()
    ready.wait(60)  # none is killed before the others know that they may begin
    time.sleep(0.02)
    os.kill(writers[2].pid, signal.SIGKILL)  # wherever it is
    for writer in writers:
        writer.join(60)
    names = [number + half for i in range(2) for number in range(1000 * i, 1000 * i + 400) for half in (0, 0.5)]
    found = cache.part({}).find(sha256s(*(int(n) if n == int(n) else n for n in names)))
    assert [row[0] for row in found.values()] == names


def test_an_image_is_encoded_once_for_all_tasks(encoder, colours, cache):
    data = ShardSet(colours, "test")
    plain = [embed_images(encoder, data), zero_shot(encoder, data, num_bootstrap=5), retrieval(encoder, data, num_bootstrap=5)]
    encoder.calls.clear()
    cached = [
        embed_images(encoder, data, cache=cache),
        zero_shot(encoder, data, num_bootstrap=5, cache=cache),
        retrieval(encoder, data, num_bootstrap=5, cache=cache),
    ]
    assert [call for call in encoder.calls if isinstance(call, int)] == [32]
    assert torch.equal(cached[0], plain[0])
    for one, other in zip(cached[1:], plain[1:]):
        assert replace(one, seconds=0) == replace(other, seconds=0)


def test_the_same_picture_in_another_set_is_known(encoder, colours, cache):
    data = ShardSet(colours, "test")
    embed_images(encoder, data, cache=cache)
    encoder.calls.clear()
    images = [data.image(4), data.image(0), data.image(4)]
    other = MemorySet("other", "val", (), [EvalItem(key) for key in "abc"], images)
    assert torch.equal(embed_images(encoder, other, cache=cache), embed_images(encoder, data, cache=cache)[[4, 0, 4]])
    assert encoder.calls == []


def test_a_cache_of_another_model_or_way_is_not_taken(encoder, colours, cache, monkeypatch):
    """Each change alone makes the image be encoded again."""
    data = ShardSet(colours, "test")
    embed_images(encoder, data, cache=cache)

    def encoded(**options) -> bool:
        encoder.calls.clear()
        embed_images(encoder, data, cache=cache, **options)
        return bool(encoder.calls)

    assert not encoded()
    assert not encoded(workers=5)
    for options in ({"precision": "bf16"}, {"engine": "fast"}, {"batch_size": 3}):
        assert encoded(**options) and not encoded(**options)
    changes = [
        (encoder, "preprocess", replace(encoder.preprocess, mean=(0.48145467, 0.4578275, 0.40821073))),
        (encoder, "config", {"embed_dim": 3, "quick_gelu": True}),
        (encoder, "weights_sha256", lambda: "1" * 64),
    ]
    for owner, name, value in changes:
        monkeypatch.setattr(owner, name, value)
        assert encoded() and not encoded()
    monkeypatch.setattr("evaluation.embed.ENCODE_VERSION", -1)
    assert encoded()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_the_work_and_change_nothing(encoder, numbered, cache, world_size):
    data = ShardSet(numbered, "test")
    alone = embed_images(encoder, data, batch_size=5)
    encoder.calls.clear()
    shares = [0] * world_size
    for rank in range(world_size):

        def count(done: int, total: int, rank: int = rank) -> None:
            shares[rank] = done

        cache_images(encoder, data, cache, rank=rank, world_size=world_size, batch_size=5, progress=count)
    assert sum(shares) == 12 and max(shares) < 13 - world_size / 2
    encoder.calls.clear()
    assert torch.equal(embed_images(encoder, data, batch_size=5, cache=cache), alone)
    assert encoder.calls == []


def test_a_run_that_was_stopped_keeps_what_it_encoded(encoder, numbered, cache):
    data = ShardSet(numbered, "test")

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_images(encoder, data, batch_size=4, cache=cache, progress=stop)
    encoder.calls.clear()
    seen: list[tuple[int, int]] = []
    again = embed_images(encoder, data, batch_size=4, cache=cache, progress=lambda *counts: seen.append(counts))
    assert len(encoder.calls) == 2 and seen[-1] == (8, 8)  # the second batch was encoded, but not kept yet
    assert torch.equal(again, embed_images(encoder, data, batch_size=4))


def test_half_precision_is_close(encoder, numbered):
    data = ShardSet(numbered, "test")
    exact = torch.nn.functional.normalize(
        torch.stack([encoder.preprocess.decode(data.image(i), "exact") for i in range(12)]).float().mean((2, 3)), dim=-1
    )
    rounded = embed_images(encoder, data)
    assert 0 < (rounded - exact).abs().max() < 2**-11
    assert torch.allclose(rounded.norm(dim=1), torch.ones(12))


def test_embeddings_that_are_no_numbers_are_named_and_not_kept(encoder, colours, cache):
    data = ShardSet(colours, "test")
    encode = encoder.encode_image
    encoder.encode_image = lambda images: torch.where(torch.arange(len(images))[:, None] == 2, torch.nan, encode(images))
    with pytest.raises(DataError, match="embeddings of 1 samples hold NaN or infinity: g0. The weights are damaged"):
        embed_images(encoder, data, cache=cache)
    assert not (cache.root).exists()
