"""A dual encoder: an open_clip model with its tokenizer, its preprocessing and its identity in one hand."""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from copy import deepcopy
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn

from rsvl_data.errors import DataError, OptionError
from rsvl_data.transforms import Preprocess
from rsvl_pretrain.image_tower import encode_image
from rsvl_pretrain.probe import PROBE_KEY, check_probe, probe_of
from rsvl_pretrain.text_length import encode_by_length, encode_without_padding
from rsvl_pretrain.text_packing import encode_packed

CONFIG_FOLDER = Path(__file__).parent / "model_configs"
_EXPORT_CONFIG, _EXPORT_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


class DualEncoder(nn.Module):
    """An image tower and a text tower that share an embedding space.

    name        what it was loaded as
    config      open_clip's `model_cfg`: enough to build the same architecture again
    model       the open_clip model itself, unchanged
    tokenizer   texts to token ids [b, l]
    preprocess  stored image to model input
    """

    def __init__(self, name: str, config: dict[str, Any], model: nn.Module, tokenizer: Any, preprocess: Preprocess):
        super().__init__()
        self.name, self.config, self.tokenizer, self.preprocess = name, config, tokenizer, preprocess
        self.model: Any = model  # open_clip's classes share methods, not a base

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied with; not a log."""
        return self.model.logit_scale.exp().reshape(())  # engines that spread weights give it a dimension

    @property
    def logit_bias(self) -> Float[Tensor, ""] | None:
        """What is added to scaled similarities; only models for the sigmoid loss have it."""
        bias = getattr(self.model, "logit_bias", None)
        return None if bias is None else bias.reshape(())

    def add_logit_bias(self) -> None:
        """Make a model without logit bias ready for the sigmoid loss, with SigLIP's first values: scale 10, bias -10."""
        self.model.logit_bias = nn.Parameter(self.model.logit_scale.new_full((), -10.0))
        self.config["init_logit_bias"] = -10.0
        with torch.no_grad():
            self.model.logit_scale.fill_(math.log(10))

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit vectors of decoded, resized, not yet normalised images (grey levels 0-255)."""
        images = images.to(self.device, non_blocking=True)  # from pinned memory nobody waits
        encode = partial(encode_image, self.model) if self.training else self.model.encode_image
        return F.normalize(encode(self.preprocess.normalize(images)), dim=-1)

    def encode_tokens(self, tokens: Int[Tensor, "b l"], *, normalize: bool = True) -> Float[Tensor, "b d"]:
        """Embeddings of token ids, unit vectors unless `normalize` is False. Padding costs next to nothing."""
        embeds = encode_packed(self.model, tokens) if self.training else encode_without_padding(self.model, tokens)
        return F.normalize(embeds, dim=-1) if normalize else embeds

    def encode_text(self, texts: Sequence[str], *, normalize: bool = True) -> Float[Tensor, "b d"]:
        """The same for texts; what is longer than the text tower's context is cut by the tokenizer."""
        tokens = self.tokenizer(list(texts))
        if self.training:
            return self.encode_tokens(tokens, normalize=normalize)
        embeds = encode_by_length(self.model, tokens)
        return F.normalize(embeds, dim=-1) if normalize else embeds

    def weights_sha256(self) -> str:
        """The identity of the weights: names, shapes, types and values, whatever file they came from."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def export(self, folder: Path) -> None:
        """Write the folder that `open_clip.create_model_and_transforms("local-dir:...")` reads, weights as safetensors, and in its
        configuration what a picture and a text become (`probe.py`).

        With a text tower of transformers it holds that tower's `config.json`, too, which spares `load` a question to the Hub.
        """
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_cfg": self.config, "preprocess_cfg": self.preprocess.to_open_clip(), PROBE_KEY: probe_of(self)}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        aside = folder / (_EXPORT_WEIGHTS + ".tmp")
        safetensors.torch.save_file(tensors, aside)
        aside.replace(folder / _EXPORT_WEIGHTS)
        if hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(folder)
        tower = getattr(self.model, "text", None)
        if isinstance(tower, HFTextEncoder):
            tower.config.save_pretrained(folder)
        (folder / _EXPORT_CONFIG).write_text(json.dumps(config, indent=1) + "\n")

    @classmethod
    def load(cls, name: str, device: str | torch.device = "cpu") -> "DualEncoder":
        """Anything that names a dual encoder.

        ViT-B-16               an open_clip architecture, or one of `rsvl_pretrain/model_configs`, with fresh weights
        ViT-B-16,laion2b_...   the same with the weights of that tag, as CLIP_benchmark's model lists write it
        hf-hub:org/name        a Hub repository in open_clip's layout
        local-dir:PATH         a folder in that layout; a run folder of ours means its `export`

        Raises OptionError for a name nobody knows or a tag of weights with another activation, DataError for weights that do not fit, or
        for an export of ours that does not give what it gave when it was written.
        """
        export = _export_folder(name)
        if export is None and (folder := Path(name.removeprefix("local-dir:")) / "checkpoints").is_dir():
            raise DataError(f"{folder.parent} has no export yet: its training did not end. Go on with --resume latest.")
        if export is not None:
            source, tag = f"local-dir:{export}", None
        elif name.startswith(("hf-hub:", "local-dir:")):
            source, tag = name, None
        else:
            source, _, tag = name.partition(",")
            _check_architecture(source)
        model = _create(source, tag or None, device, name)
        _refuse_non_finite(name, model)
        preprocess = Preprocess.from_open_clip(open_clip.get_model_preprocess_cfg(model))
        config = _configuration(source)
        encoder = cls(name, config["model_cfg"], model, _tokenizer(source, model, name), preprocess)
        if PROBE_KEY in config:
            check_probe(encoder, config[PROBE_KEY])
        return encoder


def has_fresh_weights(name: str) -> bool:
    """Whether `DualEncoder.load` makes up the weights of this name: an architecture and nothing else."""
    architecture, _, tag = name.partition(",")
    open_clip.add_model_config(CONFIG_FOLDER)
    return not tag and architecture in open_clip.list_models() and _export_folder(name) is None


def _export_folder(name: str) -> Path | None:
    folder = Path(name.removeprefix("local-dir:"))
    return next((each for each in (folder / "export", folder) if (each / _EXPORT_CONFIG).is_file()), None)


def _create(source: str, tag: str | None, device: str | torch.device, name: str) -> Any:
    _check_activation(source, tag, name)
    # A repository whose weights cannot be had would otherwise give fresh ones without a word.
    options = {"require_pretrained": ":" in source, **_own_text_tower(source)}
    logging.disable(logging.WARNING)  # open_clip tells the root logger that fresh weights are fresh
    try:
        return open_clip.create_model(source, pretrained=tag, device=device, **options)
    except KeyError as error:
        if error.args[0] not in ("text_cfg", "vision_cfg"):
            raise
        tower = "text" if error.args[0] == "text_cfg" else "image"
        raise DataError(
            f"{name} has no {tower} tower: its configuration lacks {error.args[0]!r}. A dual encoder needs both."
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(f"{name} cannot be loaded as an open_clip model: {error}") from error
    finally:
        logging.disable(logging.NOTSET)


def _check_activation(source: str, tag: str | None, name: str) -> None:
    """open_clip only warns where weights that were trained with QuickGELU would get the GELU of an architecture, and be worth less."""
    right = f"{source}-quickgelu"
    trained_with = open_clip.get_pretrained_cfg(source, tag) if tag else {}
    if (
        trained_with.get("quick_gelu")
        and not open_clip.get_model_config(source).get("quick_gelu")
        and right in open_clip.list_models()
    ):
        raise OptionError(f"{name}: these weights were trained with QuickGELU, and {source} has GELU; take {right},{tag}")


def _own_text_tower(source: str) -> dict[str, Any]:
    """How a text tower of transformers is made from the configuration in the folder itself, where `export` left one."""
    scheme, _, path = source.partition(":")
    folder = Path(path)
    if scheme != "local-dir" or not (folder / _EXPORT_CONFIG).is_file() or not (folder / "config.json").is_file():
        return {}
    text = _configuration(source)["model_cfg"].get("text_cfg", {})
    if "hf_model_name" not in text:
        return {}
    return {"text_cfg": {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}}


def _tokenizer(source: str, model: Any, name: str) -> Any:
    try:
        tokenizer = open_clip.get_tokenizer(source)
    except (OSError, ValueError) as error:
        raise DataError(f"the tokenizer of {name} cannot be loaded: {error}") from error
    tower = getattr(model, "text", None)
    if isinstance(tower, HFTextEncoder) and isinstance(tokenizer, HFTokenizer):
        # Without its vocabulary file transformers makes a tokenizer to which every word is unknown, and says nothing.
        num_pieces, num_embeddings = len(tokenizer.tokenizer), tower.vocab_size
        if not num_embeddings / 2 < num_pieces <= num_embeddings:
            raise DataError(
                f"the tokenizer of {name} has {num_pieces} pieces, but its text tower {num_embeddings}: they do not belong together, "
                "or files of the tokenizer are missing"
            )
    return tokenizer


def _check_architecture(name: str) -> None:
    open_clip.add_model_config(CONFIG_FOLDER)
    known = open_clip.list_models()
    if name not in known:
        close = get_close_matches(name, known, n=3, cutoff=0.5)
        ours = ", ".join(sorted(path.stem for path in CONFIG_FOLDER.glob("*.json")))
        raise OptionError(
            f"no model is called {name!r}"
            + (f"; did you mean {' or '.join(close)}?" if close else ".")
            + f" Allowed: a folder with open_clip_config.json, a run folder, hf-hub:org/name, ours ({ours}), "
            "or an open_clip architecture (`python -c 'import open_clip; print(open_clip.list_models())'`)."
        )


def _configuration(source: str) -> dict[str, Any]:
    """open_clip's `model_cfg` of a name with or without a scheme, and what else stands beside it."""
    scheme, _, identifier = source.rpartition(":")
    if scheme == "local-dir":
        return json.loads((Path(identifier) / _EXPORT_CONFIG).read_text())
    if scheme == "hf-hub":
        from open_clip.factory import _get_hf_config  # the only reader of a Hub configuration open_clip has

        return _get_hf_config(identifier)
    return {"model_cfg": deepcopy(open_clip.get_model_config(source))}


def _refuse_non_finite(name: str, model: nn.Module) -> None:
    bad = [key for key, tensor in model.state_dict().items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    # open_clip's causal mask is a buffer of -inf by design; it is not persistent and so not among these
    if bad:
        raise DataError(f"{name}: the weights hold NaN or infinity in {', '.join(bad[:3])} ({len(bad)} tensors). Refused.")
