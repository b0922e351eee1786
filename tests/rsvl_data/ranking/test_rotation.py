import io

import numpy as np
import pytest
import torch
from PIL import Image
from ranking_cases import QuadrantEncoder, ScriptedEncoder, choices, one, picture, sample

from rsvl_data.errors import OptionError
from rsvl_data.ranking.candidates import RS5M, Ranking
from rsvl_data.ranking.rotation import Fill, Rotation, rotated_views, rotation_choice, similarity_variance
from rsvl_data.ranking.two_stage import two_stage
from rsvl_data.sample import Caption, Sample
from rsvl_data.stage import Dropped
from rsvl_data.transforms import Preprocess


def smooth(side: int, seed: int = 0) -> torch.Tensor:
    noise = torch.from_numpy(np.random.default_rng(seed).random((1, 3, 6, 6))).float()
    return (torch.nn.functional.interpolate(noise, size=(side, side), mode="bicubic")[0] * 255).clamp(0, 255).to(torch.uint8)


def plain_views(square: torch.Tensor, size_px: int, num_views: int, fill: Fill) -> np.ndarray:
    """One view at a time, by Pillow."""
    side, pixels = square.shape[-1], square.permute(1, 2, 0).numpy()
    margin = (side - size_px) // 2
    if fill == "reflect":
        pixels, margin = np.pad(pixels, ((side, side), (side, side), (0, 0)), mode="symmetric"), margin + side
    colour = tuple(int(value) for value in pixels.mean((0, 1)).round()) if fill == "fill_mean" else (0, 0, 0)
    views = []
    for n in range(num_views):
        turned = Image.fromarray(pixels).rotate(360 * n / num_views, Image.Resampling.BILINEAR, fillcolor=colour)
        views.append(np.asarray(turned.crop((margin, margin, margin + size_px, margin + size_px))))
    return np.stack(views).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("fill", ["inscribed", "fill_mean", "reflect", "none"])
@pytest.mark.parametrize("size_px", [32, 33])
def test_against_pillow(fill, size_px):
    rotation = Rotation(12, fill)
    squares = torch.stack([smooth(rotation.source_px(size_px), seed) for seed in (1, 2)])
    views = rotated_views(squares, size_px, rotation)
    for square, ours in zip(squares, views, strict=True):
        difference = np.abs(ours.numpy().astype(int) - plain_views(square, size_px, 12, fill))
        # Pillow fades nothing at the border between picture and fill: the two differ there by one row of pixels.
        assert np.quantile(difference, 0.93) <= 1 and np.median(difference) == 0
        if fill in ("inscribed", "reflect"):
            assert difference.max() <= 2


@pytest.mark.parametrize("fill", ["inscribed", "fill_mean", "reflect", "none"])
@pytest.mark.parametrize("size_px", [16, 17, 24])  # 16 * sqrt(2) rounds up to 23, which is odd
def test_quarter_turns_are_exact(fill, size_px):
    rotation = Rotation(4, fill)
    square = smooth(rotation.source_px(size_px))
    margin = (square.shape[-1] - size_px) // 2
    inner = square[:, margin : margin + size_px, margin : margin + size_px]
    for turns, view in enumerate(rotated_views(square[None], size_px, rotation)[0]):
        assert torch.equal(view, inner.rot90(turns, (1, 2)))


@pytest.mark.parametrize("size_px", [16, 17, 224])
def test_inscribed_views_hold_no_fill_at_any_angle(size_px):
    rotation = Rotation(37, "inscribed")
    white = torch.full((1, 3, rotation.source_px(size_px), rotation.source_px(size_px)), 255, dtype=torch.uint8)
    assert bool((rotated_views(white, size_px, rotation) == 255).all())
    assert bool((rotated_views(white[..., :size_px, :size_px], size_px, Rotation(12, "none"))[0, 1] == 0).any())
    assert rotation.source_px(size_px) < size_px * 2**0.5 + 2  # and it is the largest such square


def test_variance_by_hand():
    cosines = torch.tensor([[0.2, 0.2, 0.2], [0.1, 0.2, 0.3]], dtype=torch.float64)
    assert similarity_variance(cosines).tolist() == pytest.approx([0, 0.02 / 3])  # biased: divided by 3, not by 2


def half_bright() -> bytes:
    pixels = np.full((64, 64, 3), 20, dtype=np.uint8)
    pixels[:, :32] = 230
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def ranked(*texts: str, **options: object) -> Sample:
    captions = [Caption(text=text, kind="vlm", rank=rank) for rank, text in enumerate(texts, 1)]
    return sample(Caption(text="m", kind="meta"), *captions, **options)


def test_a_caption_that_says_left_loses_to_one_that_fits_every_turn():
    chosen = one(
        rotation_choice(QuadrantEncoder(), RS5M, Rotation()), ranked("left is bright", "all", "top", image=half_bright())
    )
    assert choices(chosen) == [("rotation", "all", 2)]
    variances = [caption.rotation_variance for caption in chosen.captions]
    assert variances[0] is None and variances[2] < variances[1] / 50 and variances[4] is None


def test_constant_similarity_wins():
    chosen = one(rotation_choice(QuadrantEncoder(), RS5M, Rotation()), ranked("all", "left", "nothing", image=half_bright()))
    assert choices(chosen)[0][1] == "nothing" and chosen.captions[3].rotation_variance == 0


def test_equal_variances_stand_by_rank():
    even = ScriptedEncoder({"a": 0.1, "b": 0.2, "c": 0.3})
    given = sample(*[Caption(text=text, kind="vlm", rank=rank) for text, rank in (("a", 3), ("b", 1), ("c", 2))])
    assert choices(one(rotation_choice(even, RS5M, Rotation()), given)) == [("rotation", "b", 1)]


def test_only_what_the_second_model_kept_is_compared():
    given = ranked("left", "top", "all", image=half_bright())
    chosen = one(rotation_choice(QuadrantEncoder(), Ranking(20, 10, 2), Rotation()), given)
    assert choices(chosen)[0][1] in ("left", "top") and chosen.captions[3].rotation_variance is None


def test_options_change_the_outcome():
    given = ranked("left", "all", image=half_bright())
    found = {}
    for options in (
        Rotation(),
        Rotation(num_views=3),
        Rotation(fill="none"),
        Rotation(fill="fill_mean"),
        Rotation(fill="reflect"),
    ):
        encoder = QuadrantEncoder()
        chosen = one(rotation_choice(encoder, RS5M, options), given)
        found[options] = chosen.captions[1].rotation_variance
        assert encoder.image_batches == [options.num_views]
    assert len(set(found.values())) == len(found)


def test_all_views_of_a_batch_are_one_call_and_order_is_kept():
    encoder = QuadrantEncoder()
    given = [
        ranked("all", "left", key="k0"),
        sample(Caption(text="m", kind="meta"), key="k1"),
        ranked("top", key="k2"),
        ranked("all", key="k3", image=b"?"),
    ]
    answers = list(rotation_choice(encoder, RS5M, Rotation(), batch_size=4).run(given))
    assert encoder.image_batches == [24]
    assert [a.key for a in answers] == ["k0", "k1", "k2", "k3"]
    assert [a.reason for a in answers if isinstance(a, Dropped)] == ["no_candidate", "unreadable_image"]
    assert list(rotation_choice(encoder, Ranking(keep_unranked=True), Rotation()).run(given[1:2])) == given[1:2]
    alone = list(rotation_choice(encoder, RS5M, Rotation(), batch_size=1).run(given))
    assert [a.to_json() for a in alone if isinstance(a, Sample)] == [a.to_json() for a in answers if isinstance(a, Sample)]


def test_choosing_again_is_choosing_once():
    stage = rotation_choice(QuadrantEncoder(), RS5M, Rotation())
    once = one(stage, ranked("left", "all", image=half_bright()))
    assert one(stage, once).to_json() == once.to_json()


def test_a_candidate_that_fell_back_keeps_no_old_variance():
    stage = rotation_choice(QuadrantEncoder(), Ranking(20, 10, 1), Rotation())
    once = one(stage, ranked("left", "all", image=half_bright()))
    swapped = [c.model_copy(update={"rank": c.rank and 3 - c.rank}) for c in once.captions]
    again = one(stage, once.model_copy(update={"captions": swapped}))
    assert [c.rotation_variance is None for c in again.captions] == [True, True, False, True]


def test_turning_keeps_the_aspect_where_the_encoder_squashes():
    """A squashed picture changes its proportions with every turn."""
    given = ranked("left", "all", image=picture(60, 30))
    plain, squashing = QuadrantEncoder(), QuadrantEncoder(Preprocess(size=16, resize_mode="squash"))
    assert one(rotation_choice(squashing, RS5M, Rotation()), given) == one(rotation_choice(plain, RS5M, Rotation()), given)


def test_both_choices_stand_side_by_side():
    scores = ScriptedEncoder({"left": 0.9, "all": 0.5})
    both = one(two_stage(scores, scores, RS5M), sample("left", "all", image=half_bright()))
    both = one(rotation_choice(QuadrantEncoder(), RS5M, Rotation()), both)
    assert choices(both) == [("top", "left", 0), ("rotation", "all", 1)]


@pytest.mark.parametrize("size", [(200, 50), (50, 200), (7, 7)])
def test_images_of_any_shape(size):
    chosen = one(rotation_choice(QuadrantEncoder(), RS5M, Rotation()), ranked("all", "left", image=picture(*size)))
    assert len(choices(chosen)) == 1


def test_wrong_options():
    with pytest.raises(OptionError, match="num_views is 1"):
        Rotation(num_views=1)
