"""A picture made smaller by torch's antialiased bicubic filter, byte for byte, with torch or without.

    every pixel of the result is a weighted mean of the pixels around it:     width first, rounded to 8 bits, then height
    weights     Keys' cubic with a = -0.5, stretched by the scale, rounded to 15 bits and a sign

Torch is more than twice as quick, but its import takes seconds and 300 MiB: as long as thousands of pictures without it. So the first ones
of a process are shrunk by products of small dense matrices: `_BLOCK` neighbours in the result share nearly all their sources, and each
block of them is one product.

Its bytes are the same on every CPU, though each sums in an order of its own: whole numbers up to 2**24 are exact in a float32.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

_BLOCK = 8  # more would multiply with more zeros, less would not fill the processor
_WEIGHT_BITS = 15
_CHANNELS = 3
_TORCH_PAYS_AFTER = 4000  # pictures: 2.6 s of import against 0.6 ms each

_num_shrunk = 0


def shrink(pixels: np.ndarray, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """RGB pixels [H, W, 3] of 8 bits as [height, width, 3]. `scale` is the source's rows and columns for one of the result, 1 or more.

    It may be less than the quotient of the sizes: the result then leaves out a part of the last source pixels.
    """
    global _num_shrunk
    _num_shrunk += 1
    return shrink_by_torch(pixels, size, scale) if _num_shrunk > _TORCH_PAYS_AFTER else shrink_by_products(pixels, size, scale)


def shrink_by_torch(pixels: np.ndarray, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    import torch

    channels_last = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    factors = (1 / scale[0], 1 / scale[1])
    # interpolate() takes no size beside factors
    small = torch.ops.aten._upsample_bicubic2d_aa(channels_last, size, False, *factors)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())


def shrink_by_products(pixels: np.ndarray, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    (height, width), (source_height, source_width) = size, pixels.shape[:2]
    rows, columns = _blocks(source_height, height, scale[0], 1), _blocks(source_width, width, scale[1], _CHANNELS)
    exact = columns[0].weights.dtype, rows[0].weights.dtype
    source = pixels.reshape(source_height, source_width * _CHANNELS).astype(exact[0])
    narrow = np.empty((source_height, width * _CHANNELS), exact[0])
    for block in columns:
        np.matmul(source[:, block.source], block.weights, out=narrow[:, block.result])
    narrow = _to_8_bit(narrow).astype(exact[1], copy=False)
    small = np.empty((height, width * _CHANNELS), exact[1])
    for block in rows:
        np.matmul(block.weights.T, narrow[block.source], out=small[block.result])
    return _to_8_bit(small).astype(np.uint8).reshape(height, width, _CHANNELS)


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Rounded to whole numbers of 0 to 255, halves up, in place."""
    np.add(values, 0.5, out=values)
    np.floor(values, out=values)
    return np.clip(values, 0, 255, out=values)


class _Block(NamedTuple):
    """`weights` [values of the source, values of the result] of some neighbours."""

    source: slice
    result: slice
    weights: np.ndarray


@lru_cache(maxsize=64)  # few sizes in most data sets; making the blocks of a new one takes a tenth of its products
def _blocks(source_length: int, length: int, scale: float, channels: int) -> list[_Block]:
    """Of one axis. Every one of its pixels holds `channels` values side by side, none of which mixes with another."""
    first, weights = _weights(source_length, length, scale)
    starts = first[::_BLOCK]
    ends = np.append(first[_BLOCK - 1 :: _BLOCK], first[-1])[: len(starts)] + weights.shape[1]
    span = min(int((ends - starts).max()), source_length)
    starts = np.minimum(starts, source_length - span)
    number = np.arange(length)
    columns = first - starts[number // _BLOCK]
    dense = np.zeros((len(starts), span, channels, _BLOCK, channels), weights.dtype)
    for channel in range(channels):
        for tap in range(weights.shape[1]):
            inside = columns + tap < span  # where the picture ends, the last weights are zeros
            block, column = number[inside] // _BLOCK, number[inside] % _BLOCK
            dense[block, columns[inside] + tap, channel, column, channel] = weights[inside, tap]
    blocks = []
    for index, start in enumerate(starts.tolist()):
        begin, end = index * _BLOCK, min((index + 1) * _BLOCK, length)
        source = slice(start * channels, (start + span) * channels)
        part = dense[index, :, :, : end - begin].reshape(span * channels, (end - begin) * channels)
        blocks.append(_Block(source, slice(begin * channels, end * channels), part))
    return blocks


def _weights(source_length: int, length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The first source pixel of each pixel of the result, and the weights [length, taps] of that one and those after it.

    As torch's `UpSampleKernelAVXAntialias.h` makes them, in the same order: a sum of doubles depends on it. Type float32 where sums of
    weights and pixels are exact in it, float64 for larger scales, whose smaller weights have more bits after the point.
    """
    scale = 1 / (1 / scale)  # torch is given a factor
    centres = scale * (np.arange(length) + 0.5)
    first = np.maximum((centres - 2 * scale + 0.5).astype(int), 0)
    ends = np.minimum((centres + 2 * scale + 0.5).astype(int), source_length)
    taps = np.arange((ends - first).max())
    weights = _cubic((taps + (first - centres)[:, None] + 0.5) * (1 / scale))
    weights[taps >= (ends - first)[:, None]] = 0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # one after the other; np.sum pairs them
    bits = next((bits for bits in range(22) if int(0.5 + weights.max() * 2 ** (bits + 1)) >= 2**_WEIGHT_BITS), 22)
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights))
    return first, (whole / 2**bits).astype(np.float32 if bits <= _WEIGHT_BITS else np.float64)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5 (10.1109/TASSP.1981.1163711, equation 15); 0 from 2 on."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
