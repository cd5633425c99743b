"""Quantum noise, correlated as the reconstruction kernel leaves it."""

from functools import lru_cache
from typing import Literal

import numpy as np

from ctscribe.phantom.grid import Field

Kernel = Literal["soft", "sharp"]
TILE_PX = 256
TILE_SLICES = 24


def add_noise(
    hu: Field, rng: np.random.Generator, *, sigma_hu: Field, kernel: Kernel, blur_px: float
) -> None:
    """Adds noise in place.

    Each slice shows a random piece of a precomputed periodic tile, mirrored and turned at random:
    a fraction of the time of drawing as many normal numbers.

    Args:
        hu: [z, y, x], changed in place.
        rng: Chooses the pieces.
        sigma_hu: Standard deviation per slice, [z].
        kernel: soft: smooth noise; sharp: noise with an edge-enhanced spectrum.
        blur_px: Correlation length in pixels.
    """
    tile = _tile(kernel, round(2 * float(np.clip(blur_px, 0, 4))) / 2)
    num_slices, rows, columns = hu.shape
    repeats = (-(-rows // TILE_PX) + 1, -(-columns // TILE_PX) + 1)
    order = rng.integers(0, TILE_SLICES, (num_slices,))
    top, left = (rng.integers(0, TILE_PX, (num_slices,)) for _ in range(2))
    sign = rng.choice([-1.0, 1.0], num_slices) * sigma_hu
    for z in range(num_slices):
        wide = np.tile(tile[order[z]], repeats) if max(rows, columns) > TILE_PX else tile[order[z]]
        piece = _wrapped(wide, int(top[z]), int(left[z]), rows, columns)
        hu[z] += np.float32(sign[z]) * piece


def _wrapped(tile: Field, top: int, left: int, rows: int, columns: int) -> Field:
    if top + rows > tile.shape[0]:
        tile = np.concatenate([tile[top:], tile[: top + rows - tile.shape[0]]])
    else:
        tile = tile[top : top + rows]
    if left + columns > tile.shape[1]:
        return np.concatenate([tile[:, left:], tile[:, : left + columns - tile.shape[1]]], axis=1)
    return tile[:, left : left + columns]


@lru_cache(maxsize=16)
def _tile(kernel: Kernel, blur_px: float) -> Field:
    rng = np.random.default_rng([7, int(kernel == "sharp"), int(2 * blur_px)])
    white = rng.standard_normal((TILE_SLICES, TILE_PX, TILE_PX), dtype=np.float32)
    frequency = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX)[None, :])
    low_pass = np.exp(-2 * (np.pi * blur_px * frequency) ** 2)
    ramp = frequency**0.25 if kernel == "soft" else 0.05 + frequency
    shaped = np.fft.irfft2(np.fft.rfft2(white) * (low_pass * ramp), s=(TILE_PX, TILE_PX))
    return np.asarray(shaped / shaped.std(), dtype=np.float32)
