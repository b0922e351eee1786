"""The tiny CLIP of the golden files as an encoder, and batches whose pixels are the stored floats."""

import json
from pathlib import Path

import safetensors.torch
import torch
from open_clip.model import CLIP

from rsvl_data.crops import NO_CATEGORY, Crops
from rsvl_data.loader import Batch
from rsvl_data.transforms import Preprocess
from rsvl_pretrain.model import DualEncoder


class StoredPixels(Preprocess):
    """An image of one grey level stands for the stored image of that number."""

    table: torch.Tensor

    def normalize(self, images):
        return self.table[images[:, 0, 0, 0].long()]


class Tokenizer:
    context_length = 77


def official_encoder(shared: Path) -> DualEncoder:
    folder = shared / "fixtures" / "objectives"
    config = json.loads((folder / "tiny_model.json").read_text())["parameters"]["model_cfg"]
    model = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=True)
    model.load_state_dict(safetensors.torch.load_file(folder / "tiny_model.safetensors"))
    stored = official_steps(shared)[1]
    preprocess = StoredPixels(size=32)
    images = [stored["global_images"], stored["crop_images"].flatten(0, 1), stored["object_images"].flatten(0, 1)]
    object.__setattr__(preprocess, "table", torch.cat(images))
    return DualEncoder("tiny", {**config, "quick_gelu": True}, model, Tokenizer(), preprocess)


def official_steps(shared: Path):
    folder = shared / "fixtures" / "objectives"
    return json.loads((folder / "farslip_steps.json").read_text()), safetensors.torch.load_file(
        folder / "farslip_steps.safetensors"
    )


def official_batch(stored: dict[str, torch.Tensor], *names: str, context_length: int = 77) -> Batch:
    """With the crops of these names."""
    valid = stored["object_validity"].bool().flatten()
    num_crops = stored["crop_boxes"][:, :, 0].numel()
    rows = torch.arange(3).repeat_interleave(2)
    no_words, none = torch.zeros(num_crops, 0, dtype=torch.int64), torch.full((num_crops,), NO_CATEGORY)
    tokens = stored["object_tokens_77"].flatten(0, 1)[valid].long()
    tokens = torch.nn.functional.pad(tokens, (0, context_length - 77))
    labels = stored["object_labels"].flatten()[valid].long()
    texts = [str(label) if label >= 0 else f"free {row}" for row, label in enumerate(labels.tolist())]
    crops = {
        "views": Crops(_images(3, num_crops), stored["crop_boxes"].flatten(0, 1), rows, [], no_words, none, none),
        "regions": Crops(
            _images(3 + num_crops, len(valid))[valid],
            stored["object_boxes"].flatten(0, 1)[valid],
            rows[valid],
            texts,
            tokens,
            labels,
            labels,
        ),
    }
    captions = stored[f"global_tokens_{context_length}"].long()
    return Batch(0, 0, list("abc"), _images(0, 3), list("abc"), captions, [None] * 3, [], {name: crops[name] for name in names})


def _images(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 32, 32)
