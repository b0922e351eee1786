import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rsvl_data.captioning import store as store_module
from rsvl_data.captioning.engine import Answer, Sampling
from rsvl_data.captioning.store import AnswerStore, Question, read_answers
from rsvl_data.errors import DataError
from rsvl_data.sample import Prompt, TextSource

SOURCE = TextSource(engine="vllm server", model="tiny", revision="r1")


def question(number: int = 0, **changes) -> Question:
    made = Question(f"{number:064d}", 1024, "t" * 64, Prompt(id="p/1", hash="h" * 64), SOURCE, Sampling(seed=number))
    return replace(made, **changes)


ANSWERS = [Answer("a road é \u2028 \ud83d", "stop"), Answer("", "length")]


def test_answers_are_found_again(tmp_path):
    path = tmp_path / "a" / "b.jsonl"
    with AnswerStore(path) as store:
        assert store.get(question()) is None
        store.put(question(), ANSWERS, "k0")
        assert store.get(question()) == ANSWERS
    with AnswerStore(path) as store:
        assert store.get(question()) == ANSWERS and store.get(question(1)) is None
    (line,) = read_answers(tmp_path)
    assert line["sample"] == "k0" and line["answers"][1] == {"text": "", "finish_reason": "length"}


def test_all_that_decides_an_answer_is_in_its_key():
    changes = [
        {"image_sha256": "1" * 64},
        {"image_side_px": 512},
        {"text_sha256": "u" * 64},
        {"prompt": Prompt(id="p/2", hash="h" * 64)},
        {"prompt": Prompt(id="p/1", hash="i" * 64)},
        *({"source": SOURCE.model_copy(update={name: "x"})} for name in ("engine", "model", "revision")),
        *({"sampling": replace(Sampling(), **{name: 9 if name != "top_p" else 0.5})} for name in vars(Sampling())),
    ]
    keys = [question(**change).key for change in changes]
    assert len({*keys, question().key}) == len(changes) + 1
    assert question().key == question().key


def test_a_cut_last_line_is_taken_off_wherever_it_was_cut(tmp_path):
    whole = tmp_path / "whole.jsonl"
    with AnswerStore(whole) as store:
        for number in range(2):
            store.put(question(number), ANSWERS, f"k{number}")
    content = whole.read_bytes()
    first_end = content.index(b"\n") + 1
    for cut in [first_end + 1, first_end + 100, len(content) - 1]:
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(content[:cut])
        with AnswerStore(path) as store:
            assert store.get(question(0)) == ANSWERS and store.get(question(1)) is None
            store.put(question(1), ANSWERS, "k1")
        assert path.read_bytes() == content


def test_a_file_that_holds_a_cut_line_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"key": "' + b"x" * 200_000)
    with AnswerStore(path) as store:
        store.put(question(), ANSWERS, "k0")
    assert [line["sample"] for line in read_answers(tmp_path)] == ["k0"]


@pytest.mark.parametrize(
    "damage", [b"\0\0\0\n", b"[1]\n", b'{"key": 1}\n', b"\xff\xfe\n", b'{"key": "a", "sample": "b", "answers": [{"x": 1}]}\n']
)
def test_a_damaged_line_is_skipped_and_told(tmp_path, caplog, damage):
    path = tmp_path / "a.jsonl"
    with AnswerStore(path) as store:
        store.put(question(0), ANSWERS, "k0")
    path.write_bytes(damage + path.read_bytes())
    with caplog.at_level(logging.WARNING), AnswerStore(path) as store:
        assert store.get(question(0)) == ANSWERS
    assert "1 lines cannot be read" in caplog.text


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "a.jsonl"
    with AnswerStore(path), pytest.raises(DataError, match="in use by another process; let it end"):
        AnswerStore(path)
    with AnswerStore(path) as store:
        assert store.get(question()) is None


def test_a_line_is_with_the_operating_system_when_put_returns(tmp_path):
    """A process that ends without closing anything has lost nothing."""
    code = (
        "import os; from pathlib import Path; from test_store import *\n"
        f"store = AnswerStore(Path({str(tmp_path / 'a.jsonl')!r})); store.put(question(), ANSWERS, 'k0'); os._exit(9)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 9
    assert len(list(read_answers(tmp_path))) == 1


def test_the_disk_is_reached_every_few_seconds_and_at_the_end(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(store_module.os, "fsync", synced.append)
    with AnswerStore(tmp_path / "a.jsonl") as store:
        store.put(question(0), ANSWERS, "k0")
        assert not synced
        store._synced_s -= store_module.SYNC_S
        store.put(question(1), ANSWERS, "k1")
        assert len(synced) == 1
    assert len(synced) == 2


def test_lines_are_plain_ascii_json(tmp_path):
    with AnswerStore(tmp_path / "a.jsonl") as store:
        store.put(question(), ANSWERS, "k0")
    content = (tmp_path / "a.jsonl").read_bytes()
    assert content.isascii() and content.count(b"\n") == 1 and json.loads(content)["key"] == question().key
