from itertools import permutations

import numpy as np
import pytest
import torch

from evaluation.metrics.distinct_rows import distinct_rows
from evaluation.metrics.ranks import count_flags, first_right_ranks, ranks_both_ways
from evaluation.metrics.relevance import Lists, Relevance
from evaluation.metrics.retrieval import (
    chance_median_rank,
    chance_recall_at_k,
    mean_rank,
    mean_recall,
    median_rank,
    normalize_caption,
    recall_at_k,
    retrieval_task,
)
from rsvl_data.errors import OptionError

RULES = {"pessimistic": "pessimistic", "optimistic": "optimistic", "lowest_index": "lowest_index_first"}


def both_ranks(image, text, task, **options):
    """Ranks of the text queries, then of the image queries: from one product, and from one each."""
    together = ranks_both_ways(text, image, task.text_to_image, **options)
    apart = (
        first_right_ranks(text, image, task.text_to_image, **options),
        first_right_ranks(image, text, task.image_to_text, **options),
    )
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one, other)
    return together


def paired_captions(image_of_text):
    """All different; the text index is their only content."""
    return [[f"text {j}" for j in np.flatnonzero(image_of_text == i)] for i in range(image_of_text.max() + 1)]


@pytest.mark.parametrize("case", ["one_caption", "five_captions", "ragged_captions", "ties"])
@pytest.mark.parametrize("ties", RULES)
def test_clip_benchmark_recalls(golden, case, ties):
    parameters, arrays = golden("retrieval_clip_benchmark")
    expected = parameters["cases"][case]
    image, text = (torch.from_numpy(arrays[f"{case}_{side}"]) for side in ("image", "text"))
    order = np.argsort(arrays[f"{case}_text_image_index"], kind="stable")
    assert (order == np.arange(len(order))).all()  # so that gallery order is theirs
    task = retrieval_task(paired_captions(arrays[f"{case}_text_image_index"]), "clip_benchmark")
    text_ranks, image_ranks = both_ranks(image, text, task, ties=ties)
    for name, ranks in (("image_retrieval", text_ranks), ("text_retrieval", image_ranks)):
        for k in parameters["k"]:
            assert recall_at_k(ranks, k) == pytest.approx(expected["tie_rules"][name][RULES[ties]][f"R@{k}"], abs=1e-12)
            if case != "ties":
                assert recall_at_k(ranks, k) == pytest.approx(expected["official"][f"{name}_recall@{k}"], abs=1e-6)
    if case != "ties":
        assert mean_recall(text_ranks, image_ranks) == pytest.approx(expected["mean_of_six"], abs=1e-6)


def test_skyscript_recalls(golden):
    parameters, arrays = golden("retrieval_dedup")
    captions = [sorted({text for name, text in parameters["rows"] if name == image}) for image in parameters["images"]]
    task = retrieval_task(captions, "skyscript")
    assert len(task.texts) == parameters["n_unique_captions"]
    assert task.text_to_image.num_right().sum() == task.image_to_text.num_right().sum() == parameters["relevant_pairs"]
    text = torch.from_numpy(arrays["text_embedding"])[[parameters["captions"].index(text) for text in task.texts]]
    text_ranks, image_ranks = both_ranks(torch.from_numpy(arrays["image_embedding"]), text, task)
    for name, ranks in (("text2img", text_ranks), ("img2text", image_ranks)):
        for k in parameters["k"]:
            assert recall_at_k(ranks, k) == pytest.approx(parameters["official"][f"{name}_R@{k}"], abs=1e-9)
        mean = np.mean([recall_at_k(ranks, k) for k in (1, 5, 10)])
        assert mean == pytest.approx(parameters["official"][f"{name}_mean"], abs=1e-9)


@pytest.mark.parametrize("ties", RULES)
def test_georsclip_recalls(golden, ties):
    parameters, arrays = golden("retrieval_georsclip")
    captions = [[text for name, text in parameters["rows"] if name == image] for image in parameters["images_sorted"]]
    task = retrieval_task(captions, "georsclip")
    text = torch.from_numpy(arrays["caption_embedding"])[[parameters["unique_captions"].index(text) for text in task.texts]]
    text_ranks, image_ranks = both_ranks(torch.from_numpy(arrays["image_embedding"]), text, task, ties=ties)
    for k in (1, 5, 10):
        official = {side: parameters["official"][f"retrieval-{side}-R@{k}-rsitmd"] for side in ("text2image", "image2text")}
        assert round(100 * recall_at_k(text_ranks, k), 2) == official["text2image"]
        bounds = [100 * parameters["tie_rules"]["image2text"][rule][f"R@{k}"] for rule in ("pessimistic", "optimistic")]
        assert bounds[0] - 0.01 <= official["image2text"] <= bounds[1] + 0.01
        if ties == "pessimistic":  # on this machine's topk the wrong one of two equal strings came first throughout
            assert round(100 * recall_at_k(image_ranks, k), 2) == official["image2text"]
        stated = parameters["tie_rules"]["image2text"][RULES[ties]][f"R@{k}"]
        assert recall_at_k(image_ranks, k) == pytest.approx(stated, abs=1e-12)
    if ties == "pessimistic":
        mean = mean_recall(text_ranks, image_ranks)
        assert round(100 * mean, 2) == parameters["official"]["retrieval-mean-recall-rsitmd"]


@pytest.mark.parametrize("case", ["no_ties", "ties"])
def test_open_clip_ranks(golden, case):
    parameters, arrays = golden("retrieval_open_clip")
    image, text = (torch.from_numpy(arrays[f"{case}_{side}"]) for side in ("image", "text"))
    task = retrieval_task([[str(i)] for i in range(len(image))], "clip_benchmark")
    ranks = dict(zip(("text_to_image", "image_to_text"), both_ranks(image, text, task, ties="lowest_index")))
    for name, expected in parameters["cases"][case]["open_clip_repo_head"].items():
        direction, kind = name.rsplit("_", 1) if "R@" in name else (name.rsplit("_", 2)[0], name.rsplit("_", 2)[1])
        of = ranks[direction]
        ours = {"mean": mean_rank(of), "median": np.floor(median_rank(of))}.get(kind)
        assert (recall_at_k(of, int(kind[2:])) if ours is None else ours) == pytest.approx(expected, abs=1e-9)


def test_printed_mean_recalls(golden):
    for row in golden("published_means")[0]["georsclip_readme_retrieval"]["rows"]:
        counts = [round(100 * recall) for recall in row["recalls"]]  # of 10,000 queries: recalls exactly as printed
        query = np.arange(10_000)
        ranks = [np.select([query < count for count in counts[side : side + 3]], (1, 5, 10), 11) for side in (0, 3)]
        assert 100 * mean_recall(ranks[1], ranks[0]) == pytest.approx(row["mR_printed"], abs=0.02), row["method"]


def slow_rank(scores, right, ties):
    """Sort the gallery with the tie rule written out."""
    last = {"pessimistic": lambda i: i in right, "optimistic": lambda i: i not in right, "lowest_index": lambda i: i}[ties]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], last(i)))
    return 1 + min(order.index(i) for i in right)


def halves(generator, rows, d=6):
    """Rows of four +-1 and zeros: unit rows hold +-0.5, so scores are exact and often equal."""
    values = np.zeros((rows, d), dtype=np.float32)
    for row in values:
        row[generator.choice(d, 4, replace=False)] = generator.choice([-1, 1], 4)
    return torch.from_numpy(values)


def captions_with_repeats():
    return [["A river .", "trees"], ["a river", "Trees", "a road"], ["a road"], ["a field", "a field"], ["a  FIELD"], ["a lake"]]


@pytest.mark.parametrize("protocol", ["clip_benchmark", "georsclip", "skyscript", "farslip", "rsvl"])
@pytest.mark.parametrize("ties", RULES)
def test_ranks_equal_a_slow_sort(protocol, ties):
    captions, generator = captions_with_repeats(), np.random.default_rng(3)
    task = retrieval_task(captions, protocol)
    image, text = halves(generator, len(captions)), halves(generator, len(task.texts))
    text_ranks, image_ranks = both_ranks(image, text, task, ties=ties)

    same = normalize_caption if protocol == "rsvl" else str
    own = [{same(caption) for caption in own} for own in captions]

    def carries(i, j):
        return task.image_of_text[j] == i if protocol in ("clip_benchmark", "georsclip") else same(task.texts[j]) in own[i]

    similarity = (image @ text.T).numpy()
    images, texts = range(len(captions)), range(len(task.texts))
    assert text_ranks.tolist() == [slow_rank(similarity[:, j], {i for i in images if carries(i, j)}, ties) for j in texts]
    assert image_ranks.tolist() == [slow_rank(similarity[i], {j for j in texts if carries(i, j)}, ties) for i in images]


def test_what_each_protocol_calls_right():
    captions = [["A river.", "trees"], ["a river", "trees"]]
    by_protocol = {name: retrieval_task(captions, name) for name in ("clip_benchmark", "skyscript", "rsvl")}
    assert {name: len(task.texts) for name, task in by_protocol.items()} == {"clip_benchmark": 4, "skyscript": 3, "rsvl": 4}
    # images right for each text: its own; those that carry the very string; those that carry the sentence
    assert {name: task.text_to_image.num_right().tolist() for name, task in by_protocol.items()} == {
        "clip_benchmark": [1, 1, 1, 1],
        "skyscript": [1, 2, 1],
        "rsvl": [2, 2, 2, 2],
    }
    assert {name: task.image_to_text.num_right().tolist() for name, task in by_protocol.items()} == {
        "clip_benchmark": [2, 2],
        "skyscript": [2, 2],
        "rsvl": [4, 4],
    }
    assert by_protocol["skyscript"].image_of_text.tolist() == [0, 0, 1]


def test_a_perfect_model_reaches_1_with_repeated_captions_only_when_duplicates_count():
    captions = [["a river"], ["a river"], ["a lake"]]
    embeds = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    for protocol, expected in (("clip_benchmark", 1 / 3), ("rsvl", 1.0)):
        ranks = both_ranks(embeds, embeds, retrieval_task(captions, protocol))
        assert [recall_at_k(r, 1) for r in ranks] == pytest.approx([expected, expected])


def test_an_encoder_that_cannot_tell_gains_nothing():
    task = retrieval_task([[str(i)] for i in range(9)], "rsvl")
    constant = torch.ones(9, 4)
    text_ranks, image_ranks = both_ranks(constant, constant, task)
    assert (text_ranks == 9).all() and (image_ranks == 9).all()


@pytest.mark.parametrize("dim", [16, 64, 512])
@pytest.mark.parametrize("num_images", [5, 17, 40])
def test_equal_rows_tie_wherever_they_stand(dim, num_images):
    """A plain matrix product fails this: it rounds equal columns differently where they fall into different tiles."""
    generator = torch.Generator().manual_seed(0)
    row, query = torch.randn(1, dim, generator=generator), torch.randn(num_images, dim, generator=generator)
    task = retrieval_task([[f"{i} {j}" for j in range(3)] for i in range(num_images)], "clip_benchmark")
    ranks = first_right_ranks(query, row.repeat(3 * num_images, 1), task.image_to_text)
    assert (ranks == 3 * num_images - 3 + 1).all()
    text_ranks, image_ranks = ranks_both_ways(row.repeat(3 * num_images, 1), query, task.text_to_image, tile_side=8)
    assert (image_ranks == 3 * num_images - 3 + 1).all()
    assert sorted(set(text_ranks.tolist())) == list(range(1, num_images + 1))  # equal texts see one order of the images


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (300, 8), (9, 2100), (511, 13)])
@pytest.mark.parametrize("dim", [0, 1])
def test_flags_are_counted_past_what_a_byte_holds(shape, dim):
    generator = np.random.default_rng(0)
    for flags in (np.ones(shape, dtype=bool), generator.random(shape) < 0.7):
        np.testing.assert_array_equal(count_flags(torch.from_numpy(flags), dim).numpy(), flags.sum(dim))


def test_rows_whose_keys_meet_are_told_apart(monkeypatch):
    rows = halves(np.random.default_rng(1), 40, d=5)
    repeated = torch.cat([rows, 3 * rows.flip(0), rows[:7]])
    number, first = distinct_rows(repeated)
    monkeypatch.setattr("evaluation.metrics.distinct_rows._keys", lambda embeds: np.zeros(len(embeds), dtype=np.int64))
    for one, other in zip((number, first), distinct_rows(repeated), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = [tuple(row) for row in torch.nn.functional.normalize(repeated, dim=1).tolist()]
    assert [plain[first[n]] for n in number] == plain and len(set(plain)) == len(first)
    assert [number[i] for i in first] == list(range(len(first))) and (np.diff(first) > 0).all()


def test_blocks_and_lengths_and_order_change_nothing():
    generator = np.random.default_rng(5)
    captions = captions_with_repeats()
    task = retrieval_task(captions, "rsvl")
    image, text = halves(generator, len(captions)), halves(generator, len(task.texts))
    whole = both_ranks(image, text, task)
    for tile_side in (1, 2, 5):
        assert all((a == b).all() for a, b in zip(whole, both_ranks(image, text, task, tile_side=tile_side)))
    assert all((a == b).all() for a, b in zip(whole, both_ranks(image * 4, text * 2, task)))

    order = [3, 0, 5, 1, 4, 2]
    shuffled = retrieval_task([captions[i] for i in order], "rsvl")
    texts_in_order = np.concatenate([np.flatnonzero(task.image_of_text == i) for i in order])
    text_ranks, image_ranks = both_ranks(image[order], text[texts_in_order], shuffled)
    assert (image_ranks == whole[1][order]).all() and (text_ranks == whole[0][texts_in_order]).all()


@pytest.mark.parametrize("ties", RULES)
def test_tiles_copies_and_memory_maps_change_nothing(ties, monkeypatch, tmp_path):
    """A gallery in many tiles, with rows that repeat within and across them, half precision, on disk."""
    generator = np.random.default_rng(7)
    captions = [[f"{i} {j}" for j in range(1 + i % 3)] for i in range(30)]
    task = retrieval_task(captions, "rsvl")
    image, text = halves(generator, 30)[generator.integers(0, 9, 30)], halves(generator, len(task.texts))
    plain = both_ranks(image, text, task, ties=ties)
    similarity = (image @ text.T).numpy()
    own = [np.flatnonzero(task.image_of_text == i).tolist() for i in range(30)]
    assert plain[1].tolist() == [slow_rank(similarity[i], own[i], ties) for i in range(30)]
    on_disk = np.memmap(tmp_path / "image.f16", np.float16, "w+", shape=image.shape)
    on_disk[:] = image.numpy()
    for tile_side, kept in ((1, 12), (4, 20), (9, 0), (40, 2**20)):
        monkeypatch.setattr("evaluation.metrics.ranks._KEPT_SCORES", kept)
        monkeypatch.setattr("evaluation.metrics.distinct_rows._KEPT_VALUES", kept)
        tiled = both_ranks(torch.from_numpy(on_disk), text, task, ties=ties, tile_side=tile_side)
        assert all((a == b).all() for a, b in zip(plain, tiled))


def test_random_scores_in_tiles_equal_a_plain_sort():
    generator = torch.Generator().manual_seed(2)
    task = retrieval_task([[f"{i} {j}" for j in range(5)] for i in range(40)], "clip_benchmark")
    image, text = torch.randn(40, 12, generator=generator), torch.randn(200, 12, generator=generator)
    text_ranks, image_ranks = both_ranks(image, text, task, tile_side=8)
    similarity = torch.nn.functional.normalize(image, dim=-1) @ torch.nn.functional.normalize(text, dim=-1).T
    places = similarity.argsort(1, descending=True).argsort(1) + 1
    assert image_ranks.tolist() == places.view(40, 40, 5)[torch.arange(40), torch.arange(40)].amin(1).tolist()
    places = similarity.argsort(0, descending=True).argsort(0) + 1
    assert text_ranks.tolist() == places[torch.arange(200) // 5, torch.arange(200)].tolist()


@pytest.mark.parametrize("kept", [0, 2**24])
def test_shuffled_right_items_in_many_tiles(kept, monkeypatch):
    """Right items anywhere, texts and images that repeat in the gallery, and tiles that must be computed again."""
    monkeypatch.setattr("evaluation.metrics.ranks._KEPT_SCORES", kept)
    generator = np.random.default_rng(11)
    image, text = halves(generator, 60), halves(generator, 150)[generator.integers(0, 100, 150)]
    own = np.concatenate([generator.permutation(60), generator.integers(0, 60, 90)])
    each = np.arange(150)
    relevance = Relevance(Lists.from_pairs(each, own, 150), Lists.from_pairs(np.arange(60), np.arange(60), 60), 60)
    similarity = (image @ text.T).numpy()
    for ties in RULES:
        text_ranks, image_ranks = ranks_both_ways(text, image, relevance, ties=ties, tile_side=16)
        assert text_ranks.tolist() == [slow_rank(similarity[:, j], {own[j]}, ties) for j in each]
        right = [set(np.flatnonzero(own == i).tolist()) for i in range(60)]
        assert image_ranks.tolist() == [slow_rank(similarity[i], right[i], ties) for i in range(60)]


@pytest.mark.gpu
def test_the_device_changes_nothing():
    generator = np.random.default_rng(5)
    task = retrieval_task(captions_with_repeats(), "rsvl")
    image, text = halves(generator, 6), halves(generator, len(task.texts))
    for ties in RULES:
        here, there = (both_ranks(image, text, task, ties=ties, device=device) for device in (None, "cuda"))
        assert all((a == b).all() for a, b in zip(here, there))


def test_one_image():
    task = retrieval_task([["a", "b"]], "rsvl")
    text_ranks, image_ranks = both_ranks(torch.ones(1, 2), torch.ones(2, 2), task)
    assert text_ranks.tolist() == [1, 1] and image_ranks.tolist() == [1]
    assert mean_recall(text_ranks, image_ranks) == median_rank(text_ranks) == 1


def test_summaries_by_hand():
    ranks = np.array([1, 2, 5, 30])
    assert [recall_at_k(ranks, k) for k in (1, 5, 10, 1000)] == [0.25, 0.75, 0.75, 1.0]
    assert median_rank(ranks) == 3.5
    assert mean_recall(ranks, np.array([1])) == pytest.approx((0.25 + 0.75 + 0.75 + 3) / 6)


def test_chance_equals_every_order_of_a_small_gallery():
    num_right, n = np.array([1, 2, 4]), 5
    ranks = np.array([[1 + min(order.index(i) for i in range(r)) for order in permutations(range(n))] for r in num_right])
    for k in range(1, 8):
        assert chance_recall_at_k(num_right, n, k) == pytest.approx((ranks <= k).mean())
    assert chance_median_rank(num_right, n) == np.sort(ranks.ravel())[(ranks.size - 1) // 2]
    assert chance_median_rank(np.array([1]), 2) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("There is a plane .", "there  is a plane"), ("Cafe\u0301", "caf\u00e9"), ("STRASSE!", "straße")]
)
def test_captions_that_read_the_same(one, other):
    assert normalize_caption(one) == normalize_caption(other)
    assert normalize_caption(one) != normalize_caption(other + " here")


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        (torch.tensor([[1.0, torch.nan]]), torch.ones(1, 2), "1 of 1 embeddings hold NaN or infinity"),
        (torch.tensor([[1.0, 2.0]]), torch.tensor([[torch.inf, 0.0]]), "1 of 1 embeddings hold NaN or infinity"),
        (torch.ones(1, 2), torch.ones(2, 2), "got 2 queries and 1 gallery items, but relevance speaks of 1 and 1"),
    ],
)
def test_embeddings_that_cannot_be_ranked(image, text, message):
    with pytest.raises(ValueError, match=message):
        first_right_ranks(text, image, retrieval_task([["a"]], "rsvl").text_to_image)


def test_a_protocol_nobody_knows():
    with pytest.raises(OptionError, match="'coco'; allowed: rsvl, clip_benchmark, georsclip, skyscript, farslip"):
        retrieval_task([["a"]], "coco")


def test_an_empty_gallery():
    nothing = Relevance(
        Lists.from_pairs(np.array([0]), np.array([0]), 1), Lists.from_pairs(np.zeros(0, int), np.zeros(0, int), 1), 0
    )
    with pytest.raises(ValueError, match="the gallery is empty; retrieval needs at least one item to find"):
        first_right_ranks(torch.ones(1, 2), torch.zeros(0, 2), nothing)


def test_an_item_that_is_right_for_no_query():
    relevance = Relevance(Lists.from_pairs(np.array([0]), np.array([0]), 1), Lists.from_pairs(np.array([0]), np.array([1]), 1), 3)
    assert first_right_ranks(torch.ones(1, 2), torch.ones(3, 2), relevance).tolist() == [3]
    with pytest.raises(ValueError, match="each gallery item needs a query it is right for; 2 of 3 have none"):
        ranks_both_ways(torch.ones(1, 2), torch.ones(3, 2), relevance)


def test_nothing_to_retrieve():
    with pytest.raises(ValueError, match="each image needs a caption; got 0 images"):
        retrieval_task([], "rsvl")
    with pytest.raises(ValueError, match=r"without captions: \[1\]"):
        retrieval_task([["a"], []], "rsvl")
    for summary in (lambda r: recall_at_k(r, 1), median_rank, mean_rank):
        with pytest.raises(ValueError, match="no queries"):
            summary(np.zeros(0, dtype=int))
