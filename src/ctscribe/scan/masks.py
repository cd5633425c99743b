"""NIfTI masks of lesions, read as where they are; see `boxes` for what lies around them."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.nifti import read_stored
from ctscribe.scan.nifti_header import NiftiHeader, choose_affine
from ctscribe.scan.types import Affine

_VOXELS_AT_ONCE = 1 << 20
_ROUNDING = 1e-3
"""Farther from a whole number is no rounding, but a probability."""
_MAX_STEP = 0.1
"""Largest scaling below 1 whose steps may round a whole number away, by half of one at most."""


def read_masks(path: Path, study: str) -> tuple[list[Bool[np.ndarray, "x y z"]], Affine]:
    """Reads one mask, or those of a four-dimensional file along its first or last axis.

    Args:
        path: NIfTI file of whole numbers, or of what saving them through real numbers left; a
            voxel belongs to a mask where it is not 0.
        study: Name for errors.

    Returns:
        The masks, and voxel index → RAS+ mm.

    Raises:
        CtscribeError: ``E_MASK``.
    """
    try:
        stored, header, _ = read_stored(path, study, stacked=True)
        affine = choose_affine(header, study, None)
    except CtscribeError as error:
        raise CtscribeError("E_MASK", error.told) from error
    if affine is None:
        raise CtscribeError(
            "E_MASK",
            f"{study} must say where its voxels lie, but its header sets neither sform nor qform",
        )
    values = _is_inside(stored, header, study)
    if values.ndim == 3:
        return [values], affine
    # findings are few, slices are many
    first = values.shape[0] < values.shape[3]
    return list(values if first else np.moveaxis(values, 3, 0)), affine


def _is_inside(stored: np.ndarray, header: NiftiHeader, study: str) -> Bool[np.ndarray, "..."]:
    """Where the scaled value is not 0; refuses values that are not whole, such as probabilities."""
    if stored.dtype.kind in "iu" and (header.slope, header.intercept) == (1.0, 0.0):
        return np.asarray(stored != 0)
    step = abs(header.slope) if stored.dtype.kind in "iu" and abs(header.slope) < 1 else 0.0
    within = _ROUNDING + min(step, _MAX_STEP) / 2
    flat, inside = stored.reshape(-1, order="F"), np.empty(stored.size, bool)
    for at in range(0, stored.size, _VOXELS_AT_ONCE):
        with np.errstate(over="ignore", invalid="ignore"):
            values = flat[at : at + _VOXELS_AT_ONCE] * np.float64(header.slope) + header.intercept
            near = np.rint(values)
            is_whole = np.isfinite(values) & (np.abs(values - near) <= within)
        if not is_whole.all():
            raise CtscribeError(
                "E_MASK",
                f"{study} must hold a whole number in each voxel, but some hold another, as "
                "probabilities do",
            )
        inside[at : at + _VOXELS_AT_ONCE] = near != 0
    return inside.reshape(stored.shape, order="F")
