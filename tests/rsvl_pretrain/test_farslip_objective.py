"""What FarSLIP's objective computes, with what it computes it, and who teaches."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from region_dataset import build_regions

from rsvl_data.crops import NO_CATEGORY, GridCrops, ObjectCrops, RandomCrops
from rsvl_data.errors import OptionError
from rsvl_data.loader import Batch, LoaderConfig, train_batches
from rsvl_data.transforms import Augment
from rsvl_pretrain.accumulate import CachedBatch
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.objectives import ContrastiveConfig, DistillConfig, FarSlipObjective, RegionConfig

TEACHERS = ("shared", "shared_stopgrad", "ema", "frozen")


def objective_of(seed: int = 0, **terms) -> FarSlipObjective:
    torch.manual_seed(seed)
    return FarSlipObjective(DualEncoder.load("rsvl-tiny"), ContrastiveConfig(), **terms)


def batch_of(dataset, objective: FarSlipObjective, size: int = 16, **crops) -> Batch:
    config = LoaderConfig(size, 0, augment=Augment("stretch"), crops=crops)
    encoder = objective.encoder
    (batch,) = train_batches(dataset, "train", encoder.preprocess, encoder.tokenizer, config, num_steps=1)
    return batch


def gradients(objective: FarSlipObjective, batch: Batch) -> dict[str, torch.Tensor]:
    objective.zero_grad()
    objective.total(objective(batch)).backward()
    return {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return build_regions(tmp_path_factory.mktemp("regions") / "data")


RANDOM, OBJECTS = RandomCrops(2), ObjectCrops(2, min_area_px=1)


def count_images(objective: FarSlipObjective) -> list[tuple[int, bool]]:
    """Images and whether a graph is kept, for each pass through the image tower of the encoder."""
    passes: list[tuple[int, bool]] = []
    objective.encoder.model.visual.conv1.register_forward_hook(
        lambda module, inputs, output: passes.append((len(output), torch.is_grad_enabled()))
    )
    return passes


class TestCost:
    def test_all_crops_go_through_the_tower_at_once_and_only_once(self, dataset):
        objective = objective_of(distill=DistillConfig(), regions=RegionConfig())
        batch = batch_of(dataset, objective, views=RANDOM, regions=OBJECTS)
        passes = count_images(objective)
        objective(batch)
        assert passes == [(16 + 32 + len(batch.crops["regions"]), True)]

    def test_objects_that_are_compared_with_picture_and_words_go_once(self, dataset):
        objective = objective_of(distill=DistillConfig(align="combined"), regions=RegionConfig())
        batch = batch_of(dataset, objective, regions=OBJECTS)
        passes = count_images(objective)
        assert {"distill", "regions"} < objective(batch).keys()
        assert passes == [(16 + len(batch.crops["regions"]), True)]

    @pytest.mark.parametrize("teacher", ["shared_stopgrad", "ema"])
    def test_crops_without_a_gradient_have_no_graph(self, dataset, teacher):
        objective = objective_of(distill=DistillConfig(teacher=teacher))
        passes = count_images(objective)
        objective(batch_of(dataset, objective, views=RANDOM))
        assert passes == [*([(32, False)] if teacher == "shared_stopgrad" else []), (16, True)]

    def test_the_last_block_runs_for_those_whose_embedding_is_asked_for(self, dataset):
        objective, seen = objective_of(distill=DistillConfig()), []
        block = objective.encoder.model.visual.transformer.resblocks[-1]
        block.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
        objective(batch_of(dataset, objective, views=RANDOM))
        assert seen == [16]

    def test_a_category_is_one_text(self, dataset):
        objective = objective_of(regions=RegionConfig())
        batch, texts = batch_of(dataset, objective, regions=OBJECTS), []
        plain = objective.encoder.encode_tokens
        objective.encoder.encode_tokens = lambda tokens: texts.append(len(tokens)) or plain(tokens)
        objective(batch)
        assert texts == [16 + len(set(batch.crops["regions"].texts))] and len(batch.crops["regions"]) > len(
            set(batch.crops["regions"].texts)
        )

    def test_smaller_crops_are_a_pass_of_their_own(self, dataset):
        objective = objective_of(distill=DistillConfig(align="patches"))
        passes = count_images(objective)
        losses = objective(batch_of(dataset, objective, views=RandomCrops(2, size_px=32)))
        assert passes == [(16, True), (32, True)] and 0 < losses["distill"] < 2


class TestTeachers:
    def test_farslip_9_only_the_shared_teacher_has_a_gradient(self, dataset):
        """Equal weights: those without have equal gradients, which are those of a loss whose crops are constants."""
        found = {}
        for teacher in TEACHERS:
            objective = objective_of(distill=DistillConfig(teacher=teacher))
            batch = batch_of(dataset, objective, views=RANDOM)
            found[teacher] = gradients(objective, batch)
            assert not any(name.startswith("teacher.") for name in found[teacher])
        for teacher in ("ema", "frozen"):
            for name, gradient in found["shared_stopgrad"].items():
                torch.testing.assert_close(found[teacher][name], gradient, atol=1e-5, rtol=1e-3)
        weight = "encoder.model.visual.conv1.weight"
        assert (found["shared"][weight] - found["ema"][weight]).norm() > 1e-3 * found["ema"][weight].norm()

    def test_farslip_10_who_follows_and_when(self):
        moved = {}
        for teacher, update in [("ema", "before_step"), ("ema", "after_step"), ("frozen", "after_step")]:
            objective = objective_of(distill=DistillConfig(teacher=teacher, ema_update=update, momentum=0.5))
            student, follower = objective.encoder.model.visual.proj, objective.teacher.visual.proj
            first = follower.clone()
            objective.before_step(0)
            with torch.no_grad():
                student.add_(1.0)
            objective.after_step(0)
            moved[teacher, update] = (follower - first).mean().item()
        assert moved == pytest.approx(
            {("ema", "before_step"): 0, ("ema", "after_step"): 0.5, ("frozen", "after_step"): 0}, abs=1e-6
        )

    def test_a_teacher_is_saved_and_not_exported(self, tmp_path):
        objective = objective_of(distill=DistillConfig(teacher="ema"))
        assert any(name.startswith("teacher.") for name in objective.state_dict())
        objective.encoder.export(tmp_path)
        assert not any("teacher" in name for name in DualEncoder.load(str(tmp_path)).model.state_dict())


class TestRegions:
    @pytest.mark.parametrize("align", ["cls", "pooled", "roi"])
    @pytest.mark.parametrize("loss", ["multi_positive", "infonce", "infonce_padded"])
    def test_each_arm_is_another_number(self, dataset, align, loss):
        """But for one: while regions of a category have equal texts, it does not matter which of them is the positive."""
        objective = objective_of(regions=RegionConfig(align, loss), max_regions=2)
        batch = batch_of(dataset, objective, regions=OBJECTS)
        value = objective(batch)["regions"]
        assert value.isfinite() and value > 0
        other = objective_of(regions=RegionConfig(), max_regions=2)(batch)["regions"]
        assert torch.isclose(value, other) == (align == "cls" and loss != "infonce_padded")

    def test_farslip_19_a_batch_without_a_region(self, dataset):
        for config in (RegionConfig(), RegionConfig("roi"), RegionConfig("pooled", "infonce_padded")):
            objective = objective_of(regions=config)
            batch = batch_of(dataset, objective, regions=ObjectCrops(min_area_px=10**5, max_area_px=10**6))
            assert objective(batch)["regions"] == 0
            assert all(gradient.isfinite().all() for gradient in gradients(objective, batch).values())

    def test_no_region_has_a_category(self, dataset):
        """The released code's loss is not a number here."""
        objective = objective_of(regions=RegionConfig())
        batch = batch_of(dataset, objective, regions=OBJECTS)
        crops = batch.crops["regions"]
        without = replace(crops, categories=torch.full_like(crops.categories, NO_CATEGORY))
        assert objective(replace(batch, crops={"regions": without}))["regions"] == 0

    def test_related_categories_lower_the_loss(self, dataset, tmp_path):
        path = tmp_path / "related.json"
        path.write_text('{"synonyms": [["ship", "car", "tree"]]}')
        plain, related = objective_of(regions=RegionConfig()), objective_of(regions=RegionConfig(related=path))
        batch = batch_of(dataset, plain, regions=OBJECTS)
        assert related(batch)["regions"] < plain(batch)["regions"]
        assert related.identity()["regions"]["related"] and plain.identity()["regions"]["related"] is None

    def test_options_that_do_not_go_together(self, tmp_path):
        with pytest.raises(OptionError, match="related categories are for the multi-positive loss"):
            RegionConfig(loss="infonce", related=tmp_path)
        with pytest.raises(OptionError, match="momentum is 1.5"):
            DistillConfig(momentum=1.5)
        encoder = DualEncoder.load("rsvl-tiny")
        encoder.add_logit_bias()
        with pytest.raises(OptionError, match="softmax"):
            FarSlipObjective(encoder, ContrastiveConfig(loss="sigmoid"), regions=RegionConfig())


@pytest.mark.parametrize("align", ["roi2pooled", "roi2cls", "combined", "patches"])
@pytest.mark.parametrize("views", [RANDOM, GridCrops(4), OBJECTS])
def test_every_alignment_with_every_kind_of_crop(dataset, align, views):
    objective = objective_of(distill=DistillConfig(align))
    losses = objective(batch_of(dataset, objective, views=views))
    assert 0 < losses["distill"] < 2


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("head", {"head": "last"}),
        ("weights", {"weights": {"contrastive": 0.5}}),
        ("weights", {"weights": {"distill": 0.5}}),
        ("weights", {"weights": {"regions": 0.5}}),
        ("distill", {"distill": DistillConfig("combined")}),
        ("distill", {"distill": None}),
        ("regions", {"regions": RegionConfig("roi")}),
        ("keeps_positions", {"keep_positions": True}),
    ],
)
def test_whatever_changes_a_loss_is_part_of_the_identity(name, changes):
    usual = {"distill": DistillConfig(), "regions": RegionConfig()}
    first, second = objective_of(**usual).identity(), objective_of(**{**usual, **changes}).identity()
    assert {each for each in first if first[each] != second[each]} == {name}


def test_crops_that_the_loader_did_not_make(dataset):
    objective = objective_of(distill=DistillConfig())
    with pytest.raises(OptionError, match="'distill' needs crops, and the loader was asked for none"):
        objective(batch_of(dataset, objective))


@pytest.mark.parametrize("num_parts", [2, 5])
@pytest.mark.parametrize("teacher", ["shared", "ema"])
@pytest.mark.parametrize("loss", ["multi_positive", "infonce"])
def test_pieces_equal_the_whole_batch(dataset, num_parts, teacher, loss):
    """Some pieces have no region."""
    objective = objective_of(distill=DistillConfig(teacher=teacher), regions=RegionConfig(loss=loss))
    batch = batch_of(dataset, objective, views=RANDOM, regions=OBJECTS)
    expected, losses = gradients(objective, batch), objective(batch)
    objective.zero_grad()
    cached = CachedBatch(objective, objective, batch, num_parts)
    for name, value in losses.items():
        torch.testing.assert_close(cached.losses[name], value, rtol=1e-5, atol=1e-6)
    cached.backward(Accelerator(cpu=True))
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                parameter.grad, expected[name], rtol=1e-3, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}"
            )
