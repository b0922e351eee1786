import logging
import pickle
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from chat_server import caption, completion, first, good, http, picture, says, sends, serve

from rsvl_data.captioning.engine import Answer, Failure, Request, Sampling
from rsvl_data.captioning.openai_server import OpenAIServer
from rsvl_data.errors import EngineError, OptionError

SCHEMA = {"type": "object", "properties": {"captions": {"type": "array"}}}


def request(number=0, *, n=1, seed=0, schema=None, **sampling) -> Request:
    return Request(picture(number), "What is seen?", Sampling(num_candidates=n, seed=seed, **sampling), schema)


@contextmanager
def started(*servers, **options):
    given = {"model": "tiny", "tries": 3, "backoff_s": 0.01, "timeout_s": 0.5, "ready_s": 2, "server_failures": 100} | options
    engine = OpenAIServer(base_urls=tuple(server.url for server in servers), **given).start()
    try:
        yield engine
    finally:
        engine.close()


def ask(engine, *requests: Request):
    return [future.result(20) for future in [engine.submit(request) for request in requests]]


OK = [Answer(caption(0), "stop")]
CASES = {
    "good": (good(0), OK, 1),
    "fails once": (first(sends(http(b"oops", "500 Oops")), good(0)), OK, 2),
    "fails always": (sends(http(b"oops", "503 Oops")), "http_503", 3),
    "overloaded once": (first(sends(http(b"wait", "429 Too Many", Retry_After="0")), good(0)), OK, 2),
    "stalls once": (first(sends(3.0), good(0)), OK, 2),
    "stalls always": (sends(3.0), "timeout", 3),
    "closes the connection": (sends(b""), "connection", 3),
    "half an answer": (sends(http(completion("half")[:30], length=5000)), "connection", 3),
    "half an answer, then whole": (first(sends(http(completion("half")[:30], length=5000)), good(0)), OK, 2),
    "no HTTP": (sends(b"220 smtp ready\r\n"), "connection", 3),
    "malformed JSON": (sends(http(b'{"choices": [{"mess')), "malformed_answer", 3),
    "other JSON": (sends(http(b'{"error": null}')), "malformed_answer", 3),
    "a list": (sends(http(b"[1]")), "malformed_answer", 3),
    "nested JSON": (sends(http(b"[" * 200_000)), "malformed_answer", 3),
    "not UTF-8": (sends(http(b'{"choices": "\xff\xfe"}')), "malformed_answer", 3),
    "no choices": (sends(http(completion())), "malformed_answer", 3),
    "no content": (says(None), [Answer("", "stop")], 1),
    "too many choices": (says("a", "b", "c"), [Answer("a", "stop")], 1),
    "cut": (says("a", finish="length"), [Answer("a", "length")], 1),
    "refused": (sends(http(b"prompt too long", "400 Bad")), "http_400", 1),
    "two megabytes": (sends(http(completion("x" * 2_000_000))), "answer_too_large", 1),
}


@pytest.mark.parametrize(("behaviour", "expected", "num_asked"), CASES.values(), ids=CASES)
def test_whatever_the_server_does_there_is_one_end(server, behaviour, expected, num_asked):
    key = server.behave(0, behaviour)
    with started(server) as engine:
        (reply,) = ask(engine, request())
    if isinstance(reply, Failure):
        assert reply.reason == expected and reply.detail
    else:
        assert reply == expected
    assert server.asked == {key: num_asked}


def test_a_server_that_gives_one_answer_is_asked_again_with_other_seeds(server):
    server.behave(0, lambda body, _: http(completion(caption(0, body["seed"]))))
    with started(server) as engine:
        (reply,) = ask(engine, request(n=3, seed=7))
    assert [answer.text for answer in reply] == [caption(0, seed) for seed in (7, 8, 9)]
    assert [(body["n"], body["seed"]) for body in server.bodies] == [(3, 7), (2, 8), (1, 9)]


def test_answers_that_came_before_the_failure_are_not_lost(server):
    server.behave(0, first(lambda *_: http(completion("the first")), sends(http(b"", "500 Oops"))))
    with started(server) as engine:
        assert ask(engine, request(n=2)) == [[Answer("the first", "stop")]]


def test_a_refused_schema_is_left_out_and_remembered(server, caplog):
    refuses = lambda body, _: http(b"no response_format", "400 Bad") if "response_format" in body else http(completion("yes"))  # noqa: E731
    for number in range(3):
        server.behave(number, refuses)
    with started(server) as engine, caplog.at_level(logging.WARNING):
        replies = [ask(engine, request(number, schema=SCHEMA))[0] for number in range(3)]
    assert replies == [[Answer("yes", "stop")]] * 3
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]
    assert [record.message.count("takes no JSON schema") for record in caplog.records] == [1]


def test_a_refusal_for_another_reason_leaves_the_schema_on(server):
    server.behave(0, sends(http(b"too long", "400 Bad")))
    server.behave(1, says("yes"))
    with started(server) as engine:
        replies = [ask(engine, request(number, schema=SCHEMA))[0] for number in (0, 1)]
    assert replies[0].reason == "http_400" and replies[1] == [Answer("yes", "stop")]
    assert "response_format" in server.bodies[-1]
    assert server.bodies[-1]["response_format"]["json_schema"]["schema"] == SCHEMA


def test_retry_after_holds_for_the_server_that_said_it(server):
    server.behave(0, first(sends(http(b"wait", "429 Too Many", Retry_After="1")), good(0)))
    with started(server) as engine:
        assert ask(engine, request()) == [OK]
    assert server.moments_s[1] - server.moments_s[0] >= 0.95


def test_others_do_not_ask_a_server_that_wants_rest(server):
    server.behave(0, first(sends(http(b"wait", "429 Too Many", Retry_After="1")), good(0)))
    with started(server, concurrency=1) as engine:
        refused = engine.submit(request(0))
        while not server.asked:
            time.sleep(0.01)
        time.sleep(0.1)
        assert ask(engine, request(1)) == [OK] and refused.result(10) == OK
    assert min(server.moments_s[1:]) - server.moments_s[0] >= 0.95


def test_max_wait_bounds_retry_after(server):
    server.behave(0, first(sends(http(b"wait", "429 Too Many", Retry_After="Fri, 01 Jan 2100 00:00:00 GMT")), good(0)))
    begun = time.monotonic()
    with started(server, max_wait_s=0.2) as engine:
        assert ask(engine, request()) == [OK]
    assert time.monotonic() - begun < 5


def test_backoff_doubles(server):
    server.behave(0, sends(http(b"", "500 Oops")))
    with started(server, backoff_s=0.2) as engine:
        ask(engine, request())
    first_pause_s, second_pause_s = (b - a for a, b in zip(server.moments_s, server.moments_s[1:]))
    assert first_pause_s >= 0.19 and second_pause_s >= 0.39


def test_requests_at_once_are_bounded(server):
    server.delay_s = 0.05
    with started(server, concurrency=3) as engine:
        ask(engine, *(request(number) for number in range(12)))
    assert server.open_most == 3


def test_servers_share_evenly_and_a_dead_one_is_left_alone():
    numbers = range(40)
    with serve(delay_s=0.01) as one, serve(delay_s=0.01) as two, serve(delay_s=0.01) as broken:
        for number in numbers:
            broken.behave(number, sends(http(b"", "500 Oops")))
        with started(one, two, broken, concurrency=2, server_failures=3, tries=8) as engine:
            replies = ask(engine, *(request(number) for number in numbers))
    assert all(isinstance(reply, list) for reply in replies)
    assert 3 <= broken.asked.total() <= 4  # one more may have been under way
    assert one.asked.total() + two.asked.total() == 40
    assert abs(one.asked.total() - two.asked.total()) <= 6


def test_no_server_left_is_an_error_that_says_so(server):
    server.behave(0, sends(http(b"", "500 Oops")))
    with (
        started(server, server_failures=2) as engine,
        pytest.raises(EngineError, match="none of the servers .* answers; start them"),
    ):
        ask(engine, request())


def test_a_server_may_come_up_late():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = OpenAIServer(model="tiny", base_urls=(f"http://127.0.0.1:{port}/v1",), ready_s=10).start()
    future = engine.submit(request())
    time.sleep(0.3)
    assert not future.done()
    with serve(port):
        assert future.result(10) == OK
        engine.close()


def test_a_gateway_before_a_server_that_loads_is_waited_for(server):
    server.probes = iter(["502 Loading"])
    begun = time.monotonic()
    with started(server, ready_s=10) as engine:
        assert ask(engine, request()) == [OK]
    assert time.monotonic() - begun >= 0.9  # looked again after a second


def test_a_server_that_never_comes_up(caplog):
    engine = OpenAIServer(model="tiny", base_urls=("http://127.0.0.1:9/v1",), ready_s=0).start()
    with pytest.raises(EngineError, match="none of the servers"):
        engine.submit(request()).result(10)
    engine.close()
    assert "did not come up" in caplog.text


def test_the_key_comes_from_the_environment_and_stays_out_of_messages(server, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", "sk-secret-1")
    server.behave(0, sends(http(b"bad key sk-secret-1", "422 No")))
    server.behave(1, sends(http(b"bad key sk-secret-1", "401 No")))
    options = OpenAIServer(model="tiny", base_urls=(server.url,), api_key_variable="MY_KEY")
    assert b"sk-secret" not in pickle.dumps(options)
    with started(server, api_key_variable="MY_KEY") as engine, caplog.at_level(logging.DEBUG):
        (reply,) = ask(engine, request(0, schema=SCHEMA))
        assert reply.reason == "http_422" and "***" in reply.detail
        with pytest.raises(EngineError, match=r"401.*\*\*\*.*check --model, --base-urls and the key in \$MY_KEY") as raised:
            ask(engine, request(1))
    assert all(
        "Authorization: Bearer sk-secret-1" in head or "authorization: Bearer sk-secret-1" in head for head in server.headers
    )
    assert "sk-secret" not in caplog.text + str(raised.value) + reply.detail + repr(engine.__dict__["_options"])


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with started(server) as engine:
        ask(engine, request())
    assert "authorization" not in server.headers[0].lower()


FIELDS = {
    "vllm": {"n": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "max_tokens": 33, "seed": 5, "model": "tiny"},
    "openai": {"n": 2, "temperature": 0.5, "top_p": 0.9, "max_tokens": 33, "seed": 5, "model": "tiny"},
    "transformers": {
        "max_tokens": 33,
        "seed": 5,
        "model": "tiny",
        "generation_config": '{"do_sample": true, "temperature": 0.5, "top_p": 0.9, "top_k": 7}',
    },
}


@pytest.mark.parametrize("dialect", FIELDS)
def test_fields_of_a_request_by_dialect(server, dialect):
    top_k = None if dialect == "openai" else 7
    asked = request(n=2, seed=5, schema=SCHEMA, temperature=0.5, top_p=0.9, top_k=top_k, max_tokens=33)
    with started(server, dialect=dialect) as engine:
        ask(engine, asked)
    body = server.bodies[0]
    assert body.pop("messages")[0]["content"][1] == {"type": "text", "text": "What is seen?"}
    assert ("response_format" in body) == (dialect != "transformers")
    body.pop("response_format", None)
    assert body == FIELDS[dialect]


def test_top_k_is_not_silently_left_out(server):
    with started(server, dialect="openai") as engine, pytest.raises(OptionError, match="--top-k is unknown"):
        ask(engine, request(top_k=3))


def test_a_question_without_an_image(server):
    with started(server) as engine:
        ask(engine, replace(request(), image=None))
    assert [part["type"] for part in server.bodies[0]["messages"][0]["content"]] == ["text"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_urls": ()}, "needs the address"),
        ({"base_urls": ("ftp://x/v1",)}, "expected http"),
        ({"base_urls": ("http://:secret@host/v1",)}, "without a key in it"),
        ({"base_urls": ("http://host/v1?api-key=secret",)}, "without a key in it"),
        ({"tries": 0}, "--tries 0"),
        ({"backoff_s": -1}, "must be above 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError, match=message) as raised:
        OpenAIServer(model="x", **options)
    assert "secret" not in str(raised.value)


def test_what_stands_in_the_record():
    engine = OpenAIServer(
        model="org/name", revision="abc", dialect="transformers", concurrency=5, base_urls=("http://a/v1", "http://b/v1")
    )
    assert engine.source.model_dump() == {"engine": "transformers server", "model": "org/name", "revision": "abc"}
    assert engine.num_parallel == 10
    assert hash(engine) == hash(pickle.loads(pickle.dumps(engine)))


def test_closing_does_not_hang_on_open_requests(server):
    server.behave(0, sends(3.0))
    with started(server, timeout_s=60) as engine:
        future = engine.submit(request())
        while not server.bodies:
            time.sleep(0.01)
        closing = threading.Thread(target=engine.close)
        closing.start()
        closing.join(5)
        assert not closing.is_alive() and future.done()
