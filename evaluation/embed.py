"""A split of a dataset and a list of texts, as an encoder sees them: unit vectors in the order of the data."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from evaluation.data import EvalSet
from evaluation.embedding_cache import CachedEmbeddings, EmbeddingCache
from rsvl_data.errors import DataError
from rsvl_data.transforms import Engine, Preprocess

EvalPrecision = Literal["fp32", "bf16"]
Progress = Callable[[int, int], None]  # images done, images in all
ENCODE_VERSION = (
    1  # raise it with every change to decoding or encoding that changes a number: cached embeddings are then made anew
)
_ROWS_ON_CPU = 32  # activations of 64 images of ViT-B/32 outgrow the caches: they take 15 % longer an image
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "pillow", "simplejpeg")


@runtime_checkable
class Encoder(Protocol):
    """What the benchmarks need to know of `rsvl_pretrain.model.DualEncoder`."""

    name: str
    config: dict[str, Any]
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
    cache: EmbeddingCache | None = None,
) -> Float[Tensor, "n d"]:
    """Unit vectors of a split's images in the order of its items, on the CPU, rounded to half precision and held in float32.

    `workers` threads read and decode ahead while the encoder runs. `precision` bf16 runs the towers under autocast. With a cache, images
    that it knows are not encoded; the numbers are the same to the bit with and without.
    Raises DataError naming samples that cannot be decoded, or whose embeddings hold NaN or infinity.
    """
    encode = _Encode(encoder, data, batch_size, workers, precision, engine, progress)
    if cache is None:
        rows = np.concatenate([rows for _, rows in encode.batches(range(len(data.items)))])
    else:
        sha256s = encode.image_sha256s()
        part = cache.part(encode.encoding())
        encode.into(part, sha256s)
        found = part.find(sha256s)
        rows = np.stack([found[sha256] for sha256 in sha256s])
    return F.normalize(torch.from_numpy(rows).float(), dim=-1)


def cache_images(
    encoder: Encoder,
    data: EvalSet,
    cache: EmbeddingCache,
    *,
    rank: int = 0,
    world_size: int = 1,
    batch_size: int = 64,
    workers: int = 2,
    precision: EvalPrecision = "fp32",
    engine: Engine = "exact",
    progress: Progress = no_progress,
) -> None:
    """Encode what the cache lacks, or this rank's share of it. Ranks share nothing but the cache; options and errors as `embed_images`."""
    encode = _Encode(encoder, data, batch_size, workers, precision, engine, progress)
    encode.into(cache.part(encode.encoding()), encode.image_sha256s(), rank, world_size)


@dataclass(frozen=True)
class _Encode:
    encoder: Encoder
    data: EvalSet
    batch_size: int
    workers: int
    precision: EvalPrecision
    engine: Engine
    progress: Progress

    def encoding(self) -> dict[str, Any]:
        """All that an embedding depends on but the image. The shape of a batch and the kind of device choose the kernels that compute it,
        and so its last bits; the weights alone do not tell which activation stands between them."""
        return {
            "encode_version": ENCODE_VERSION,
            "encoder": type(self.encoder).__qualname__,
            "weights_sha256": self.encoder.weights_sha256(),
            "architecture": self.encoder.config,
            "preprocess": asdict(self.encoder.preprocess),
            "engine": self.engine,
            "precision": self.precision,
            "device": self.encoder.device.type,
            "batch_size": self._rows,
            "packages": {name: version(name) for name in _PACKAGES},
        }

    @property
    def _rows(self) -> int:
        """Images that go through the tower at once."""
        return min(self.batch_size, _ROWS_ON_CPU) if self.encoder.device.type == "cpu" else self.batch_size

    def image_sha256s(self) -> list[str]:
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self.data.image_sha256, range(len(self.data.items))))

    def into(self, part: CachedEmbeddings, sha256s: Sequence[str], rank: int = 0, world_size: int = 1) -> None:
        """What was encoded when a run is killed stays. Two images with the same bytes are one.

        The image itself says whose share it is: ranks that start at different times, and see more or less of it done, leave nothing out.
        """
        first = {sha256: index for index, sha256 in reversed(list(enumerate(sha256s)))}
        mine = [sha256 for sha256 in first if int(sha256[:8], 16) % world_size == rank]
        known = part.find(mine)
        for indices, rows in self.batches(sorted(first[sha256] for sha256 in mine if sha256 not in known)):
            part.append([sha256s[index] for index in indices], rows)

    def batches(self, indices: Sequence[int]) -> Iterator[tuple[list[int], Float16[np.ndarray, "b d"]]]:
        """The tower is given the same number of images each time: then one has the same embedding whatever is encoded beside it."""
        done = 0
        with ThreadPoolExecutor(self.workers) as pool, _measuring(self.encoder, self.precision):
            decoded = _ahead(pool, self._decode, indices, 2 * self.batch_size)
            while batch := list(islice(decoded, self.batch_size)):
                images = torch.stack(batch + [torch.zeros_like(batch[0])] * (-len(batch) % self._rows))
                embeds = (
                    torch.cat([self.encoder.encode_image(part) for part in images.split(self._rows)])[: len(batch)].float().cpu()
                )
                now = list(indices[done : done + len(batch)])
                _refuse_non_finite(embeds, [self.data.items[index].key for index in now], "samples")
                done += len(batch)
                self.progress(done, len(indices))
                yield now, F.normalize(embeds, dim=-1).half().numpy()

    def _decode(self, index: int) -> UInt8[Tensor, "3 s s"]:
        image = self.data.image(index)
        try:
            return self.encoder.preprocess.decode(image, self.engine)
        except DataError as error:
            raise DataError(f"sample {self.data.items[index].key} cannot be evaluated: {error}") from error


def embed_texts(
    encoder: Encoder, texts: Sequence[str], *, batch_size: int = 256, precision: EvalPrecision = "fp32", normalize: bool = True
) -> Float[Tensor, "t d"]:
    """Embeddings in the order of `texts`, float32 on the CPU; texts that are equal are encoded once and get the same row.

    `normalize=False` keeps the length the text tower gives them, which some averages over prompts depend on.
    """
    if not texts:
        raise ValueError("embed_texts needs at least one text")
    if not callable(getattr(encoder, "encode_text", None)):
        raise DataError(f"{encoder.name} has no text tower; zero-shot classification and retrieval need one")
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    distinct = list(row_of)
    parts: list[Tensor] = []
    with _measuring(encoder, precision):
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            embeds = encoder.encode_text(batch, normalize=normalize)
            _refuse_non_finite(embeds, [repr(text[:60]) for text in batch], "texts")
            parts.append(_unit_float(embeds) if normalize else embeds.float().cpu())
    return torch.cat(parts)[[row_of[text] for text in texts]]


def _unit_float(embeds: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Unit length again after bf16."""
    return F.normalize(embeds.float(), dim=-1).cpu()


def _refuse_non_finite(embeds: Float[Tensor, "b d"], names: Sequence[str], what: str) -> None:
    bad = [name for name, finite in zip(names, embeds.isfinite().all(1).tolist()) if not finite]
    if bad:
        raise DataError(
            f"the embeddings of {len(bad)} {what} hold NaN or infinity: {', '.join(bad[:3])}. "
            "The weights are damaged, or the precision is too low for them: try --precision fp32."
        )


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


def _ahead(pool: ThreadPoolExecutor, work: Callable[[Any], Any], inputs: Iterable[Any], depth: int) -> Iterator[Any]:
    """Results in order, with up to `depth` inputs in work or waiting: `pool.map` would hold the whole split in memory."""
    waiting: deque[Future[Any]] = deque()
    for item in inputs:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
