"""The objective of RS-M-CLIP. Numbers are those of the statements of `../shared/papers/rs_m_clip.md`, section 8."""

from dataclasses import replace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from many_languages import build_colours_in_languages
from ranks import on_ranks
from train_process import metrics

from rsvl_data.caption_draw import LanguageDraw
from rsvl_data.errors import OptionError
from rsvl_data.loader import Batch, LoaderConfig, train_batches
from rsvl_pretrain.distributed import rank
from rsvl_pretrain.losses import clip_loss
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ClipObjective, ContrastiveConfig, RsMClipObjective, ViewConfig
from rsvl_pretrain.objectives.rs_m_clip import group_means
from rsvl_pretrain.optim import OptimConfig, make_optimizer
from rsvl_pretrain.self_distillation import SelfDistillationConfig, self_distillation_loss
from rsvl_pretrain.train import TrainConfig, train

LANGUAGES = ("en", "es", "ru")
CONFIG = SelfDistillationConfig(prototypes=24, hidden_dim=256, bottleneck_dim=64, freeze_last_layer_epochs=0)
WITHOUT = SelfDistillationConfig(weight=0.0)
VIEWS = ViewConfig(local_crops=3, local_px=32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return build_colours_in_languages(tmp_path_factory.mktemp("languages") / "data")


def objective_of(distillation=CONFIG, views=VIEWS, contrastive=ContrastiveConfig(), languages=LANGUAGES, num_steps=6):  # noqa: B008
    torch.manual_seed(0)
    encoder = DualEncoder.load("rsvl-tiny")
    return RsMClipObjective(
        encoder, contrastive=contrastive, distillation=distillation, views=views, languages=languages, num_steps=num_steps
    )


def loader_of(objective, batch_size=8):
    crops = objective.views.crops(distilled=objective.distillation is not None)
    return LoaderConfig(batch_size, workers=0, crops=crops, languages=LanguageDraw(LANGUAGES))


def batch_of(dataset, objective, step=0, batch_size=8) -> Batch:
    encoder = objective.encoder
    config = loader_of(objective, batch_size)
    return next(train_batches(dataset, "train", encoder.preprocess, encoder.tokenizer, config, start_step=step, num_steps=1))


# --- what the loss is


def pictures(objective, batch, name, view) -> torch.Tensor:
    """One crop of each image, standardised."""
    crops = batch.crops[name]
    rows = torch.stack([(crops.sample == row).nonzero()[view, 0] for row in range(len(batch.keys))])
    return objective.encoder.preprocess.normalize(crops.images[rows])


def test_the_terms_view_by_view(dataset):
    """The slow plain version: every view in a pass of its own, small crops by a tower with positions of their size."""
    objective = objective_of()
    batch, distillation = batch_of(dataset, objective), objective.distillation
    tower, text = objective.encoder.model.visual, objective.encoder.encode_text(batch.texts)
    config = {**objective.encoder.config, "vision_cfg": {**objective.encoder.config["vision_cfg"], "image_size": 32}}
    small = open_clip.CLIP(**config)
    state = objective.encoder.model.state_dict()
    open_clip.model.resize_pos_embed(state, small)
    small.load_state_dict(state)
    with torch.no_grad():
        losses = objective(batch)
        views = [pictures(objective, batch, "global", view) for view in range(2)]
        features = [tower(view) for view in views]
        pairs = [clip_loss(F.normalize(each, dim=-1), text, objective.encoder.logit_scale) for each in features]
        assert losses["contrastive"].item() == pytest.approx(sum(pairs).item() / 2, rel=1e-4)
        features += [small.visual(pictures(objective, batch, "local", view)) for view in range(3)]
        student = torch.stack([distillation.head(each) for each in features], dim=1)
        teacher = torch.stack([distillation.head(each) for each in features[:2]], dim=1)  # as it begins
        expected = self_distillation_loss(
            student, teacher, torch.zeros(24), student_temperature=0.1, teacher_temperature=0.04, num_shared=2
        )
        assert losses["distillation"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_every_tower_runs_once_for_each_size(dataset):
    objective, passes = objective_of(), []
    student, teacher = objective.encoder.model.visual, objective.distillation.teacher["visual"]
    for name, tower in (("student", student), ("teacher", teacher)):
        tower.conv1.register_forward_hook(lambda module, inputs, output, name=name: passes.append((name, *inputs[0].shape[::3])))
    objective(batch_of(dataset, objective))
    assert passes == [("student", 16, 64), ("student", 24, 32), ("teacher", 16, 64)]


def test_without_self_distillation_it_is_clip(dataset):
    objective = objective_of(WITHOUT, ViewConfig(contrastive="whole"))
    batch = batch_of(dataset, objective)
    assert not batch.crops and set(objective.lr_shares) == set()
    with torch.no_grad():
        losses = objective(batch)
        torch.testing.assert_close(losses["contrastive"], ClipObjective(objective.encoder)(batch)["contrastive"])
    assert "distillation" not in losses
    assert objective.total(losses) == losses["contrastive"]


def test_the_picture_of_clip_as_the_view_of_the_caption(dataset):
    objective = objective_of(views=replace(VIEWS, contrastive="whole"))
    batch = batch_of(dataset, objective)
    with torch.no_grad():
        found, clip = objective(batch), ClipObjective(objective.encoder)(batch)
        torch.testing.assert_close(found["contrastive"], clip["contrastive"])
        assert found["distillation"] == objective_of()(batch)["distillation"]


def test_rs_m_clip_12_the_weight_of_self_distillation(dataset):
    for weight in (1.0, 0.25):
        objective = objective_of(replace(CONFIG, weight=weight))
        with torch.no_grad():
            losses = objective(batch_of(dataset, objective))
        assert objective.total(losses).item() == pytest.approx(
            losses["contrastive"].item() + weight * losses["distillation"].item(), rel=1e-6
        )


def test_rs_m_clip_12_the_teacher_moves_evenly_unless_asked():
    config = SelfDistillationConfig()
    assert (config.teacher_schedule, config.weight, config.prototypes) == ("fixed", 1.0, 65536)
    views = ViewConfig()
    assert (views.global_crops, views.local_crops, views.local_px) == (2, 8, 96)


def test_rs_m_clip_07_only_the_student_learns(dataset):
    objective = objective_of()
    objective.total(objective(batch_of(dataset, objective))).backward()
    trained = {name for name, parameter in objective.named_parameters() if parameter.grad is not None}
    assert not any("teacher" in name for name in trained)
    wanted = {name for name, parameter in objective.named_parameters() if parameter.requires_grad}
    assert trained == wanted and any(name.startswith("distillation.head.last_layer") for name in trained)


# --- languages


def test_the_loss_of_each_language_is_logged(dataset):
    objective = objective_of()
    batch = batch_of(dataset, objective)
    with torch.no_grad():
        losses = objective(batch)
        text = objective.encoder.encode_text(batch.texts)
        views = [F.normalize(objective.encoder.model.visual(pictures(objective, batch, "global", v)), dim=-1) for v in range(2)]
        logits = [objective.encoder.logit_scale * view @ text.T for view in views]
        rows = sum(-(each.log_softmax(1) + each.log_softmax(0)).diagonal() / 2 for each in logits) / 2
    assert set(batch.langs) == set(LANGUAGES)
    for lang in LANGUAGES:
        expected = torch.stack([row for row, its in zip(rows, batch.langs) if its == lang]).mean()
        assert losses[f"contrastive[{lang}]"].item() == pytest.approx(expected.item(), rel=1e-4)
        assert objective.factor(f"contrastive[{lang}]") == 0


def test_means_of_groups():
    values, group = torch.tensor([1.0, 2.001, 3.0, 4.0]), torch.tensor([0, 2, 0, -1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means = group_means(values, group, 3)
    assert means[[0, 2]].tolist() == pytest.approx([2.0, 2.001], rel=1e-6) and means[1].isnan()


def _group_means_of_rank() -> torch.Tensor:
    values, group = [([1.0, 2.0], [0, 0]), ([9.0, 6.0], [0, 1])][rank()]
    return group_means(torch.tensor(values), torch.tensor(group), 3)


def test_rs_m_clip_06_means_of_groups_over_two_ranks():
    mean = torch.stack(on_ranks(2, _group_means_of_rank)).mean(0)
    assert mean[:2].tolist() == [4.0, 6.0] and mean[2].isnan()


# --- duplicates


def test_rs_m_clip_19_equal_strings_are_no_negatives(dataset):
    plain, masked = (objective_of(WITHOUT, contrastive=ContrastiveConfig(duplicates=how)) for how in ("negatives", "excluded"))
    batch = batch_of(dataset, plain)
    twice = replace(batch, tokens=plain.encoder.tokenizer(["a lake"] * 2 + batch.texts[2:]))
    with torch.no_grad():
        assert masked(twice)["contrastive"] < plain(twice)["contrastive"]
        distinct = replace(batch, tokens=plain.encoder.tokenizer([f"lake {number}" for number in range(8)]))
        torch.testing.assert_close(masked(distinct)["contrastive"], plain(distinct)["contrastive"])


# --- training


def run(dataset, out, objective, *, resume=None, stop_after=None, steps=4, **config):
    def stop(encoder):
        raise KeyboardInterrupt

    train_config = TrainConfig(steps=steps, save_every=2, eval_every=stop_after or 0, trackers=(), **config)
    return train(
        objective,
        dataset,
        out,
        config=train_config,
        optim=OptimConfig(lr=1e-3, warmup=2),
        loader=loader_of(objective),
        resume=resume,
        evaluators={"x": stop} if stop_after else None,
    )


def test_rs_m_clip_07_the_teacher_after_one_step(dataset, tmp_path):
    objective, before = objective_of(), objective_of()
    run(dataset, tmp_path / "run", objective, steps=1)
    student = {"visual": objective.encoder.model.visual, "head": objective.distillation.head}
    for part, module in student.items():
        first = before.distillation.teacher[part].state_dict()
        for name, new in module.state_dict().items():
            expected = 0.996 * first[name] + 0.004 * new
            torch.testing.assert_close(objective.distillation.teacher[part].state_dict()[name], expected, atol=1e-6, rtol=1e-5)
    assert objective.distillation.center.abs().sum() > 0


@pytest.mark.parametrize("freeze", [0, 1])
@pytest.mark.parametrize("accum_freq", [1, 2])
def test_a_resumed_run_has_the_same_teacher_centre_and_heads(dataset, tmp_path, accum_freq, freeze):
    config = replace(CONFIG, teacher_schedule="cosine", freeze_last_layer_epochs=freeze)
    whole, first, second = (objective_of(config) for _ in range(3))
    run(dataset, tmp_path / "whole", whole, accum_freq=accum_freq)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "parts", first, accum_freq=accum_freq, stop_after=3)
    run(dataset, tmp_path / "parts", second, accum_freq=accum_freq, resume="latest")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


def test_pieces_of_a_batch_change_no_number(dataset, tmp_path):
    for name, accum_freq in (("whole", 1), ("pieces", 3)):
        run(dataset, tmp_path / name, objective_of(), accum_freq=accum_freq)
    for whole, pieces in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "pieces"), strict=True):
        for name, value in whole.items():
            if name.startswith(("loss", "grad_norm")):
                assert pieces[name] == pytest.approx(value, rel=2e-3), name


def test_prototypes_rest_for_the_epochs_asked(dataset, tmp_path):
    """An epoch has four batches."""
    for freeze, moved in ((1, False), (0, True)):
        objective = objective_of(replace(CONFIG, freeze_last_layer_epochs=freeze))
        before = objective.distillation.head.last_layer.weight_v.detach().clone()
        run(dataset, tmp_path / str(freeze), objective, steps=3)
        assert torch.equal(objective.distillation.head.last_layer.weight_v, before) != moved


def test_rs_m_clip_13_the_export_is_the_encoder_alone(dataset, tmp_path):
    objective = objective_of()
    encoder = run(dataset, tmp_path / "run", objective).eval()
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'run' / 'export'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'run' / 'export'}")
    batch, texts = batch_of(dataset, objective), ["un lago", "лес"]
    with torch.inference_mode():
        images = model.eval().encode_image(encoder.preprocess.normalize(batch.images), normalize=True)
        torch.testing.assert_close(encoder.encode_image(batch.images), images, atol=1e-4, rtol=0)
        found = model.encode_text(tokenizer(texts), normalize=True)
        torch.testing.assert_close(encoder.encode_text(texts), found, atol=1e-4, rtol=0)
    assert model.state_dict().keys() == DualEncoder.load("rsvl-tiny").model.state_dict().keys()


def test_a_run_does_not_go_on_with_another_objective(dataset, tmp_path):
    run(dataset, tmp_path / "run", objective_of(), steps=2)
    from rsvl_data.errors import DataError

    with pytest.raises(DataError, match="distillation was"):
        run(dataset, tmp_path / "run", objective_of(replace(CONFIG, student_temperature=0.2)), steps=2, resume="latest")


def test_the_head_has_a_learning_rate_of_its_own():
    objective = objective_of(replace(CONFIG, head_lr_share=50.0))
    optimizer = make_optimizer(objective, OptimConfig(), objective.lr_shares)
    shares = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert {shares[id(p)] for p in objective.distillation.head.parameters() if p.requires_grad} == {50.0}
    assert {shares[id(p)] for p in objective.encoder.parameters()} == {1.0}
    assert not any(id(p) in shares for p in objective.distillation.teacher.parameters())


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": ViewConfig(local_px=36)}, "images of 36 x 36 px cannot be cut into patches of 8 x 8 px"),
        ({"views": ViewConfig(global_crops=1, local_crops=0)}, "needs two crops or more"),
        ({"contrastive": ContrastiveConfig(loss="sigmoid")}, "RS-M-CLIP has the softmax loss"),
    ],
)
def test_rs_m_clip_11_settings_that_cannot_work_are_named_before_the_first_step(changes, message):
    with pytest.raises(OptionError, match=message):
        objective_of(**changes)


@pytest.mark.parametrize("views", [{"global_crops": 0}, {"local_crops": -1}])
def test_numbers_of_crops(views):
    with pytest.raises(OptionError, match="--views"):
        ViewConfig(**views)
