"""From pictures to classes: the official merging and post-processing, laws of windows and batches, and each option."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rsvl_data.errors import OptionError
from rsvl_pretrain.dense import encode_dense
from rsvl_segment.classes import Classes, text_queries
from rsvl_segment.postprocess import NO_CLASS, class_map, class_values
from rsvl_segment.protocols import PROTOCOLS, SegmentOptions, protocol_options
from rsvl_segment.scenes import Pixels
from rsvl_segment.segmenter import Segmenter
from rsvl_segment.upsample import bilinear, joint_bilateral
from rsvl_segment.windows import padding, windows

CLASSES = Classes.parse("water,building|house|roof,road")


@pytest.fixture
def official(shared):
    folder = shared / "fixtures" / "evaluation"
    return json.loads((folder / "ovss.json").read_text()), np.load(folder / "ovss.npz")


def all_logits(segmenter, picture):
    return torch.cat([logits for _, _, logits in segmenter.logits([picture])], 1)


# --- the official numbers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fitted(SegmentOptions):
    """The cases of the fixture name their working sizes."""

    size: tuple[int, int] = (0, 0)

    def working_size(self, height, width):
        return self.size


class Stored(Segmenter):
    """Tokens that were stored stand in for an image tower."""

    def __init__(self, *arguments, tokens, **others):
        super().__init__(*arguments, **others)
        self.tokens = iter(tokens)

    def _patch_logits(self, windows):
        height, width = windows.shape[-2:]
        padded = F.pad(windows.float(), padding(height, width, self.patch))
        tokens = torch.stack([next(self.tokens) for _ in windows])
        return self._cosines(tokens.transpose(1, 2).unflatten(2, (4, 4))), padded


@pytest.mark.parametrize("name", ["multiple", "resized", "clamped", "small"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_merged_logits_are_the_official_ones(official, encoder, name, batch_size):
    case, arrays = official[0]["merge"]["cases"][name], official[1]
    queries = torch.from_numpy(arrays["query_feature"])
    options = Fitted(window_px=case["crop"], stride_px=case["stride"], size=tuple(case["image"]), logit_scale=50)
    classes = Classes(tuple((str(i),) for i in range(len(queries))))
    tokens = torch.from_numpy(arrays[f"{name}_tokens"])
    segmenter = Stored(encoder, classes, options, queries=queries, batch_size=batch_size, tokens=tokens)
    found = all_logits(segmenter, Pixels(np.zeros((*case["original"], 3), np.uint8)))
    np.testing.assert_allclose(found.numpy(), arrays[f"{name}_merged_logits"], atol=1e-5)


@pytest.mark.parametrize("name", ["synonyms", "no_synonyms", "low_scale"])
def test_classes_are_the_official_ones(official, name):
    case, arrays = official[0]["postprocess"]["cases"][name], official[1]
    logits = torch.from_numpy(arrays[f"{name}_logits"])
    values = class_values(logits, case["query_to_class"], case["logit_scale"], "max")
    np.testing.assert_allclose(values.numpy(), arrays[f"{name}_class_prob"], atol=1e-6)
    best = values.topk(2, 0).values
    clear = (best[0] - best[1]).numpy() > 1e-5
    for threshold, result in case["results"].items():
        found = class_map(values, float(threshold), case["bg_idx"]).numpy()
        near = np.abs(best[0].numpy() - float(threshold)) < 1e-5
        np.testing.assert_array_equal(found[clear & ~near], arrays[f"{name}_pred_thd_{threshold}"][clear & ~near])
        if not near.any() and clear.all():
            assert np.bincount(found.ravel(), minlength=len(values)).tolist() == result["pixels_per_class"]
    summed = class_values(logits, case["query_to_class"], case["logit_scale"], "sum")
    differs = int((summed.argmax(0) != values.argmax(0)).sum())
    assert differs == case["pixels_where_sum_over_synonyms_gives_another_argmax"]


def test_what_was_released_and_what_is_right():
    """As many phrases as classes, in another order: released code does not look at the order. A synonym more must not cost."""
    logits = torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
    assert class_map(class_values(logits, [2, 1, 0], 1.0, "max")).item() == 0
    assert class_map(class_values(logits, [2, 1, 0], 1.0, "sum")).item() == 2
    twice = torch.tensor([0.5, 0.5, 0.0]).view(3, 1, 1)
    assert class_map(class_values(twice, [0, 0, 1], 1.0, "max"), 0.5, 1).item() == 1
    assert class_map(class_values(twice, [0, 0, 1], 1.0, "sum"), 0.5, 1).item() == 0
    assert class_values(twice, [0, 0, 1], 1.0, "sum").sum() == pytest.approx(1)


# --- laws --------------------------------------------------------------------------------------------------------------------


def plain(segmenter, picture):
    """One window per forward, the whole in memory: the shape of SegEarth-OV's `forward_slide`."""
    options, height, width = segmenter.options, picture.height, picture.width
    sums, hits = torch.zeros(len(segmenter.queries), height, width), torch.zeros(height, width)
    whole = segmenter.encoder.preprocess.normalize(picture.rows(0, height)[None])
    for y0, y1, x0, x1 in windows(height, width, options.window_px, options.stride_px):
        left, right, top, bottom = padding(y1 - y0, x1 - x0, segmenter.patch)
        crop = F.pad(whole[..., y0:y1, x0:x1], (left, right, top, bottom))
        with torch.no_grad():
            dense = F.normalize(encode_dense(segmenter.encoder.model, crop, options.head), dim=1)
        logits = torch.einsum("bdhw,qd->bqhw", dense, segmenter.queries)
        logits = F.interpolate(logits, size=crop.shape[-2:], mode="bilinear")[0]
        sums[:, y0:y1, x0:x1] += logits[:, top : top + y1 - y0, left : left + x1 - x0]
        hits[y0:y1, x0:x1] += 1
    return sums / hits


@pytest.mark.parametrize("size", [(80, 64), (61, 47), (20, 90), (13, 11)])
def test_batches_by_rows_are_one_window_at_a_time(encoder, picture, size):
    segmenter, scene = Segmenter(encoder, CLASSES, SegmentOptions(window_px=32, stride_px=12)), picture(*size)
    torch.testing.assert_close(all_logits(segmenter, scene), plain(segmenter, scene), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [SegmentOptions(), *PROTOCOLS.values(), SegmentOptions(scale=1.7), SegmentOptions(scale=0.4)])
def test_batch_size_and_company_change_nothing(encoder, picture, options):
    options = replace(options, window_px=32, stride_px=16, fit_px=48 if options.fit_px else 0)
    scenes = [picture(40, 72, 1), picture(21, 17, 2), picture(64, 64, 3), picture(40, 72, 4)]
    alone = [all_logits(Segmenter(encoder, CLASSES, options, batch_size=1), scene) for scene in scenes]
    together: list[list[torch.Tensor]] = [[] for _ in scenes]
    for number, row, logits in Segmenter(encoder, CLASSES, options, batch_size=7).logits(scenes):
        assert row == sum(part.shape[1] for part in together[number])
        together[number].append(logits)
    for scene, one, parts in zip(scenes, alone, together, strict=True):
        assert one.shape[1:] == (scene.height, scene.width)
        torch.testing.assert_close(torch.cat(parts, 1), one, atol=1e-5, rtol=1e-5)


def test_class_order_permutes_the_map(encoder, picture):
    scene = picture(40, 40)
    there = Segmenter(encoder, Classes.parse("water,house,road")).segment(scene)
    back = Segmenter(encoder, Classes.parse("road,water,house")).segment(scene)
    assert torch.equal(torch.tensor([1, 2, 0], dtype=torch.uint8)[there.long()], back)
    assert len(there.unique()) > 1


def test_bands_say_what_a_threshold_is_compared_with(encoder, picture):
    bands = list(Segmenter(encoder, CLASSES).bands([picture(40, 40)]))
    values = torch.cat([band.values for band in bands])
    middle = float(values.median())
    classes = Segmenter(encoder, CLASSES, SegmentOptions(threshold=middle)).segment(picture(40, 40))
    assert torch.equal(classes == NO_CLASS, values < middle) and 0 < (values < middle).sum() < values.numel()
    road = Segmenter(encoder, CLASSES, SegmentOptions(threshold=middle), background=2).segment(picture(40, 40))
    assert torch.equal(road, torch.where(classes == NO_CLASS, 2, classes))


# --- options -----------------------------------------------------------------------------------------------------------------

OTHERS = {
    "head": "last", "window_px": 24, "stride_px": 8, "fit_px": 60, "scale": 1.5, "antialias": False, "window_input": "tower_size",
    "upsample": "jbu", "class_token_weight": -0.3, "logit_scale": 3.0, "synonyms": "max", "threshold": 0.999,
}  # fmt: skip


@pytest.mark.parametrize("name, value", OTHERS.items())
def test_every_option_changes_the_outcome(encoder, picture, name, value):
    base = {"antialias": SegmentOptions(scale=0.5), "window_input": SegmentOptions(window_px=24)}.get(name, SegmentOptions())

    def outcome(options):
        bands = list(Segmenter(encoder, CLASSES, options).bands([picture(72, 88)]))
        return torch.cat([band.values * 1000 + band.classes for band in bands])

    assert not torch.allclose(outcome(base), outcome(replace(base, **{name: value})), atol=1e-3)


def test_every_option_is_tried():
    assert set(OTHERS) == set(SegmentOptions.__dataclass_fields__)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"window_px": 32, "stride_px": 33}, "stride from 1 to the window"),
        ({"scale": 0}, "0.01 to 100"),
        ({"fit_px": 448, "scale": 2.0}, "both resize"),
        ({"threshold": 1.5}, "0 to 1"),
        ({"fit_px": -1}, "0 or more"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(OptionError, match=message):
        SegmentOptions(**options)


def test_working_size_is_that_of_mmcv():
    farslip = protocol_options("farslip")
    assert farslip.working_size(1024, 1024) == (448, 448)
    assert farslip.working_size(1500, 1000) == (448, 299)
    assert farslip.working_size(100, 200) == (224, 448)
    assert SegmentOptions(scale=0.5).working_size(101, 7) == (51, 4)
    with pytest.raises(OptionError, match="allowed: rsvl, farslip, segearth_ov"):
        protocol_options("clearclip")


def test_segearth_subtracts_the_class_token_of_its_head(encoder, picture):
    scene = picture(32, 32)
    plain_logits = all_logits(Segmenter(encoder, CLASSES), scene)
    lowered = all_logits(Segmenter(encoder, CLASSES, SegmentOptions(class_token_weight=-0.3)), scene)
    shift = lowered - plain_logits  # one window: the same for all pixels, another for each phrase
    torch.testing.assert_close(shift, shift[:, :1, :1].expand_as(shift), atol=1e-5, rtol=1e-4)
    assert shift.abs().max() > 1e-3


# --- words and upsampling ----------------------------------------------------------------------------------------------------


def test_queries_are_means_of_unit_prompts(encoder):
    templates = ("a photo of {}.", "{} from above")
    found = text_queries(encoder, CLASSES, templates, batch_size=3)
    assert encoder.asked[:2] == ["a photo of water.", "water from above"] and len(encoder.asked) == 10
    for row, phrase in enumerate(["water", "building", "house", "roof", "road"]):
        prompts = F.normalize(encoder.encode_text([template.replace("{}", phrase) for template in templates]), dim=-1)
        torch.testing.assert_close(found[row], F.normalize(prompts.mean(0), dim=0))
    assert Segmenter(encoder, CLASSES).queries.shape == (5, 16)
    assert len(encoder.asked) == 20 + 5 * 80  # the published default


def test_official_synonym_lists(shared):
    sets = json.loads((shared / "fixtures" / "evaluation" / "prompts.json").read_text())["ovss"]["datasets"]
    for facts in sets.values():
        classes = Classes.parse(",".join("|".join(group) for group in facts["classes_with_synonyms"]))
        assert (classes.queries, classes.query_to_class) == (facts["queries"], facts["query_to_class"])


@pytest.mark.parametrize("text", ["", ",", "water,,road", "water|", "water,road|water"])
def test_classes_that_cannot_be(text):
    with pytest.raises(OptionError, match="water,building|more than once"):
        Classes.parse(text)


def test_palettes_differ():
    many = Classes(tuple((f"class {i}",) for i in range(255)))
    assert len(set(many.palette())) == 255
    assert Classes.parse("tree,forest,water").palette()[2] == Classes.parse("water").palette()[0]
    with pytest.raises(OptionError, match="256 classes"):
        Classes(tuple((f"class {i}",) for i in range(256)))
    with pytest.raises(OptionError, match="'sea'; there are water, building, road"):
        CLASSES.index("sea")
    assert CLASSES.index("house") == 1


def test_joint_bilateral_keeps_constants_and_follows_edges():
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 13:] = 2.0  # an edge inside of the second patch
    logits = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
    torch.testing.assert_close(
        joint_bilateral(torch.full((2, 3, 4, 4), 0.3), picture.expand(2, -1, -1, -1)), torch.full((2, 3, 32, 32), 0.3)
    )
    follows, ignores = (values[0, 0, 16] for values in (joint_bilateral(logits, picture), bilinear(logits, (32, 32))))
    assert follows[12] < 0.2 and follows[14] > 0.5 and follows[12:15].diff().max() > 3 * ignores[12:15].diff().max()
