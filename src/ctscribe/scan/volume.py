"""One CT volume: Hounsfield units with their affine, notes about it, and checks of geometry.

In and out: `CTVolume`, affines in RAS+ mm, `Notes`.
"""

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.types import SpacingMm
from ctscribe.scan.types import Affine, VolumeHu

MIN_SLICES = 20
"""Fewer slices cannot show a chest."""
MAX_VOXELS = 1 << 31
"""Twice 1024 × 1024 × 1024; the largest chest CT known has 1024 × 1024 × 1617."""
_FARTHEST_MM = 1e5
_SMALLEST_MM, _LARGEST_MM = 0.05, 20.0


@final
@dataclass(frozen=True, slots=True, repr=False)
class CTVolume:
    """Hounsfield units with their geometry.

    Attributes:
        hu: int16 or float32 [x, y, z], axes along the affine's columns; in memory x runs
            fastest, as in a NIfTI file, so that ``hu.T`` is contiguous.
        affine: float64 [4, 4], voxel index → RAS+ mm of the voxel's centre.
    """

    hu: VolumeHu
    affine: Affine

    def __repr__(self) -> str:
        voxels = " × ".join(map(str, self.shape_xyz))
        spacing = " × ".join(f"{mm:.2f}" for mm in self.spacing_mm)
        return f"CTVolume({voxels} voxels of {spacing} mm, {self.orientation}, {self.hu.dtype})"

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


def spacing_of(affine: Affine) -> SpacingMm:
    """Lengths of an affine's three axes, mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return x, y, z


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
    """Converts an affine from DICOM's axes (left, posterior, superior) to RAS+."""
    ras: Affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return ras


def check_affine(affine: Affine, study: str) -> None:
    """Refuses an affine that no CT has: not finite, with parallel axes, or with absurd spacing.

    Raises:
        CtscribeError: ``E_AFFINE`` or ``E_SPACING``.
    """
    near = np.isfinite(affine).all() and np.abs(affine).max() <= _FARTHEST_MM
    if not near or _is_flat(affine[:3, :3]):
        raise CtscribeError(
            "E_AFFINE", f"{study} must have an affine of finite, independent axes, but has none"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not is_plausible(affine):
        raise CtscribeError(
            "E_SPACING",
            f"{study} must have voxels between {_SMALLEST_MM:g} and {_LARGEST_MM:g} mm, but has "
            f"{' x '.join(f'{mm:g}' for mm in spacing)} mm",
        )


def is_plausible(affine: Affine) -> bool:
    """Whether all voxel sides are from 0.05 to 20 mm; false where one is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((spacing >= _SMALLEST_MM).all() and (spacing <= _LARGEST_MM).all())


def _is_flat(axes: np.ndarray) -> bool:
    """Whether three axes lie in one plane, or nearly so."""
    x, y, z = axes.T  # a determinant by elimination warns where a tiny pivot divides
    return bool(abs(np.cross(x, y) @ z) <= 1e-6 * np.prod(np.linalg.norm(axes, axis=0)))


def affines_agree(first: Affine, second: Affine) -> bool:
    """Whether two affines agree within 1 % of each axis, and one voxel in the origin."""
    spacing = np.linalg.norm(first[:3, :3], axis=0)
    axes = np.linalg.norm(first[:3, :3] - second[:3, :3], axis=0)
    origin = np.linalg.norm(first[:3, 3] - second[:3, 3])
    return bool((axes <= 0.01 * spacing).all() and origin <= spacing.max())


@final
@dataclass(frozen=True, slots=True)
class Notes:
    """What was noticed while a volume was read; nothing that identifies a patient.

    Attributes:
        codes: Warnings; see `base.error_codes`.
        details: JSON-able details for the volume's record: numbers of voxels that repairs changed
            by code, the DICOM series of the folder, the tilt and so on.
    """

    codes: frozenset[str] = frozenset()
    details: dict[str, Any] = field(default_factory=dict)

    def __or__(self, other: "Notes") -> "Notes":
        """Both notes together; their ``changed_voxels`` are merged by code."""
        changed = self.details.get("changed_voxels", {}) | other.details.get("changed_voxels", {})
        details = {**self.details, **other.details}
        if changed:
            details["changed_voxels"] = dict(sorted(changed.items()))
        return Notes(self.codes | other.codes, details)


def note(*codes: str, **details: Any) -> Notes:  # noqa: ANN401 - whatever JSON can hold
    """Notes with these codes and details."""
    return Notes(frozenset(codes), details)


def note_if(condition: bool, code: str) -> Notes:
    """Notes with one code if a condition holds, else empty."""
    return note(code) if condition else Notes()


def note_changed(**num_voxels: int) -> Notes:
    """Notes on repairs: code → voxels changed; repairs that changed none are left out."""
    changed = {code: count for code, count in num_voxels.items() if count}
    return note(*changed, changed_voxels=changed) if changed else Notes()


def note_source(volume: CTVolume, kind: str, orientation: str) -> Notes:
    """How a volume was sampled before anything was resampled: detail ``source``.

    Args:
        volume: In RAS orientation.
        kind: What it was read from, as `Draft` calls it.
        orientation: Of the voxel axes as they were stored.
    """
    grid = {"spacing_mm": volume.spacing_mm, "shape_xyz": volume.shape_xyz}
    return note(source={"kind": kind, **grid, "orientation": orientation})


def note_unusual(volume: CTVolume) -> Notes:
    """``W_SPACING`` and ``W_FIELD`` for a grid that is unusual for chest CT.

    Usual voxels measure 0.2 to 2 mm in the plane and up to 10 mm along z, but for rounding; a usual
    field of view is 150 to 700 mm wide.

    Args:
        volume: In RAS orientation; its third axis is the patient's.
    """
    x, y, along = volume.spacing_mm
    width, height = volume.shape_xyz[0] * x, volume.shape_xyz[1] * y
    odd_voxels = min(x, y) < 0.199 or max(x, y) > 2.001 or along > 10.001
    odd_field = min(width, height) < 150 or max(width, height) > 700
    return note_if(odd_voxels, "W_SPACING") | note_if(odd_field, "W_FIELD")
