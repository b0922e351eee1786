import json
import math
import random

import numpy as np
import pytest
import torch
from ranking_cases import ScriptedEncoder, choices, one, sample

from rsvl_data.errors import OptionError
from rsvl_data.ranking.candidates import RS5M, Ranking, default_caption, prune_below
from rsvl_data.ranking.encoder import own_cosines
from rsvl_data.ranking.two_stage import two_stage
from rsvl_data.sample import Caption
from rsvl_data.stage import Dropped
from rsvl_data.transforms import Preprocess

FIRST = ScriptedEncoder({"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2, "e": 0.9})
SECOND = ScriptedEncoder({"a": 0.9, "b": 0.1, "c": 0.7, "d": 0.8, "e": 0.3})


def test_every_candidate_keeps_its_scores_and_its_rank():
    """By hand: first keeps e b c of a-e, second orders them c e b, of which two are kept."""
    ranked = one(two_stage(FIRST, SECOND, Ranking(candidates=5, first_keep=3, second_keep=2)), sample(*"abcde"))
    found = [(c.text, c.first_score, c.second_score, c.rank) for c in ranked.captions if c.kind == "vlm"]
    expected = [("a", 0.1, None, 5), ("b", 0.4, 0.1, 3), ("c", 0.3, 0.7, 1), ("d", 0.2, None, 4), ("e", 0.9, 0.3, 2)]
    assert found == [
        (text, pytest.approx(first), second and pytest.approx(second), rank) for text, first, second, rank in expected
    ]
    assert choices(ranked) == [("top", "c", 2)]


def test_against_a_slow_plain_version():
    rng = random.Random(4)
    for _ in range(60):
        num = rng.randint(1, 24)
        texts = [f"t{i}" for i in range(num)]
        first = {text: rng.choice([0.1, 0.2, 0.25, 0.3]) for text in texts}  # few values, so that there are ties
        second = {text: rng.choice([0.1, 0.2, 0.3]) for text in texts}
        ranked = one(two_stage(ScriptedEncoder(first), ScriptedEncoder(second), RS5M), sample(*texts))
        candidates = texts[:20]
        survivors: list[str] = []
        while candidates and len(survivors) < 10:
            best = next(t for t in candidates if first[t] == max(first[c] for c in candidates))
            survivors.append(best)
            candidates.remove(best)
        order = []
        while survivors:
            best = next(t for t in survivors if second[t] == max(second[s] for s in survivors))
            order.append(best)
            survivors.remove(best)
        by_rank = {c.rank: c.text for c in ranked.captions if c.kind == "vlm" and c.rank}
        assert [by_rank[i + 1] for i in range(len(order))] == order
        assert sorted(by_rank) == list(range(1, min(num, 20) + 1))
        assert choices(ranked)[0][1] == order[0]


def test_ties_stand_by_the_step_before():
    equal = ScriptedEncoder(dict.fromkeys("abc", 0.5))
    rising = ScriptedEncoder({"a": 0.1, "b": 0.2, "c": 0.3})
    ranks = lambda ranked: [c.rank for c in ranked.captions[:3]]  # noqa: E731
    assert ranks(one(two_stage(equal, equal, RS5M), sample(*"abc"))) == [1, 2, 3]
    assert ranks(one(two_stage(rising, equal, RS5M), sample(*"abc"))) == [3, 2, 1]


@pytest.mark.parametrize(
    ("options", "top", "scored_by_second"),
    [
        ({}, "a", 5),
        ({"candidates": 3, "first_keep": 3, "second_keep": 1}, "a", 3),
        ({"candidates": 5, "first_keep": 1, "second_keep": 1}, "e", 1),
        ({"candidates": 5, "first_keep": 4, "second_keep": 1}, "d", 4),
        ({"candidate_kind": "alt"}, "d", 1),
    ],
)
def test_options_change_the_outcome(options, top, scored_by_second):
    ranked = one(two_stage(FIRST, SECOND, Ranking(**options)), sample(*"abcde", Caption(text="d", kind="alt")))
    assert choices(ranked)[0][1] == top
    assert sum(c.second_score is not None for c in ranked.captions) == scored_by_second


def test_ranking_again_is_ranking_once():
    stage = two_stage(FIRST, SECOND, Ranking(candidates=4, first_keep=3, second_keep=2))
    once = one(stage, sample(Caption(text="a river", kind="meta"), *"abcd"))
    assert one(stage, once).to_json() == once.to_json()
    other = one(two_stage(SECOND, FIRST, Ranking(candidates=4, first_keep=3, second_keep=2)), once)
    assert other.to_json() == one(two_stage(SECOND, FIRST, Ranking(candidates=4, first_keep=3, second_keep=2)), sample(
        Caption(text="a river", kind="meta"), *"abcd")).to_json()  # fmt: skip
    assert [c.kind for c in other.captions] == ["meta", "vlm", "vlm", "vlm", "vlm", "top"]


def test_fewer_candidates_leave_nothing_of_an_earlier_ranking():
    """`e` was ranked once and is no candidate any more: its old numbers would lie."""
    once = one(two_stage(FIRST, SECOND, RS5M), sample(*"abcde"))
    fewer = Ranking(candidates=4, first_keep=3, second_keep=2)
    assert (
        one(two_stage(FIRST, SECOND, fewer), once).to_json() == one(two_stage(FIRST, SECOND, fewer), sample(*"abcde")).to_json()
    )


def test_prune_and_default_caption_move_parents_along():
    translated = Caption(text="ein fluss", lang="de", kind="translation", parent=3)
    lost = Caption(text="un fleuve", lang="fr", kind="translation", parent=1)
    ranking = Ranking(candidates=5, first_keep=3, second_keep=2)
    ranked = one(two_stage(FIRST, SECOND, ranking), sample(Caption(text="m", kind="meta"), *"abcde", translated, lost))
    pruned = one(prune_below(ranking), ranked)
    assert [(c.text, c.parent) for c in pruned.captions] == [
        ("m", None), ("c", None), ("e", None), ("ein fluss", 1), ("un fleuve", None), ("c", 1),
    ]  # fmt: skip
    first = one(default_caption("top"), pruned)
    assert [(c.kind, c.parent) for c in first.captions[:3]] == [("top", 2), ("meta", None), ("vlm", None)]
    assert [(c.text, c.parent) for c in first.captions if c.kind == "translation"] == [("ein fluss", 2), ("un fleuve", None)]
    assert one(default_caption("unchanged"), pruned) == pruned
    swapped = one(
        default_caption("rotation"),
        sample("a", Caption(text="a", kind="top", parent=0), Caption(text="b", kind="rotation", parent=0)),
    )
    assert [(c.kind, c.parent) for c in swapped.captions] == [("rotation", 2), ("top", 2), ("vlm", None)]
    unranked = sample(*"abcde")
    assert one(prune_below(ranking), unranked) == unranked


def test_what_cannot_be_ranked_is_dropped_under_a_reason_and_order_is_kept():
    nan = ScriptedEncoder({**SECOND.cosine, "a": math.nan})
    given = [
        sample("b", "c", key="good1"),
        sample(Caption(text="x", kind="alt"), key="none"),
        sample("b", key="broken", image=b"no image"),
        sample("a", key="nan"),
        sample("c", key="good2"),
    ]
    answers = list(two_stage(FIRST, nan, RS5M, batch_size=2).run(given))
    assert [a.key for a in answers] == ["good1", "none", "broken", "nan", "good2"]
    assert [a.reason for a in answers if isinstance(a, Dropped)] == ["no_candidate", "unreadable_image", "score_not_finite"]
    kept = list(two_stage(FIRST, SECOND, Ranking(keep_unranked=True)).run(given[1:2]))
    assert kept == given[1:2]


def test_batch_size_changes_the_calls_and_not_the_numbers():
    given = [sample(*texts, key=f"k{i}") for i, texts in enumerate(["abc", "bcd", "cde", "e", "ab"])]
    records = {}
    for batch_size, calls in {1: [1] * 5, 2: [2, 2, 1], 16: [5]}.items():
        first = ScriptedEncoder(FIRST.cosine)
        records[batch_size] = [a.to_json() for a in two_stage(first, SECOND, RS5M, batch_size=batch_size).run(given)]
        assert first.image_batches == calls and all(len(set(texts)) == len(texts) for texts in first.text_batches)
    assert records[1] == records[2] == records[16]
    with pytest.raises(OptionError, match="batch_size is 0"):
        two_stage(FIRST, SECOND, RS5M, batch_size=0)


def test_each_model_sees_the_image_as_it_wants_it():
    sizes = []

    class Watching(ScriptedEncoder):
        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(images.shape))
            return super().encode_image(images)

    one(two_stage(Watching(FIRST.cosine), Watching(SECOND.cosine, Preprocess(size=8)), RS5M), sample("a"))
    assert sizes == [(1, 3, 16, 16), (1, 3, 8, 8)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "must be 1 or more and must not grow"),
        ({"first_keep": 21}, "20 -> 21 -> 5"),
        ({"second_keep": 0}, "20 -> 10 -> 0"),
        ({"candidate_kind": "top"}, "choice among candidates"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(OptionError, match=message):
        Ranking(**options)


def test_cosines_are_those_of_clipscore(shared):
    """CLIPScore is 2.5 * max(cosine, 0): github.com/jmhessel/clipscore, run on the same embeddings."""
    golden = json.loads((shared / "fixtures/evaluation/clipscore.json").read_text())
    arrays = np.load(shared / "fixtures/evaluation/clipscore.npz")
    unit = {name: torch.nn.functional.normalize(torch.from_numpy(arrays[name]), dim=1) for name in ("image", "caption")}

    class Stored:
        preprocess = Preprocess(size=1)

        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            return unit["image"]

        def encode_text(self, texts: list[str]) -> torch.Tensor:
            return unit["caption"][[int(text) for text in texts]]

    views = torch.zeros(16, 1, 3, 1, 1, dtype=torch.uint8)
    cosines = torch.cat(own_cosines(Stored(), views, [[str(i)] for i in range(16)]))
    assert (2.5 * cosines.clamp(min=0)).flatten().tolist() == pytest.approx(golden["clipscore_per_sample"], abs=1e-5)
