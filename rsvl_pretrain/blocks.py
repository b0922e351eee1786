"""The repeated blocks of a model's towers: what is compiled once and run many times, and what FSDP2 gathers at a time."""

import re

import torch
from torch import nn

from rsvl_data.errors import OptionError
from rsvl_pretrain.model import DualEncoder

_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|layers?)\.\d+$")  # open_clip's, timm's and transformers' names


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """In order of appearance; empty for a tower without them (ResNet). A block inside a block is a part of it."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if _BLOCK.search(name) and not any(name.startswith(outer + ".") for outer in found):
            found[name] = module
    return list(found.values())


def compile_blocks(encoder: DualEncoder, *, backend: str = "inductor") -> None:
    """torch.compile each block where it stands: names of weights stay, hooks of engines still run, equal blocks share their code.

    Call it before an engine wraps the model. Raises OptionError for a tower without blocks.
    """
    blocks = transformer_blocks(encoder)
    image = transformer_blocks(encoder.model.visual)
    if not image or len(image) == len(blocks):
        raise OptionError(
            f"--train.compile works on transformer blocks, and the {'text' if image else 'image'} tower of {encoder.name} has none; "
            "leave it out or take a model of transformers (ViT-B-32)"
        )
    # Of each tower: its blocks and its last block; again without gradients (--train.accum-freq); again for a last piece that is smaller.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
    for block in blocks:
        of_images = any(block is other for other in image)
        block.compile(
            backend=backend, dynamic=None if of_images else True
        )  # texts come in rows of another number and length each time
