"""Every option of FarSLIP's and RS-M-CLIP's recipes reaches the loader, the objective or the optimizer, or is refused where it cannot."""

from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from region_dataset import build_regions

from recipes import cli
from recipes.pretrain import _pretrain, farslip1, farslip2, rs_m_clip
from rsvl_data.caption_draw import LanguageDraw
from rsvl_data.colour_jitter import ColourJitter
from rsvl_data.crops import GridCrops, ObjectCrops, RandomCrops
from rsvl_data.errors import OptionError
from rsvl_data.loader import LoaderConfig
from rsvl_data.transforms import Augment
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig, DistillConfig, RegionConfig, ViewConfig
from rsvl_pretrain.optim import OptimConfig
from rsvl_pretrain.self_distillation import SelfDistillationConfig
from rsvl_pretrain.text_positions import context_length, set_context_length
from rsvl_pretrain.train import TrainConfig


@pytest.fixture
def data(tmp_path) -> Path:
    return build_regions(tmp_path / "data").root


@pytest.fixture
def reached(monkeypatch):
    """Runs a recipe up to the trainer: what that would be called with, by name, and with what the cache was made."""

    def run(module, options) -> SimpleNamespace:
        seen, caches = [], []
        plain = _pretrain.ShardCache
        monkeypatch.setattr(_pretrain, "ShardCache", lambda *words: caches.append(words) or plain(*words))
        monkeypatch.setattr(_pretrain, "train", lambda *words, **named: seen.append((*words, named)))
        module.run(options)
        [(objective, dataset, out, named)] = seen
        return SimpleNamespace(objective=objective, dataset=dataset, out=out, cache=caches[0], **named)

    return run


def unchanged(options) -> set[str]:
    """Options that are what they are when nobody says anything."""
    kept = set()
    for each in fields(options):
        usual = each.default if each.default_factory is MISSING else each.default_factory()
        if getattr(options, each.name) == usual:
            kept.add(each.name)
    return kept


def shared_options(data: Path, tmp_path: Path) -> dict:
    """Those of every pretraining recipe, all changed."""
    return {
        "data": data,
        "out": tmp_path / "run",
        "batch_size": 6,
        "workers": 1,
        "prefetch": 3,
        "shuffle_shards": 5,
        "data_cache": tmp_path / "cache",
        "data_cache_gib": 7.0,
        "caption_kinds": ("vlm", "human"),
        "seed": 4,
        "resume": "latest",
        "grad_checkpointing": True,
        "optim": OptimConfig(lr=3e-4),
        "train": TrainConfig(steps=9),
    }


LOADED = {"batch_size": 6, "workers": 1, "prefetch": 3, "shuffle_shards": 5, "caption_kinds": ("vlm", "human"), "seed": 4}


def assert_shared(found: SimpleNamespace, options) -> None:
    assert (found.out, found.seed, found.resume) == (options.out, 4, "latest")
    assert found.cache == (options.data_cache, 7.0) and found.dataset.root == options.data
    assert found.optim is options.optim and found.config is options.train
    assert found.objective.config is options.contrastive
    model = found.objective.encoder.model
    assert model.visual.transformer.grad_checkpointing and model.transformer.grad_checkpointing


def test_every_option_of_farslip1(data, tmp_path, reached):
    longer = DualEncoder.load("rsvl-tiny")
    set_context_length(longer, 68)
    longer.export(tmp_path / "longer")
    options = farslip1.Options(
        **shared_options(data, tmp_path),
        init_from=str(tmp_path / "longer"),
        preset="paper",
        context_length=32,
        convert_positions=True,
        colour=True,
        flips=True,
        lang="en",
        head="maskclip",
        contrastive=ContrastiveConfig(loss="sigmoid"),
        contrastive_weight=0.3,
        distill=DistillConfig("combined", "ema", 0.5, "before_step"),
        distill_weight=0.7,
        crops="random",
        crops_per_image=3,
        crop_area=(0.2, 0.6),
        crop_aspect=(0.5, 2.0),
        crop_px=32,
    )
    assert unchanged(options) == {"crops", "keep_first_positions"}  # of both below
    found = reached(farslip1, options)
    assert_shared(found, options)
    crops = {"views": RandomCrops(3, (0.2, 0.6), (0.5, 2.0), 32)}
    assert found.loader == LoaderConfig(**LOADED, augment=Augment("stretch", True, ColourJitter()), crops=crops, lang="en")
    objective = found.objective
    assert (objective.distill, objective.regions, objective.head) == (options.distill, None, "maskclip")
    assert (objective.factor("contrastive"), objective.factor("distill")) == (0.3, 0.7)
    assert context_length(objective.encoder) == 32 and objective.encoder.logit_bias is not None and objective.kept is None
    in_parts = replace(options, crops="grid", crop_area=(0.3, 0.7), crop_aspect=(3 / 4, 4 / 3))
    assert reached(farslip1, in_parts).loader.crops == {"views": GridCrops(3, 32)}


def test_every_option_of_farslip2(data, tmp_path, reached):
    options = farslip2.Options(
        **shared_options(data, tmp_path),
        init_from="rsvl-tiny",
        preset="paper",
        context_length=68,
        convert_positions=True,
        keep_first_positions=False,
        colour=True,
        flips=True,
        lang="en",
        head="last",
        contrastive=ContrastiveConfig(duplicates="positives"),
        contrastive_weight=0.3,
        distill=DistillConfig("roi2cls", "ema", 0.5, "before_step"),
        distill_weight=0.7,
        crops_per_image=3,
        crop_area=(0.2, 0.6),
        crop_aspect=(0.5, 2.0),
        crop_px=32,
        regions=RegionConfig("pooled", "infonce_padded"),
        region_weight=0.6,
        regions_per_image=5,
        min_area_px=2.0,
        max_area_px=900.0,
        margin=0.1,
        letterbox=True,
        prompt="{category} from above",
        region_captions="no_category",
        distill_from="random",
    )
    assert not unchanged(options)
    found = reached(farslip2, options)
    assert_shared(found, options)
    objects = ObjectCrops(5, 2.0, 900.0, None, 0.1, True, "{category} from above", "no_category")
    crops = {"regions": objects, "views": RandomCrops(3, (0.2, 0.6), (0.5, 2.0), 32)}
    assert found.loader == LoaderConfig(**LOADED, augment=Augment("stretch", True, ColourJitter()), crops=crops, lang="en")
    objective = found.objective
    assert (objective.distill, objective.regions, objective.head) == (options.distill, options.regions, "last")
    assert [objective.factor(name) for name in ("contrastive", "distill", "regions")] == [0.3, 0.7, 0.6]
    assert objective.max_regions == 5 and context_length(objective.encoder) == 68 and objective.kept is None
    kept = reached(farslip2, replace(options, keep_first_positions=True)).objective.kept
    assert kept is not None and kept.rows.shape[0] == 68
    usual = {"crops_per_image": 4, "crop_area": (0.3, 0.7), "crop_aspect": (3 / 4, 4 / 3), "crop_px": None}
    with pytest.raises(
        OptionError, match="--letterbox fills up crops of objects, which --distill-from objects compares with their boxes"
    ):
        replace(options, distill_from="objects", **usual)
    of_objects = reached(farslip2, replace(options, distill_from="objects", letterbox=False, **usual))
    assert (
        of_objects.loader.crops == {"regions": replace(objects, letterbox=False)}
        and of_objects.objective.distill == options.distill
    )


def test_every_option_of_rs_m_clip(data, tmp_path, reached):
    options = rs_m_clip.Options(
        **shared_options(data, tmp_path),
        model="rsvl-tiny",
        preset="light",
        languages=("en", "de"),
        english_share=0.7,
        contrastive=ContrastiveConfig(duplicates="excluded"),
        distillation=SelfDistillationConfig(weight=0.5, prototypes=24, hidden_dim=256, bottleneck_dim=64, head_lr_share=3.0),
        views=ViewConfig("whole", 3, (0.5, 0.9), True, 2, (0.1, 0.3), 32, False),
    )
    assert not unchanged(options)
    found = reached(rs_m_clip, options)
    assert_shared(found, options)
    crops = {
        "global": RandomCrops(3, (0.5, 0.9), flips=True),
        "local": RandomCrops(2, (0.1, 0.3), size_px=32, flips=False),
    }
    draw = LanguageDraw(("en", "de"), 0.7)
    assert found.loader == LoaderConfig(**LOADED, augment=Augment("open_clip"), crops=crops, languages=draw)
    objective = found.objective
    assert objective.views == options.views and objective.languages == ("en", "de")
    assert objective.distillation.config == options.distillation and objective.distillation.num_steps == 9
    assert objective.factor("distillation") == 0.5 and objective.lr_shares == {"distillation.head.": 3.0}


# --- options without an effect

START = {"data": Path("d"), "out": Path("o")}
FARSLIP = {**START, "init_from": "rsvl-tiny"}
_VIEWS = "without --distill-from random or grid"


@pytest.mark.parametrize(
    ("module", "start", "changes", "message"),
    [
        (
            farslip1,
            FARSLIP,
            {"crops": "grid", "crop_area": (0.1, 0.2)},
            "--crop-area 0.1 0.2 changes nothing without --crops random",
        ),
        (farslip1, FARSLIP, {"crops": "grid", "crop_aspect": (1.0, 2.0)}, "--crop-aspect 1.0 2.0 changes nothing without"),
        (farslip1, FARSLIP, {"distill": DistillConfig(momentum=0.5)}, "--distill.momentum 0.5 .* without --distill.teacher ema"),
        (
            farslip1,
            FARSLIP,
            {"distill": DistillConfig(ema_update="before_step")},
            "--distill.ema-update before_step changes nothing",
        ),
        (farslip1, FARSLIP, {"convert_positions": True}, "--convert-positions changes nothing without --context-length"),
        (
            farslip2,
            FARSLIP,
            {"distill": DistillConfig(teacher="ema")},
            "--distill.teacher ema .* without --distill-from random, grid",
        ),
        (farslip2, FARSLIP, {"distill_weight": 0.5}, "--distill-weight 0.5 changes nothing without --distill-from"),
        (farslip2, FARSLIP, {"crops_per_image": 9}, f"--crops-per-image 9 changes nothing {_VIEWS}"),
        (farslip2, FARSLIP, {"crop_px": 33, "distill_from": "objects"}, f"--crop-px 33 changes nothing {_VIEWS}"),
        (
            farslip2,
            FARSLIP,
            {"crop_area": (0.1, 0.2), "distill_from": "grid"},
            "--crop-area 0.1 0.2 .* without --distill-from random",
        ),
        (
            farslip2,
            FARSLIP,
            {"head": "last"},
            "--head last changes nothing without --distill-from, or --regions.align pooled or roi",
        ),
        (
            farslip2,
            FARSLIP,
            {"letterbox": True, "regions": RegionConfig("roi")},
            "--letterbox changes nothing without --regions.align cls",
        ),
        (
            rs_m_clip,
            START,
            {"distillation": SelfDistillationConfig(weight=0, prototypes=9)},
            "--distillation.prototypes 9 changes",
        ),
        (
            rs_m_clip,
            START,
            {"distillation": SelfDistillationConfig(weight=0), "views": ViewConfig(local_crops=2)},
            "--views.local-crops 2",
        ),
        (
            rs_m_clip,
            START,
            {"views": ViewConfig(local_crops=0, local_flips=False)},
            "--views.no-local-flips .* without local crops",
        ),
        (
            rs_m_clip,
            START,
            {"distillation": SelfDistillationConfig(weight=0), "views": ViewConfig("whole", global_crops=1)},
            "--views.global-crops 1 changes nothing without --views.contrastive global",
        ),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(module, start, changes, message):
    with pytest.raises(OptionError, match=message):
        module.Options(**start, **({"preset": "recommended"} if "init_from" in start else {}), **changes)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (farslip1, ("--preset", "paper")),
        (farslip1, ("--crops", "grid", "--crop-area", "0.3", "0.7")),
        (farslip1, ("--distill.teacher", "ema", "--distill.momentum", "0.5")),
        (farslip2, ("--preset", "paper")),
        (farslip2, ("--preset", "paper", "--distill.ema-update", "before_step")),
        (farslip2, ("--regions.align", "roi", "--head", "last")),
        (rs_m_clip, ("--preset", "light", "--distillation.weight", "0")),
        (rs_m_clip, ("--preset", "reconstruction", "--views.local-crops", "0")),
    ],
)
def test_what_a_preset_sets_is_not_held_against_anybody(module, words, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "run", seen.append)
    needed = ["--data", "d", "--out", "o", *(() if module is rs_m_clip else ("--init-from", "rsvl-tiny"))]
    assert cli.run_recipe([f"pretrain/{module.__name__.rpartition('.')[2]}", *needed, *words]) == 0 and seen


def test_the_command_line_says_what_is_missing(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run_recipe(["pretrain/farslip2", "--data", "d", "--out", "o", "--init-from", "x", "--crop-px", "33"])
    text = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stopped.value.code == 2 and f"--crop-px 33 changes nothing {_VIEWS}" in text


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (farslip1, {"distill_weight": -0.1}, "--contrastive-weight 1.0, --distill-weight -0.1: none may be below 0"),
        (farslip1, {"contrastive_weight": 0, "distill_weight": 0}, "one must be above"),
        (farslip2, {"contrastive_weight": 0, "region_weight": 0}, "--contrastive-weight 0, --region-weight 0: none"),
    ],
)
def test_weights_that_train_nothing(module, changes, message):
    with pytest.raises(OptionError, match=message):
        module.Options(**FARSLIP, **changes)


def test_positions_that_nobody_keeps_need_not_be_let_go(data, tmp_path, reached):
    options = farslip1.Options(data=data, out=tmp_path / "run", init_from="rsvl-tiny", keep_first_positions=False)
    with pytest.raises(OptionError, match="--no-keep-first-positions changes nothing"):
        reached(farslip1, options)
