"""A few numbers in an export by which a reader sees that it has the model that was exported.

The configuration says which activation the weights were trained with. Where it is lost or overruled, weights for QuickGELU run with GELU
without an error, only worse. So the export says what one picture and one text become.
"""

from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from rsvl_data.errors import DataError

PROBE_KEY = "probe"
_TEXT = "a satellite image"
_NUM_VALUES = 32
_LARGEST_DIFFERENCE = 2e-3  # of the norms; fp32 on two machines differs by 1e-6, TF32 by 5e-4, the other GELU by 5e-3 and more

Probe = dict[str, list[float]]


def probe_of(encoder: Any) -> Probe:
    """The first values of the unit vectors of a picture of ramps and of a text, in evaluation mode."""
    training = encoder.training
    encoder.eval()
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        embeds = {"image": encoder.encode_image(_ramps(encoder)), "text": encoder.encode_text([_TEXT])}
    encoder.train(training)
    return {name: [round(value, 6) for value in embed[0, :_NUM_VALUES].float().tolist()] for name, embed in embeds.items()}


def check_probe(encoder: Any, expected: Probe) -> None:
    """Raises DataError where `encoder` gives other numbers than those of its export."""
    for name, values in probe_of(encoder).items():
        then, now = torch.tensor(expected[name]), torch.tensor(values)
        difference = float((then - now).norm() / then.norm())
        if not difference < _LARGEST_DIFFERENCE:
            raise DataError(
                f"{encoder.name}: its {name} tower does not give what it gave when it was exported (off by {difference:.1%}). The "
                "weights, the preprocessing or the activation (quick_gelu) in open_clip_config.json are not those of the export; "
                f"if that is wanted, take {PROBE_KEY!r} out of that file"
            )


def _ramps(encoder: Any) -> UInt8[Tensor, "1 3 s s"]:
    ramp = torch.arange(encoder.preprocess.size) * 255 // encoder.preprocess.size
    columns, rows = ramp.expand(len(ramp), -1), ramp[:, None].expand(-1, len(ramp))
    return torch.stack([columns, rows, 255 - columns]).to(torch.uint8)[None]
