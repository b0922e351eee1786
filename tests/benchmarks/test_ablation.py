"""The ablation: what it is made of, what it keeps, and what its page says of hand-made results."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.ablation import __main__ as run
from benchmarks.ablation import cells
from benchmarks.ablation.arms import arms, representatives
from benchmarks.ablation.cells import CPU, Cell, Place
from benchmarks.ablation.data import Joined, Sizes, mask_facts, object_crops, object_facts
from benchmarks.ablation.measure import scores
from benchmarks.ablation.page import page, raise_guessing, section
from benchmarks.ablation.summary import BASELINE, summarise, verdict
from evaluation.data import EvalItem, MemorySet
from evaluation.result import Metric, Result
from rsvl_data.sample import Region, Sample
from rsvl_data.sources.scenes import Scenes
from rsvl_pretrain.model import DualEncoder


def result(right, name="scenes"):
    """Zero-shot accuracy of items that are right or not."""
    right = np.array(right, bool)
    items = {"truth": [0] * len(right), "rank": np.where(right, 1, 9).tolist()}
    value = float(right.mean())
    metrics = {"acc1": Metric(value, low=value, high=value, chance=0.05)}
    model = {"name": "m", "sha256": "0"}
    return Result("zero_shot", name, "test", "rsvl", len(right), metrics, model, {}, "code", 0.0, details={"items": items})


def seeds(*shares, n=200):
    return [{"zero_shot scenes": result(np.arange(n) < share * n)} for share in shares]


def test_a_difference_is_that_of_the_means_over_seeds():
    found = summarise(seeds(0.5, 0.7), seeds(0.4, 0.3))["zero_shot scenes"]
    assert found["mean"]["value"] == pytest.approx(0.6) and found["difference"]["value"] == pytest.approx(0.25)
    assert found["difference_per_seed"] == pytest.approx([0.1, 0.4]) and found["n"] == 200
    assert found["mean"]["low"] < 0.6 < found["mean"]["high"] and found["difference"]["low"] > 0


def test_below_guessing_nothing_is_told_apart():
    better = summarise(seeds(0.6, 0.6), seeds(0.3, 0.3))["zero_shot scenes"]
    assert verdict(better) == 1 and verdict({**better, "chance": 0.59}) == 1 and verdict({**better, "chance": 0.6}) == 0
    worse = summarise(seeds(0.3, 0.3), seeds(0.6, 0.6))["zero_shot scenes"]
    assert verdict(worse) == -1 and verdict({**worse, "chance": 0.59}) == -1 and verdict({**worse, "chance": 0.6}) == 0


def test_facts_of_objects():
    labels = ["ship", "ship", "plane", "ship"]
    items = [EvalItem(f"image-{number // 3}-{number}", label) for number, label in enumerate(labels)]
    objects = MemorySet("toys", "test", ("plane", "ship"), items, [b""] * 4)
    assert object_facts(objects) == {"items": 4, "images": 2, "guess": 0.75}


def test_facts_of_masks():
    """Of 12 pixels 9 are grass: that alone has IoU 0.75 of one class of two."""

    class Masked:
        items, classes, ignore_index = [0, 1], ("grass", "water"), 255

        def mask(self, index):
            return np.array([[0, 0, 0, 255], [0, 1, 1, 255]] if index else [[0, 0, 0, 0], [0, 1, 255, 255]])

    assert mask_facts(Masked()) == {"images": 2, "guess": pytest.approx(9 / 12 / 2)}


def test_the_page_takes_the_commonest_class_for_the_better_guess(tmp_path):
    measured = summarise([{"objects toys": result(np.arange(100) < 38)}] * 2, [{"objects toys": result(np.arange(100) < 20)}] * 2)
    baseline = summarise([{"objects toys": result(np.arange(100) < 20)}] * 2, [{"objects toys": result(np.arange(100) < 20)}] * 2)
    found = [
        {"arm": BASELINE, "words": "CLIP only", "measured_on": baseline},
        {"arm": "a", "words": "an arm", "measured_on": measured},
    ]
    assert verdict(measured["objects toys"]) == 1
    blind = {"objects toys": {"items": 8, "images": 3, "guess": 0.4}}
    raise_guessing(found, blind)
    assert measured["objects toys"]["chance"] == 0.4 and verdict(measured["objects toys"]) == 0
    text = "\n".join(section("real", found, blind))
    assert "| guessing | 40.0 |" in text and "The 8 objects of toys lie in 3 images" in text


def test_the_same_arm_differs_by_nothing():
    found = summarise(seeds(0.5, 0.7), seeds(0.5, 0.7))["zero_shot scenes"]
    difference = found["difference"]
    assert (difference["value"], difference["p_value"]) == (0, 1) and verdict(found) == 0
    assert 0 < difference["high"] == -difference["low"] < 0.02  # of two hundred items, one in fifty others could differ


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((0.9, 0.9), 1), ((0.1, 0.1), -1), ((0.95, 0.49), 0), ((0.505, 0.505), 0)],
    ids=["higher", "lower", "one seed is lower", "too near"],
)
def test_told_apart_are_differences_of_all_seeds_beyond_the_items(shares, expected):
    random = np.random.default_rng(0)
    base = [{"zero_shot scenes": result(random.permutation(200) < 100)} for _ in range(2)]
    other = [{"zero_shot scenes": result(random.permutation(200) < 200 * share)} for share in shares]
    assert verdict(summarise(other, base)["zero_shot scenes"]) == expected


def test_a_task_counts_once_whatever_number_of_sets_it_has():
    results = {"zero_shot a": result([1, 1]), "zero_shot b": result([0, 0]), "objects c": result([1, 1])}
    assert scores(results) == {"zero_shot": 0.5, "objects": 1.0}


def test_objects_are_cut_out_and_small_ones_left_out():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:20, 30:50] = (200, 0, 0)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    boxes = [Region(bbox=(30, 10, 50, 20), category="ship"), Region(bbox=(0, 0, 30, 7), category="ship")]
    sample = Sample(key="a", width=60, height=40, sha256="0" * 64, regions=boxes, image=content.getvalue())
    crops = object_crops("objects", "test", iter([sample]), ("plane", "ship"))
    assert [(item.key, item.label) for item in crops.items] == [("a-0", "ship")]
    with Image.open(io.BytesIO(crops.image(0))) as picture:
        assert picture.size == (20, 10) and set(picture.getcolors()) == {(200, (200, 0, 0))}


def test_joined_sources_keep_splits_and_repeat_training_images_alone():
    class Split:
        def __init__(self, split):
            self.scenes, self.split, self.name = Scenes(2, 64), split, split

        def entries(self):
            return (replace(entry, split=self.split) for entry in self.scenes.entries())

        def read(self, entry):
            return self.scenes.read(entry)

    joined = Joined("both", [Split("train"), Split("val")], [3, 3])
    entries = list(joined.entries())
    assert [entry.split for entry in entries] == ["train"] * 6 + ["val"] * 2
    samples = [joined.read(entry) for entry in entries]
    assert len({sample.key for sample in samples if isinstance(sample, Sample)}) == 6  # val has the same two scenes
    assert len({sample.sha256 for sample in samples if isinstance(sample, Sample)}) == 2


def test_families_have_a_representative_of_one_stage():
    all_arms = arms(32)
    assert next(iter(all_arms)) == BASELINE
    first = representatives(all_arms.values())
    assert {stage.family for arm in all_arms.values() for stage in arm.stages} == set(first)
    assert all(len(arm.stages) == 1 for arm in first.values())


def test_an_arm_trains_with_what_its_name_says():
    encoder = DualEncoder.load("rsvl-tiny")
    facts = {
        name: [stage.objective(encoder, 10).identity() | {"crops": set(stage.crops)} for stage in arm.stages]
        for name, arm in arms(32).items()
        if arm.stages
    }
    assert set(arms(32)) - set(facts) == {"start"}
    assert set(facts[BASELINE][0]) == {"contrastive", "crops"} and not facts[BASELINE][0]["crops"]
    teachers = {name: found["distill"]["teacher"] for name, (found, *_) in facts.items() if found.get("distill")}
    assert all(name == f"distill_{teacher}" for name, teacher in teachers.items() if teacher != "shared")
    aligned = {name: found["distill"]["align"] for name, (found, *_) in facts.items() if found.get("distill")}
    assert all(name == f"distill_{align}" for name, align in aligned.items() if align != "roi2pooled") and len(aligned) == 9
    regions = {name: found["regions"]["align"] for name, (found, *_) in facts.items() if found.get("regions")}
    assert regions == {f"regions_{align}": align for align in ("cls", "pooled", "roi")}
    weights = {name: found["weights"]["distill"] for name, (found, *_) in facts.items() if found.get("distill")}
    assert {name for name, weight in weights.items() if weight != 0.1} == {"distill_weight_1"}
    first, second = facts["both_stages"]
    assert first == facts["distill_shared"][0] and second == facts["regions_cls"][0]
    for name, (found, *_) in facts.items():
        if name.startswith("rs_m_clip"):
            assert (found["distillation"] is None) == ("plain" in name)
            assert found["crops"] == ({"global"} if "plain" in name else {"global", "local"})
            assert arms(32)[name].stages[0].languages == (("en", "es") if name.endswith("_es") else ("en",))


def test_a_finished_cell_is_kept_and_one_of_other_settings_made_again(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(cells, "_world", lambda *_: type("World", (), {"train": None, "val": "val", "test": "test"}))
    monkeypatch.setattr(cells.DualEncoder, "load", lambda *_: "encoder")
    monkeypatch.setattr(cells, "_trained", lambda encoder, stage, lr, *_: trained.append(lr) or encoder)
    monkeypatch.setattr(cells, "measure", lambda encoder, probes, **_: seeds(0.4 if probes == "val" else 0.6)[0])
    cell, place = Cell("scenes", BASELINE, 0, (1e-4,)), Place(tmp_path, tmp_path)
    path, seconds = cells.finish(cell, CPU, place, ("val", "test"))
    assert seconds > 0 and trained == [1e-4]
    assert scores(cells.read_results(path, "val")) == {"zero_shot": 0.4}
    assert scores(cells.read_results(path, "test")) == {"zero_shot": 0.6}
    assert cells.finish(cell, CPU, place, ("test",)) == (path, 0.0) and len(trained) == 1
    cells.finish(cell, replace(CPU, seeds=(0, 1), lrs=(1.0,)), place, ("test",))  # says what else is run, nothing of this cell
    assert len(trained) == 1
    cells.finish(cell, replace(CPU, sizes=Sizes(train=7)), place, ("test",))
    assert len(trained) == 2
    cells.finish(cell, replace(CPU, sizes=Sizes(train=7)), place, ("val",))  # was measured on test alone
    assert len(trained) == 3


def test_the_page_says_what_is_told_apart(tmp_path):
    scale = {"scale": "cpu", "code": "abc", "seeds": [0, 1], "machine": {"cores": 2, "cpu": "X"}}
    found = {
        BASELINE: (seeds(0.5, 0.52), "CLIP only"),
        "good": (seeds(0.9, 0.9), "better arm"),
        "bad": (seeds(0.1, 0.2), "worse arm"),
        "same": (seeds(0.5, 0.52), "equal arm"),
    }
    for world in ("scenes", "real"):
        (tmp_path / world).mkdir()
        for name, (results, words) in found.items():
            measured = summarise(results, found[BASELINE][0])
            record = {**scale, "world": world, "arm": name, "words": words, "measured_on": measured}
            (tmp_path / world / f"{name}.json").write_text(json.dumps(record))
    tasks = ("zero_shot", "objects", "retrieval", "open_vocabulary")
    tried = [
        {"world": "real", "family": "f", "arm": "a", "lr": lr, "val": dict.fromkeys(tasks, value)}
        for lr, value in ((0.1, 0.3), (0.01, 0.4))
    ]
    assert page(tmp_path) is None
    grid = {
        "setting": CPU.facts(),
        "arms": list(found),
        "tried": tried,
        "parameters": 7_654_321,
        "train_images": {"scenes": 1972, "real": 1094},
    }
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    (tmp_path / "blind.json").write_text(json.dumps({"worlds": {"scenes": {}, "real": {}}}))
    text = page(tmp_path)
    assert text is not None
    assert "7.7 million" in text and "1,972 scenes or 1,094 real images" in text
    assert "- zero-shot: higher with better arm\n- zero-shot: lower with worse arm\n\n" in text
    assert "| CLIP only | 51.0 (50.0–52.0) |" in text
    assert "| better arm | 90.0 (90.0–90.0)<br>**+39.0 [" in text and "| worse arm | 15.0 (10.0–20.0)<br>**−36.0 [" in text
    assert "| equal arm | 51.0 (50.0–52.0)<br>+0.0 [−1.8, +1.8] |" in text
    assert "Of 3 differences to CLIP only, 2 are told apart:" in text
    assert "- zero-shot, scenes: higher with better arm (+39.0); lower with worse arm (−36.0)" in text
    assert "| real | f | a | **0.01** | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 |" in text and "| real | f | a | 0.1 | 30.0 |" in text
    assert "procedural" in text.splitlines()[2]


@pytest.mark.slow
def test_the_whole_command(tmp_path, shared, monkeypatch):
    sizes = Sizes(start=60, train=100, val=40, test=40, dense=4)
    tiny = replace(CPU, steps=2, batch_size=8, start_steps=2, start_batch_size=8, lrs=(1e-4,), sizes=sizes)
    monkeypatch.setitem(run.SCALES, "cpu", tiny)
    options = run.Options(work=tmp_path / "work", shared=shared / "data", out=tmp_path / "out", seeds=(0, 1))
    assert run.main(options) == 0
    text = page(tmp_path / "out")
    assert text is not None and all(arm.words in text for arm in arms(32).values())
