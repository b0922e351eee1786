from collections import Counter

from rsvl_data.sample import Sample
from rsvl_data.stage import Dropped, keep_if, map_to, run_stages


def samples(*widths: int) -> list[Sample]:
    return [Sample(key=f"k{i}", width=width, height=5, sha256="0" * 64) for i, width in enumerate(widths)]


def test_counts_add_up_and_every_drop_is_reported():
    dropped = []
    source = [*samples(1, 20, 300), Dropped("bad", "truncated", "cut after 3 bytes")]
    stages = [
        keep_if("size", lambda s: True if s.width > 10 else "too_small"),
        map_to("label", lambda s: s.model_copy(update={"label": "x"})),
        keep_if("narrow", lambda s: s.width < 100),
    ]
    stream, tallies = run_stages(source, stages, lambda stage, drop: dropped.append((stage, drop.key, drop.reason)))
    assert [(s.width, s.label) for s in stream] == [(20, "x")]
    assert [tally.to_manifest() for tally in tallies] == [
        {"name": "read", "in": 4, "kept": 3, "dropped": {"truncated": 1}},
        {"name": "size", "in": 3, "kept": 2, "dropped": {"too_small": 1}},
        {"name": "label", "in": 2, "kept": 2, "dropped": {}},
        {"name": "narrow", "in": 2, "kept": 1, "dropped": {"narrow": 1}},
    ]
    assert Counter(dropped) == Counter([("read", "bad", "truncated"), ("size", "k0", "too_small"), ("narrow", "k2", "narrow")])


def test_a_stage_is_not_charged_for_those_before_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def cost(seconds):
        def work(sample):
            now[0] += seconds
            return sample

        return work

    stream, tallies = run_stages(samples(1, 2), [map_to("slow", cost(5)), map_to("quick", cost(1))], lambda *_: None)
    assert len(list(stream)) == 2
    assert {tally.name: tally.seconds for tally in tallies} == {"read": 0.0, "slow": 10.0, "quick": 2.0}


def test_nothing_in_nothing_out():
    stream, tallies = run_stages([], [map_to("same", lambda s: s)], lambda *_: None)
    assert list(stream) == []
    assert [tally.seen for tally in tallies] == [0, 0]
