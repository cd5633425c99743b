"""The views of the image-dependence card as volumes.

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
"""Standard deviation of the blur that separates anatomy from noise, which is finer."""
_TISSUE_ABOVE_HU = -300
_WINDOW_PX = 5
_EVEN_SHARE, _EVEN_TIMES = 0.2, 2.0
"""Tissue is homogeneous where the local variation is at most twice that of its most homogeneous
fifth."""
_DETAIL = np.outer((1, -2, 1), (1, -2, 1)).astype(np.float32)
"""Noise filter (Immerkær 1996): its response to slopes and to edges along an axis is 0."""


def noise_like(own: CTVolume, seed: int) -> CTVolume:
    """Standard normal noise in units of 1000 HU, clipped to ±1000 HU."""
    drawn = np.random.default_rng(seed).standard_normal(own.hu.shape, dtype=np.float32)
    return CTVolume(np.rint(np.clip(drawn, -1, 1) * _NOISE_HU).astype(np.int16), own.affine)


def drop_slices(own: CTVolume, seed: int) -> CTVolume:
    """The volume with a random half of its axial slices replaced by air."""
    left = own.hu.copy()
    left[:, :, draw_dropped(left.shape[2], DROPPED_SHARE, seed)] = AIR_HU
    return CTVolume(left, own.affine)


def move_voxels(own: CTVolume, seed: int) -> CTVolume:
    """The volume's voxels in random order: the same histogram without anatomy."""
    moved = np.random.default_rng(seed).permutation(own.hu.T.reshape(-1))
    return CTVolume(moved.reshape(own.hu.T.shape).T, own.affine)


def keep_texture(own: CTVolume, seed: int) -> CTVolume:
    """A healthy phantom's chest on the volume's grid, with noise like the volume's.

    The noise of each slice has the level and spectrum of that slice's noise, but random phases:
    with the original phases it would show outlines of the anatomy. Voxels outside a round field of
    view stay air.
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
    """The volume resampled to the shape, spacing and place of another.

    Along an axis where both have the same number of voxels it gets a sixteenth fewer in the same
    field of view, because unchanged voxels could be recognised by a lookup table of the files.
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
    """Noise with the level and spectrum of the noise in a slice's homogeneous tissue, in HU."""
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
    """A phantom without findings, on a coarse grid so that it is drawn quickly."""
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
