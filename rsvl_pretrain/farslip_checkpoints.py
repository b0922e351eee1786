"""The checkpoints that FarSLIP published (https://huggingface.co/ZhenShiL/FarSLIP), as encoders of ours.

They are training states of open_clip: keys `module.*`, and of a text tower of 248 tokens two tables of positions with masks. The file does
not say its activation; all of them were trained with QuickGELU. Nor does it say whose it is: open_clip's own states of such a ViT-B look
alike, so what is assumed is logged.
"""

import logging
import pickle
from pathlib import Path

import torch
from torch import Tensor

from rsvl_data.errors import DataError
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.text_positions import set_context_length

log = logging.getLogger(__name__)
_ARCHITECTURES = {32: "ViT-B-32-quickgelu", 16: "ViT-B-16-quickgelu"}  # by the side of a patch; there are no others


def load_farslip(path: Path) -> DualEncoder:
    """Nothing in the file is executed. Raises DataError for one that is no such checkpoint, naming what does not fit."""
    try:
        weights = plain_weights(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
        encoder = DualEncoder.load(_ARCHITECTURES[weights["visual.conv1.weight"].shape[-1]])
        set_context_length(encoder, len(weights["positional_embedding"]))
        encoder.model.load_state_dict(weights)
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} is no checkpoint of FarSLIP: {str(error).splitlines()[0]}") from error
    encoder.name = str(path)
    log.info("%s does not say its activation, and is read as FarSLIP's files were trained: with QuickGELU", path)
    return encoder


def plain_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under open_clip's names, the two tables of positions added up with their masks."""
    weights = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if "positional_embedding_res" in weights:
        trained, first, others = (weights.pop(name) for name in ("positional_embedding_res", "mask1", "mask2"))
        weights["positional_embedding"] = weights["positional_embedding"] * first + trained * others
    return weights
