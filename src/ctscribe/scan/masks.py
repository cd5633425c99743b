"""A NIfTI mask → a box around each of its connected pieces, RAS+ mm."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from ctscribe.base.errors import CtscribeError
from ctscribe.base.types import Affine, BoxMm
from ctscribe.scan.nifti import read_stored
from ctscribe.scan.nifti_header import NiftiHeader, choose_affine

_VOXELS_AT_ONCE = 1 << 20


def read_masks(path: Path, study: str) -> tuple[list[Bool[np.ndarray, "x y z"]], Affine]:
    """Reads one mask, or those of a four-dimensional file along its first or last axis.

    Args:
        path: NIfTI file of whole numbers; a voxel belongs to a mask where it is not 0.
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
    flat, inside = stored.reshape(-1, order="F"), np.empty(stored.size, bool)
    for at in range(0, stored.size, _VOXELS_AT_ONCE):
        with np.errstate(over="ignore", invalid="ignore"):
            values = flat[at : at + _VOXELS_AT_ONCE] * np.float64(header.slope) + header.intercept
        if not (np.isfinite(values) & (values == np.rint(values))).all():
            raise CtscribeError(
                "E_MASK",
                f"{study} must hold a whole number in each voxel, but some hold another, as "
                "probabilities do",
            )
        inside[at : at + _VOXELS_AT_ONCE] = values != 0
    return inside.reshape(stored.shape, order="F")


def boxes_of_mask(mask: Bool[np.ndarray, "x y z"], affine: Affine) -> list[BoxMm]:
    """A box for each connected piece, through the centres of its outermost voxels, RAS+ mm."""
    if not mask.any():
        return []
    (outer,) = ndimage.find_objects(mask.view(np.uint8))  # most of a scan lies outside
    labels, _ = ndimage.label(mask[outer], np.ones((3, 3, 3)))
    boxes = []
    for piece in ndimage.find_objects(labels):
        ends = [
            (whole.start + axis.start, whole.start + axis.stop - 1)
            for whole, axis in zip(outer, piece, strict=True)
        ]
        corners = np.array(np.meshgrid(*ends, [1.0])).reshape(4, -1)
        inside = (affine @ corners)[:3]
        low, high = inside.min(1).tolist(), inside.max(1).tolist()
        boxes.append(((low[0], low[1], low[2]), (high[0], high[1], high[2])))
    return boxes
