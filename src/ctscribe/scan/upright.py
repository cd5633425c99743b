"""Volumes scanned with a tilted gantry → volumes whose third axis is normal to their slices.

If the gantry is tilted, slices are not perpendicular to the table's travel and their stack is a
sheared grid, which resampling along the axes would distort. Each slice is therefore shifted within
its own plane, by linear interpolation, until the stack runs along the slices' normal. Slices are
not mixed, and every voxel keeps its position in mm.
"""

from dataclasses import dataclass
from typing import final

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.intensity import AIR_HU
from ctscribe.scan.types import Affine
from ctscribe.scan.volume import MAX_VOXELS, CTVolume

NEGLIGIBLE_DEGREES = 0.5
"""A smaller tilt shifts slices by less than a hundredth of their distance, and is ignored."""


@final
@dataclass(frozen=True, slots=True)
class UprightGrid:
    """The grid on which a tilted stack of slices stands upright.

    Attributes:
        tilt_degrees: Angle between the stack's direction and the normal of its slices.
        shape_xyz: Of the new grid; wider in the plane, so that no slice is cut.
        affine: Of the new grid, RAS+ mm.
        step_voxels: Shift of each slice against the one below it, along (x, y).
        start_voxels: Where the first slice begins on the new grid, along (x, y).
    """

    tilt_degrees: float
    shape_xyz: tuple[int, int, int]
    affine: Affine
    step_voxels: tuple[float, float]
    start_voxels: tuple[int, int]


def plan_upright(
    shape_xyz: tuple[int, int, int], affine: Affine, max_tilt_degrees: float, study: str
) -> UprightGrid | None:
    """Lays out the upright grid; None where the tilt is half a degree or less.

    Args:
        shape_xyz: Shape of a volume whose slices are stacked along its third axis.
        affine: Its affine, RAS+ mm.
        max_tilt_degrees: Stacks with a larger tilt are refused.
        study: Name for errors.

    Raises:
        CtscribeError: ``E_SHEAR`` beyond the limit or where the slices themselves are sheared,
            ``E_TOO_LARGE``.
    """
    x, y, along = affine[:3, :3].T
    _check_plane(x, y, study)
    normal = np.cross(x, y)
    normal *= np.sign(normal @ along) / np.linalg.norm(normal)
    height = float(along @ normal)
    shear = along - height * normal
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(shear), height)))
    if tilt <= NEGLIGIBLE_DEGREES:
        return None
    _check_tilt(tilt, max_tilt_degrees, study)
    steps = [float(shear @ axis / (axis @ axis)) for axis in (x, y)]
    reach = [step * (shape_xyz[2] - 1) for step in steps]
    starts = [int(np.ceil(max(0.0, -far))) for far in reach]
    sides = [size + int(np.ceil(abs(far))) for size, far in zip(shape_xyz[:2], reach, strict=True)]
    if sides[0] * sides[1] * shape_xyz[2] > MAX_VOXELS:
        raise CtscribeError(
            "E_TOO_LARGE",
            f"{study} must have at most {MAX_VOXELS} voxels once it stands upright, but would "
            "have more",
        )
    upright = affine.copy()
    upright[:3, 2] = height * normal
    upright[:3, 3] -= affine[:3, :2] @ np.array(starts, dtype=float)
    return UprightGrid(
        tilt,
        (sides[0], sides[1], shape_xyz[2]),
        upright,
        (steps[0], steps[1]),
        (starts[0], starts[1]),
    )


def _check_plane(x: np.ndarray, y: np.ndarray, study: str) -> None:
    cosine = float(abs(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)))
    in_plane = float(np.degrees(np.arcsin(min(1.0, cosine))))
    if in_plane > NEGLIGIBLE_DEGREES:
        raise CtscribeError(
            "E_SHEAR",
            f"{study} must have rows and columns at right angles, but they are {in_plane:.1f} "
            "degrees off",
        )


def _check_tilt(tilt_degrees: float, max_tilt_degrees: float, study: str) -> None:
    if tilt_degrees > max_tilt_degrees:
        raise CtscribeError(
            "E_SHEAR",
            f"{study} must have slices stacked at most {max_tilt_degrees:g} degrees off their "
            f"normal (gantry tilt), but they are {tilt_degrees:.1f} degrees off",
        )


def set_upright(volume: CTVolume, grid: UprightGrid) -> CTVolume:
    """Shifts each slice within its plane by linear interpolation, padding with air."""
    width, height, depth = grid.shape_xyz
    planes = np.full((depth, height, width), AIR_HU, dtype=volume.hu.dtype)
    for index, (target, source) in enumerate(zip(planes, volume.hu.T, strict=True)):
        x, y = (
            start + index * step
            for start, step in zip(grid.start_voxels, grid.step_voxels, strict=True)
        )
        left, top = int(np.floor(x)), int(np.floor(y))
        moved = _shift(_shift(source.astype(np.float32), x - left, 1), y - top, 0)
        if target.dtype == np.int16:
            moved = np.rint(moved)
        rows, columns = moved.shape
        shown = target[top : top + rows, left : left + columns]
        shown[...] = moved[: shown.shape[0], : shown.shape[1]]
    return CTVolume(planes.T, grid.affine)


def _shift(plane: np.ndarray, fraction: float, axis: int) -> np.ndarray:
    """Shifts a plane by a fraction of a voxel; it grows by one row or column."""
    edge = np.full_like(np.take(plane, [0], axis), AIR_HU)
    here, before = np.concatenate([plane, edge], axis), np.concatenate([edge, plane], axis)
    return here * np.float32(1 - fraction) + before * np.float32(fraction)
