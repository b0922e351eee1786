"""From 77 tokens to 248 and back."""

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from rsvl_data.errors import DataError, OptionError
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.text_positions import KeptPositions, context_length, set_context_length, shortened, stretched


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return DualEncoder.load("rsvl-tiny")


@pytest.fixture
def long_text(encoder):
    return " ".join(["harbour"] * 60)


def table(rows: int) -> torch.Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))


def test_the_table_is_the_official_one(shared):
    stored = load_file(shared / "fixtures" / "objectives" / "longclip_stretch.safetensors")
    torch.testing.assert_close(stretched(stored["table_77"]), stored["table_248"], atol=1e-6, rtol=0)


def test_farslip_28_rows_that_stay_and_rows_between():
    old = table(77)
    new = stretched(old)
    assert new.shape == (248, 6) and torch.equal(new[:20], old[:20])
    assert torch.equal(new[20::4], old[20:])
    torch.testing.assert_close(new[22], (old[20] + old[21]) / 2)
    torch.testing.assert_close(new[247], old[76] + 0.75 * (old[76] - old[75]))
    assert torch.equal(shortened(new), old)


def test_farslip_29_the_first_rows_have_no_gradient_and_come_back(encoder):
    """And what serves as their base has no effect beyond them."""
    kept = KeptPositions(encoder)
    positions = encoder.model.positional_embedding
    before = positions.detach().clone()
    encoder.encode_text(["a lake " * 20]).sum().backward()
    kept.mask_gradient(encoder)
    assert not positions.grad[:20].any() and positions.grad[20:30].abs().sum() > 0
    with torch.no_grad():
        positions.mul_(0.5)
    kept.rows[20:] = 7.0
    kept.restore(encoder)
    assert torch.equal(positions[:20], before[:20]) and torch.equal(positions[20:], before[20:] / 2)


def test_farslip_30_fewer_tokens_have_to_be_asked_for(encoder, tmp_path, long_text):
    short = context_length(encoder)
    longer = 4 * short - 60
    set_context_length(encoder, longer)
    before = encoder.encode_text(["a lake", long_text])
    encoder.export(tmp_path)
    again = DualEncoder.load(f"local-dir:{tmp_path}")
    with pytest.raises(OptionError, match=f"reads {longer} tokens and {short} were asked for.*--convert-positions"):
        set_context_length(again, short)
    set_context_length(again, longer)
    torch.testing.assert_close(again.encode_text(["a lake", long_text]), before)
    set_context_length(again, short, convert=True)
    torch.testing.assert_close(again.encode_text(["a lake"]), before[:1])
    assert again.tokenizer(["a lake"]).shape == (1, short)


def test_farslip_30_an_export_is_a_plain_model_of_open_clip_with_its_length_and_activation(encoder, tmp_path, long_text):
    """The activation is part of the export's configuration: nothing has to be known from elsewhere."""
    encoder.export(tmp_path / "gelu")
    path = tmp_path / "gelu" / "open_clip_config.json"
    path.write_text(path.read_text().replace('"embed_dim"', '"quick_gelu": true, "embed_dim"'))
    with pytest.raises(DataError, match=r"its image tower does not give what it gave when it was exported.*quick_gelu"):
        DualEncoder.load(str(tmp_path / "gelu"))
    path.write_text(path.read_text().replace('"probe"', '"probe before"'))
    quick = DualEncoder.load(str(tmp_path / "gelu"))
    set_context_length(quick, 68)
    quick.export(tmp_path / "quick")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'quick'}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'quick'}")([long_text])
    assert model.context_length == 68 and tokens.shape == (1, 68) and (tokens != 0).sum() > 60
    with torch.no_grad():
        embeds = model.eval().encode_text(tokens, normalize=True)
        torch.testing.assert_close(embeds, quick.encode_text([long_text]), atol=1e-6, rtol=1e-5)
        assert not torch.allclose(encoder.encode_text(["a lake"]), quick.encode_text(["a lake"]), atol=1e-3)


def test_lengths_that_cannot_be(encoder):
    with pytest.raises(OptionError, match="they can become 68, not 248"):
        set_context_length(encoder, 248)
    set_context_length(encoder, 32)
    assert context_length(encoder) == 32


def test_text_towers_without_positions_of_their_own(encoder):
    del encoder.model.positional_embedding
    with pytest.raises(OptionError, match="has no positions of its own"):
        context_length(encoder)
