"""The antialiased bicubic filter: by products of matrices, by one sum a pixel, and by torch."""

import numpy as np
import pytest
import torch

from rsvl_data.shrink import shrink

RNG = np.random.default_rng(0)
SIZES = [
    ((512, 384), (341, 256)),
    ((301, 400), (128, 170)),
    ((600, 800), (75, 100)),
    ((9, 9), (5, 4)),
    ((40, 3), (7, 1)),
    ((5, 5), (5, 4)),
]


def scale_of(source, size):
    return source[0] / size[0], source[1] / size[1]


def torch_filter(pixels, size):
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(planes, size=size, mode="bicubic", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def slow_filter(pixels, size, scale):
    """One weighted mean a pixel, in double precision: height first, rounded, then width."""

    def cubic(x):
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0

    def along_rows(values, count, step):
        means = []
        for centre in ((index + 0.5) * step for index in range(count)):
            weights = np.array([cubic((place + 0.5 - centre) / step) for place in range(len(values))])
            means.append(np.tensordot(weights / weights.sum(), values, 1))
        return np.rint(means)

    low = along_rows(pixels.astype(float), size[0], scale[0])
    return np.clip(along_rows(low.swapaxes(0, 1), size[1], scale[1]).swapaxes(0, 1), 0, 255)


@pytest.mark.parametrize(("source", "size"), [*SIZES, ((512, 512), (256, 256)), ((1000, 999), (20, 999)), ((2000, 1500), (2, 3))])
def test_smooth_pictures_are_within_one_grey_level_of_torch(source, size):
    rows, columns = np.arange(source[0])[:, None, None], np.arange(source[1])[None, :, None]
    waves = np.sin(rows / 9 + columns / 11 + np.arange(3))
    pixels = (127.5 + 100 * waves).astype(np.uint8)
    off = np.abs(shrink(pixels, size, scale_of(source, size)).astype(int) - torch_filter(pixels, size))
    assert off.max() <= 1 and off.mean() < 0.2


@pytest.mark.parametrize(("source", "size"), SIZES[3:])
def test_noise_is_within_one_grey_level_of_the_slow_filter(source, size):
    pixels = RNG.integers(0, 256, (*source, 3), np.uint8)
    scale = scale_of(source, size)
    assert np.abs(shrink(pixels, size, scale) - slow_filter(pixels, size, scale)).max() <= 1


def test_a_scale_below_the_quotient_of_the_sizes_leaves_the_last_pixels_out():
    pixels = RNG.integers(0, 256, (33, 21, 3), np.uint8)
    scale = (32.5 / 12, 20.5 / 8)
    assert np.abs(shrink(pixels, (12, 8), scale) - slow_filter(pixels, (12, 8), scale)).max() <= 1
    assert not np.array_equal(shrink(pixels, (12, 8), scale), shrink(pixels, (12, 8), (33 / 12, 21 / 8)))


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_flat_picture_stays_flat(value):
    for source, size in SIZES:
        assert (shrink(np.full((*source, 3), value, np.uint8), size, scale_of(source, size)) == value).all()


def test_channels_and_axes_do_not_mix():
    pixels = RNG.integers(0, 256, (60, 45, 3), np.uint8)
    small = shrink(pixels, (20, 17), scale_of((60, 45), (20, 17)))
    swapped = shrink(np.ascontiguousarray(pixels[..., ::-1]), (20, 17), scale_of((60, 45), (20, 17)))
    assert np.array_equal(small[..., ::-1], swapped)
    mirrored = shrink(np.ascontiguousarray(pixels[::-1, ::-1]), (20, 17), scale_of((60, 45), (20, 17)))
    assert np.abs(small[::-1, ::-1].astype(int) - mirrored).max() <= 1  # ties round to one side


@pytest.mark.parametrize("size", [(65, 47), (41, 27), (9, 7)])
def test_sums_are_exact_so_no_cpu_gives_other_bytes(monkeypatch, size):
    """Products and sums of whole numbers that the type holds: no order of the sum can round."""
    pixels = 255 * RNG.integers(0, 2, (97, 64, 3), np.uint8)
    matmul = np.matmul

    def checked(left, right, out):
        bits = 24 if out.dtype == np.float32 else 53
        weights = left if left.shape[1] == right.shape[0] and left.max() <= 1 else right
        step = next(step for step in (2.0**-power for power in range(30)) if not np.fmod(weights, step).any())
        assert (np.abs(left).astype(float) @ np.abs(right).astype(float)).max() / step < 2**bits
        return matmul(left, right, out=out)

    monkeypatch.setattr(np, "matmul", checked)
    assert shrink(pixels, size, scale_of((97, 64), size)).shape == (*size, 3)
