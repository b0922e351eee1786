"""Tiny models with random weights: what they write is nonsense, but drawn, batched and cut as any model's answer is."""

from dataclasses import replace

import pytest
import torch
from chat_server import picture, sample
from tiny_models import save_blip2, save_llava

from rsvl_data.captioning.answers import AnswerRules
from rsvl_data.captioning.engine import Request, Sampling, close_engines
from rsvl_data.captioning.prompts import PROMPTS
from rsvl_data.captioning.stage import CaptionOptions, caption_with
from rsvl_data.captioning.transformers_engine import TransformersModel, _Draw, _DrawEachRow
from rsvl_data.errors import EngineError, OptionError
from rsvl_data.stage import run_stages

SAMPLING = Sampling(num_candidates=3, temperature=1.0, top_p=1.0, max_tokens=6)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"llava": save_llava(folder / "llava"), "blip2": save_blip2(folder / "blip2")}


@pytest.fixture(scope="module", params=["llava", "blip2"])
def engine(request, folders):
    running = TransformersModel(model=str(folders[request.param]), device="cpu", batch_size=4).start()
    yield running
    running.close()


def ask(engine, *requests):
    return [future.result(60) for future in [engine.submit(request) for request in requests]]


def request(number=1, text="what is seen", **sampling) -> Request:
    return Request(picture(number), text, replace(SAMPLING, **sampling))


def test_an_answer_depends_on_its_seed_and_not_on_its_neighbours(engine):
    requests = [request(n, "what is seen" + n * " in the field near the river", seed=10 * n) for n in range(4)]
    together = ask(engine, *requests)
    assert together == [ask(engine, one)[0] for one in requests]
    assert all(len(reply) == 3 and len({answer.text for answer in reply}) == 3 for reply in together)
    assert ask(engine, request(seed=1))[0] != ask(engine, request(seed=2))[0]


def test_candidate_i_has_the_seed_plus_i(engine):
    three = ask(engine, request(seed=5))[0]
    for index in range(3):
        assert ask(engine, request(seed=5 + index, num_candidates=1))[0] == [three[index]]


def test_other_sampling_other_answers(engine):
    reply = ask(engine, request())[0]
    assert all(answer.finish_reason == "length" for answer in reply)
    assert [len(answer.text.split()) for answer in ask(engine, request(max_tokens=3))[0]] <= [3, 3, 3]
    greedy = ask(engine, request(temperature=0))[0]
    assert len({answer.text for answer in greedy}) == 1 and greedy == ask(engine, request(temperature=0, seed=9))[0]
    assert ask(engine, request(top_k=1))[0] == greedy == ask(engine, request(top_p=1e-6))[0]
    assert ask(engine, request(temperature=0.001))[0] != reply


def test_the_image_and_the_text_are_seen(engine):
    def logits(one):
        with torch.inference_mode():
            return engine._model(**engine._inputs([one])).logits[0, -1]

    assert not torch.equal(logits(request(1)), logits(request(200)))
    assert not torch.equal(logits(request(1)), logits(request(1, "the green roof")))


def test_a_mixed_batch_is_parted(folders):
    engine = TransformersModel(model=str(folders["llava"]), device="cpu", batch_size=8).start()
    requests = [request(), request(max_tokens=2), replace(request(), image=None), request(num_candidates=1)]
    assert [len(reply) for reply in ask(engine, *requests)] == [3, 3, 3, 1]
    engine.close()


def test_drawing_follows_the_distribution():
    """10,000 draws from logits against their softmax; top-k and temperature as transformers has them."""
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    draw = _DrawEachRow([_Draw(replace(SAMPLING, seed=seed)) for seed in range(10_000)])
    chosen = draw(torch.zeros(10_000, 1), logits.repeat(10_000, 1)).argmax(1)
    shares = torch.bincount(chosen, minlength=4) / 10_000
    assert torch.allclose(shares, logits.exp(), atol=0.02)
    cold = _DrawEachRow([_Draw(replace(SAMPLING, seed=seed, temperature=0.5, top_k=2)) for seed in range(10_000)])
    shares = torch.bincount(cold(torch.zeros(10_000, 1), logits.repeat(10_000, 1)).argmax(1), minlength=4) / 10_000
    assert torch.allclose(shares, torch.tensor([0.25, 0.09, 0, 0]) / 0.34, atol=0.02)


@pytest.mark.parametrize("name", ["llava", "blip2"])
def test_from_samples_to_captions(folders, tmp_path, name):
    prompt = PROMPTS["rs-generic-short" if name == "llava" else "blip2-unprompted"]
    rules = AnswerRules(allow_cut=True, check_language=False, min_words=1)
    options = CaptionOptions(store=tmp_path, sampling=Sampling(num_candidates=4, max_tokens=9, temperature=1.0), rules=rules)
    engine = TransformersModel(model=str(folders[name]), device="cpu", revision="r7")
    stream, tallies = run_stages((sample(n) for n in range(5)), [caption_with(engine, prompt, options)], lambda *_: None)
    samples = list(stream)
    close_engines()
    assert [s.key for s in samples] == [f"k{n:04d}" for n in range(5)]
    # Every candidate was kept, or refused and asked for again, at most twice: tokens of single bytes make odd words.
    assert sum(len(s.captions) for s in samples) + tallies[1].left_out.total() >= 20
    assert all(c.source.engine == "transformers" and c.source.revision == "r7" for s in samples for c in s.captions)
    assert sum(len(s.captions) for s in samples) >= 10


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(EngineError, match="cannot load"):
        TransformersModel(model=str(tmp_path), device="cpu").start()


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"dtype": "int3"}])
def test_bad_options(wrong):
    with pytest.raises(OptionError):
        TransformersModel(model="x", **wrong)


def test_options_reach_the_model(folders):
    engine = TransformersModel(model=str(folders["llava"]), device="cpu", dtype="bfloat16").start()
    assert engine._model.dtype == torch.bfloat16 and len(ask(engine, request())[0]) == 3
    engine.close()
