"""Real servers with a tiny model of random weights. `serve`: `transformers serve`, needs transformers[serving]. `vllm`: vLLM, on a CPU or
a GPU, as a server and in process; `make test-vllm` builds the environment for it."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from chat_server import picture, sample
from tiny_models import save_llava

from rsvl_data.captioning.answers import AnswerRules
from rsvl_data.captioning.engine import Failure, Request, Sampling, close_engines, running
from rsvl_data.captioning.openai_server import OpenAIServer
from rsvl_data.captioning.prompts import PROMPTS
from rsvl_data.captioning.stage import CaptionOptions, caption_with
from rsvl_data.captioning.vllm_engine import VllmModel
from rsvl_data.errors import EngineError
from rsvl_data.stage import run_stages

BIN = Path(sys.executable).parent
SAMPLING = Sampling(num_candidates=3, temperature=1.0, max_tokens=8, seed=5)
SHORT = PROMPTS["rs-generic-short"].reworded("Name the main scene and the most striking objects.")
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
SCHEMA = {"type": "object", "properties": {"captions": {"type": "array", "items": {"type": "string"}}}, "required": ["captions"]}


@contextmanager
def process(*words: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*words, "--host", "127.0.0.1", "--port", str(port)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        close_engines()
        server.terminate()
        server.wait(60)


def ask(engine, **changes):
    fields = {"image": picture(1), "text": "what is seen", "sampling": SAMPLING} | changes
    return running(engine).submit(Request(**fields)).result(300)


def caption_samples(engine, store: Path, num: int = 6):
    """Every sample is there, and every answer that was asked for became a caption or was counted."""
    rules = AnswerRules(allow_cut=True, check_language=False, min_words=1)
    options = CaptionOptions(store=store, sampling=SAMPLING, rules=rules, tries=1)
    left = []
    stream, tallies = run_stages(
        (sample(n) for n in range(num)), [caption_with(engine, SHORT, options)], lambda _, part: left.append(part)
    )
    samples = list(stream)
    assert [s.key for s in samples] == [f"k{n:04d}" for n in range(num)]
    refused = sum(part.reason != "no_caption" for part in left)
    assert sum(len(s.captions) for s in samples) + refused == 3 * num
    assert not any(part.reason.startswith(("http", "timeout", "connection")) for part in left), left
    assert tallies[1].kept == num
    return samples


@pytest.mark.serve
def test_transformers_serve(tmp_path):
    model = save_llava(tmp_path / "llava")
    words = (
        sys.executable,
        "-c",
        "from transformers.cli.transformers import main; main()",
        "serve",
        str(model),
        "--device",
        "cpu",
    )
    with process(*words) as url:
        engine = OpenAIServer(model=str(model), base_urls=(url,), dialect="transformers", concurrency=2, ready_s=120)
        three = ask(engine)
        assert len(three) == 3 and len({answer.text for answer in three}) == 3
        assert {answer.finish_reason for answer in three} <= {"length", "stop"}
        one = Sampling(num_candidates=1, temperature=1.0, max_tokens=8, seed=6)
        assert ask(engine, sampling=one) == three[1:2]  # the seed counts
        assert ask(engine, image=None) and ask(engine, json_schema=SCHEMA)
        samples = caption_samples(engine, tmp_path / "store")
        close_engines()
    assert caption_samples(engine, tmp_path / "store") == samples  # from the store alone: the server is gone


@pytest.mark.vllm
def test_vllm_serve(tmp_path):
    model = save_llava(tmp_path / "llava", for_vllm=True)
    words = (str(BIN / "vllm"), "serve", str(model), "--enforce-eager", "--max-model-len", "512", "--dtype", "bfloat16")
    with process(*words) as url:
        engine = OpenAIServer(model=str(model), base_urls=(url,), ready_s=300)
        three = ask(engine)
        assert len(three) == 3 == len({answer.text for answer in three})
        assert ask(engine) == three
        assert ask(engine, sampling=Sampling(temperature=1.0, max_tokens=8, seed=6))[0].text == three[1].text
        shaped = ask(engine, json_schema=SCHEMA, sampling=Sampling(max_tokens=40))
        assert "".join(shaped[0].text.split()).startswith('{"captions')
        refused = ask(engine, text="what " * 900)
        assert isinstance(refused, Failure) and refused.reason == "http_400" and "512" in refused.detail
        caption_samples(engine, tmp_path / "store")
        with pytest.raises(EngineError, match="404.*check --model"):
            ask(OpenAIServer(model="another", base_urls=(url,)))


@pytest.mark.vllm
def test_vllm_in_process(tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = save_llava(tmp_path / "llava", for_vllm=True)
    engine = VllmModel(model=str(model), enforce_eager=True, max_model_len=512, dtype="bfloat16", batch_size=4)
    three = ask(engine)
    assert len(three) == 3 == len({answer.text for answer in three})
    assert ask(engine, sampling=Sampling(temperature=1.0, max_tokens=8, seed=6))[0].text == three[1].text
    shaped = ask(engine, json_schema=SCHEMA, sampling=Sampling(max_tokens=40))
    assert "".join(shaped[0].text.split()).startswith('{"captions')
    futures = [
        running(engine).submit(Request(picture(1), text, SAMPLING)) for text in ("what is seen", "what " * 900, "what is seen")
    ]
    good, refused, again = (future.result(300) for future in futures)
    assert good == again == three and refused.reason == "engine_refused" and "512" in refused.detail
    caption_samples(engine, tmp_path / "store")
    close_engines()


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"tensor_parallel_size": 0}, {"gpu_memory_utilization": 1.5}])
def test_bad_options_of_vllm(wrong):
    with pytest.raises(ValueError, match="must be 1 or more"):
        VllmModel(model="x", **wrong)


def test_a_missing_vllm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r"pip install 'rsvl\[vllm\]'"):
        VllmModel(model="x").start()
