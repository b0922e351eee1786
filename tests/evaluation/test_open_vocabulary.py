"""The open-vocabulary benchmark: numbers known beforehand, thresholds that never see the split they are reported on."""

import base64
import io
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image

from evaluation.benchmarks.chosen_threshold import ChosenThreshold, may_choose_on
from evaluation.benchmarks.open_vocabulary import (
    PROMPT_SETS,
    SEGEARTH_THRESHOLDS,
    Setting,
    choose_threshold,
    open_vocabulary,
)
from evaluation.data import EvalItem, MemorySet
from evaluation.datasets.segmentation import SEGMENTATION_SETS
from evaluation.shard_masks import ShardMasks, ThinnedMasks
from rsvl_data.errors import DataError, OptionError
from rsvl_data.mask_files import encode_mask
from rsvl_data.sample import Caption, Sample
from rsvl_data.shards import Dataset, write_shard
from rsvl_data.transforms import Preprocess

COLOURS = np.array([[220, 20, 20], [20, 220, 20], [20, 20, 220]], np.uint8)


class PatchColours:
    """Tokens are the mean colours of patches: projected by a tower without blocks that mix, they point at the words for colours."""

    name = "patch colours"
    training = False

    def __init__(self):
        torch.manual_seed(0)
        vision = {"image_size": 16, "patch_size": 4, "width": 8, "head_width": 4, "layers": 1}
        self.model = CLIP(3, vision, {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 2, "layers": 1})
        tower = self.model.visual
        with torch.no_grad():
            for parameter in tower.parameters():
                parameter.zero_()
            tower.conv1.weight[:3] = torch.eye(3)[:, :, None, None] / 16
            tower.transformer.resblocks[0].ln_1.weight.fill_(1)
            tower.transformer.resblocks[0].attn.in_proj_weight[16:].copy_(torch.eye(8))
            tower.transformer.resblocks[0].attn.out_proj.weight.copy_(torch.eye(8))
            tower.transformer.resblocks[0].mlp.c_proj.weight.zero_()
            tower.ln_pre.weight.fill_(1)
            tower.ln_post.weight.fill_(1)
            tower.proj[:3] = torch.eye(3)
        self.preprocess = Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        self.device = torch.device("cpu")
        self.logit_scale = torch.tensor(10.0)

    def encode_text(self, texts, *, normalize=True):
        rows = torch.tensor([[float(word in text) for word in ("red", "green", "blue")] for text in texts])
        return rows - rows.mean(1, keepdim=True)

    def weights_sha256(self):
        return "patch-colours"


@dataclass(frozen=True)
class Masked(MemorySet):
    synonyms: tuple[tuple[str, ...], ...] = ()
    masks: tuple[np.ndarray, ...] = ()
    ignore_index: int = 255

    def mask(self, index):
        return self.masks[index]


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def squares(split="test", n=4, seed=0, change=lambda mask: mask):
    """16 x 20 px in blocks of 4 px, each in the colour of its class."""
    generator = np.random.default_rng(seed)
    truths = [generator.integers(0, 3, (4, 5), np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(n)]
    items = [EvalItem(f"{split}-{i}") for i in range(n)]
    images = [png(COLOURS[truth]) for truth in truths]
    masks = tuple(change(truth.copy()) for truth in truths)
    return Masked("squares", split, ("red", "green", "blue"), items, images, None, (("red",), ("green",), ("blue",)), masks)


@pytest.fixture
def encoder():
    return PatchColours()


def setting_of(data, **changes):
    given = {"head": "maskclip", "window_px": 16, "stride_px": 4} | changes
    return Setting.of("rsvl", data, **given)


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_colours_are_found(encoder):
    """Classes are right in the middle of blocks; edges are soft, as patches are."""
    data = squares()
    result = open_vocabulary(encoder, data, setting_of(data), num_bootstrap=50)
    assert result.n == 4 and values(result)["aacc"] > 0.8 and set(result.per_class) == {"red", "green", "blue"}
    assert result.metrics["miou"].low is None  # four images are too few for an interval
    shuffled = open_vocabulary(
        encoder, replace(data, synonyms=(("green",), ("blue",), ("red",))), setting_of(data), num_bootstrap=5
    )
    assert values(shuffled)["aacc"] < 0.2
    assert result.metrics["macc"].chance == pytest.approx(1 / 3) and 0.15 < result.metrics["miou"].chance < 0.25
    labelled = np.sum(result.details["confusion"]["counts"], axis=1)
    assert result.metrics["aacc"].chance == pytest.approx(labelled.max() / labelled.sum())


def test_a_perfect_prediction_is_one(encoder):
    data = squares()
    predicted = []
    result = open_vocabulary(encoder, data, setting_of(data), num_bootstrap=5)
    again = squares(change=lambda mask: predicted.append(mask) or mask)
    assert len(predicted) == 4 and values(open_vocabulary(encoder, again, setting_of(again), num_bootstrap=5)) == values(result)
    flat = replace(data, images=[png(np.broadcast_to(COLOURS[i % 3], (16, 20, 3)).copy()) for i in range(4)])
    flat = replace(flat, masks=tuple(np.full((16, 20), i % 3, np.uint8) for i in range(4)))
    found = open_vocabulary(encoder, flat, setting_of(flat), num_bootstrap=5)
    assert values(found) == {"miou": 1, "macc": 1, "mf1": 1, "mprecision": 1, "aacc": 1}  # and no boundary to score
    items = found.details["items"]
    assert items["key"] == [f"test-{i}" for i in range(4)] and items["mean_over"] == list(range(len(data.classes)))
    assert items["right"] == items["labelled"] == items["predicted"] and np.sum(items["right"]) == 4 * 320
    assert np.trace(found.details["confusion"]["counts"]) == 4 * 320
    shown = found.details["overlays"]
    assert [each["key"] for each in shown] == [f"test-{i}" for i in range(4)]
    assert [[name for name, _ in each["legend"]] for each in shown] == [["red"], ["green"], ["blue"], ["red"]]
    for each in shown:
        pictures = [opened(each[f"{name}_base64"]) for name in ("picture", "truth", "image")]
        assert {picture.size for picture in pictures} == {(20, 16)}
        assert each["truth_base64"] == each["image_base64"] != each["picture_base64"]  # all is right, and coloured


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_the_legend_names_what_is_true_or_predicted_and_ignored_pixels_stay_bare(encoder):
    data = squares(change=lambda mask: np.where(np.arange(20) < 10, 255, 2).astype(np.uint8) * np.ones_like(mask))
    [first, *_] = open_vocabulary(encoder, data, setting_of(data), num_bootstrap=5).details["overlays"]
    assert [name for name, _ in first["legend"]][-1] == data.classes[2] and len(first["legend"]) > 1
    bare, truth = (np.asarray(opened(first[f"{name}_base64"]).convert("RGB"), dtype=int) for name in ("picture", "truth"))
    assert np.abs(bare - truth)[:, :8].mean() < 12 < np.abs(bare - truth)[:, 12:].mean()


def test_ignored_pixels_and_images_count_for_nothing(encoder):
    def without_left_half(mask):
        mask[:, :10] = 255
        return mask

    data = squares(change=without_left_half)
    whole = open_vocabulary(encoder, data, setting_of(data), num_bootstrap=5)
    assert np.sum(whole.details["confusion"]["counts"]) == 4 * 160
    one_empty = replace(data, masks=(np.full((16, 20), 255, np.uint8), *data.masks[1:]))
    found = open_vocabulary(encoder, one_empty, setting_of(data), num_bootstrap=5)
    assert (found.n, found.data["without_labels"], found.details["items"]["key"]) == (3, 1, ["test-1", "test-2", "test-3"])
    empty = replace(data, masks=tuple(np.full((16, 20), 255, np.uint8) for _ in range(4)))
    with pytest.raises(DataError, match="no pixel to score"):
        open_vocabulary(encoder, empty, setting_of(data))


@pytest.mark.parametrize("mask, message", [(np.zeros((16, 21)), "16 pixels"), (np.full((16, 20), 7), "ids 7")])
def test_masks_that_do_not_fit_are_named(encoder, mask, message):
    data = squares()
    broken = replace(data, masks=(*data.masks[:2], mask.astype(np.uint8), data.masks[3]))
    with pytest.raises(DataError, match=f"image test-2.*{message}"):
        open_vocabulary(encoder, broken, setting_of(data))


# --- thresholds --------------------------------------------------------------------------------------------------------------


def test_a_threshold_is_what_it_says(encoder):
    """Every pixel is below a threshold of 1, and nothing but the threshold leads there."""
    data = squares()
    never = open_vocabulary(encoder, data, setting_of(data), num_bootstrap=5)
    always = open_vocabulary(encoder, data, setting_of(data, background="blue", threshold=1.0), num_bootstrap=5)
    assert (
        np.sum(np.array(always.details["confusion"]["counts"])[:, :2])
        == 0
        < np.sum(np.array(never.details["confusion"]["counts"])[:, :2])
    )
    told = [[result.options[name] for name in ("threshold", "background", "own_threshold")] for result in (never, always)]
    assert told == [[0.0, None, False], [1.0, "blue", True]]


def chosen_on(encoder, data, *, thresholds=(0.3,), **changes):
    return choose_threshold(encoder, data, setting_of(data, background="blue", choosing=True, **changes), thresholds=thresholds)


def test_the_chosen_threshold_is_the_best_of_the_split(encoder, tmp_path):
    val, test = squares("val", seed=1), squares("test", seed=2)
    tried = (0.0, 0.4, 0.8, 0.99)
    chosen = chosen_on(encoder, val, thresholds=tried)
    setting = setting_of(val, background="blue", choosing=True)
    measured = {
        value: values(
            open_vocabulary(encoder, val, replace(setting, options=replace(setting.options, threshold=value)), num_bootstrap=5)
        )["miou"]
        for value in tried
    }
    assert {float(value): miou for value, miou in chosen.miou.items()} == pytest.approx(measured)
    assert measured[chosen.threshold] == max(measured.values()) and len(set(measured.values())) > 1
    chosen.save(tmp_path / "threshold.json")
    assert ChosenThreshold.load(tmp_path / "threshold.json") == chosen
    other = replace(chosen, threshold=0.99)
    found = open_vocabulary(encoder, test, setting_of(test), chosen=other, num_bootstrap=5)
    assert (found.options["threshold"], found.options["background"]) == (0.99, "blue") and found.options["own_threshold"]
    assert found.options["threshold_chosen_on"] == {"split": "val", "data_sha256": val.sha256()}
    direct = open_vocabulary(encoder, test, setting_of(test, background="blue", threshold=0.99), num_bootstrap=5)
    assert values(found) == values(direct) != values(open_vocabulary(encoder, test, setting_of(test), num_bootstrap=5))


def test_thresholds_never_see_what_they_are_reported_on(encoder):
    val, test = squares("val", seed=1), squares("test", seed=2)
    chosen = chosen_on(encoder, val)
    for same in (val, squares("val", seed=3), squares("all", seed=3), replace(val, name="copy", split="test")):
        with pytest.raises(OptionError, match="which is in what is measured here"):
            open_vocabulary(encoder, same, setting_of(same), chosen=chosen)
    mixed = replace(test, items=[*test.items[:3], val.items[3]], images=[*test.images[:3], val.images[3]])
    with pytest.raises(OptionError, match="chosen on 4 images, and image val-3 of what is measured is one of them"):
        open_vocabulary(encoder, mixed, setting_of(mixed), chosen=chosen)
    twins = replace(
        test, images=val.images, masks=val.masks
    )  # equal images of two splits are no reason to refuse: sets have them
    assert open_vocabulary(encoder, twins, setting_of(twins), chosen=chosen, num_bootstrap=5).n == 4


@pytest.mark.parametrize(
    ("split", "may"),
    [
        ("val", True),
        ("train", True),
        ("Validation", True),
        ("test", False),
        ("testB", False),
        ("all", False),
        ("trainvaltest", False),
    ],
)
def test_thresholds_are_chosen_on_val_or_train(encoder, split, may):
    assert may_choose_on(split) == may
    if not may:
        with pytest.raises(OptionError, match=f"never chosen on split '{split}'"):
            chosen_on(encoder, squares(split))


def test_a_threshold_is_for_the_setting_it_was_chosen_under(encoder, tmp_path):
    val, test = squares("val", seed=1), squares("test", seed=2)
    chosen = chosen_on(encoder, val)
    chosen.save(tmp_path / "threshold.json")
    chosen = ChosenThreshold.load(tmp_path / "threshold.json")
    for changes, told in (({"head": "last"}, "head: maskclip and last"), ({"scale": 0.5}, "scale: 1.0 and 0.5")):
        with pytest.raises(OptionError, match=f"chosen for something else.*{told}"):
            open_vocabulary(encoder, test, setting_of(test, **changes), chosen=chosen)
    others = {
        "model": replace(chosen, made_for=chosen.made_for | {"model": "other"}),
        "prompts": replace(chosen, made_for=chosen.made_for | {"prompts": "other"}),
    }
    for name, other in others.items():
        with pytest.raises(OptionError, match=f"chosen for something else.*{name}: other and"):
            open_vocabulary(encoder, test, setting_of(test), chosen=other)
    for data, told in (
        (replace(test, name="circles"), "dataset"),
        (replace(test, synonyms=(("red", "rot"), *test.synonyms[1:])), "rot"),
    ):
        with pytest.raises(OptionError, match=f"chosen for something else.*{told}"):
            open_vocabulary(encoder, data, setting_of(data), chosen=chosen)
    explicit = setting_of(test, window_px=0, stride_px=4)  # the encoder's own size, as was asked for
    assert open_vocabulary(encoder, test, explicit, chosen=chosen, num_bootstrap=5).options["threshold"] == 0.3


def test_what_cannot_be_chosen(encoder, tmp_path):
    val = squares("val", seed=1)
    with pytest.raises(OptionError, match="needs a background class and thresholds"):
        choose_threshold(encoder, val, setting_of(val))
    with pytest.raises(OptionError, match="needs a background class and thresholds"):
        chosen_on(encoder, val, thresholds=(0.3, 1.5))
    with pytest.raises(OptionError, match="protocol farslip has no threshold"):
        Setting.of("farslip", val, choosing=True)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(DataError, match="holds no chosen threshold"):
        ChosenThreshold.load(tmp_path / "broken.json")


# --- protocols ---------------------------------------------------------------------------------------------------------------


def test_published_protocols_stay_as_they_are():
    data = squares()
    farslip = Setting.of("farslip", data)
    assert (farslip.options.threshold, farslip.options.fit_px, farslip.prompts) == (0, 448, PROMPT_SETS["openai_imagenet"])
    assert len(farslip.prompts.templates) == 80
    with pytest.raises(OptionError, match="Change them under protocol rsvl"):
        Setting.of("farslip", data, head="last")
    for changes in ({"threshold": 0.3}, {"background": "blue"}):
        with pytest.raises(OptionError, match="has no threshold and no background"):
            Setting.of("farslip", data, **changes)
    with pytest.raises(OptionError, match="needs a background class"):
        Setting.of("rsvl", data, threshold=0.3)
    with pytest.raises(OptionError, match="background 'blue' takes the pixels below a threshold; give one above 0"):
        Setting.of("rsvl", data, background="blue")
    with pytest.raises(OptionError, match="no class 'sea'; it has red, green, blue"):
        Setting.of("rsvl", data, background="sea")
    loveda = replace(squares(), name="loveda")
    segearth = Setting.of("segearth_ov", loveda)
    assert (segearth.options.threshold, segearth.background, segearth.options.class_token_weight) == (0.3, 0, -0.3)


def test_segearth_ov_with_a_threshold_of_ours_says_so(encoder):
    """It stays possible, since its rule is by dataset; no published row compares with it."""
    loveda = replace(squares(), name="loveda")
    cases = {False: ({}, {"threshold": 0.3, "background": "red"}), True: ({"threshold": 0.5}, {"background": "blue"})}
    for own, settings in cases.items():
        for changes in settings:
            result = open_vocabulary(encoder, loveda, Setting.of("segearth_ov", loveda, **changes), num_bootstrap=2)
            assert result.options["own_threshold"] == own


def test_segearth_thresholds_are_the_published_ones(golden):
    sets = golden("prompts")[0]["ovss"]["datasets"]
    theirs = {name.lower(): (facts["cfg_prob_thd"], facts["cfg_bg_idx"]) for name, facts in sets.items()}
    ours = {name.removesuffix("-9").removesuffix("-7"): value for name, value in SEGEARTH_THRESHOLDS.items()}
    assert ours == theirs
    known = {entry.name: entry.classes for entry in SEGMENTATION_SETS}
    assert all(index < len(known[name]) for name, (_, index) in SEGEARTH_THRESHOLDS.items())


# --- our shards ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path):
    """Three images with masks of two classes, scene labels of their own."""
    samples = []
    for index in range(3):
        truth = np.zeros((16, 20), np.uint8)
        truth[:, 4 * index :] = 1
        image = png(COLOURS[truth])
        facts = {"key": f"key{index}", "width": 20, "height": 16, "sha256": f"{index}" * 64, "label": f"scene {index}"}
        samples.append(Sample(**facts, captions=[Caption(text="a square")], image=image, mask=encode_mask(truth)))
    facts = write_shard(tmp_path / "data", "test-00000", iter(samples), image_suffix="png")
    legend = {"classes": ["red", "green"], "palette": [[255, 0, 0], [0, 255, 0]], "ignore_index": 255}
    manifest = {
        "name": "two",
        "splits": {"test": 3},
        "shards": [{"split": "test", "name": "test-00000", **facts}],
        "mask": legend,
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_our_shards_with_masks(encoder, shards):
    data = ShardMasks(Dataset.open(shards), "test")
    assert (data.classes, data.synonyms, [item.key for item in data.items]) == (
        ("red", "green"),
        (("red",), ("green",)),
        ["key0", "key1", "key2"],
    )
    result = open_vocabulary(encoder, data, setting_of(data), num_bootstrap=5)
    assert result.n == 3 and values(result)["aacc"] > 0.9
    few = ThinnedMasks(data, 2)
    assert (
        open_vocabulary(encoder, few, setting_of(few), num_bootstrap=5).n == 2
        and "Measured on 2 of these 3 images only" in few.note
    )
    assert few.sha256() != data.sha256()
    for index, place in enumerate(few.places):
        assert few.items[index] == data.items[place] and few.image(index) == data.image(place)
        assert (few.mask(index) == data.mask(place)).all()


def test_shards_without_masks(shards):
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(json.dumps(manifest | {"mask": None}))
    with pytest.raises(DataError, match="has no masks"):
        ShardMasks(Dataset.open(shards), "test")
