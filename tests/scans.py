"""A chest of ellipses, for tests that need a whole readable scan; `tests.dicom` writes it too."""

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from ctscribe.base.types import SpacingMm
from ctscribe.scan.resample import plan_resampling
from ctscribe.scan.volume import CTVolume

SHAPE = (160, 128, 24)
SPACING_MM = (2.0, 2.0, 5.0)
ORIENTATIONS = [
    f"{a}{b}{c}"
    for axes in ("LR PA IS", "LR IS PA", "PA LR IS", "PA IS LR", "IS LR PA", "IS PA LR")
    for x, y, z in [axes.split()]
    for a in x
    for b in y
    for c in z
]
"""All 48 ways in which axes can lie."""


def chest(
    shape: tuple[int, int, int] = SHAPE, spacing_mm: tuple[float, float, float] = SPACING_MM
) -> CTVolume:
    """Body, two lungs, air around, in HU; RAS, noise of 10 HU; nothing on its left is mirrored."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[(x / 0.9) ** 2 + (y / 0.7) ** 2 < 1] = 40
    for side in (-0.42, 0.42):
        hu[((x - side) / 0.33) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1] = -850
    hu += np.random.default_rng(0).normal(0, 10, shape)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-150.0, -120.0, 700.0)
    return CTVolume(np.asfortranarray(np.rint(hu).astype(np.int16)), affine)


def stored_as(volume: CTVolume, orientation: str) -> CTVolume:
    """The same volume along other axes, by nibabel."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    affine = volume.affine @ inv_ornt_aff(change, volume.hu.shape)
    return CTVolume(apply_orientation(volume.hu, change), affine)


def coarse_chest() -> CTVolume:
    """The same in few voxels, made anew at each call."""
    return chest((64, 56, 40), (6.0, 6.0, 8.0))


def resample(volume: CTVolume, spacing_mm: SpacingMm, *, antialias: bool = False) -> CTVolume:
    """A whole volume on another grid, float32 HU."""
    grid = plan_resampling(volume, spacing_mm, antialias=antialias)
    return CTVolume(grid.stack(range(grid.shape_xyz[2])), grid.affine)


CHEST = CTVolume(np.maximum(chest().hu, -1024), chest().affine)
"""As it is read, whatever it was written as."""


def image_of(volume: CTVolume = CHEST) -> nib.Nifti1Image:
    """A NIfTI-1 image with sform and qform in mm."""
    image = nib.Nifti1Image(volume.hu, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    return image
