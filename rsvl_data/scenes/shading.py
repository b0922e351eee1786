"""From the layers of a canvas to what a sensor records: texture, relief, shadow, haze, noise."""

import math
from functools import cache

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from rsvl_data.scenes.canvas import Canvas
from rsvl_data.scenes.land_cover import LAND_COVER

_TILE_PX = 512
_CROWN_PX = 10  # a tree crown in the crown tile
_CROWN_M = 8.0  # and on the ground
_SHADE = (0.60, 0.56, 0.48)  # what a shadow takes of R, G, B: the sky still lights it, bluish
_HAZE = np.array([196, 204, 214], dtype=np.float32)


def sensor_mask(canvas: Canvas) -> UInt8[np.ndarray, "h w"]:
    """The class of land cover under the middle of every pixel."""
    classes = np.zeros(256, dtype=np.uint8)
    classes[: len(canvas.palette)] = [LAND_COVER.index(m.cover) for m in canvas.palette]
    return classes[middle(canvas, canvas.material)]


def middle(canvas: Canvas, layer: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """A layer sampled once a pixel of the image: labels must not be averaged."""
    half = canvas.factor // 2
    return np.asarray(layer)[half :: canvas.factor, half :: canvas.factor]


def sensor_image(canvas: Canvas, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """`rng` is asked the same questions at every image size: the place stays the same."""
    n = canvas.size_px
    brightness = _texture(canvas, rng)
    brightness += 1 + np.float32(0.07) * _patch(rng, 40, n)
    if canvas.relief is not None:
        brightness *= _hillshade(canvas)
    shadow = np.asarray(canvas.shadow.reduce(canvas.factor), dtype=np.float32) * np.float32(1 / 255)
    light, air = _exposure(canvas, rng)
    noise = _sensor_noise(rng, n)
    image = np.empty((n, n, 3), dtype=np.uint8)
    for channel in range(3):  # planes: numpy is slow on a last axis of 3
        plane = _base_colour(canvas, channel) * brightness
        plane *= light[channel] - np.float32(_SHADE[channel]) * light[channel] * shadow
        plane += noise
        plane += air[channel]
        image[..., channel] = np.clip(plane, 0, 255, out=plane)
    return image


def _base_colour(canvas: Canvas, channel: int) -> Float32[np.ndarray, "h w"]:
    table = [material.colour[channel] for material in canvas.palette]
    plane = canvas.material.point(table + [0] * (256 - len(table)))
    return np.asarray(plane.reduce(canvas.factor), dtype=np.float32)


def _exposure(canvas: Canvas, rng: np.random.Generator) -> tuple[Float32[np.ndarray, " 3"], Float32[np.ndarray, " 3"]]:
    """Gain and offset of each channel: sun, white balance, contrast stretch and haze in one line."""
    haze = canvas.site.haze
    gain = rng.uniform(0.92, 1.14) * rng.uniform(0.97, 1.03, 3)
    contrast = rng.uniform(0.95, 1.12)
    light = (gain * contrast * (1 - haze)).astype(np.float32)
    return light, (_HAZE * haze - 110 * (contrast - 1) * (1 - haze)).astype(np.float32)


@cache
def _noise_tile() -> Float32[np.ndarray, "k k"]:
    return np.random.default_rng(3).standard_normal((1024, 1024), dtype=np.float32)


def _sensor_noise(rng: np.random.Generator, size_px: int) -> Float32[np.ndarray, "h w"]:
    """A piece of one large sheet of white noise: drawing it anew would cost a tenth of a scene."""
    strength = np.float32(rng.uniform(1.0, 3.5))
    x, y = (rng.uniform(0, 1, 2) * (1024 - size_px)).astype(int)
    return _noise_tile()[y : y + size_px, x : x + size_px] * strength


def _texture(canvas: Canvas, rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Brightness above or below 1 from grain, crowns, waves and rows, each where its material has it."""
    index = middle(canvas, canvas.material)
    used = np.bincount(index.ravel(), minlength=256) > 0
    table = np.zeros((7, 256), dtype=np.float32)  # grain, crowns, ripple, row depth, row phase per metre in x and y
    gsd = canvas.extent_m / canvas.size_px
    for number, m in enumerate(canvas.palette):
        if m.period_m:
            turn = 2 * math.pi / m.period_m
            fade = min(max(m.period_m / gsd / 2.2 - 0.9, 0.0), 1.0)  # rows finer than two pixels blur into one tone
            table[3:6, number] = m.depth * fade, -turn * math.sin(m.angle), turn * math.cos(m.angle)
        table[:3, number] = m.grain, m.crowns, m.ripple
    total = _patch(rng, 256, canvas.size_px) * table[0][index]
    crown_seed, wave_seed = rng.integers(2**32, size=2)
    if table[1][used].any():
        total += _crowns(canvas, np.random.default_rng(crown_seed)) * table[1][index]
    if table[2][used].any():
        total += _waves(np.random.default_rng(wave_seed), canvas.size_px) * table[2][index]
    if table[3][used].any():
        metres = (np.arange(canvas.size_px, dtype=np.float32) + 0.5) * np.float32(gsd)
        phase = table[4][index] * metres + table[5][index] * metres[:, None]
        total += np.sin(phase) * table[3][index]
    return total


@cache
def _fractal_tile() -> Image.Image:
    """Noise with a 1/f spectrum that wraps around; one standard deviation is 42 grey levels."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(_TILE_PX)[:, None], np.fft.rfftfreq(_TILE_PX))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_TILE_PX, _TILE_PX))) / frequency)
    return Image.fromarray(np.clip(128 + 42 * noise / noise.std(), 0, 255).astype(np.uint8))


@cache
def _wave_tile() -> Image.Image:
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(_TILE_PX)[:, None], np.fft.rfftfreq(_TILE_PX))
    band = np.exp(-(((frequency - 0.10) / 0.05) ** 2))
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_TILE_PX, _TILE_PX))) * band)
    return Image.fromarray(np.clip(128 + 42 * noise / noise.std(), 0, 255).astype(np.uint8))


@cache
def _crown_tile() -> Image.Image:
    """Heights of a closed canopy: at every pixel the highest of the domes around it."""
    cells = 80
    rng = np.random.default_rng(2)
    offset, radius, top = (
        rng.uniform(0, 1, (2, cells, cells)),
        rng.uniform(0.6, 1.1, (cells, cells)),
        rng.uniform(0.5, 1.0, (cells, cells)),
    )
    grid = (np.arange(cells * _CROWN_PX) + 0.5) / _CROWN_PX
    own = grid.astype(int)
    height = np.zeros((grid.size, grid.size), dtype=np.float32)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            cell = np.ix_((own + di) % cells, (own + dj) % cells)
            dy = grid[:, None] - (own[:, None] + di + offset[0][cell])
            dx = grid - (own + dj + offset[1][cell])
            np.maximum(height, top[cell] * (1 - (dx**2 + dy**2) / radius[cell] ** 2), out=height)
    return Image.fromarray((height * 255).astype(np.uint8))


def _cut(tile: Image.Image, rng: np.random.Generator, width: float, height: float, size_px: int) -> Float32[np.ndarray, "h w"]:
    """A random piece of a tile, in tile pixels, at the size of the image; 0 to 255."""
    side = tile.size[0]
    x, y = rng.uniform(0, 1, 2) * (side - width, side - height)
    flip = rng.integers(4)
    box = int(x), int(y), int(x + width), int(y + height)
    piece = tile.crop(box).resize((size_px, size_px), Image.Resampling.BICUBIC)
    values = np.asarray(piece, dtype=np.float32)
    return values[:: 1 - 2 * (flip & 1), :: 1 - (flip & 2)]


def _patch(rng: np.random.Generator, tile_px: float, size_px: int) -> Float32[np.ndarray, "h w"]:
    """Fractal noise of about unit variance; the smaller the piece of the tile, the smoother."""
    return (_cut(_fractal_tile(), rng, tile_px, tile_px, size_px) - 128) / 42


def _waves(rng: np.random.Generator, size_px: int) -> Float32[np.ndarray, "h w"]:
    return (_cut(_wave_tile(), rng, 150, 400, size_px) - 128) / 42


def _crowns(canvas: Canvas, rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    tile = _crown_tile()
    crowns_across = min(canvas.extent_m / _CROWN_M, tile.size[0] / _CROWN_PX)
    width = crowns_across * _CROWN_PX
    height = _cut(tile, rng, width, width, canvas.size_px) / 255
    crown_px = canvas.size_px / crowns_across
    sx, sy = canvas.site.shadow
    away = max(math.hypot(sx, sy), 1e-6)
    slope = np.zeros_like(height)
    slope[:, 1:-1] -= (height[:, 2:] - height[:, :-2]) * np.float32(sx / away)
    slope[1:-1] -= (height[2:] - height[:-2]) * np.float32(sy / away)
    return (height - 0.55) * 0.9 - slope * np.float32(-0.22 * crown_px)


def _hillshade(canvas: Canvas) -> Float32[np.ndarray, "h w"]:
    """Brightness of the relief relative to flat ground under this sun."""
    assert canvas.relief is not None
    n = canvas.size_px
    field = Image.fromarray(canvas.relief.astype(np.float32))
    height = np.asarray(field.resize((n, n), Image.Resampling.BICUBIC)) * canvas.relief_m
    gsd = canvas.extent_m / n
    sx, sy = canvas.site.shadow
    rise = np.zeros((n, n), dtype=np.float32)
    rise[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * np.float32(sx / (2 * gsd))
    rise[1:-1] += (height[2:] - height[:-2]) * np.float32(sy / (2 * gsd))
    return 1 + np.float32(0.42) * np.tanh(np.float32(-1.6) * rise)


def fractal_field(
    rng: np.random.Generator, cells: int = 3, octaves: int = 4, falloff: float = 0.5, px: int = 64
) -> Float[np.ndarray, "k k"]:
    """A coarse random field over the frame, about unit variance: bicubic noise of `cells` bumps across and finer octaves."""
    total = np.zeros((px, px), dtype=np.float32)
    for octave in range(octaves):
        n = min(cells * 2**octave + 1, px)
        grid = Image.fromarray(rng.standard_normal((n, n)).astype(np.float32))
        total += falloff**octave * np.asarray(grid.resize((px, px), Image.Resampling.BICUBIC))
    return total / float(total.std())


def terrain_field(rng: np.random.Generator, exponent: float, cut: float = 1.5, px: int = 128) -> Float[np.ndarray, "k k"]:
    """Relief without a grid to it: noise with spectrum 1/f^exponent, nothing longer than 1/`cut` of the frame, unit variance."""
    side = px + px // 4  # the noise wraps around; the frame is not to show that
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    spectrum = np.maximum(frequency, cut / px) ** -exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * spectrum, s=(side, side))[:px, :px]
    return noise / float(noise.std())
