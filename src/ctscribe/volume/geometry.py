"""Affines that can be a patient's, or a sentence why not."""

import numpy as np

from ctscribe.errors import CtscribeError
from ctscribe.types import Affine, SpacingMm

_MAX_SHEAR_DEGREES = 0.5
_FARTHEST_MM = 1e5


def check_affine(affine: Affine, study: str) -> tuple[str, ...]:
    """Refuses what is no position in a patient; warns about what is unusual.

    Returns:
        ``W_SPACING`` for voxels outside 0.2…2 mm in the plane or beyond 10 mm along it.

    Raises:
        CtscribeError: ``E_AFFINE``, ``E_SPACING`` or ``E_SHEAR``.
    """
    matrix = affine[:3, :3]
    far = not np.isfinite(affine).all() or np.abs(affine).max() > _FARTHEST_MM
    if far or abs(np.linalg.det(matrix)) < 1e-9:
        raise CtscribeError(
            "E_AFFINE",
            f"{study} must have an affine of finite, independent axes, but has none; "
            "export it again or correct its header",
        )
    spacing = np.linalg.norm(matrix, axis=0)
    if spacing.min() < 0.05 or spacing.max() > 20:
        raise CtscribeError(
            "E_SPACING",
            f"{study} must have voxels between 0.05 and 20 mm, but has "
            f"{' x '.join(f'{mm:g}' for mm in spacing)} mm; correct its header or metadata",
        )
    cosines = matrix / spacing
    off = np.abs(cosines.T @ cosines - np.eye(3)).max()
    angle = float(np.degrees(np.arcsin(min(1.0, off))))
    if angle > _MAX_SHEAR_DEGREES:
        raise CtscribeError(
            "E_SHEAR",
            f"{study} must have axes at right angles, but they are {angle:.1f} degrees off "
            "(gantry tilt); resample it upright first",
        )
    in_plane, along = spacing[:2], spacing[2]
    return ("W_SPACING",) if in_plane.min() < 0.2 or in_plane.max() > 2 or along > 10 else ()


def agree(first: Affine, second: Affine) -> bool:
    """Whether two affines say the same within 2 % of each axis and one voxel of origin."""
    spacing = np.linalg.norm(first[:3, :3], axis=0)
    axes = np.linalg.norm(first[:3, :3] - second[:3, :3], axis=0)
    origin = np.linalg.norm(first[:3, 3] - second[:3, 3])
    return bool((axes <= 0.02 * spacing).all() and origin <= spacing.max())


def lps_affine(
    spacing_mm: SpacingMm,
    position_lps_mm: tuple[float, float, float],
    orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
) -> Affine:
    """The RAS+ affine of voxels given in DICOM's axes (left, posterior, superior).

    Args:
        spacing_mm: Voxel size along (column, row, slice).
        position_lps_mm: Centre of the first voxel.
        orientation: Direction of x and of y, six cosines; z is their cross product.
    """
    x, y = np.array(orientation[:3], dtype=float), np.array(orientation[3:], dtype=float)
    lps = np.eye(4)
    lps[:3, :3] = np.stack([x, y, np.cross(x, y)], axis=1) * np.array(spacing_mm)
    lps[:3, 3] = position_lps_mm
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
