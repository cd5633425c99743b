"""Every view as a volume: a scan's voxels without the patient, or the patient on another grid.

In: a prepared volume, another patient's, and a seed. Out: a `CTVolume`, int16 HU.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from ctscribe.base.recipe import PhantomConfig
from ctscribe.measure.card_views import DROPPED_SHARE, KEPT, draw_dropped, draw_order
from ctscribe.phantom.body import Body
from ctscribe.phantom.grid import VoxelGrid
from ctscribe.phantom.study import render, study_of_labels
from ctscribe.scan.intensity import AIR_HU, METAL_HU
from ctscribe.scan.resample import scale_voxels, stretch
from ctscribe.scan.volume import CTVolume, to_ras
from ctscribe.text.findings import FINDINGS

MakeVolume = Callable[[CTVolume, CTVolume, int], CTVolume]
"""(the scan's volume, another patient's, seed) → what is shown."""
_NOISE_HU = 1000.0
_BLUR_MM = 2.25
"""Standard deviation of a blur that leaves anatomy; the noise of CT is finer."""
_TISSUE_ABOVE_HU = -300
_WINDOW_PX = 5
_EVEN_SHARE, _EVEN_TIMES = 0.2, 2.0
"""Tissue is even where a window varies as little as in its evenest part, or twice as much."""
_DETAIL = np.outer((1, -2, 1), (1, -2, 1)).astype(np.float32)
"""What neither a slope nor an edge along an axis shows (Immerkær 1996)."""


def noise_like(own: CTVolume, seed: int) -> CTVolume:
    """Standard normal noise in units of 1000 HU, clipped to ±1000 HU."""
    drawn = np.random.default_rng(seed).standard_normal(own.hu.shape, dtype=np.float32)
    return CTVolume(np.rint(np.clip(drawn, -1, 1) * _NOISE_HU).astype(np.int16), own.affine)


def drop_slices(own: CTVolume, seed: int) -> CTVolume:
    """The volume with half of its axial slices, drawn, replaced by air."""
    left = own.hu.copy()
    left[:, :, draw_dropped(left.shape[2], DROPPED_SHARE, seed)] = AIR_HU
    return CTVolume(left, own.affine)


def move_voxels(own: CTVolume, seed: int) -> CTVolume:
    """All voxels of the volume in a drawn order: the same histogram, and no anatomy."""
    moved = np.random.default_rng(seed).permutation(own.hu.T.reshape(-1))
    return CTVolume(moved.reshape(own.hu.T.shape).T, own.affine)


def keep_texture(own: CTVolume, seed: int) -> CTVolume:
    """A healthy phantom's chest on the volume's grid, under noise like the volume's.

    Level and spectrum of the noise are each slice's own, its phases drawn: kept in place it would
    show the outlines of the anatomy. What no slice shows, outside a round field of view, stays.
    """
    body = stretch(_healthy_chest(), own.shape_xyz, own.affine)
    shown = np.empty(own.hu.T.shape, dtype=np.int16)
    draw, unseen = np.random.default_rng(seed), (own.hu.T <= AIR_HU).all(axis=0)
    blur_px = max(1.0, _BLUR_MM / own.spacing_mm[0])
    for plane, source, chest in zip(shown, own.hu.T, body.hu.T, strict=True):
        hu = chest + _noise_like_that_of(source.astype(np.float32), blur_px, draw)
        plane[...] = np.rint(np.clip(hu, AIR_HU, METAL_HU))
        plane[unseen] = AIR_HU
    return CTVolume(shown.T, own.affine)


def change_grid(own: CTVolume, other: CTVolume) -> CTVolume:
    """The volume with the shape, spacing and place of another.

    Along an axis where both have as many voxels, it gets a sixteenth fewer in the same field of
    view: voxels that stayed as they are would be known again by a list of the files.
    """
    sizes = list(zip(other.shape_xyz, own.shape_xyz, strict=True))
    x, y, z = (size - max(1, size // 16) if size == mine else size for size, mine in sizes)
    scale = [size / new for size, new in zip(other.shape_xyz, (x, y, z), strict=True)]
    return stretch(own, (x, y, z), scale_voxels(other.affine, scale))


def _shuffle(own: CTVolume, seed: int) -> CTVolume:
    return CTVolume(own.hu[:, :, draw_order(own.shape_xyz[2], seed)], own.affine)


VOLUMES: dict[str, MakeVolume] = {
    "real": lambda own, other, seed: own,
    "noise": lambda own, other, seed: noise_like(own, seed),
    "blank": lambda own, other, seed: CTVolume(np.full_like(own.hu, AIR_HU), own.affine),
    "other_patient": lambda own, other, seed: other,
    "other_on_own_grid": lambda own, other, seed: stretch(other, own.shape_xyz, own.affine),
    "moved": lambda own, other, seed: move_voxels(own, seed),
    "texture": lambda own, other, seed: keep_texture(own, seed),
    KEPT: lambda own, other, seed: change_grid(own, other),
    "shuffled": lambda own, other, seed: _shuffle(own, seed),
    "dropped": lambda own, other, seed: drop_slices(own, seed),
}
"""View → what makes its volume."""


def _noise_like_that_of(
    plane: Float32[np.ndarray, "y x"], blur_px: float, draw: np.random.Generator
) -> Float32[np.ndarray, "y x"]:
    """Noise with the level and the spectrum of what is fine in a slice's even tissue, HU."""
    tissue = plane > _TISSUE_ABOVE_HU
    if not tissue.any():
        return np.zeros_like(plane)
    detail = ndimage.convolve(plane, _DETAIL)
    spread = ndimage.uniform_filter(detail**2, _WINDOW_PX)
    even = tissue & (spread <= _EVEN_TIMES * np.quantile(spread[tissue], _EVEN_SHARE))
    fine = plane - ndimage.gaussian_filter(plane, blur_px)
    spectrum = np.abs(np.fft.rfft2(np.where(even, fine, 0)))
    phases = np.angle(np.fft.rfft2(draw.standard_normal(plane.shape)))
    noise = np.fft.irfft2(spectrum * np.exp(1j * phases), s=plane.shape).astype(np.float32)
    level = ndimage.convolve(noise, _DETAIL).std()
    return noise * (detail[even].std() / level if level else np.float32(0))


@cache
def _healthy_chest() -> CTVolume:
    """One phantom without findings, on a grid that is coarse enough to be drawn at once."""
    (x_mm, y_mm, z_mm), (depth, rows, columns) = spacing_mm, shape = (2.8, 2.8, 5.0), (64, 128, 128)
    grid = VoxelGrid(
        shape_zyx=shape,
        spacing_mm=spacing_mm,
        origin_mm=((columns - 1) / 2 * x_mm, (rows - 1) / 2 * y_mm, 120.0 - (depth - 1) * z_mm),
        roll_rad=0.0,
        shift_mm=(0.0, 0.0, 0.0),
        edge_mm=x_mm,
    )
    nothing = (0,) * len(FINDINGS)
    study = study_of_labels(np.random.default_rng(0), Body(), nothing, PhantomConfig())
    return to_ras(CTVolume(render(study, grid).T, grid.affine))
