import json

import numpy as np
import pytest
import torch

from evaluation.benchmarks.retrieval import retrieval
from evaluation.benchmarks.zero_shot import zero_shot
from evaluation.data import MemorySet, ShardSet, Thinned
from evaluation.prompts import PromptSet
from evaluation.result import Result
from evaluation.wording import metric_words
from rsvl_data.errors import DataError, OptionError
from rsvl_data.shards import Dataset
from rsvl_data.version import code_version


@pytest.fixture
def colours_without_labels(colours) -> Dataset:
    manifest = {**colours.manifest, "splits": {"plain": 1}}
    manifest["shards"] = [{**s, "split": "plain"} for s in colours.manifest["shards"] if s["name"] == "plain-00000"]
    return Dataset(colours.root, manifest)


def test_zero_shot_of_colours(encoder, colours):
    result = zero_shot(encoder, ShardSet(colours, "test"), num_bootstrap=200)
    # g1 is reddish but labelled green: one of five is wrong; "yellow" has no image in this split but is a class
    classes = ["GreenField", "blue", "red_field", "yellow"]
    assert result.details["confusion"] == {"classes": classes, "counts": [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]}
    assert result.per_class == {"GreenField": 0.5, "blue": 1.0, "red_field": 1.0}
    assert result.metrics["acc1"].value == 0.8 and result.metrics["acc1"].chance == 0.25
    assert result.metrics["acc5"].value == result.metrics["acc5"].chance == result.metrics["acc5"].low == 1
    assert result.metrics["mean_per_class_recall"].value == pytest.approx(2.5 / 3)
    assert result.metrics["acc1"].low < 0.8 < result.metrics["acc1"].high
    # one image a class is too few to keep the classes apart: blue may be missing from a resample
    assert result.metrics["mean_per_class_recall"].low < 2 / 3
    assert (result.task, result.dataset, result.split, result.protocol, result.n) == ("zero_shot", "tiny", "test", "rsvl", 5)
    assert result.details["items"]["truth"] == [2, 2, 0, 0, 1]
    assert [rank == 1 for rank in result.details["items"]["rank"]] == [True, True, True, False, True]
    assert result.details["class_words"]["GreenField"] == "green field"


def test_a_result_says_where_it_comes_from(encoder, colours, tmp_path):
    result = zero_shot(encoder, ShardSet(colours, "test"), num_bootstrap=50, seed=3)
    assert result.model == {"name": "colour", "sha256": "0" * 64}
    assert result.data["note"] == "painted by a test" and result.data["without_label"] == 0
    assert result.prompts.startswith("rsvl-") and result.code == code_version() and result.seed == 3
    expected = "8 px, shortest, bicubic, mean 0.4815 0.4578 0.4082, std 0.2686 0.2613 0.2758, decoded exact, fp32"
    assert result.preprocessing == expected
    result.save(tmp_path / "result.json")
    assert Result.load(tmp_path / "result.json") == result


def test_every_option_of_zero_shot_shows(encoder, colours):
    kinds = {
        protocol: zero_shot(encoder, ShardSet(colours, "test"), protocol=protocol, num_bootstrap=50)
        for protocol in ("rsvl", "georsclip")
    }
    assert kinds["georsclip"].details["class_words"]["GreenField"] == "greenfield"
    assert kinds["georsclip"].prompts != kinds["rsvl"].prompts
    metrics = kinds["rsvl"].metrics
    assert zero_shot(encoder, ShardSet(colours, "test"), num_bootstrap=50).metrics == metrics
    assert zero_shot(encoder, Thinned(ShardSet(colours, "test"), 4), num_bootstrap=50, seed=1).n == 4
    assert zero_shot(encoder, ShardSet(colours, "test"), num_bootstrap=3, seed=1).metrics != metrics
    fast = zero_shot(encoder, ShardSet(colours, "test"), num_bootstrap=5, engine="fast", precision="bf16")
    assert fast.preprocessing.endswith("decoded fast, bf16")


def test_images_without_a_label_are_counted(encoder, colours):
    mixed = Dataset(colours.root, {**colours.manifest, "splits": {"mixed": 6}})
    mixed.manifest["shards"] = [
        {**s, "split": "mixed"} for s in colours.manifest["shards"] if s["name"] in ("test-00000", "plain-00000")
    ]
    result = zero_shot(encoder, ShardSet(mixed, "mixed"), num_bootstrap=5)
    assert result.n == 3 and result.data["without_label"] == 1
    assert result.metrics["acc1"].value == 1


def test_zero_shot_needs_labels(encoder, colours_without_labels):
    with pytest.raises(DataError, match="no sample of split 'plain' has a label"):
        zero_shot(encoder, ShardSet(colours_without_labels, "plain"))


def test_georsclip_averages_before_it_normalises(encoder, colours, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "evaluation.benchmarks.zero_shot.class_weights",
        lambda embeds, average: seen.append((average, embeds)) or torch.nn.functional.normalize(embeds.mean(1), dim=-1),
    )
    for protocol in ("rsvl", "georsclip"):
        zero_shot(encoder, ShardSet(colours, "test"), protocol=protocol, num_bootstrap=5)
    (first, unit), (second, raw) = seen
    assert (first, second) == ("normalize_then_average", "average_then_normalize")
    assert torch.allclose(unit.norm(dim=-1), torch.ones(())) and (raw.norm(dim=-1) > 1.01).any()


def test_retrieval_of_colours(encoder, colours):
    result = retrieval(encoder, ShardSet(colours, "test"), num_bootstrap=100)
    assert result.n == 4 and result.data["without_caption"] == 1 and result.data["texts"] == 5
    names = {
        f"{side}_retrieval_{kind}"
        for side in ("image", "text")
        for kind in ("recall@1", "recall@5", "recall@10", "mean_recall", "median_rank")
    }
    assert set(result.metrics) == names | {"mean_recall"}
    metrics = result.metrics
    # r1's "A red field" ties with r0's "deep red", which is wrong for it; g1 looks redder than its "green and red"
    assert result.details["items"]["image_query_rank"] == [1, 2, 1, 4]
    assert metrics["text_retrieval_recall@1"].value == 0.5 and metrics["text_retrieval_median_rank"].value == 1.5
    six = [metrics[f"{side}_retrieval_recall@{k}"] for side in ("image", "text") for k in (1, 5, 10)]
    assert metrics["mean_recall"].value == pytest.approx(np.mean([metric.value for metric in six]))
    assert metrics["mean_recall"].chance == pytest.approx(np.mean([metric.chance for metric in six]))
    assert not metrics["image_retrieval_median_rank"].higher_is_better and metrics["image_retrieval_recall@1"].higher_is_better
    # of four images "a red field" is right with two, the other captions with one each
    assert metrics["image_retrieval_recall@1"].chance == pytest.approx((2 / 4 + 1 / 4 + 2 / 4 + 1 / 4 + 1 / 4) / 5)
    assert [len(ranks) for ranks in result.details["items"]["text_query_ranks"]] == [2, 1, 1, 1]
    assert len(result.details["items"]["image_query_rank"]) == 4
    assert json.loads(json.dumps(result.details)) == result.details


def test_retrieval_protocols_differ_on_repeated_captions(encoder, colours):
    by_protocol = {
        p: retrieval(encoder, ShardSet(colours, "test"), protocol=p, num_bootstrap=5)
        for p in ("rsvl", "clip_benchmark", "skyscript")
    }
    recalls = {p: result.metrics["image_retrieval_recall@1"].value for p, result in by_protocol.items()}
    assert recalls["clip_benchmark"] < recalls["rsvl"]  # "a red field" has two images and can name only one of them
    skyscript = by_protocol["skyscript"]
    assert "mean_recall" not in skyscript.metrics and "image_retrieval_recall@100" in skyscript.metrics
    assert skyscript.prompts == "prefix 'a satellite image. '" and by_protocol["rsvl"].prompts is None


@pytest.mark.parametrize("protocol", ["rsvl", "georsclip", "skyscript"])
def test_recall_at_100_is_told_of_large_galleries(encoder, fifty, protocol):
    """A hundred texts can be found, but fifty images, or fifty texts if equal ones are merged."""
    result = retrieval(encoder, ShardSet(fifty, "test"), protocol=protocol, num_bootstrap=5)
    at_100 = {name for name in result.metrics if name.endswith("recall@100")}
    both = {"image_retrieval_recall@100", "text_retrieval_recall@100"}
    assert at_100 == (both if protocol == "skyscript" else {"text_retrieval_recall@100"})
    assert result.metrics["text_retrieval_recall@100"].value == 1
    if protocol != "skyscript":
        six = [result.metrics[f"{side}_retrieval_recall@{k}"].value for side in ("image", "text") for k in (1, 5, 10)]
        assert result.metrics["mean_recall"].value == pytest.approx(np.mean(six))


def test_images_without_a_sentence_of_their_own(encoder, same_words):
    """Merged, the second image has none: a resample of that image alone must not be a mean of nothing."""
    result = retrieval(encoder, ShardSet(same_words, "test"), protocol="skyscript", num_bootstrap=50)
    assert all(metric.value == 1 for metric in result.metrics.values())
    assert result.metrics["image_retrieval_recall@1"].low == result.metrics["image_retrieval_recall@1"].high == 1  # of one text
    assert result.metrics["text_retrieval_median_rank"].low is None
    assert result.details["items"] == {"text_query_ranks": [[1]], "image_query_rank": [1, 1]}


def test_the_prefix_is_said(encoder, colours):
    retrieval(encoder, ShardSet(colours, "test"), protocol="skyscript", num_bootstrap=5)
    said = [text for call in encoder.calls if isinstance(call, list) for text in call]
    assert said and all(text.startswith("a satellite image. ") for text in said)


def test_all_languages(encoder, two_languages):
    whole = ShardSet(two_languages, "test")
    with_both = MemorySet("colours", "test", whole.classes, whole.items[:3], [whole.image(index) for index in range(3)])
    result = retrieval(encoder, whole, lang="all", num_bootstrap=200)
    english, portuguese = (retrieval(encoder, with_both, lang=lang, num_bootstrap=200) for lang in ("en", "pt"))
    assert (result.n, result.data["langs"], result.data["without_caption"], result.data["texts"]) == (3, ["en", "pt"], 1, 6)
    assert english.metrics["text_retrieval_recall@1"].value == 1 and portuguese.metrics["text_retrieval_recall@1"].value == 1 / 3
    for name, metric in english.metrics.items():
        # galleries never mix languages, and the same resamples are drawn for each language as for one alone
        assert result.metrics[f"{name}[en]"] == metric and result.metrics[f"{name}[pt]"] == portuguese.metrics[name]
        assert result.metrics[name].value == pytest.approx((metric.value + portuguese.metrics[name].value) / 2)
        assert result.metrics[name].chance == metric.chance
    mean = result.metrics["text_retrieval_recall@1"]
    # English is always right: what moves is Portuguese alone, at half the weight
    assert mean.low == pytest.approx((1 + portuguese.metrics["text_retrieval_recall@1"].low) / 2)
    assert result.details["items"]["by_lang"]["pt"] == portuguese.details["items"]
    assert not result.metrics["image_retrieval_median_rank[pt]"].higher_is_better


def test_all_languages_of_one_language(encoder, numbered):
    one, every = (retrieval(encoder, ShardSet(numbered, "test"), lang=lang, num_bootstrap=5) for lang in ("en", "all"))
    assert one.metrics == every.metrics and every.data["langs"] == ["en"]


def test_what_all_languages_cannot_mean(encoder, colours, two_languages):
    with pytest.raises(DataError, match="has a caption in every language; languages there: en .4 images., pt .1 images."):
        retrieval(encoder, ShardSet(colours, "test"), lang="all")
    with pytest.raises(OptionError, match="'farslip' resamples sentences.* use --protocol rsvl, clip_benchmark or georsclip"):
        retrieval(encoder, ShardSet(two_languages, "test"), lang="all", protocol="farslip")


def test_embeddings_that_are_not_finite_are_named(encoder, colours):
    encode = encoder.encode_image
    encoder.encode_image = lambda images: torch.where(torch.arange(len(images))[:, None] == 2, torch.nan, encode(images))
    for benchmark in (zero_shot, retrieval):
        with pytest.raises(DataError, match="the embeddings of 1 samples hold NaN or infinity: g0"):
            benchmark(encoder, ShardSet(colours, "test"), num_bootstrap=5)


def test_calibration(encoder, colours):
    result = zero_shot(encoder, ShardSet(colours, "test"), num_bootstrap=200)
    error, shown = result.metrics["expected_calibration_error"], result.details["calibration"]
    assert shown["logit_scale"] == 10 and sum(shown["items"]) == 5 and not error.higher_is_better
    gaps = [n * abs(c - a) for n, c, a in zip(shown["items"], shown["confidence"], shown["accuracy"])]
    assert error.value == pytest.approx(sum(gaps) / 5) and 0 < error.value < 1
    assert error.low is None and error.high is None
    type(encoder).logit_scale, kept = property(lambda self: torch.tensor(1e-3)), type(encoder).logit_scale
    try:  # knows nothing of itself: a quarter sure of four classes, four of five right
        assert zero_shot(encoder, ShardSet(colours, "test"), num_bootstrap=5).metrics[
            "expected_calibration_error"
        ].value == pytest.approx(0.8 - 0.25, abs=1e-3)
        type(encoder).logit_scale = None
        assert "expected_calibration_error" not in zero_shot(encoder, ShardSet(colours, "test"), num_bootstrap=5).metrics
    finally:
        type(encoder).logit_scale = kept


def test_zero_shot_in_another_language(encoder, two_classes):
    data = ShardSet(two_classes, "test")
    result = zero_shot(encoder, data, lang="pt", num_bootstrap=5)
    assert result.details["class_words"] == {"SeaLake": "mar ou lago", "golf_course": "campo de golfe"}
    assert result.prompts.startswith("rsvl_pt-") and result.data["lang"] == "pt"
    said = [text for call in encoder.calls if isinstance(call, list) for text in call]
    assert "uma imagem de satélite de campo de golfe." in said and not any("golf course" in text for text in said)
    with pytest.raises(OptionError, match="'georsclip' has English prompts only; use --protocol rsvl for 'pt'"):
        zero_shot(encoder, data, lang="pt", protocol="georsclip")


def test_own_prompts_take_the_place_of_the_protocols(encoder, colours):
    result = zero_shot(encoder, ShardSet(colours, "test"), prompts=PromptSet("mine", ("look: {}",)), num_bootstrap=5)
    assert result.prompts.startswith("mine-") and encoder.calls[0][:2] == ["look: green field", "look: blue"]


def test_a_webdataset_of_clip_benchmark_brings_its_prompts(encoder, colours):
    data = ShardSet(colours, "test")
    data.templates = ("from space: {c}", "{c}!")
    result = zero_shot(encoder, data, protocol="clip_benchmark", num_bootstrap=5)
    assert encoder.calls[0][:2] == ["from space: GreenField", "GreenField!"]  # the first call: prompts of the first class
    assert result.prompts.startswith("clip_benchmark_wds-")
    assert zero_shot(encoder, data, num_bootstrap=5).prompts.startswith("rsvl-")


def test_words_of_the_metrics():
    assert metric_words("mean_recall[pt]").name == "Mean recall (pt)"
    assert not metric_words("image_retrieval_median_rank[pt]").percent
    assert metric_words("acc1_16_shot").name == "Top-1 accuracy, 16-shot"
    assert metric_words("expected_calibration_error").name == "Calibration error"


def test_farslip_is_skyscripts_protocol(encoder, colours):
    sky, far = (
        [
            benchmark(encoder, ShardSet(colours, "test"), protocol=protocol, num_bootstrap=20)
            for benchmark in (zero_shot, retrieval)
        ]
        for protocol in ("skyscript", "farslip")
    )
    assert [result.metrics for result in sky] == [result.metrics for result in far]
    assert {result.protocol for result in far} == {"farslip"}


def test_georsclip_retrieval_is_clip_benchmarks(encoder, colours):
    one, other = (
        retrieval(encoder, ShardSet(colours, "test"), protocol=p, num_bootstrap=20).metrics
        for p in ("clip_benchmark", "georsclip")
    )
    assert one == other


def test_skyscripts_own_captions_get_no_prefix(encoder, colours):
    data = ShardSet(colours, "test")
    data.name = "skyscript_retrieval"
    assert retrieval(encoder, data, protocol="skyscript", num_bootstrap=5).prompts is None


def test_lang_chooses_captions(encoder, colours):
    result = retrieval(encoder, ShardSet(colours, "test"), lang="pt", num_bootstrap=5)
    assert (result.n, result.data["lang"], result.data["without_caption"]) == (1, "pt", 4)
    assert result.details["gallery"][0]["found"][0]["score"] > 0.9  # the blue image, not the first of the split
    with pytest.raises(
        DataError, match="no sample of split 'test' has a caption in 'de'; languages there: en .4 images., pt .1 im"
    ):
        retrieval(encoder, ShardSet(colours, "test"), lang="de")


def test_retrieval_needs_captions(encoder, colours):
    with pytest.raises(DataError, match="no sample of split 'train' has a caption in 'en'; languages there: none"):
        retrieval(encoder, ShardSet(colours, "train"))


def test_gallery(encoder, colours):
    result = retrieval(encoder, ShardSet(colours, "test"), num_bootstrap=5)
    gallery = {(entry["direction"], entry["query"], entry["query_key"]): entry for entry in result.details["gallery"]}
    assert len(gallery) == 5 + 4  # fewer than six a direction: all of them
    red = gallery["text_to_image", "A red field", None]
    assert red["right"] == ["r0", "r1"]
    assert [found["key"] for found in red["found"]][:2] == ["r0", "r1"]
    assert [found["right"] for found in red["found"]] == [True, True, False, False]
    assert all(found["text"] is None for found in red["found"])
    green = gallery["image_to_text", "green all over", "g0"]
    assert green["right"] == ["g0"]
    assert green["found"][0]["key"] == "g0" and green["found"][0]["text"] == "green all over" and green["found"][0]["right"]
    scores = [found["score"] for found in green["found"]]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    assert set(result.details["gallery_pictures"]) == {"r0", "r1", "g0", "g1"}


def test_gallery_shows_what_was_scored_and_the_seed_chooses(encoder, numbered):
    one, again, other = (retrieval(encoder, ShardSet(numbered, "test"), num_bootstrap=5, seed=seed).details for seed in (1, 1, 2))
    assert one["gallery"] == again["gallery"] != other["gallery"]
    assert len(one["gallery"]) == 12
    for entry in one["gallery"]:
        if entry["direction"] == "text_to_image":
            rank = one["items"]["text_query_ranks"][int(entry["query"].split()[1])][0]
        else:
            rank = one["items"]["image_query_rank"][int(entry["query_key"][1:])]
        assert [found["right"] for found in entry["found"]] == [place == rank for place in range(1, 6)]
