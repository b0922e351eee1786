import json
import tracemalloc

import pytest

from rsvl_data import json_records
from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM
from rsvl_data.json_records import line_spans, list_records, list_spans, parse, read_document, read_span
from rsvl_data.sources import coco, gaia, karpathy, mgrs
from rsvl_data.stage import Dropped


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[NaN, Infinity, -Infinity, 1e999, 1.5]", [None, None, None, None, 1.5]),
        (b"\xef\xbb\xbf{}", {}),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ("[" * 100 + "]" * 100, json.loads("[" * 100 + "]" * 100)),
    ],
)
def test_what_is_parsed(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ("[" * 102 + "]" * 102, "deeper than 100 levels"),
        ('{"a": ' * 102 + "1" + "}" * 102, "deeper than 100 levels"),
        (r'{"a": "\uD83D"}', "surrogates not allowed"),
        (b'"\xff"', "invalid start byte"),
        ("9" * 5000, "integer string conversion"),
        ("{", "Expecting"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[]", []),
        ("\ufeff [ ] \n", []),
        ('[1, "a]\\"", {"b": "}["}, [[2]], null]', [1, 'a]"', {"b": "}["}, [[2]], None]),
        ('["\\\\", {"a\\\\": "\\\\\\""}]', ["\\", {"a\\": '\\"'}]),
        ('[{"a": 1], 2]', [None, 2]),  # brackets are the parser's matter: a bad record, not a bad file
        ("[1 2, 3]", [None, 3]),
        ("[1,]", [1]),
    ],
)
def test_records_of_a_list(tmp_path, text, values):
    (tmp_path / "a.json").write_text(text)
    assert [value for value, _ in list_records(tmp_path / "a.json", "a list")] == values


@pytest.mark.parametrize("text", ["{}", "[1", '["a', "[1] 2", '[{"a": 1]', '[{"a": "}]', "[{} {}]", "[" * 100_000])
def test_lists_that_cannot_be_followed(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="is not JSON .* Expected a list"):
        list(list_records(tmp_path / "a.json", "a list"))


def test_a_record_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "MAX_RECORD_BYTES", 50)
    (tmp_path / "a.json").write_text('[{"a": 1}, {"a": "' + "x" * 60 + '"}]')
    spans = list_spans(tmp_path / "a.json")
    assert next(spans)[:2] == (1, 8)
    with pytest.raises(ValueError, match="the value at byte 11 has no end within 50 bytes"):
        next(spans)
    (tmp_path / "a.jsonl").write_text("{}\n" + "x" * 60 + "\n\n{}\n")
    assert [size for _, size, _ in line_spans(tmp_path / "a.jsonl")] == [3, 50, 11, 3]


def test_a_changed_file_is_noticed(tmp_path):
    path = tmp_path / "text_info.json"
    path.write_text(json.dumps([{"global_filepath": "a.jpg", "brief_caption": "one"}]))
    source = mgrs.open(path, "x", DEFAULT_FORM)
    [entry] = source.entries()
    path.write_text(path.read_text().replace("one", "two"))
    with pytest.raises(ValueError, match="has changed since"):
        read_span(path, entry.facts["span"])
    assert source.read(entry).reason == "changed_file"
    (tmp_path / "train_data.jsonl").write_text('{"image_src": "http://x.org/text_info.json", "captions": ["a"]}\n')
    source = gaia.open(tmp_path / "train_data.jsonl", "x", DEFAULT_FORM)
    [entry] = source.entries()
    (tmp_path / "train_data.jsonl").write_text("")
    assert source.read(entry) == Dropped(entry.id, "changed_file", source.read(entry).detail)


def test_a_long_list_takes_little_memory(tmp_path):
    """2 MB of records: the entries keep where they lie, not what they say."""
    record = {"global_filepath": "a.jpg", "brief_caption": "x" * 500, "segment": [{"bbox": [1] * 6, "cap": "y" * 100}] * 12}
    (tmp_path / "text_info.json").write_text("[" + ",".join([json.dumps(record)] * 800) + "]")
    tracemalloc.start()
    entries = list(mgrs.list_entries(tmp_path / "text_info.json"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(entries) == 800 and peak < 800_000


@pytest.mark.parametrize("read", [coco.find, karpathy.find, gaia.find])
def test_a_document_that_memory_could_not_hold(tmp_path, monkeypatch, read):
    content = '{"images": [{"image_src": 1}], "image_src": [1], "annotations": [' + "[]," * 1_000 + "[]]}"
    for name in ("dataset_a.json", "train_data.json"):
        (tmp_path / name).write_text(content)
    assert len(read_document(tmp_path / "dataset_a.json")) == len(content)
    monkeypatch.setattr(json_records, "MAX_PARSED_BYTES", 100_000)
    module = {coco.find: coco, karpathy.find: karpathy, gaia.find: gaia}[read]
    with pytest.raises(DataError, match="GiB of memory once parsed.*Split it into several files"):
        list(module.open(module.find(tmp_path), "x", DEFAULT_FORM).entries())


def test_the_estimate_is_above_what_python_takes():
    """For what is dearest: empty lists and objects, numbers, short texts."""
    for item in ("[]", "{}", '{"a": 1}', "1.5", '"ab"', "[1.5, 2.5]"):
        text = "[" + ",".join([item] * 20_000) + "]"
        estimate = sum(size * text.count(mark.decode()) for mark, size in json_records._PARSED_BYTES.items())
        tracemalloc.start()
        value = json.loads(text)
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert value and taken <= estimate, item
