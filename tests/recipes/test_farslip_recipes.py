"""Presets, warnings, released checkpoints."""

import json
import logging
import math
from dataclasses import fields, replace
from pathlib import Path

import open_clip
import pytest
import torch
from region_dataset import build_regions
from tiny_xlm_roberta import CLIP_NAME, fill_hub_cache, use_hub_cache

from recipes import cli
from recipes.pretrain import _farslip, farslip1, farslip2
from rsvl_data.errors import DataError, OptionError
from rsvl_pretrain import farslip_checkpoints
from rsvl_pretrain.farslip_checkpoints import load_farslip
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig, DistillConfig, RegionConfig
from rsvl_pretrain.optim import OptimConfig, share_below_rounding
from rsvl_pretrain.text_positions import KeptPositions, set_context_length
from rsvl_pretrain.train import TrainConfig

RECIPES = {"pretrain/farslip1": farslip1, "pretrain/farslip2": farslip2}
NEEDED = ("--data", "d", "--out", "o", "--init-from", "rsvl-tiny")


def options_of(recipe: str, *words: str, monkeypatch) -> farslip1.Options | farslip2.Options:
    """What the command line makes of the words."""
    seen = []
    monkeypatch.setattr(RECIPES[recipe], "run", seen.append)
    assert cli.run_recipe([recipe, *NEEDED, *words]) == 0
    return seen[0]


def test_the_preset_is_where_options_start(monkeypatch):
    paper = options_of("pretrain/farslip1", "--preset", "paper", "--optim.wd", "0.5", monkeypatch=monkeypatch)
    assert paper == replace(paper_of(farslip1), optim=replace(paper_of(farslip1).optim, wd=0.5))
    left_out = options_of("pretrain/farslip1", monkeypatch=monkeypatch)
    assert left_out == options_of("pretrain/farslip1", "--preset=recommended", monkeypatch=monkeypatch)
    assert left_out.contrastive == ContrastiveConfig() and left_out.optim.lr == 1e-5
    second = options_of("pretrain/farslip2", "--preset", "paper", "--context-length", "248", monkeypatch=monkeypatch)
    assert second == replace(paper_of(farslip2), context_length=248)


def paper_of(module) -> farslip1.Options | farslip2.Options:
    return module.Options(data=Path("d"), out=Path("o"), init_from="rsvl-tiny", **module.PRESETS["paper"])


# What a method does not decide: where things lie, who decodes, how a run is stored.
NOT_OF_THE_METHOD = {
    "data",
    "out",
    "init_from",
    "preset",
    "workers",
    "prefetch",
    "shuffle_shards",
    "data_cache",
    "data_cache_gib",
}
NOT_OF_THE_METHOD |= {"resume", "grad_checkpointing"}

# Sections 3.2 to 3.4 of the reference, for both stages.
RELEASED = {
    "batch_size": 160,
    "seed": 0,
    "contrastive": ContrastiveConfig("softmax", "negatives", "gather", local_loss=False, gather_with_grad=False),
    "contrastive_weight": 1.0,
    "distill": DistillConfig("roi2pooled", "shared", 0.99, "before_step"),
    "distill_weight": 0.1,
    "crops_per_image": 4,
    "crop_area": (0.3, 0.7),
    "crop_aspect": (3 / 4, 4 / 3),
    "crop_px": None,
    "head": "segearth",
    "flips": False,
    "lang": None,
    "context_length": None,
    "convert_positions": False,
    "keep_first_positions": True,
}
ADAMW = OptimConfig(
    lr=1.0,
    beta1=0.9,
    beta2=0.98,
    eps=1e-6,
    wd=1.0,
    warmup=0,
    lr_scheduler="cosine",
    layer_decay=None,
    grad_clip_norm=None,
)
RELEASED_1 = {
    **RELEASED,
    "optim": replace(ADAMW, lr=1e-6, warmup=1000),
    "train": TrainConfig(steps=31_689, save_every=1000, accum_freq=1, ema_decay=None),
    "caption_kinds": None,
    "colour": False,
    "crops": "random",
}
RELEASED_2 = {
    **RELEASED,
    "optim": replace(ADAMW, lr=4e-9, warmup=250),
    "train": TrainConfig(steps=12_500, save_every=1000, accum_freq=1, ema_decay=None),
    "caption_kinds": ("long", "vlm"),  # detailed_caption, or global_caption in its place, as MGRS is read
    "colour": True,
    "regions": RegionConfig("cls", "multi_positive"),
    "region_weight": 1.0,
    "regions_per_image": 4,
    "min_area_px": 64**2,
    "max_area_px": 1024**2,
    "margin": 0.0,
    "letterbox": False,
    "prompt": "a satellite image of {category}",
    "region_captions": "no_category",
    "distill_from": "none",
}


@pytest.mark.parametrize(("module", "released"), [(farslip1, RELEASED_1), (farslip2, RELEASED_2)])
def test_paper_is_what_the_released_commands_say(module, released):
    options = paper_of(module)
    found = {each.name: getattr(options, each.name) for each in fields(options) if each.name not in NOT_OF_THE_METHOD}
    assert found == released
    assert options.preset == "paper" and module.PRESETS["paper"]["preset"] == "paper"


@pytest.mark.parametrize("word", ["--smoke", "--config"])
def test_one_start_alone(word):
    with pytest.raises(OptionError, match="give one of them"):
        cli.run_recipe(["pretrain/farslip1", "--preset", "paper", word, "x"])


def test_farslip_32_steps_of_an_epoch_of_rs5m():
    assert farslip1.PRESETS["paper"]["train"].steps == math.ceil(5_070_186 / farslip1.PRESETS["paper"]["batch_size"]) == 31_689


def test_farslip_33_the_share_of_weights_that_a_step_cannot_change():
    """fp32 at 0.2 is rounded to 2^-26 = 1.49e-8: half of that is more than 4e-9, at 0.1 it is less."""
    model = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.2, -0.2, 0.1, 0.0]]))
    assert share_below_rounding(model, 4e-9) == 0.5
    assert share_below_rounding(model, 1e-6) == 0
    assert torch.equal(model.weight - 3.7e-9, model.weight) is False  # 0.1 and 0 move
    assert model.weight[0, 0] - 3.7e-9 == model.weight[0, 0]


def reading(encoder: DualEncoder, length: int) -> DualEncoder:
    """As many tokens as its first positions."""
    encoder.model.positional_embedding = torch.nn.Parameter(encoder.model.positional_embedding[:length].detach())
    encoder.model.attn_mask, encoder.model.context_length = encoder.model.attn_mask[:length, :length], length
    encoder.config["text_cfg"]["context_length"] = length
    return encoder


def test_farslip_26_and_33_warnings(tmp_path, caplog):
    """A rate that is lost, and captions that are cut, are said: of those that the run draws, and not those that just fit."""
    caplog.set_level(logging.WARNING, logger="recipes")
    root = build_regions(tmp_path / "data").root
    for length in (6, 7):
        reading(DualEncoder.load("rsvl-tiny"), length).export(tmp_path / f"{length}")
    start = farslip2.Options(data=root, out=tmp_path / "a", init_from="rsvl-tiny", batch_size=4, workers=0, min_area_px=1)
    quick = replace(start, train=TrainConfig(steps=1, trackers=()), caption_kinds=("vlm",))  # a river with a bridge: 5 words
    farslip2.run(quick)
    farslip2.run(replace(quick, out=tmp_path / "fits", init_from=str(tmp_path / "7")))
    farslip2.run(replace(quick, out=tmp_path / "short", init_from=str(tmp_path / "6"), caption_kinds=("human",)))
    farslip2.run(replace(quick, out=tmp_path / "german", init_from=str(tmp_path / "6"), caption_kinds=None, lang="de"))
    assert not caplog.records
    farslip2.run(replace(quick, out=tmp_path / "cut", init_from=str(tmp_path / "6"), optim=replace(quick.optim, lr=4e-9)))
    said = [record.getMessage() for record in caplog.records]
    assert any("--optim.lr 4e-09 is less than half of the rounding of" in text for text in said)
    assert any("100 % of the captions are longer than the 6 tokens" in text for text in said)


@pytest.mark.parametrize("tokenizer", ["rsvl-tiny", CLIP_NAME])
def test_farslip_26_captions_that_just_fit_are_not_cut(tokenizer, tmp_path, caplog, monkeypatch):
    """Whatever fills the rest of a row: 0 after CLIP's, 1 after XLM-R's."""
    if tokenizer == CLIP_NAME:
        fill_hub_cache(tmp_path / "hub")
        use_hub_cache(monkeypatch, tmp_path / "hub")
        tokenizer = f"hf-hub:{CLIP_NAME}"
    caplog.set_level(logging.WARNING, logger="recipes")
    encoder, dataset = DualEncoder.load(tokenizer), build_regions(tmp_path / "data")
    options = replace(paper_of(farslip2), caption_kinds=("human",))
    [tokens] = encoder.tokenizer(["a river"], context_length=40)
    padding = encoder.tokenizer([""])[0, -1]
    encoder.tokenizer.context_length = int((tokens != padding).sum())
    _farslip._warn_of_cut_captions(encoder, dataset, options)
    assert not caplog.records
    encoder.tokenizer.context_length -= 1
    _farslip._warn_of_cut_captions(encoder, dataset, options)
    assert "100 % of the captions are longer than" in caplog.text


def test_text_towers_without_positions_of_their_own_can_start(tmp_path, monkeypatch):
    """As long as their number of tokens stays what it is."""
    fill_hub_cache(tmp_path / "hub")
    use_hub_cache(monkeypatch, tmp_path / "hub")
    root = build_regions(tmp_path / "data").root
    start = farslip1.Options(data=root, out=tmp_path / "run", init_from=f"hf-hub:{CLIP_NAME}", batch_size=4, workers=0)
    quick = replace(start, train=TrainConfig(steps=1, trackers=()))
    farslip1.run(quick)
    with pytest.raises(OptionError, match="no positions of its own; leave out --context-length"):
        farslip1.run(replace(quick, context_length=248))


@pytest.mark.parametrize(
    ("length", "asked", "kept"), [(32, None, False), (96, None, False), (96, 324, True), (248, None, True), (248, 77, False)]
)
def test_only_stretched_positions_are_kept(length, asked, kept):
    """96 are those of rsvl-tiny-multilingual, which were never 77; 248 are those of an earlier run or of FarSLIP2."""
    encoder = DualEncoder.load("rsvl-tiny" if length == 32 else "rsvl-tiny-multilingual")
    if length == 248:
        set_context_length(reading(encoder, 77), 248)
    options = replace(paper_of(farslip2), context_length=asked, convert_positions=asked == 77)
    assert _farslip._fit_positions(encoder, options) == kept


def test_sigmoid_needs_nothing_but_its_name(tmp_path):
    root = build_regions(tmp_path / "data").root
    start = farslip1.Options(data=root, out=tmp_path / "run", init_from="rsvl-tiny", batch_size=4, workers=0)
    sigmoid = replace(start, contrastive=ContrastiveConfig("sigmoid"), train=TrainConfig(steps=1, trackers=()))
    assert farslip1.run(sigmoid).logit_bias.item() == pytest.approx(-10, abs=0.1)  # SigLIP's, one step on


def test_farslip_21_the_distillation_alone(tmp_path, monkeypatch):
    """The released mode `frozen`: the text tower learns nothing, and the contrastive loss is there to be watched."""
    root = build_regions(tmp_path / "data").root
    frozen = DistillConfig(teacher="frozen")
    start = farslip1.Options(data=root, out=tmp_path / "run", init_from="rsvl-tiny", batch_size=4, workers=0, distill=frozen)
    alone = replace(start, contrastive_weight=0, distill_weight=2, train=TrainConfig(steps=2, trackers=()))
    trained = farslip1.run(alone).model.state_dict()
    torch.manual_seed(0)
    for name, tensor in DualEncoder.load("rsvl-tiny").model.state_dict().items():
        of_images = name.startswith("visual.")
        assert torch.equal(trained[name], tensor) or of_images, name
    assert not torch.equal(trained["visual.conv1.weight"], DualEncoder.load("rsvl-tiny").model.visual.conv1.weight)
    [line, _] = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[:2])
    assert line["loss/contrastive"] > 0 and line["loss/total"] == pytest.approx(2 * line["loss/distill"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="--contrastive-weight 0 leaves weights without a gradient"):
        farslip1.run(alone)


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A file as FarSLIP's trainer writes it: 248 positions in two tables (68 of the tiny model), the first 20 from the base."""
    monkeypatch.setattr(farslip_checkpoints, "_ARCHITECTURES", {8: "rsvl-tiny"})
    torch.manual_seed(3)
    encoder = DualEncoder.load("rsvl-tiny")
    set_context_length(encoder, 68)
    state = {f"module.{name}": tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    base, first = state["module.positional_embedding"], (torch.arange(68) < 20).float()[:, None]
    state["module.positional_embedding_res"] = base + (torch.arange(68) < 20).float()[:, None] * 9
    state["module.positional_embedding"] = base + (1 - first) * 9
    state["module.mask1"], state["module.mask2"] = first, 1 - first
    torch.save({"epoch": 10, "name": "x", "state_dict": state}, tmp_path / "FarSLIP2.pt")
    return tmp_path / "FarSLIP2.pt", encoder


def test_farslip_30_a_released_checkpoint_is_one_table_of_positions(released):
    path, original = released
    loaded = load_farslip(path)
    texts = ["a lake", "many boats " * 30]
    torch.testing.assert_close(loaded.encode_text(texts), original.encode_text(texts))
    with pytest.raises(OptionError, match="--convert-positions"):
        set_context_length(loaded, 32)


def test_a_run_begins_with_a_released_checkpoint(released, tmp_path):
    path, original = released
    root = build_regions(tmp_path / "data").root
    start = farslip1.Options(data=root, out=tmp_path / "run", init_from=str(path), batch_size=4, workers=0)
    trained = farslip1.run(replace(start, train=TrainConfig(steps=1, trackers=())))
    assert KeptPositions(trained).rows.shape == (68, 128)
    assert not torch.equal(trained.model.visual.proj, original.model.visual.proj)


def test_released_checkpoints_are_read_with_quickgelu(released, caplog):
    """Which they do not say, so the log does."""
    caplog.set_level(logging.INFO, logger="rsvl_pretrain")
    load_farslip(released[0])
    assert "does not say its activation, and is read as FarSLIP's files were trained: with QuickGELU" in caplog.text


def test_farslip_30_the_architectures_of_the_release_have_quickgelu():
    assert farslip_checkpoints._ARCHITECTURES == {32: "ViT-B-32-quickgelu", 16: "ViT-B-16-quickgelu"}
    for patch, name in farslip_checkpoints._ARCHITECTURES.items():
        config = open_clip.get_model_config(name)
        assert config["quick_gelu"] and config["vision_cfg"]["patch_size"] == patch


@pytest.mark.parametrize("name", ["ViT-B-16,openai", "ViT-B-32,laion400m_e32", "RN50,openai"])
def test_farslip_40_weights_of_another_activation_are_refused(name):
    architecture, tag = name.split(",")
    with pytest.raises(
        OptionError, match=f"trained with QuickGELU, and {architecture} has GELU; take {architecture}-quickgelu,{tag}"
    ):
        DualEncoder.load(name)


def test_a_file_that_is_no_such_checkpoint(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(DataError, match="is no checkpoint of FarSLIP"):
        load_farslip(path)


def test_the_configuration_of_a_run_runs_it_again(tmp_path, monkeypatch):
    root = build_regions(tmp_path / "data").root
    words = ("--batch-size", "4", "--workers", "0", "--min-area-px", "1", "--train.steps", "1", "--train.trackers")
    start = ["--data", str(root), "--init-from", "rsvl-tiny", "--preset", "paper"]
    assert cli.run_recipe(["pretrain/farslip2", *start, "--out", str(tmp_path / "run"), *words]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["options"]["preset"] == "paper" and config["options"]["optim"]["lr"] == 4e-9
    again = ["pretrain/farslip2", "--config", str(tmp_path / "run" / "config.json"), "--out", str(tmp_path / "again")]
    assert cli.run_recipe(again) == 0
    runs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("run", "again")]
    first, second = (json.loads(lines[0]) for lines in runs)
    assert first["loss/total"] == second["loss/total"] and first["keys_digest"] == second["keys_digest"]
