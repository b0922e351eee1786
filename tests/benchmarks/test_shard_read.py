"""The benchmark of reading shards, small: two readers, the same bytes, and what happens when they are not the same."""

import json
from dataclasses import replace

import pytest

from benchmarks import shard_read, tables
from benchmarks.shard_read import Options, digest, look_at_lengths, make_shards, our_samples, peer_samples, touch_pages


@pytest.fixture
def options(tmp_path) -> Options:
    return Options(tmp_path / "data", tmp_path / "shard_read.json", shard_samples=3, image_bytes=9000, passes=2, rounds=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_both_readers_hand_out_every_member(options):
    tars = make_shards(options)
    ours, theirs = list(our_samples(tars)), list(peer_samples(tars))
    assert ours == theirs
    assert len(ours) == 12 and len({key for key, _ in ours}) == 12
    assert [len(members["jpg"]) for _, members in ours] == [9000] * 12
    assert digest(iter(ours)) == digest(iter(theirs))


def test_a_turned_byte_a_name_and_an_order_change_the_digest():
    samples = [("a", {"jpg": b"123"}), ("b", {"jpg": b"4"})]
    others = [
        [("a", {"jpg": b"124"}), ("b", {"jpg": b"4"})],
        [("a", {"png": b"123"}), ("b", {"jpg": b"4"})],
        [("a", {"jpg": b"123"}), ("c", {"jpg": b"4"})],
        samples[::-1],
    ]
    assert len({digest(iter(each)) for each in [samples, *others]}) == 5


def test_looking_and_touching():
    members = {"jpg": b"\1" + bytes(4095) + b"\2", "txt": b"\5"}
    assert (look_at_lengths(members), touch_pages(members)) == (4098, 8)


def test_sizes_make_other_shards(options):
    assert make_shards(options) != make_shards(replace(options, shard_samples=2, image_bytes=100))


def test_the_whole_benchmark_writes_what_the_tables_show(options, monkeypatch):
    status = shard_read.main(options)
    result = json.loads(options.out.read_text())
    assert status == (0 if result["gate"]["passed"] else 1)
    assert [case["look"] for case in result["cases"]] == ["read", "touched"]
    for case in result["cases"]:
        assert case["rounds"] == 1 and case["ratio"]["low"] <= case["ratio"]["median"] <= case["ratio"]["high"]
        assert case["ours"]["peak_rss_mib"] > 10
    monkeypatch.setattr(tables, "RESULTS", options.out.parent)
    section = tables.shard_read_section()
    assert "4 tars of 3 samples of 12 KB" in section and section.count(" x |") == 2


def test_readers_that_differ_end_the_benchmark():
    peer = {"num_samples": 2, "sums": {"read": 5}, "sha256": "0"}
    shard_read.check_agreement(peer, dict(peer))
    with pytest.raises(RuntimeError, match="sha256 is 0 for webdataset, 1 for ours"):
        shard_read.check_agreement(peer, {**peer, "sha256": "1"})
