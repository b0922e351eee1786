"""A picture made smaller by the antialiased bicubic filter of Pillow and torch, as products of small dense matrices.

    every pixel of the result is a weighted mean of the pixels around it:     width first, rounded to 8 bits, then height
    weights     Keys' cubic with a = -0.5, stretched by the scale;            a row holds 4 to 5 times as many as the scale says
    products    `_BLOCK` neighbours in the result share nearly all their sources, so each block of them is one matrix product

It takes two fifths of Pillow's time and needs no torch, whose import takes seconds and 300 MiB.

Bytes are the same on every CPU, though each sums in an order of its own: weights are multiples of 2**-15 and pixels whole numbers, so a
sum of their products, below 2**9, is exact in the 24 bits of a float32.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

_BLOCK = 8  # more would multiply with more zeros, less would not fill the processor
_WEIGHT_STEPS = 2**15
_CHANNELS = 3


def shrink(pixels: np.ndarray, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """RGB pixels [H, W, 3] of 8 bits as [height, width, 3]. `scale` is the source's rows and columns for one of the result, 1 or more.

    It may be less than the quotient of the sizes: the result then leaves out a part of the last source pixels.
    """
    (height, width), (source_height, source_width) = size, pixels.shape[:2]
    source = pixels.reshape(source_height, source_width * _CHANNELS).astype(np.float32)
    narrow = np.empty((source_height, width * _CHANNELS), np.float32)
    for block in _blocks(source_width, width, scale[1], _CHANNELS):
        np.matmul(source[:, block.source], block.weights, out=narrow[:, block.result])
    _to_8_bit(narrow)
    small = np.empty((height, width * _CHANNELS), np.float32)
    for block in _blocks(source_height, height, scale[0], 1):
        np.matmul(block.weights.T, narrow[block.source], out=small[block.result])
    _to_8_bit(small)
    return small.astype(np.uint8).reshape(height, width, _CHANNELS)


def _to_8_bit(values: np.ndarray) -> None:
    """Rounded to whole numbers of 0 to 255, in place."""
    np.rint(values, out=values)
    np.clip(values, 0, 255, out=values)


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
    span = int((ends - starts).max())
    starts = np.minimum(starts, source_length - span)
    number = np.arange(length)
    columns = first - starts[number // _BLOCK]
    dense = np.zeros((len(starts), span, channels, _BLOCK, channels), np.float32)
    for channel in range(channels):
        for tap in range(weights.shape[1]):
            dense[number // _BLOCK, columns + tap, channel, number % _BLOCK, channel] = weights[:, tap]
    blocks = []
    for index, start in enumerate(starts.tolist()):
        begin, end = index * _BLOCK, min((index + 1) * _BLOCK, length)
        source = slice(start * channels, (start + span) * channels)
        part = dense[index, :, :, : end - begin].reshape(span * channels, (end - begin) * channels)
        blocks.append(_Block(source, slice(begin * channels, end * channels), part))
    return blocks


def _weights(source_length: int, length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The first source pixel of each pixel of the result, and the weights [length, taps] of that one and those after it."""
    taps = min(int(np.ceil(4 * scale)) + 1, source_length)
    centres = (np.arange(length) + 0.5) * scale
    first = np.clip(np.floor(centres - 2 * scale).astype(int), 0, source_length - taps)
    offsets = first[:, None] + np.arange(taps) + 0.5 - centres[:, None]
    weights = _cubic(offsets / scale)
    weights = np.rint(weights / weights.sum(1, keepdims=True) * _WEIGHT_STEPS)
    weights[np.arange(length), weights.argmax(1)] += _WEIGHT_STEPS - weights.sum(1)  # a flat picture stays flat
    return first, (weights / _WEIGHT_STEPS).astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5 (10.1109/TASSP.1981.1163711, equation 15); 0 from 2 on."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
