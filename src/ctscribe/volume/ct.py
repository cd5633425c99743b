"""One CT volume: Hounsfield units, and where each voxel lies."""

from dataclasses import dataclass
from typing import final

import numpy as np

from ctscribe.types import Affine, SpacingMm, VolumeHu


@final
@dataclass(frozen=True, slots=True)
class CTVolume:
    """Hounsfield units with their geometry.

    Attributes:
        hu: int16 or float32 [x, y, z], axes along the affine's columns; in memory x runs
            fastest, as in a NIfTI file, so that ``hu.T`` is contiguous.
        affine: float64 [4, 4], voxel index → RAS+ mm of the voxel's centre.
    """

    hu: VolumeHu
    affine: Affine

    @property
    def spacing_mm(self) -> SpacingMm:
        """Voxel size along (x, y, z)."""
        return spacing_of(self.affine)

    @property
    def shape_xyz(self) -> tuple[int, int, int]:
        """Number of voxels along (x, y, z)."""
        x, y, z = self.hu.shape
        return x, y, z

    @property
    def orientation(self) -> str:
        """Where each axis points, such as ``RAS`` or ``LPS``."""
        names = ("LR", "PA", "IS")
        axes, signs = _nearest_axes(self.affine)
        return "".join(names[axis][int(sign > 0)] for axis, sign in zip(axes, signs, strict=True))


def spacing_of(affine: Affine) -> SpacingMm:
    """Lengths of an affine's three axes, mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return x, y, z


def to_ras(volume: CTVolume) -> CTVolume:
    """Permutes and flips the axes so that x, y, z run right, anterior, superior.

    Voxels are not copied and not interpolated; each keeps its position in mm. An oblique
    volume comes out with its axes nearest to right, anterior, superior.
    """
    axes, signs = _nearest_axes(volume.affine)
    order = np.argsort(axes)
    hu = volume.hu.transpose(order)
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, order]
    for axis, sign in enumerate(signs[order]):
        if sign < 0:
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1
            hu = np.flip(hu, axis)
    return CTVolume(hu, affine + 0.0)  # no negative zeros


def _nearest_axes(affine: Affine) -> tuple[np.ndarray, np.ndarray]:
    """The world axis nearest to each voxel axis, each used once, and its direction."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes = np.zeros(3, dtype=int)
    strength = np.abs(cosines)
    for _ in range(3):
        world, voxel = np.unravel_index(np.argmax(strength), (3, 3))
        axes[voxel] = world
        strength[world, :] = -1
        strength[:, voxel] = -1
    return axes, np.sign(cosines[axes, np.arange(3)])
