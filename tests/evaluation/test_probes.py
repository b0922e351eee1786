"""Linear probe, nearest neighbours and few-shot curves on frozen embeddings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evaluation.benchmarks.features import Features, held_out_fifth
from evaluation.benchmarks.few_shot import few_shot, mean_over_draws
from evaluation.benchmarks.knn import knn, votes
from evaluation.benchmarks.linear_probe import LinearHead, choose_weight_decay, fit, linear_probe
from evaluation.data import ShardSet
from evaluation.metrics.nearest import _nearest_by_product, nearest
from evaluation.result import Result
from rsvl_data.errors import DataError, OptionError


@pytest.fixture
def splits(reddish):
    return [ShardSet(reddish, name) for name in ("train", "test", "val")]


GRID = (1e-2, 1e-4)  # quick


def clusters(n=60, c=4, d=8, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(c, d, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % c
    return Features(F.normalize(centres[labels] + spread * torch.randn(n, d, generator=generator), dim=-1), labels)


def objective(head, train, decay):
    loss = F.cross_entropy(head.logits(train.embeds.double()), train.labels)
    return loss + decay / 2 * head.weight.square().sum()


@pytest.mark.parametrize("decay", [1e-1, 1e-4])
def test_the_fit_is_the_minimum(decay):
    train = clusters()
    head = fit(train, 4, decay)
    exact = LinearHead(head.weight.double().requires_grad_(), head.bias.double().requires_grad_())
    gradients = torch.autograd.grad(objective(exact, train, decay), (exact.weight, exact.bias))
    assert max(gradient.abs().max() for gradient in gradients) < 1e-4
    # plain gradient descent from elsewhere ends at the same place, or on its way there
    slow = LinearHead(torch.randn(4, 8, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    for part in (slow.weight, slow.bias):
        part.requires_grad_()
    for _ in range(1500):
        for part, gradient in zip(
            (slow.weight, slow.bias), torch.autograd.grad(objective(slow, train, decay), (slow.weight, slow.bias))
        ):
            part.data -= 2.0 * gradient
    assert objective(exact, train, decay) <= objective(slow, train, decay) + 1e-6
    if decay == 1e-1:
        assert torch.allclose(slow.weight, exact.weight, atol=1e-3)


def test_where_the_fit_begins_does_not_matter():
    train = clusters()
    cold, warm = fit(train, 4, 1e-3), fit(train, 4, 1e-3, start=fit(train, 4, 1e-1))
    assert torch.allclose(cold.weight, warm.weight, atol=2e-2)
    again = fit(train, 4, 1e-3)
    assert torch.equal(cold.weight, again.weight) and torch.equal(cold.bias, again.bias)


def test_weight_decay_is_chosen_on_val():
    train, val = clusters(24, spread=1.5), clusters(200, seed=1, spread=1.5)
    chosen, acc1 = choose_weight_decay(train, val, 4, [1e-8, 1e-1, 10.0])
    assert acc1[chosen] == max(acc1.values()) and len(acc1) == 3
    for decay, value in acc1.items():
        assert fit(train, 4, decay).acc1(val) == pytest.approx(value, abs=0.03)  # warm starts end close by
    ties, _ = choose_weight_decay(clusters(spread=0.01), clusters(spread=0.01), 4, [1e-3, 1e-2])
    assert ties == 1e-2  # both perfect: the simpler one


def test_linear_probe(encoder, splits):
    train, test, val = splits
    result = linear_probe(encoder, train, test, val=val, num_bootstrap=100)
    assert (result.task, result.dataset, result.split, result.n) == ("linear_probe", "tiny", "test", 36)
    assert 0.6 < result.metrics["acc1"].value < 1 and result.metrics["acc1"].chance == pytest.approx(1 / 3)
    assert result.metrics["acc1"].low < result.metrics["acc1"].value < result.metrics["acc1"].high
    assert result.data["train"] == "train" and result.data["val"] == "val" and result.data["train_sha256"] == train.sha256()
    assert set(result.per_class) == {"a", "b", "c"} and np.sum(result.details["confusion"]["counts"]) == 36
    assert str(f"{result.details['weight_decay']:g}") in result.details["val_acc1"]
    assert linear_probe(encoder, train, test, val=val, num_bootstrap=100).metrics == result.metrics
    one = linear_probe(encoder, train, test, val=val, weight_decays=[100.0], num_bootstrap=5)
    assert one.details["weight_decay"] == 100 and one.metrics["acc1"].value != result.metrics["acc1"].value


def test_without_val_a_fifth_of_train_chooses(encoder, splits, tmp_path):
    train, test, _ = splits
    result = linear_probe(encoder, train, test, weight_decays=GRID, num_bootstrap=5)
    assert result.data["val"] == "a fifth of train"
    others = [
        linear_probe(encoder, train, test, weight_decays=GRID, seed=seed, num_bootstrap=5).details["val_acc1"]
        for seed in range(1, 5)
    ]
    assert any(other != result.details["val_acc1"] for other in others)
    result.save(tmp_path / "probe.json")
    assert Result.load(tmp_path / "probe.json") == result


def test_held_out_fifth():
    labels = np.array([0] * 10 + [1] * 4 + [2] * 25)
    held_out = held_out_fifth(labels, seed=0)
    assert [int(held_out[labels == c].sum()) for c in range(3)] == [2, 0, 5]
    assert (held_out == held_out_fifth(labels, seed=0)).all() and (held_out != held_out_fifth(labels, seed=1)).any()


def slow_votes(query, train, num_classes, k, temperature):
    found = np.zeros((len(query), num_classes))
    for i, row in enumerate(query):
        similarity = (train.embeds @ row).numpy()
        for j in np.argsort(-similarity)[:k]:
            found[i, train.labels[j]] += np.exp(similarity[j] / temperature)
    return found


def test_votes_equal_a_slow_loop():
    train, query = clusters(), clusters(23, seed=3).embeds
    whole = votes(query, train, 4, [1, 7, 60], 0.07)
    for k, found in whole.items():
        assert found == pytest.approx(slow_votes(query, train, 4, k, 0.07), rel=1e-4)


@pytest.mark.parametrize("k", [1, 7, 60])
def test_nearest_of_faiss_and_of_a_product_are_those_of_a_sort(k, monkeypatch):
    monkeypatch.setattr("evaluation.metrics.nearest._BLOCK_SCORES", 60 * 5)
    gallery, query = clusters().embeds, clusters(23, seed=3).embeds
    expected = (query @ gallery.T).sort(dim=1, descending=True)
    for scores, index in (nearest(query, gallery, k), _nearest_by_product(query, gallery, k)):
        assert scores.numpy() == pytest.approx(expected.values[:, :k].numpy(), abs=1e-5)
        assert (query @ gallery.T).gather(1, index).numpy() == pytest.approx(scores.numpy(), abs=1e-5)


def test_more_neighbours_than_there_are():
    with pytest.raises(ValueError, match="k must lie between 1 and the 2 rows of the gallery; got 3"):
        nearest(torch.ones(1, 2), torch.ones(2, 2), 3)


def test_knn(encoder, splits):
    train, test, val = splits
    result = knn(encoder, train, test, val=val, num_bootstrap=100)
    assert (result.task, result.protocol, result.n, result.data["val"]) == ("knn", "dino", 36, "val")
    assert set(result.details["val_acc1"]) == {"10", "20"}  # of DINO's k those that 60 images have
    assert result.details["val_acc1"][str(result.details["k"])] == max(result.details["val_acc1"].values())
    assert 0.6 < result.metrics["acc1"].value < 1
    far = {k: knn(encoder, train, test, val=val, ks=[k], num_bootstrap=5) for k in (1, 60)}
    assert {k: result.details["k"] for k, result in far.items()} == {1: 1, 60: 60}
    flat = knn(encoder, train, test, val=val, ks=[60], temperature=1e12, num_bootstrap=5)
    assert flat.metrics["acc1"].value == pytest.approx(1 / 3)  # all of train votes alike: ties, the first class
    assert far[60].metrics["acc1"].value > 0.5


def test_an_image_of_train_is_its_own_neighbour(encoder, splits):
    train, _, val = splits
    assert knn(encoder, train, train, val=val, ks=[1], num_bootstrap=5).metrics["acc1"].value == 1
    # without val a fifth chooses k, and is there again when it is measured
    assert knn(encoder, train, train, ks=[1], num_bootstrap=5).metrics["acc1"].value == 1


def test_few_shot(encoder, splits):
    train, test, val = splits
    options = {"shots": [1, 16], "num_draws": 3, "weight_decays": GRID, "num_bootstrap": 200}
    result = few_shot(encoder, train, test, val=val, **options)
    assert set(result.metrics) == {"acc1_1_shot", "acc1_16_shot"} and result.task == "few_shot"
    one, sixteen = (next(c for c in result.details["curve"] if c["shots"] == k) for k in (1, 16))
    assert len(one["acc1"]) == len(one["weight_decay"]) == 3 and len(set(one["acc1"])) > 1
    assert np.mean(sixteen["acc1"]) > np.mean(one["acc1"]) > 1 / 3
    for k, drawn in ((1, one), (16, sixteen)):
        metric = result.metrics[f"acc1_{k}_shot"]
        assert metric.value == pytest.approx(np.mean(drawn["acc1"])) and metric.low < metric.value < metric.high
        assert np.mean(result.details["items"]["share_right"][str(k)]) == pytest.approx(metric.value)
    assert few_shot(encoder, train, test, val=val, **options).metrics == result.metrics
    fewer = few_shot(encoder, train, test, val=val, shots=[1], num_draws=1, seed=5, num_bootstrap=5, weight_decays=[1e-2])
    assert fewer.details["curve"][0]["weight_decay"] == [1e-2] and fewer.data["num_draws"] == 1


def test_a_curve_without_an_error_is_as_sure_as_its_test_images(encoder, splits, monkeypatch):
    train, test, val = splits
    monkeypatch.setattr("evaluation.benchmarks.few_shot._right_with", lambda *_: (np.ones(36, bool), 1.0))
    metric = few_shot(encoder, train, test, val=val, shots=[1], num_draws=3, num_bootstrap=20).metrics["acc1_1_shot"]
    assert (metric.value, metric.high) == (1, 1) and metric.low == pytest.approx(0.025 ** (1 / 36))  # not of three draws


def test_the_draws_are_resampled_too():
    """Two draws, one always right and one never: images are certain, draws are not."""
    right = np.array([[True] * 4, [False] * 4])
    of = mean_over_draws(right)
    images = np.ones((3, 4))
    assert of(np.hstack([images, [[1.0, 1], [2, 0], [0, 2]]])).tolist() == [0.5, 1, 0]
    generator = np.random.default_rng(0)
    right, drawn = generator.random((3, 5)) < 0.5, generator.integers(0, 3, (6, 8)).astype(float)
    slow = [np.mean([right[s, i] for s in range(3) for i in range(5) for _ in range(int(row[i] * row[5 + s]))]) for row in drawn]
    assert of.__name__ == "of" and mean_over_draws(right)(drawn) == pytest.approx(slow)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda e, a, b: knn(e, a, b, ks=[61]), "ks must lie between 1 and the 48 training images; got .61,"),
        (lambda e, a, b: knn(e, a, b, ks=[]), "ks must lie between 1 and the 48"),
        (lambda e, a, b: knn(e, a, b, temperature=0), "temperature must be above 0; got 0"),
        (lambda e, a, b: linear_probe(e, a, b, weight_decays=[]), "weight_decays needs numbers of 0 or more; got"),
        (lambda e, a, b: few_shot(e, a, b, shots=[17]), "class 'a' has 16 images to train on; give --shots of at most 16"),
        (lambda e, a, b: few_shot(e, a, b, shots=[0]), "shots needs numbers of 1 or more"),
        (lambda e, a, b: few_shot(e, a, b, num_draws=0), "num_draws must be 1 or more; got 0"),
    ],
)
def test_options_that_cannot_be(encoder, splits, run, message):
    with pytest.raises(OptionError, match=message):
        run(encoder, *splits[:2])


def test_splits_that_do_not_fit(encoder, splits, two_classes, numbered):
    for benchmark in (linear_probe, knn, few_shot):
        with pytest.raises(DataError, match="the classes of split 'test' are not those of 'test': SeaLake, a, b, c, golf_course"):
            benchmark(encoder, ShardSet(two_classes, "test"), splits[1])
        with pytest.raises(DataError, match="has a label, so there is nothing to classify"):
            benchmark(encoder, ShardSet(numbered, "test"), ShardSet(numbered, "test"))
        with pytest.raises(DataError, match="too few labelled images to hold some out; give a val split"):
            benchmark(encoder, ShardSet(two_classes, "test"), ShardSet(two_classes, "test"))
