import numpy as np
import pytest
import torch

from evaluation.metrics.captioning import CAPTION_PREFIX, clip_score, ref_clip_score, reference_score


@pytest.fixture
def published(golden):
    parameters, arrays = golden("clipscore")
    tensors = {name: torch.from_numpy(arrays[name]) for name in ("image", "caption", "reference")}
    return parameters, tensors, arrays["reference_owner"]


def test_clip_score(published):
    parameters, embeds, _ = published
    ours = clip_score(embeds["image"], embeds["caption"], parameters["w"])
    assert ours == pytest.approx(parameters["clipscore_per_sample"], abs=1e-5)
    assert ours.mean() == pytest.approx(parameters["clipscore_mean"], abs=1e-5)
    assert parameters["prompt_prefix"].startswith(CAPTION_PREFIX.strip())


def test_reference_score(published):
    parameters, embeds, owner = published
    official = reference_score(embeds["caption"], embeds["reference"], owner, clip=False)
    assert official == pytest.approx(parameters["refonly_per_sample"], abs=1e-5)
    assert official.mean() == pytest.approx(parameters["refonly_mean"], abs=1e-5)
    clipped = reference_score(embeds["caption"], embeds["reference"], owner)
    assert clipped == pytest.approx(np.maximum(parameters["refonly_per_sample"], 0), abs=1e-5)
    assert clipped.min() == 0 > official.min()


@pytest.mark.parametrize("clip", [True, False])
def test_ref_clip_score(published, clip):
    """The one caption with a negative reference score is also one of CLIPScore 0, so both rules give 0."""
    parameters, embeds, owner = published
    ours = ref_clip_score(
        clip_score(embeds["image"], embeds["caption"]), reference_score(embeds["caption"], embeds["reference"], owner, clip=clip)
    )
    assert ours == pytest.approx(parameters["refclipscore_per_sample"], abs=1e-5)
    assert ours.mean() == pytest.approx(parameters["refclipscore_mean"], abs=1e-5)


def test_by_hand():
    image, caption = torch.tensor([[2.0, 0], [1, 0], [0, 3]]), torch.tensor([[1.0, 0], [-1, 0], [3, 3]])
    assert clip_score(image, caption) == pytest.approx([2.5, 0, 2.5 * 0.5**0.5])
    assert clip_score(image, caption, 1.0) == pytest.approx([1, 0, 0.5**0.5])
    reference, owner = torch.tensor([[0.0, 1], [1, 1], [0, 1], [1, 1]]), np.array([0, 0, 1, 2])
    assert reference_score(caption, reference, owner) == pytest.approx([0.5**0.5, 0, 1])
    assert ref_clip_score(np.array([1.0, 0, 1]), np.array([0.5, 0, 1])) == pytest.approx([2 / 3, 0, 1])


def test_what_cannot_be_scored():
    one = torch.ones(1, 2)
    with pytest.raises(ValueError, match="no captions has no value"):
        clip_score(torch.zeros(0, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="1 of 1 embeddings hold NaN"):
        clip_score(one, one * torch.nan)
    with pytest.raises(ValueError, match="1 of 2 have none, the first is 1"):
        reference_score(torch.ones(2, 2), one, np.array([0]))
