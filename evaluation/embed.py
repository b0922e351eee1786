"""A split of a dataset and a list of texts, as an encoder sees them: unit vectors in the order of the data."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from evaluation.data import EvalSet
from rsvl_data.errors import DataError
from rsvl_data.transforms import Engine, Preprocess

EvalPrecision = Literal["fp32", "bf16"]
Progress = Callable[[int, int], None]  # images done, images in all


@runtime_checkable
class Encoder(Protocol):
    """What the benchmarks need to know of `rsvl_pretrain.model.DualEncoder`."""

    name: str
    preprocess: Preprocess
    training: bool

    @property
    def device(self) -> torch.device: ...
    def train(self, mode: bool = True) -> Any: ...
    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]: ...
    def encode_text(self, texts: Sequence[str], *, normalize: bool = True) -> Float[Tensor, "b d"]: ...
    def weights_sha256(self) -> str: ...


def no_progress(done: int, total: int) -> None:
    pass


def embed_images(
    encoder: Encoder,
    data: EvalSet,
    *,
    batch_size: int = 64,
    workers: int = 2,
    precision: EvalPrecision = "fp32",
    engine: Engine = "exact",
    progress: Progress = no_progress,
) -> Float[Tensor, "n d"]:
    """Unit vectors of a split's images in the order of its items, float32 on the CPU.

    `workers` threads read and decode ahead while the encoder runs. `precision` bf16 runs the towers under autocast.
    Raises DataError naming the sample that cannot be decoded.
    """
    num_images = len(data.items)
    parts: list[Tensor] = []
    with ThreadPoolExecutor(workers) as pool, _measuring(encoder, precision):
        decoded = _ahead(pool, lambda index: _decode(encoder.preprocess, data, index, engine), range(num_images), 2 * batch_size)
        while batch := list(islice(decoded, batch_size)):
            parts.append(_unit_float(encoder.encode_image(torch.stack(batch))))
            progress(min(len(parts) * batch_size, num_images), num_images)
    return torch.cat(parts)


def embed_texts(
    encoder: Encoder, texts: Sequence[str], *, batch_size: int = 256, precision: EvalPrecision = "fp32", normalize: bool = True
) -> Float[Tensor, "t d"]:
    """Embeddings in the order of `texts`, float32 on the CPU; texts that are equal are encoded once and get the same row.

    `normalize=False` keeps the length the text tower gives them, which some averages over prompts depend on.
    """
    if not texts:
        raise ValueError("embed_texts needs at least one text")
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    distinct = list(row_of)
    parts: list[Tensor] = []
    with _measuring(encoder, precision):
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            embeds = encoder.encode_text(batch, normalize=normalize)
            parts.append(_unit_float(embeds) if normalize else embeds.float().cpu())
    return torch.cat(parts)[[row_of[text] for text in texts]]


def _unit_float(embeds: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Unit length again after bf16."""
    return F.normalize(embeds.float(), dim=-1).cpu()


@contextmanager
def _measuring(encoder: Encoder, precision: EvalPrecision) -> Iterator[None]:
    """Evaluation mode, no gradients; afterwards the encoder is as it was, in the middle of a training run too."""
    was_training = encoder.training
    encoder.train(False)
    try:
        with torch.inference_mode(), torch.autocast(encoder.device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        encoder.train(was_training)


def _decode(preprocess: Preprocess, data: EvalSet, index: int, engine: Engine) -> UInt8[Tensor, "3 s s"]:
    image = data.image(index)
    try:
        return preprocess.decode(image, engine)
    except DataError as error:
        raise DataError(f"sample {data.items[index].key} cannot be evaluated: {error}") from error


def _ahead(pool: ThreadPoolExecutor, work: Callable[[Any], Any], inputs: Iterable[Any], depth: int) -> Iterator[Any]:
    """Results in order, with up to `depth` inputs in work or waiting: `pool.map` would hold the whole split in memory."""
    waiting: deque[Future[Any]] = deque()
    for item in inputs:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
