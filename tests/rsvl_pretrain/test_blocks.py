"""torch.compile per transformer block."""

import open_clip
import pytest
import torch
from torch._dynamo.utils import counters

from rsvl_data.errors import OptionError
from rsvl_pretrain.blocks import compile_blocks, transformer_blocks
from rsvl_pretrain.model import DualEncoder

TOWERS = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2},
    "text_cfg": {"context_length": 77, "width": 64, "heads": 2, "layers": 2},
}
WORDS = "a small lake between two roads and a forest near the harbour of the city on the coast".split()


def tiny() -> DualEncoder:
    torch.manual_seed(0)
    encoder = DualEncoder.load("rsvl-tiny")
    encoder.model = open_clip.CLIP(**TOWERS)
    return encoder


def images(num: int) -> torch.Tensor:
    return torch.randint(0, 256, (num, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow  # compiles for a minute
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_give_equal_gradients_and_are_compiled_a_bounded_number_of_times():
    plain, compiled = tiny(), tiny()
    compile_blocks(compiled)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    counters.clear()
    for num_words in (3, 12, 17, 5, 1, 9):
        gradients = []
        for encoder in (plain, compiled):
            encoder.zero_grad()
            embeds = encoder.encode_image(images(40)), encoder.encode_text([" ".join(WORDS[:num_words])] * 40)
            (embeds[0] * embeds[1].cos()).sum().backward()
            gradients.append(
                {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}
            )
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] == 4  # the blocks of each tower and its last block, whatever the lengths of texts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32", ["ResidualAttentionBlock"] * 24),
        ("ViT-B-16-SigLIP", ["Block"] * 12 + ["ResidualAttentionBlock"] * 12),
        ("RN50", ["ResidualAttentionBlock"] * 12),
    ],
)
def test_blocks_are_found_in_every_kind_of_tower(name, expected):
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta")
    assert [type(block).__name__ for block in transformer_blocks(model)] == expected


def test_a_tower_without_blocks_is_refused():
    encoder = tiny()
    encoder.model.visual = torch.nn.Linear(2, 2)
    with pytest.raises(OptionError, match="the image tower of rsvl-tiny has none"):
        compile_blocks(encoder)
