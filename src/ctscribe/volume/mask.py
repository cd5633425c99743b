"""A NIfTI mask → a box in millimetres around each of its pieces."""

from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from ctscribe.errors import CtscribeError
from ctscribe.types import Affine, BoxMm

_MAX_VOXELS = 2**31


def read_masks(path: Path) -> tuple[list[Bool[np.ndarray, "x y z"]], Affine]:
    """Reads one mask, or the several of a four-dimensional file, whichever end they lie at.

    Args:
        path: NIfTI file; a voxel belongs to a mask where it is not 0.

    Returns:
        The masks, and voxel index → RAS+ mm.

    Raises:
        CtscribeError: ``E_MASK`` naming the file.
    """
    try:
        image = nib.load(path)
        if not 0 < np.prod(image.shape, dtype=np.int64) <= _MAX_VOXELS:
            raise ValueError(f"it has {image.shape} voxels")
        values = np.asanyarray(image.dataobj) != 0
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise _refusal(path, " ".join(str(error).split())) from error
    if values.ndim not in (3, 4) or min(values.shape) == 0:
        raise _refusal(path, f"it has {values.ndim} dimensions")
    if values.ndim == 3:
        return [values], np.asarray(image.affine, np.float64)
    # findings are few, slices are many
    first = values.shape[0] < values.shape[3]
    return list(values if first else np.moveaxis(values, 3, 0)), np.asarray(
        image.affine, np.float64
    )


def boxes_of_mask(mask: Bool[np.ndarray, "x y z"], affine: Affine) -> list[BoxMm]:
    """A box for each connected piece, through the centres of its outermost voxels, RAS+ mm."""
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    boxes = []
    for piece in ndimage.find_objects(labels):
        ends = [(axis.start, axis.stop - 1) for axis in piece]
        corners = np.array(np.meshgrid(*ends, [1.0])).reshape(4, -1)
        inside = (affine @ corners)[:3]
        low, high = inside.min(1).tolist(), inside.max(1).tolist()
        boxes.append(((low[0], low[1], low[2]), (high[0], high[1], high[2])))
    return boxes


def _refusal(path: Path, found: str) -> CtscribeError:
    return CtscribeError(
        "E_MASK",
        f"{path} must be a NIfTI mask of three dimensions, or of four with one mask per finding, "
        f"but {found or 'it cannot be read'}; export it again",
    )
