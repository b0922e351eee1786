"""A picture made smaller by an antialiased bicubic filter, as Pillow and torch make it, and quicker than either.

    every pixel of the result is a weighted mean of the pixels around it:     height first, rounded, then width
    weights     Keys' cubic with a = -0.5, stretched by the scale, rounded to 15 bits and a sign

The means are products of small dense matrices: `_BLOCK` neighbours in the result share nearly all their sources, and each block of them
is one product. Height comes first, since a pixel's channels do not mix there: what is left then for the width, where two thirds of a
dense matrix are zeros, is less. Torch takes two thirds of the time, but its import takes seconds and 300 MiB.

The bytes are the same on every CPU, though each sums in an order of its own: whole numbers up to 2**24 are exact in a float32.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

_BLOCK = 8  # more would multiply with more zeros, less would not fill the processor
_WEIGHT_BITS = 15
_CHANNELS = 3


def shrink(pixels: np.ndarray, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """RGB pixels [H, W, 3] of 8 bits as [height, width, 3]. `scale` is the source's rows and columns for one of the result, 1 or more.

    It may be less than the quotient of the sizes: the result then leaves out a part of the last source pixels.
    """
    (height, width), (source_height, source_width) = size, pixels.shape[:2]
    rows, columns = _blocks(source_height, height, scale[0], 1), _blocks(source_width, width, scale[1], _CHANNELS)
    exact = rows[0].weights.dtype, columns[0].weights.dtype
    source = pixels.reshape(source_height, source_width * _CHANNELS).astype(exact[0])
    low = np.empty((height, source_width * _CHANNELS), exact[0])
    for block in rows:
        np.matmul(block.weights.T, source[block.source], out=low[block.result])
    # Values a little below 0 and above 255 are left as they are: they still are whole numbers of 9 bits.
    low = np.rint(low, out=low).astype(exact[1], copy=False)
    small = np.empty((height, width * _CHANNELS), exact[1])
    for block in columns:
        np.matmul(low[:, block.source], block.weights, out=small[:, block.result])
    np.clip(np.rint(small, out=small), 0, 255, out=small)
    return small.astype(np.uint8).reshape(height, width, _CHANNELS)


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

    As torch's `UpSampleKernelAVXAntialias.h` makes them. Type float32 where sums of weights and pixels are exact in it, float64 for
    larger scales, whose smaller weights have more bits after the point.
    """
    centres = scale * (np.arange(length) + 0.5)
    first = np.maximum((centres - 2 * scale + 0.5).astype(int), 0)
    ends = np.minimum((centres + 2 * scale + 0.5).astype(int), source_length)
    taps = np.arange((ends - first).max())
    weights = _cubic((taps + (first - centres)[:, None] + 0.5) * (1 / scale))
    weights[taps >= (ends - first)[:, None]] = 0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # one after the other, on every CPU; np.sum pairs them
    bits = next((bits for bits in range(22) if int(0.5 + weights.max() * 2 ** (bits + 1)) >= 2**_WEIGHT_BITS), 22)
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights))
    return first, (whole / 2**bits).astype(np.float32 if bits <= _WEIGHT_BITS else np.float64)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5 (10.1109/TASSP.1981.1163711, equation 15); 0 from 2 on."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
