"""Reads NIfTI masks of lesions; `boxes` makes boxes of them."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.nifti import read_stored
from ctscribe.scan.nifti_header import NiftiHeader, choose_affine
from ctscribe.scan.types import Affine

_VOXELS_AT_ONCE = 1 << 20
_ROUNDING = 1e-3
"""A value that is farther from a whole number is a probability, not a rounding error."""
_MAX_STEP = 0.1
"""With a slope below 1, values may also be off by half a step; larger steps count as this."""


def read_masks(path: Path, study: str) -> tuple[list[Bool[np.ndarray, "x y z"]], Affine]:
    """Reads one mask, or those of a four-dimensional file along its first or last axis.

    Args:
        path: NIfTI file of whole numbers, but for rounding; a voxel that is not 0 belongs to a
            mask.
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
    # the axis of masks is the shorter one: there are fewer findings than slices
    first = values.shape[0] < values.shape[3]
    return list(values if first else np.moveaxis(values, 3, 0)), affine


def _is_inside(stored: np.ndarray, header: NiftiHeader, study: str) -> Bool[np.ndarray, "..."]:
    """Where the scaled value is not 0; refuses fractions, such as probabilities."""
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
