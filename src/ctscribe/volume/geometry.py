"""Affines that can be a patient's, or a sentence why not."""

import numpy as np

from ctscribe.errors import CtscribeError
from ctscribe.types import Affine, SpacingMm
from ctscribe.volume.ct import CTVolume
from ctscribe.volume.notes import Notes, note_if

MIN_SLICES = 20
"""Fewer are a slab, not a chest."""
MAX_VOXELS = 1 << 31
"""Twice 1024 × 1024 × 1024; the largest chest CT known has 1024 × 1024 × 1617."""
_FARTHEST_MM = 1e5
_SMALLEST_MM, _LARGEST_MM = 0.05, 20.0


def check_affine(affine: Affine, study: str) -> None:
    """Refuses what is no position in a patient.

    Raises:
        CtscribeError: ``E_AFFINE`` or ``E_SPACING``.
    """
    near = np.isfinite(affine).all() and np.abs(affine).max() <= _FARTHEST_MM
    if not near or _is_flat(affine[:3, :3]):
        raise CtscribeError(
            "E_AFFINE",
            f"{study} must have an affine of finite, independent axes, but has none",
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not is_plausible(affine):
        raise CtscribeError(
            "E_SPACING",
            f"{study} must have voxels between {_SMALLEST_MM:g} and {_LARGEST_MM:g} mm, but has "
            f"{' x '.join(f'{mm:g}' for mm in spacing)} mm",
        )


def _is_flat(axes: np.ndarray) -> bool:
    """Whether three axes span no volume to speak of, as if they lay in one plane."""
    x, y, z = axes.T  # a determinant by elimination warns where a tiny pivot divides
    return bool(abs(np.cross(x, y) @ z) <= 1e-6 * np.prod(np.linalg.norm(axes, axis=0)))


def is_plausible(affine: Affine) -> bool:
    """Whether its voxels have sides that a CT can have; false for what is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((spacing >= _SMALLEST_MM).all() and (spacing <= _LARGEST_MM).all())


def note_unusual(volume: CTVolume) -> Notes:
    """``W_SPACING`` and ``W_FIELD`` for a grid that few chest CTs have.

    Voxels are usual from 0.2 to 2 mm in the plane and up to 10 mm along it, but for rounding.

    Args:
        volume: In RAS orientation; its third axis is the patient's.
    """
    x, y, along = volume.spacing_mm
    width, height = volume.shape_xyz[0] * x, volume.shape_xyz[1] * y
    odd_voxels = min(x, y) < 0.199 or max(x, y) > 2.001 or along > 10.001
    odd_field = min(width, height) < 150 or max(width, height) > 700
    return note_if(odd_voxels, "W_SPACING") | note_if(odd_field, "W_FIELD")


def agree(first: Affine, second: Affine) -> bool:
    """Whether two affines say the same within 1 % of each axis and one voxel of origin."""
    spacing = np.linalg.norm(first[:3, :3], axis=0)
    axes = np.linalg.norm(first[:3, :3] - second[:3, :3], axis=0)
    origin = np.linalg.norm(first[:3, 3] - second[:3, 3])
    return bool((axes <= 0.01 * spacing).all() and origin <= spacing.max())


def lps_affine(spacing_mm: SpacingMm, position_lps_mm: tuple[float, float, float]) -> Affine:
    """The RAS+ affine of voxels whose axes run left, posterior, superior.

    Args:
        spacing_mm: Voxel size along these.
        position_lps_mm: Centre of the first voxel in DICOM's axes.
    """
    lps = np.diag([*spacing_mm, 1.0])
    lps[:3, 3] = position_lps_mm
    return lps_to_ras(lps)


def lps_to_ras(affine: Affine) -> Affine:
    """An affine in DICOM's axes (left, posterior, superior) in RAS+."""
    ras: Affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return ras
